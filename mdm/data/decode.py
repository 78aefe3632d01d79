"""From an encoded picture to uint8 [H, W, 3]: the fastest decoder at hand, and the same pixels whichever it is.

JPEGs go to OpenCV's libjpeg-turbo, which hands over RGB rows without Pillow's detour over four bytes per pixel;
both give equal pixels (tested). Everything else goes to Pillow.
"""

from __future__ import annotations

import io
import threading
from functools import cache
from types import ModuleType
from typing import Literal

import numpy as np

from mdm.data.failures import Failure
from mdm.data.preprocess import DAMAGED
from mdm.manifest import ArtifactError

Policy = Literal["exact", "dct"]
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
DCT_STEPS = (8, 4, 2)
LARGEST_SUM = 16  # 16 x 16 x 255 fits into 16 bits
_THREAD = threading.local()


class BadPicture(ArtifactError):
    """One picture of a data set cannot be used; `reason` is why, in the vocabulary of failures."""

    def __init__(self, message: str, reason: Failure) -> None:
        super().__init__(message)
        self.reason = reason


@cache
def _opencv() -> ModuleType:
    import cv2

    cv2.setNumThreads(1)  # pictures are decoded side by side; threads inside one would only wait for each other
    return cv2


@cache
def _flags(step: int) -> int:
    cv2 = _opencv()
    # The flags of reduced grey stand for the size alone when colour is asked for as well.
    size = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
            8: cv2.IMREAD_REDUCED_GRAYSCALE_8}[step]  # fmt: skip
    return size | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(data: bytes | memoryview, step: int = 1) -> np.ndarray:
    """RGB pixels; a JPEG decoded at 1/step of its size (1, 2, 4, 8), anything else at its full size."""
    # OpenCV fills the missing part of a truncated JPEG with grey and says nothing; Pillow refuses it.
    if data[:3] == JPEG_START and data[-2:] == JPEG_END:
        found = _opencv().imdecode(np.frombuffer(data, np.uint8), _flags(step))
        if found is not None:
            return found
    return _decode_any(data)  # which also says what is wrong with a damaged JPEG


def _decode_any(data: bytes | memoryview) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise BadPicture("it is not a picture", Failure.NOT_A_PICTURE) from None
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise BadPicture(f"it is damaged ({error})", Failure.BROKEN_PICTURE) from None


def decode_square(
    data: bytes | memoryview, stored: int, resolution: int, policy: Policy = "exact", shift: float | None = None
) -> np.ndarray:
    """A stored picture averaged down to [resolution, resolution, 3]; `stored` is the length of its shorter side.

    exact: every pixel, then exact means. dct: JPEGs are decoded at the smallest of 1/2, 1/4 and 1/8 that divides the
    way; their means are then of the frequencies kept, and no longer exact. Without `shift` it must be square;
    with it a square is cut, 0 at the one end of the longer side and 1 at the other.
    """
    step = _dct_step(stored, resolution, policy)
    pixels = decode(data, step)
    height, width = pixels.shape[:2]
    if min(height, width) not in (stored, stored // step) or (height != width and shift is None):
        raise _wrong_size(pixels, f"{stored} x {stored}")
    return shrink(pixels if shift is None else _square(pixels, shift), resolution)


def decode_clip(
    data: bytes | memoryview, stored: int, frames: int, resolution: int, policy: Policy = "exact"
) -> np.ndarray:
    """A stored strip of frames as [frames, resolution, resolution, 3], each frame averaged down."""
    step = _dct_step(stored, resolution, policy)
    pixels = decode(data, step)
    side = pixels.shape[1]
    if side not in (stored, stored // step) or pixels.shape[0] != frames * side:
        raise _wrong_size(pixels, f"{stored} x {frames * stored}")
    if side % resolution == 0 and side != resolution:  # blocks do not reach over the frames' borders
        return _means(pixels, side // resolution).reshape(frames, resolution, resolution, 3)
    return np.stack([shrink(frame, resolution) for frame in pixels.reshape(frames, side, side, 3)])


def _dct_step(stored: int, resolution: int, policy: Policy) -> int:
    if policy == "exact":
        return 1
    return next((step for step in DCT_STEPS if stored % (step * resolution) == 0), 1)


def _wrong_size(pixels: np.ndarray, wanted: str) -> BadPicture:
    said = f"it is {pixels.shape[1]} x {pixels.shape[0]}, the manifest says {wanted}"
    return BadPicture(said, Failure.WRONG_SIZE)


def _square(pixels: np.ndarray, shift: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (int(shift * (length - side + 1)) for length in (height, width))
    return pixels[min(top, height - side) :, min(left, width - side) :][:side, :side]


def shrink(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """Average uint8 [H, H, C] down to [resolution, resolution, C]; exact means where the ratio is whole."""
    stored = pixels.shape[0]
    if resolution == stored:
        return pixels
    if resolution > stored:
        raise ArtifactError(
            f"pictures are stored at {stored} px and cannot be shown at {resolution} px; make the data set "
            f"at {resolution} px or more"
        )
    if stored % resolution:
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.BOX))
    return _means(pixels, stored // resolution)


def _means(pixels: np.ndarray, step: int) -> np.ndarray:
    """Means of step x step blocks, rounded to the nearest, halves to even."""
    cv2, size = _opencv(), (pixels.shape[1] // step, pixels.shape[0] // step)
    if step & (step - 1) == 0:
        # OpenCV's own rounding is exact from 4 x 4 on, but adding by halves takes half its time.
        return _sums(pixels, step) if step <= LARGEST_SUM else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    area = np.float32(step * step)
    near = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.rint(np.rint(near * area) / area).astype(np.uint8)  # sums are whole numbers: rounding makes them exact


def _sums(pixels: np.ndarray, step: int) -> np.ndarray:
    """The same for a power of two: neighbouring rows are added, then columns, and every step-th sum is divided."""
    cv2, (height, width, channels) = _opencv(), pixels.shape
    halved, spare, kept = _room(pixels.shape, step)
    sums = pixels
    for room in halved:
        sums = np.add(sums[0::2], sums[1::2], out=room, dtype=np.uint16)
    distance = channels
    while distance < channels * step:
        # Each row is added to itself, shifted; what runs over its end is in no sum that is kept.
        flat = sums.reshape(-1)
        np.add(flat[:-distance], flat[distance:], out=spare.reshape(-1)[:-distance])
        sums, spare, distance = spare, sums, 2 * distance
    cv2.resize(sums, (width // step, height // step), dst=kept, interpolation=cv2.INTER_NEAREST)
    return cv2.convertScaleAbs(kept, alpha=1 / step**2)


def _room(shape: tuple[int, ...], step: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Memory of this thread for the sums of one picture, always the same: it stays in the processor's cache."""
    found = _THREAD.__dict__.get((shape, step))
    if found is None:
        height, width, channels = shape
        halved = [np.empty((height >> k, width, channels), np.uint16) for k in range(1, step.bit_length())]
        kept = np.empty((height // step, width // step, channels), np.uint16)
        found = _THREAD.__dict__[(shape, step)] = (halved, np.empty_like(halved[-1]), kept)
    return found
