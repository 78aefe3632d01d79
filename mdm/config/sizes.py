"""What a level shows: a picture, given by its side in pixels, a clip of several frames, or a grid of latent codes."""

import math
from collections.abc import Iterable
from typing import NamedTuple, Self


class Clip(NamedTuple):
    """A clip of square frames; written 16x64 where a picture's level is written 64."""

    frames: int
    resolution: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.resolution}"


class Codes(int):
    """The side of a grid of latent codes, which is all that it is as a number, with the channels of a code."""

    channels: int

    def __new__(cls, side: int, channels: int) -> Self:
        made = super().__new__(cls, side)
        made.channels = channels
        return made

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.channels


Size = int | Clip


def parse_size(name: int | str) -> Size:
    """64 or 16x64, as a study writes it."""
    frames, times, resolution = str(name).partition("x")
    return Clip(int(frames), int(resolution)) if times else int(frames)


def in_order(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Innermost level first: pictures before clips, small before large."""
    return tuple(sorted(sizes, key=as_clip))


def listed(sizes: Iterable[Size]) -> str:
    """As a study writes them: [64, 16x64]."""
    return f"[{', '.join(map(str, sizes))}]"


def as_clip(size: Size) -> Clip:
    """A picture is a clip of one frame."""
    return size if isinstance(size, Clip) else Clip(1, size)


def shape(size: Size) -> tuple[int, ...]:
    """One row of a batch of this level: (3, R, R), (T, 3, R, R) of clips, or (C, R, R) of codes."""
    if isinstance(size, Clip):
        return (size.frames, 3, size.resolution, size.resolution)
    return (size.channels if isinstance(size, Codes) else 3, size, size)


def side(size: Size) -> float:
    """Side of the picture with as many pixels; a level's noise schedule counts the pixels of all its frames."""
    frames, resolution = as_clip(size)
    return resolution * math.sqrt(frames)
