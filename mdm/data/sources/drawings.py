"""Captioned vector drawings from packages, drawn natively at any size: five emoji sets and the openclipart library.

Captions are the packages' names, titles and keywords. Training and validation are split by concept over all sets.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from mdm.config import Positive, Probability, nearest
from mdm.data.rows import Outcomes, Row, png
from mdm.data.sources import factors
from mdm.data.sources.drawing_concepts import is_wanted
from mdm.data.sources.drawing_sets import SETS, dictionary, drawings
from mdm.data.sources.filters import Part

# Without it every drawing whose size is written in points or millimetres fails.
DOTS_PER_INCH = 96.0
BROKEN, BLANK = "broken drawing", "blank drawing"
VERSION = 1
DUPLICATES_IN_MANIFEST = True
LICENCE = "each drawing keeps the licence of its package"


class Settings(factors.Labelled, factors.Planted):
    later: ClassVar = (*factors.Labelled.later, *factors.Planted.later)

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
    """Yield a row for each drawing, in an order that mixes the sets; the true class is its set, by place in `sets`."""
    rows = factors.labelled(_rows(settings), settings, lambda row: settings.sets.index(row.columns["set"]))
    return factors.planted(rows, settings)


def label_count(settings: Settings) -> int | None:
    """Return what `model.classes` must be at least; 0 where there is no label `class`."""
    return factors.label_count(settings, settings.num_images, len(settings.sets))


def _rows(settings: Settings) -> Iterator[Row]:
    folder, found = Path(settings.packages), []
    names = dictionary(folder)
    for name in settings.sets:
        for drawing in drawings(name, names, folder):
            if is_wanted(drawing.concept, drawing.has_tone, settings):
                columns = {"set": name, "name": drawing.name, "concept": drawing.concept}
                mixed = hashlib.sha256(f"{name}/{drawing.name}".encode()).digest()
                found.append((mixed, drawing.caption, columns | {"licence": SETS[name].package.licence}))
    found.sort(key=lambda entry: entry[0])
    for number, (_, caption, columns) in enumerate(found[: settings.num_images]):
        yield Row(f"{number:08d}", caption, {}, columns)


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    """Draw the pictures of a shard, set by set: only one package is in memory at a time."""
    folder = Path(settings.packages)
    names = dictionary(folder)
    for name in sorted({row.columns["set"] for row in rows}):
        keys: dict[str, list[str]] = {}
        for row in rows:
            if row.columns["set"] == name:
                keys.setdefault(row.columns["name"], []).append(row.key)
        for drawing in drawings(name, names, folder):
            if drawing.name in keys:
                pixels = draw(drawing.svg, settings.resolution)
                drawn = pixels if isinstance(pixels, str) else png(pixels)
                yield from ((key, drawn) for key in keys[drawing.name])


def draw(svg: str, side: int) -> np.ndarray | str:
    """Draw an SVG on white, without system fonts or files, uint8 [side, side, 3]; or say why there is no picture."""
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(
            svg_string=svg, width=side, height=side, dpi=DOTS_PER_INCH, background="#ffffff", skip_system_fonts=True
        )
    except ValueError:  # what the renderer raises for everything that is wrong with a drawing
        return BROKEN
    with Image.open(io.BytesIO(data)) as opened:
        pixels = np.asarray(opened.convert("RGB"))[:side, :side]  # the renderer rounds a side up by one at times
    return _centred(pixels, side) if np.ptp(pixels) else BLANK


def _centred(pixels: np.ndarray, side: int) -> np.ndarray:
    """Put pixels on a white square; the renderer keeps proportions, so one side may be shorter."""
    height, width = pixels.shape[:2]
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square
