"""Any local folder of films with captions: a table with any columns, or a text file beside each film."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from mdm.config import Positive
from mdm.data.pictures.clips import ClipSettings, prepare_clip
from mdm.data.pictures.preprocess import clean_caption
from mdm.data.rows import Picture, Row
from mdm.data.sources.filters import wanted
from mdm.data.sources.own_files import (
    OwnFolder,
    as_indexed,
    captions_beside,
    check_found,
    existing_folder,
    refuse_strange_names,
    without_equal_files,
)
from mdm.data.sources.tables import table
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

VERSION = 1
LICENCE = "as the folder's owner says"
EXTENSIONS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".webp", ".gif", ".png")


class Settings(OwnFolder, ClipSettings):
    """Where the films are, and what becomes of each."""

    path: str = Field(description="folder of the films")
    num_images: Positive = Field(description="how many there are")
    file_pattern: str = Field(
        default="{file}", description="a film's path from the columns of the table; WebVid: {page_dir}/{videoid}.mp4"
    )
    duplicates: Literal["none", "files"] = Field(default="none", description="files: leave out equal files")


def index(settings: Settings) -> Iterator[Row]:
    """One row per captioned film, by file name; each file's hash is noted."""
    folder = existing_folder(settings.path, "clip-folder")
    found = listed(settings)
    check_found(found, folder, settings.captions, EXTENSIONS)
    hashes = {file: sha256_file(folder / file) for file in sorted(found)}
    kept = without_equal_files(hashes) if settings.duplicates == "files" else list(hashes)
    for number, file in enumerate(kept):
        yield Row(f"{number:08d}", found[file][0], {}, {"file": file, "sha256": hashes[file]})


def listed(settings: Settings) -> dict[str, tuple[str, dict[str, int]]]:
    """Caption (and no labels) by file name, of the files that are wanted."""
    folder = Path(settings.path)
    found = _of_table(folder, settings) if settings.captions else dict(captions_beside(folder, EXTENSIONS))
    clean = clean_caption if settings.clean_captions else str
    return {file: (clean(caption), {}) for file, caption in found.items() if settings.admits(file)}


def _of_table(folder: Path, settings: Settings) -> dict[str, str]:
    """Caption by file name."""
    path = folder / str(settings.captions)
    if not path.is_file():
        raise ArtifactError(f"there is no caption table {path}; correct `captions` of the clip-folder source")
    found: dict[str, str] = {}
    for line, row in table(path, (settings.caption_column,)):
        file = _file(row, settings, f"{path}, line {line}")
        refuse_strange_names(path, line, file, found)
        if wanted(row, settings.filters, str(path)):
            found[file] = row[settings.caption_column]
    return found


def _file(row: dict[str, str], settings: Settings, where: str) -> str:
    """A film's path, by the pattern."""
    try:
        return settings.file_pattern.format_map(row)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"file_pattern {settings.file_pattern!r} does not fit {where} ({error!r}); the columns are {', '.join(row)}"
        ) from None


def pictures(rows: list[Row], settings: Settings) -> Iterator[tuple[str, Picture | str]]:
    """The strips of a shard."""
    for row in rows:
        yield row.key, prepare_clip(as_indexed(settings.path, row), settings)
