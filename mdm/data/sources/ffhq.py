"""FFHQ: 70,000 aligned portraits from the user's folder, proved picture by picture where its metadata are given."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from mdm.config import Positive
from mdm.data.pictures.preprocess import PictureSettings, prepare
from mdm.data.rows import Outcomes, Row
from mdm.data.sources import factors
from mdm.data.sources.filters import Part
from mdm.data.sources.own_files import existing
from mdm.files.atomic import ArtifactError

VERSION = 1
DUPLICATES_IN_MANIFEST = True
LICENCE = "the set CC-BY-NC-SA-4.0; each picture keeps its own licence"
TRAINING = 60_000  # the authors' split: the first so many train, the others validate
METADATA = "ffhq-dataset-v2.json"


class Settings(PictureSettings, factors.Labelled, factors.Planted):
    later: ClassVar = (*PictureSettings.later, *factors.Labelled.later, *factors.Planted.later)
    no_true_class: ClassVar = "portraits have none"

    split: Part = Field(default="all", description="the authors': numbers below 60,000")
    num_images: Positive = Field(description="portraits taken, by ascending number")
    caption: str = Field(default="a photo of a face", description="the caption of every picture: FFHQ has none")
    path: str = Field(exclude=True, description="folder images1024x1024 (with folders 00000, 01000, ... or without)")
    proved: bool = Field(default=False, description="every portrait's hash and licence, from `metadata`")
    metadata: str | None = Field(default=None, exclude=True, description=f"{METADATA}, for proved: true")

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.proved != (self.metadata is not None):
            raise ValueError(f"proved: true and `metadata`, the path of {METADATA}, go together; write both or neither")
        if self.resolution > 1024:
            raise ValueError(f"resolution {self.resolution}: the portraits have 1024 px; write at most that")
        return self


def index(settings: Settings) -> Iterator[Row]:
    return factors.planted(factors.labelled(_rows(settings), settings), settings)


def label_count(settings: Settings) -> int | None:
    """Return what `model.classes` must be at least; 0 where there is no label `class`."""
    return factors.label_count(settings, settings.num_images)


def _rows(settings: Settings) -> Iterator[Row]:
    known = {}
    if settings.metadata is not None:
        known = json.loads(existing(settings.metadata, "metadata", "ffhq").read_text(encoding="utf-8"))
    for place, (number, file) in enumerate(islice(_chosen(settings), settings.num_images)):
        entry = known.get(str(number), {})
        columns = {
            "number": str(number), "file": file, "md5": entry.get("image", {}).get("file_md5", ""),
            "licence": entry.get("metadata", {}).get("license", LICENCE),
        }  # fmt: skip
        yield Row(f"{place:06d}", settings.caption, {}, columns)


def _chosen(settings: Settings) -> Iterator[tuple[int, str]]:
    """Yield (number, file inside the folder) of one side of the split."""
    folder = Path(settings.path)
    if not folder.is_dir():
        raise ArtifactError(
            f"there is no folder {folder}. FFHQ is fetched by the script of its repository NVlabs/ffhq-dataset "
            "(images1024x1024, 90 GB); name that folder in `path`"
        )
    files: dict[int, str] = {}
    for file in sorted(folder.rglob("*.png")):
        if file.stem.isdecimal():
            name = str(file.relative_to(folder))
            if (other := files.setdefault(int(file.stem), name)) != name:
                twice = f"has portrait {other} twice, also as {name}"
                raise ArtifactError(f"{folder} {twice}; name images1024x1024 in `path`")
    for number in sorted(files):
        if settings.split == "all" or (number < TRAINING) == (settings.split == "train"):
            yield number, files[number]


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    for row in rows:
        path = Path(settings.path) / row.columns["file"]
        data = path.read_bytes()
        if row.columns["md5"] not in ("", hashlib.md5(data, usedforsecurity=False).hexdigest()):
            raise ArtifactError(f"{path} is not the portrait of {METADATA}: its md5 is another; fetch it again")
        yield row.key, prepare(data, settings)
