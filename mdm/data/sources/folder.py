"""Any local folder of pictures with captions: a table (file, caption), or a text file beside each picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mdm.config import Positive
from mdm.data.pictures.duplicates import LOOK_DISTANCE, look, look_alikes
from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import PictureSettings, pixels, prepare
from mdm.data.rows import Outcomes, Row
from mdm.data.sources import factors
from mdm.data.sources.own_files import LICENCE, Labels, OwnFolder, as_indexed, rows
from mdm.data.sources.own_files import captioned as listed
from mdm.files.atomic import ArtifactError

__all__ = ["LICENCE", "VERSION", "Settings", "index", "listed", "pictures"]

VERSION = 2


class Settings(OwnFolder, PictureSettings, factors.Labelled):
    # Its table may have a column class.
    later: ClassVar = (*OwnFolder.later, *factors.Labelled.later, "file_column", "caption_column")

    path: str = Field(description="folder of the pictures")
    num_images: Positive
    file_column: str = Field(default="file", description="column of the table with the files' names")
    duplicates: Literal["none", "files", "looks"] = Field(
        default="none", description="which to leave out: equal files, or also pictures that look alike"
    )
    label: Literal["class", "random", "unique"] = Field(
        default="class", description="what `class` holds: that of the table, if it has one, a random one, or the place"
    )

    source: ClassVar = "folder"
    extensions: ClassVar = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

    @property
    def columns(self) -> tuple[str, ...]:
        return self.file_column, self.caption_column

    def file_of(self, row: dict[str, str], where: str) -> str:
        return row[self.file_column]

    def labels_of(self, row: dict[str, str], file: str, path: Path) -> Labels:
        if "class" not in row:
            return {}
        if not (row["class"] or "").strip().isdecimal():
            raise ArtifactError(f"{path}: class {row['class']!r} of {file} is not a number 0, 1, 2, ...; number them")
        return {"class": int(row["class"])}


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each captioned picture that is no duplicate."""
    found = rows(settings, lambda files: _look_alikes(files, settings))
    return found if settings.label == "class" else factors.labelled(found, settings)


def label_count(settings: Settings) -> int | None:
    """Return what `model.classes` must be at least; None where nobody knows before the table is read."""
    return factors.label_count(settings, settings.num_images)


def _look_alikes(files: list[str], settings: Settings) -> set[str]:
    """Return the files that look like an earlier one; what cannot be read is reported with its shard."""
    if settings.duplicates != "looks":
        return set()
    prepared = ((file, pixels(Path(settings.path, file).read_bytes(), settings)) for file in files)
    looks = {file: look(found) for file, found in prepared if not isinstance(found, Failure)}
    alike = look_alikes(np.array(list(looks.values()), dtype=np.uint64), LOOK_DISTANCE)
    return {file for file, again in zip(looks, alike.tolist(), strict=True) if again}


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    for row in rows:
        yield row.key, prepare(as_indexed(settings.path, row), settings)
