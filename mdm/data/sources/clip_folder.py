"""Any local folder of films with captions: a table with any columns, or a text file beside each film."""

from typing import ClassVar, Literal

from pydantic import Field

from mdm.config import Positive
from mdm.data.pictures.clips import ClipSettings, prepare_clip
from mdm.data.rows import Outcomes, Row
from mdm.data.sources.own_files import LICENCE, OwnFolder, as_indexed
from mdm.data.sources.own_files import captioned as listed
from mdm.data.sources.own_files import rows as index
from mdm.files.atomic import ArtifactError

__all__ = ["LICENCE", "VERSION", "Settings", "index", "listed", "pictures"]

VERSION = 1


class Settings(OwnFolder, ClipSettings):
    path: str = Field(description="folder of the films")
    num_images: Positive = Field(description="how many there are")
    file_pattern: str = Field(
        default="{file}", description="a film's path from the columns of the table; WebVid: {page_dir}/{videoid}.mp4"
    )
    duplicates: Literal["none", "files"] = Field(default="none", description="files: leave out equal files")

    source: ClassVar = "clip-folder"
    extensions: ClassVar = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".webp", ".gif", ".png")

    def file_of(self, row: dict[str, str], where: str) -> str:
        try:
            return self.file_pattern.format_map(row)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"file_pattern {self.file_pattern!r} does not fit {where} ({error!r}); the columns are {', '.join(row)}"
            ) from None


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    for row in rows:
        yield row.key, prepare_clip(as_indexed(settings.path, row), settings)
