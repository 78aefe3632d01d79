"""Any local folder of films with captions: a table with any columns, or a text file beside each film."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from mdm.config import Positive, nearest
from mdm.data.clips import ClipSettings, prepare_clip
from mdm.data.duplicates import as_keys, repeated
from mdm.data.own_files import as_indexed, captions_beside
from mdm.data.preprocess import clean_caption
from mdm.data.sources import Picture, Row
from mdm.manifest import ArtifactError, sha256_file

VERSION = 1
LICENCE = "as the folder's owner says"
EXTENSIONS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".webp", ".gif", ".png")


class ClipFolderSettings(ClipSettings):
    """Where the films are, and what becomes of each."""

    path: str = Field(description="folder of the films")
    num_images: Positive = Field(description="how many there are")
    captions: str | None = Field(
        default=None, description="CSV or TSV in that folder; default: a file {name}.txt beside each film"
    )
    file_pattern: str = Field(
        default="{file}", description="a film's path from the columns of the table; WebVid: {page_dir}/{videoid}.mp4"
    )
    caption_column: str = Field(default="caption", description="column of the captions; WebVid: name")
    clean_captions: bool = Field(
        default=False, description="resolve HTML entities, drop control characters, compose Unicode (NFC)"
    )
    duplicates: Literal["none", "files"] = Field(default="none", description="files: leave out equal files")


Settings = ClipFolderSettings


def index(settings: ClipFolderSettings) -> Iterator[Row]:
    """One row per captioned film, by file name; each file's hash is noted."""
    folder = Path(settings.path)
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {folder}; correct `path` of the clip-folder source")
    listed = _of_table(folder, settings) if settings.captions else captions_beside(folder, EXTENSIONS)
    found = dict(sorted(listed))
    for file in found:
        if not (folder / file).is_file():
            raise ArtifactError(f"{settings.captions} names {file}, which is not in {folder}")
    hashes = {file: sha256_file(folder / file) for file in found}
    again = repeated(as_keys(hashes.values())) if settings.duplicates == "files" else [False] * len(hashes)
    kept = [file for file, out in zip(hashes, again, strict=True) if not out]
    for number, file in enumerate(kept):
        caption = clean_caption(found[file]) if settings.clean_captions else found[file]
        yield Row(f"{number:08d}", caption, {}, {"file": file, "sha256": hashes[file]})


def _of_table(folder: Path, settings: ClipFolderSettings) -> Iterator[tuple[str, str]]:
    """File and caption of each line."""
    path = folder / str(settings.captions)
    if not path.is_file():
        raise ArtifactError(f"there is no caption table {path}; correct `captions` of the clip-folder source")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        columns = rows.fieldnames or []
        if settings.caption_column not in columns:
            raise ArtifactError(f"{path} has no column {settings.caption_column}; {nearest('caption', columns)}")
        for row in rows:
            try:
                yield settings.file_pattern.format_map(row), row[settings.caption_column]
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                raise ArtifactError(
                    f"file_pattern {settings.file_pattern!r} does not fit {path}, line {rows.line_num} ({error!r}); "
                    f"the columns are {', '.join(columns)}"
                ) from None


def pictures(rows: list[Row], settings: ClipFolderSettings) -> Iterator[tuple[str, Picture | str]]:
    """The strips of a shard."""
    for row in rows:
        yield row.key, prepare_clip(as_indexed(settings.path, row), settings)
