"""Any local folder of pictures with captions: a table (file, caption), or a text file beside each picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mdm.config import Positive
from mdm.data.pictures.duplicates import LOOK_DISTANCE, look, look_alikes
from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import PictureSettings, clean_caption, pixels, prepare
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

VERSION = 2
LICENCE = "as the folder's owner says"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Settings(OwnFolder, PictureSettings):
    """Where the pictures are, and what becomes of each. Its table may have a column class."""

    later: ClassVar = (*OwnFolder.later, "file_column", "caption_column")

    path: str = Field(description="folder of the pictures")
    num_images: Positive
    file_column: str = Field(default="file", description="column of the table with the files' names")
    duplicates: Literal["none", "files", "looks"] = Field(
        default="none", description="which to leave out: equal files, or also pictures that look alike"
    )


def index(settings: Settings) -> Iterator[Row]:
    """One row per captioned picture, by file name; each file's hash is noted."""
    folder = existing_folder(settings.path, "folder")
    found = listed(settings)
    check_found(found, folder, settings.captions, EXTENSIONS)
    hashes = {file: sha256_file(folder / file) for file in sorted(found)}
    for number, file in enumerate(_without_duplicates(hashes, folder, settings)):
        caption, labels = found[file]
        yield Row(f"{number:08d}", caption, labels, {"file": file, "sha256": hashes[file]})


def listed(settings: Settings) -> dict[str, tuple[str, dict[str, int]]]:
    """Caption and labels by file name, of the files that are wanted."""
    folder = Path(settings.path)
    if settings.captions:
        found = _from_table(folder / settings.captions, settings)
    else:
        found = {file: (caption, {}) for file, caption in captions_beside(folder, EXTENSIONS)}
    clean = clean_caption if settings.clean_captions else str
    return {file: (clean(caption), labels) for file, (caption, labels) in found.items() if settings.admits(file)}


def _without_duplicates(hashes: dict[str, str], folder: Path, settings: Settings) -> list[str]:
    """The files to keep; of several that are the same, the first by name."""
    if settings.duplicates == "none":
        return list(hashes)
    files = without_equal_files(hashes)
    if settings.duplicates == "files":
        return files
    prepared = ((file, pixels((folder / file).read_bytes(), settings)) for file in files)
    looks = {file: look(found) for file, found in prepared if not isinstance(found, Failure)}
    alike = look_alikes(np.array(list(looks.values()), dtype=np.uint64), LOOK_DISTANCE)
    # What cannot be read is reported with its shard.
    gone = {file for file, again in zip(looks, alike.tolist(), strict=True) if again}
    return [file for file in files if file not in gone]


def _from_table(path: Path, settings: Settings) -> dict[str, tuple[str, dict[str, int]]]:
    """Caption and labels by file name."""
    if not path.is_file():
        raise ArtifactError(f"there is no caption table {path}; correct `captions` of the folder source")
    found: dict[str, tuple[str, dict[str, int]]] = {}
    file, caption = settings.file_column, settings.caption_column
    for line, row in table(path, (file, caption)):
        refuse_strange_names(path, line, row[file], found)
        if wanted(row, settings.filters, str(path)):
            found[row[file]] = (row[caption], _labels(row, row[file], path))
    return found


def _labels(row: dict[str, str], file: str, path: Path) -> dict[str, int]:
    if "class" not in row:
        return {}
    if not (row["class"] or "").strip().isdecimal():
        raise ArtifactError(f"{path}: class {row['class']!r} of {file} is not a number 0, 1, 2, ...; number them")
    return {"class": int(row["class"])}


def pictures(rows: list[Row], settings: Settings) -> Iterator[tuple[str, Picture | str]]:
    """Read, cut and scale the pictures of a shard."""
    for row in rows:
        yield row.key, prepare(as_indexed(settings.path, row), settings)
