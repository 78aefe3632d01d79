"""Captioned vector drawings from packages, drawn natively at any size: five emoji sets and the openclipart library.

Captions are made of the packages' own names, titles and keywords. Train and validation are told apart by concept
(mdm/data/sources/drawing_concepts.py): what one set draws for training, no other set shows in validation.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from mdm.config import Positive, Probability, Strict, nearest
from mdm.data.rows import Picture, Row, png
from mdm.data.sources.drawing_sets import SETS, Drawing, dictionary, drawings
from mdm.data.sources.part import Part, belongs
from mdm.data.sources.vector import draw

VERSION = 1
LICENCE = "each drawing keeps the licence of its package"


class Settings(Strict):
    """Which sets, which side of the split, and the size they are drawn at."""

    sets: tuple[str, ...] = Field(
        default=tuple(SETS),
        min_length=1,
        description="noto, noto-v1, fluent-emoji, fluent-emoji-flat, fxemoji, openclipart",
    )
    skin_tones: bool = Field(default=True, description="also the variants of people and hands by skin tone")
    part: Part = Field(default="all", description="a concept is never in both")
    validation_every: Positive = Field(default=20, description="one concept in so many belongs to validation")
    num_images: Positive = Field(description="drawings taken, of all sets mixed in a fixed order")
    resolution: Annotated[int, Field(ge=8, le=1024)] = Field(description="side of the square they are drawn in")
    # Where they come from and how many may fail is no part of the recipe: the hashes of the packages are fixed.
    packages: str = Field(default="data/packages", exclude=True, description="folder of the packages' archives")
    min_success: Probability = Field(default=0.95, exclude=True, description="share of a shard that must be drawn")

    @field_validator("sets")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SETS:
                raise ValueError(f"there is no set of drawings '{name}'; {nearest(name, SETS)}")
        if len(set(value)) < len(value):
            raise ValueError("a set stands twice; name each once")
        return value


def index(settings: Settings) -> Iterator[Row]:
    """One row per drawing, in an order that mixes the sets and does not depend on which of them are asked for."""
    folder = Path(settings.packages)
    names = dictionary(folder)
    found = [
        (_mixed(drawing), drawing.caption, _columns(drawing))
        for name in settings.sets
        for drawing in drawings(name, names, folder)
        if _belongs(drawing, settings)
    ]
    found.sort(key=lambda entry: entry[0])
    for number, (_, caption, columns) in enumerate(found[: settings.num_images]):
        yield Row(f"{number:08d}", caption, {}, columns)


def _mixed(drawing: Drawing) -> bytes:
    return hashlib.sha256(f"{drawing.set}/{drawing.name}".encode()).digest()


def _columns(drawing: Drawing) -> dict[str, str]:
    licence = SETS[drawing.set].package.licence
    return {"set": drawing.set, "name": drawing.name, "concept": drawing.concept, "licence": licence}


def _belongs(drawing: Drawing, settings: Settings) -> bool:
    """The side of the split is drawn from the concept's name alone."""
    if drawing.has_tone and not settings.skin_tones:
        return False
    return belongs(drawing.concept, settings.part, settings.validation_every)


def pictures(rows: list[Row], settings: Settings) -> Iterator[tuple[str, Picture | str]]:
    """Draw the pictures of a shard, set by set: only one package is in memory at a time."""
    folder = Path(settings.packages)
    names = dictionary(folder)
    for name in sorted({row.columns["set"] for row in rows}):
        keys = {row.columns["name"]: row.key for row in rows if row.columns["set"] == name}
        for drawing in drawings(name, names, folder):
            if drawing.name in keys:
                pixels = draw(drawing.svg, settings.resolution)
                yield keys[drawing.name], pixels if isinstance(pixels, str) else png(pixels)
