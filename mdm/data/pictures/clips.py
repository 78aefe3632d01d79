"""From the bytes of a film to the clip that a shard stores: its frames one below the other in one PNG or JPEG.

Every tool can look at such a strip, and it is read like any picture. Equal bytes and settings give equal strips.
"""

from typing import Annotated, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from mdm.data.pictures.clip_frames import BROKEN, open_film, picked
from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import PictureSettings, encode, finished, refusal
from mdm.data.rows import Picture

JPEG_BLOCK = 16  # of colours at half the resolution
LARGEST_SIDE = 65_500  # of a JPEG


class ClipSettings(PictureSettings):
    """What becomes of each film: which frames are taken, and what becomes of each of them."""

    frames: Annotated[int, Field(gt=1)] = Field(description="frames of a clip: 4, 16, 64 for levels of clips")
    frames_per_second: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="taken from the middle of the film; default: spread evenly over all of it"
    )
    crop: Literal["centre"] = Field(default="centre", description="the square in the middle of each frame")
    decode: Literal["full"] = Field(default="full", description="frames are decoded at their full size")

    @model_validator(mode="after")
    def _frames_stay_apart(self) -> Self:
        if self.stored == "jpg" and self.resolution % JPEG_BLOCK:
            raise ValueError(
                f"in a JPEG, neighbouring frames of {self.resolution} px would share blocks of {JPEG_BLOCK} pixels; "
                f"write stored: png, or a resolution that is a multiple of {JPEG_BLOCK}"
            )
        if self.stored == "jpg" and self.frames * self.resolution > LARGEST_SIDE:
            raise ValueError(
                f"{self.frames} frames of {self.resolution} px make a strip longer than a JPEG can be "
                f"({LARGEST_SIDE:,}); write stored: png"
            )
        return self


def prepare_clip(data: bytes, settings: ClipSettings) -> Picture | Failure:
    found = clip(data, settings)
    return found if isinstance(found, Failure) else encode(found.reshape(-1, *found.shape[2:]), settings)


def clip(data: bytes, settings: ClipSettings) -> np.ndarray | Failure:
    """Return the prepared frames as uint8 [T, R, R, 3], or the reason why there are none."""
    frames = _frames(data, settings)
    if isinstance(frames, Failure):
        return frames
    found = [finished(frame, settings) for frame in frames]
    failed = next((pixels for pixels in found if isinstance(pixels, Failure)), None)
    return failed or np.stack(found)


def _frames(data: bytes, settings: ClipSettings) -> list[Image.Image] | Failure:
    try:
        film = open_film(data)
        if isinstance(film, Failure):
            return film
        if (refused := refusal(film.size, settings)) is not None:
            return refused
        numbers = picked(film.times(), settings.frames, settings.frames_per_second)
        return numbers if isinstance(numbers, Failure) else list(film.frames(numbers))
    except MemoryError:
        raise
    except BROKEN:
        return Failure.BROKEN_PICTURE
