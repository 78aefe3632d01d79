"""What sources yield: the rows of an index, and encoded pictures. No torch."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One line of index.tsv. The label "class", a number from 0, is what class-conditional networks read."""

    key: str
    caption: str
    labels: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """An encoded square picture: `data` is a whole PNG or JPEG file."""

    extension: str
    data: bytes


Outcomes = Iterator[tuple[str, Picture | str]]  # the key of each row, and its picture or why there is none


def photo_of(name: str) -> str:
    """Return the caption of a picture of which nothing but its class is known."""
    return f"a photo of {'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def png(pixels: np.ndarray) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return Picture("png", stream.getvalue())


def to_bytes(pictures: "Tensor") -> np.ndarray:
    """Pictures [B, 3, H, W], or clips [B, T, 3, H, W], in [-1, 1] -> uint8, colours last: x / 127.5 - 1 undone."""
    rounded = ((pictures.float() + 1) * 127.5).round().clamp(0, 255)
    return rounded.byte().movedim(-3, -1).cpu().numpy()
