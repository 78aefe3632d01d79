"""What the sources of a user's own folders share: captions beside the files, and files that must stay as indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

from mdm.data.sources import Row
from mdm.manifest import ArtifactError


def captions_beside(folder: Path, extensions: Collection[str]) -> Iterator[tuple[str, str]]:
    """Name and caption of each file of these kinds, from the text file of the same name."""
    for file in folder.iterdir():
        if file.suffix.lower() in extensions:
            text = file.with_suffix(".txt")
            if not text.is_file():
                raise ArtifactError(
                    f"{file} has no caption {text.name} beside it; add it, or name a table in `captions`"
                )
            yield file.name, text.read_text().strip()


def as_indexed(folder: str | Path, row: Row) -> bytes:
    """The bytes of a row's file, if they still are those of which the index holds the hash."""
    path = Path(folder) / row.columns["file"]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != row.columns["sha256"]:
        raise ArtifactError(
            f"{path} was changed since the index was written; delete the data set's folder and start over"
        )
    return data
