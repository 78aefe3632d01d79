"""What studies of memorisation vary in any data set: labels, planted copies, duplicates. Sources share the rules here.

Subsets by size are nested in every source: the first N pictures of a larger set are the set of N (of a balanced subset
of cifar10 only where its `order` says so). Copies stand after all pictures, so planting them moves none.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mdm.config import Count, Positive, Strict
from mdm.data.rows import Row

COPY_OF, COPIES = "copy_of", "copies"  # the column that names the original, and the label with the multiplicity


class Copies(Strict):
    """Pictures that stand in the data set several times."""

    count: Annotated[int, Field(ge=2)] = Field(description="how often each of them stands in the data set")
    of: Positive = Field(description="the first so many pictures")


class Planted(Strict):
    """Sources whose pictures may be planted several times, and of which duplicates may be left out."""

    later: ClassVar = ("copies", "duplicates")

    copies: Copies | None = Field(
        default=None,
        description="{count, of}: the first `of` pictures stand `count` times each, the others once; the data set "
        "grows by the copies, which follow all pictures, and the label `copies` says how often a picture is there",
    )
    duplicates: Literal["none", "files", "looks"] = Field(
        default="none", description="which to leave out: equal pictures, or also those that look alike"
    )

    @model_validator(mode="after")
    def _there_are_so_many(self) -> Self:
        if self.copies and self.copies.of > (there := int(self.num_images)):  # type: ignore[attr-defined]
            raise ValueError(f"copies.of {self.copies.of} is more than the {there} pictures; write {there} or less")
        return self


class Labelled(Strict):
    """Sources whose pictures get a class on request: a true one, a random one, or one each."""

    later: ClassVar = ("label", "random_classes", "label_seed")
    no_true_class: ClassVar[str] = ""  # why label: class is impossible, where it is

    label: Literal["none", "class", "random", "unique"] = Field(
        default="none", description="what the label `class` holds: nothing, the true one, a random one, or the place"
    )
    random_classes: Positive | None = Field(
        default=None, description="how many labels are drawn from, with label: random"
    )
    label_seed: Count | None = Field(
        default=None, description="of label: random; the label of a place is the draw of Python's generator there"
    )

    @model_validator(mode="after")
    def _label_is_possible(self) -> Self:
        check_random(self.label, self.random_classes, self.label_seed, "label_seed")
        if self.label == "class" and self.no_true_class:
            raise ValueError(f"label: class: {self.no_true_class}; write label: random, unique or none")
        return self


def check_random(label: str, classes: int | None, seed: int | None, seed_key: str) -> None:
    """Refuse random labels without their number and seed, and these with other labels."""
    given = (classes is not None, seed is not None)
    if label == "random" and not all(given):
        raise ValueError(f"label: random needs random_classes and {seed_key}")
    if label != "random" and any(given):
        raise ValueError(f"random_classes and {seed_key} have no effect with label: {label}; leave them out")


def drawn(seed: int | None, classes: int | None) -> Iterator[int]:
    """Yield the random label of place 0, 1, 2, ...: Python's own generator, as studies of memorisation use it."""
    assert classes is not None  # settings are checked
    generator = random.Random(seed)
    while True:
        yield generator.randint(0, classes - 1)


def largest_drawn(seed: int | None, classes: int | None, count: int) -> int:
    return max(islice(drawn(seed, classes), count))


def labelled(rows: Iterable[Row], settings: Labelled, true: Callable[[Row], int] | None = None) -> Iterator[Row]:
    """Yield the rows with the label `class` that the settings ask for."""
    draws = drawn(settings.label_seed, settings.random_classes) if settings.label == "random" else None
    for place, row in enumerate(rows):
        if settings.label == "none":
            yield row
            continue
        of_place = next(draws) if draws else true(row) if settings.label == "class" and true else place
        yield replace(row, labels={**row.labels, "class": of_place})


def label_count(settings: Labelled, count: int, true: int | None = None) -> int | None:
    """Return what `model.classes` must be at least: the largest label and one, or 0 where there are no labels."""
    if settings.label == "random":
        return largest_drawn(settings.label_seed, settings.random_classes, count) + 1
    return {"none": 0, "class": true, "unique": count}[settings.label]


def planted(rows: Iterable[Row], settings: Planted) -> Iterator[Row]:
    """Yield the rows, and after them the copies of the first ones, each with the caption and labels of its original."""
    if settings.copies is None:
        yield from rows
        return
    originals, place = list[Row](), 0
    for row in rows:
        many = place < settings.copies.of
        marked = _marked(row, settings.copies.count if many else 1, "")
        originals += [marked] if many else []
        place += 1
        yield marked
    for _ in range(settings.copies.count - 1):
        for row in originals:
            yield replace(_marked(row, settings.copies.count, row.key), key=f"{place:0{len(row.key)}d}")
            place += 1


def _marked(row: Row, copies: int, of: str) -> Row:
    return replace(row, labels={**row.labels, COPIES: copies}, columns={**row.columns, COPY_OF: of})


def original(row: Row) -> str:
    """Return the key of the picture that a row shows: its own, or that of which it is a copy."""
    return row.columns.get(COPY_OF) or row.key
