"""The pairs of drawn and training pictures that look most like copies: a list, and a sheet of pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mdm.evaluate.copies import ratios
from mdm.evaluate.known import Known
from mdm.evaluate.neighbours import Neighbours

SHOWN, COLUMNS = 8, 4
CELL, GAP, LINE = 96, 8, 15
GREY = (122, 122, 122, 255)  # readable on white and on black


@dataclass(frozen=True)
class Pair:
    """A drawn picture, by its place, and the training picture nearest to it, by its number and name."""

    drawn: int
    number: int
    name: str
    distance: float  # root mean square over values, in grey levels
    ratio: float  # of the distance to the nearest by that to the nearest different one
    copies: int  # how often the training picture stands in its set

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def worst(near: Neighbours, times: np.ndarray, side: int, known: Known, count: int = SHOWN) -> list[Pair]:
    """The pairs with the smallest ratio among distinct pictures; of equal ones those that stand most often first."""
    ratio = ratios(near.squared) if near.squared.shape[1] > 1 else np.ones(len(near.squared))
    order = np.lexsort((np.arange(len(ratio)), near.squared[:, 0], -times[:, 0], ratio))[:count]
    return [
        Pair(
            place, int(near.index[place, 0]), known.source.name(int(near.index[place, 0])),
            math.sqrt(near.squared[place, 0] / (3 * side**2)), float(ratio[place]), int(times[place, 0]),
        )
        for place in order.tolist()
    ]  # fmt: skip


def sheet(pairs: Mapping[int, Sequence[Pair]], drawn: Mapping[int, np.ndarray], known: Known) -> bytes:
    """One PNG: of each level its worst pairs, what was drawn on the left, and the numbers below."""
    lines = {side: -(-len(own) // COLUMNS) for side, own in pairs.items()}
    step_x, step_y = 2 * CELL + 2 * GAP, CELL + 2 * LINE + GAP
    height = sum(LINE + GAP + count * step_y for count in lines.values())
    canvas = Image.new("RGBA", (COLUMNS * step_x, height), (0, 0, 0, 0))
    pen, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(11), 0
    for side, own in pairs.items():
        pen.text((0, top), f"{side} px: drawn | nearest training picture", fill=GREY, font=font)
        for place, pair in enumerate(own):
            x, y = place % COLUMNS * step_x, top + LINE + GAP + place // COLUMNS * step_y
            for shift, pixels in enumerate((drawn[side][pair.drawn], known.at(pair.number, side))):
                canvas.paste(_cell(pixels), (x + shift * CELL, y))
            words = f"off by {pair.distance:.1f} of 255, ratio {pair.ratio:.2f}\n{pair.name}, stands {pair.copies} x"
            pen.text((x, y + CELL + 1), words, fill=GREY, font=font, spacing=2)
        top += LINE + GAP + lines[side] * step_y
    stream = io.BytesIO()
    canvas.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _cell(pixels: np.ndarray) -> Image.Image:
    """Small pictures keep their pixels visible, large ones are averaged down."""
    method = Image.Resampling.NEAREST if pixels.shape[0] <= CELL else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((CELL, CELL), method)
