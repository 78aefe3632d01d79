"""From an encoded picture to uint8 [H, W, 3]: JPEGs by simplejpeg, whose pixels equal Pillow's (tested)."""

import io
import math
import struct
import threading
from functools import cache, lru_cache
from types import ModuleType
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from simplejpeg import decode_jpeg

from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import DAMAGED
from mdm.files.atomic import ArtifactError

Policy = Literal["exact", "dct"]
Encoded = bytes | memoryview
Room = np.ndarray | None  # memory to write the pixels into
JPEG_START = b"\xff\xd8\xff"
BEFORE_SIZE = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # tables, remarks and what programs add
SEGMENT = struct.Struct(">xBHxHHB")  # its kind and length, and of the one that states the size height, width, colours
SIZES = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended and progressive
# Where the size ends in a JPEG as libjpeg writes it for every program that adds nothing of its own.
SIZE_END = 177
LARGEST_JPEG = 2**27  # pixels; beyond them Pillow decides, which refuses what would fill the memory
DCT_STEPS, DCT_BLOCK = (8, 4, 2), 8
SUMMED = (2, 4, 8, 16)  # 16 x 16 x 255 fits into 16 bits
SPARE_BYTES, BESIDE_ALIGNED = 64, 16
_THREAD = threading.local()


class BadPicture(ArtifactError):
    """One picture of a data set cannot be used; `reason` is why, in the vocabulary of failures."""

    def __init__(self, message: str, reason: Failure) -> None:
        super().__init__(message)
        self.reason = reason


@cache
def _opencv() -> ModuleType:
    import cv2

    cv2.setNumThreads(1)  # pictures are averaged side by side; threads inside one would only wait for each other
    return cv2


def decode(data: bytes | memoryview, step: int = 1, out: np.ndarray | None = None) -> np.ndarray:
    """Decode to RGB: a JPEG at 1/step (1, 2, 4, 8) of its size, into `out` if that fits; all else at full size."""
    size = _jpeg_size(bytes(data[:SIZE_END]))
    if size is None:
        return _decode_any(data)
    height, width = size if step == 1 else (-(-size[0] // step), -(-size[1] // step))
    room = out if out is not None and out.shape == (height, width, 3) else None
    # The decoder takes the smallest scale that gives so many pixels, and the full one for none.
    least = {} if step == 1 else {"min_height": height, "min_width": width}
    try:
        found = decode_jpeg(data, buffer=room, **least)
    except ValueError as error:
        # Also where a part is missing or overwritten: Pillow and OpenCV make something up in its place.
        raise BadPicture(f"it is damaged ({error})", Failure.BROKEN_PICTURE) from None
    return found if room is None else room


@lru_cache(maxsize=256)  # the pictures of a set begin alike: tables and size
def _jpeg_size(start: bytes) -> tuple[int, int] | None:
    """Read height and width from the beginning of a JPEG; None for what is left to Pillow.

    That is: other formats, four colours (decoders convert them differently), a size that would fill the memory, and a
    beginning so long that it does not state the size yet.
    """
    place = 2
    while start.startswith(JPEG_START) and len(start) >= place + SEGMENT.size and start[place] == JPEG_START[0]:
        marker, length, height, width, colours = SEGMENT.unpack_from(start, place)
        if marker in SIZES:
            return (height, width) if colours in (1, 3) and height * width <= LARGEST_JPEG else None
        if marker not in BEFORE_SIZE:
            break
        place += 2 + length
    return None


def _decode_any(data: bytes | memoryview) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise BadPicture("it is not a picture", Failure.NOT_A_PICTURE) from None
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise BadPicture(f"it is damaged ({error})", Failure.BROKEN_PICTURE) from None


def decode_square(
    data: Encoded, stored: int, resolution: int, policy: Policy = "exact", shift: float | None = None, out: Room = None
) -> np.ndarray:
    """Average a stored picture, whose shorter side is `stored`, down to [resolution, resolution, 3].

    exact: every pixel, exact means. dct: JPEGs are decoded at the smallest of 1/2, 1/4, 1/8 that divides the way.
    With `shift`, 0 to 1 along the longer side, a square is cut. `out` is filled and returned where that saves a copy.
    """
    step = 1 if policy == "exact" else _dct_step(stored, resolution)
    side = stored // step
    place = None if side == resolution else _workplace((side, side, 3), side / resolution)
    pixels = decode(data, step, place.pixels if place else out)
    height, width, _ = pixels.shape
    if min(height, width) not in (stored, side) or (height != width and shift is None):
        raise _wrong_size(pixels, f"{stored} x {stored}")
    if place and pixels is place.pixels:
        return place.means(out)
    return shrink(pixels if shift is None else _square(pixels, shift), resolution)


def decode_clip(data: Encoded, stored: int, frames: int, resolution: int, policy: Policy = "exact") -> np.ndarray:
    """Decode a stored strip of frames to [frames, resolution, resolution, 3], each frame averaged down."""
    step = 1 if policy == "exact" else _dct_step(stored, resolution)
    pixels = decode(data, step)
    side = pixels.shape[1]
    if side not in (stored, stored // step) or pixels.shape[0] != frames * side:
        raise _wrong_size(pixels, f"{stored} x {frames * stored}")
    if side % resolution == 0 and side != resolution:  # blocks do not reach over the frames' borders
        return _means(pixels, side // resolution).reshape(frames, resolution, resolution, 3)
    return np.stack([shrink(frame, resolution) for frame in pixels.reshape(frames, side, side, 3)])


def _dct_step(stored: int, resolution: int) -> int:
    if stored < DCT_BLOCK:
        return 1
    return next((step for step in DCT_STEPS if stored % (step * resolution) == 0), 1)


def _wrong_size(pixels: np.ndarray, wanted: str) -> BadPicture:
    height, width, _ = pixels.shape
    return BadPicture(f"it is {width} x {height}, the manifest says {wanted}", Failure.WRONG_SIZE)


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
        return np.asarray(Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.BOX))
    return _means(pixels, stored // resolution)


def _means(pixels: np.ndarray, step: int) -> np.ndarray:
    """Return means of step x step blocks, rounded to the nearest, halves to even."""
    place = _workplace(pixels.shape, step)
    if place is not None:
        np.copyto(place.pixels, pixels)
        return place.means()
    cv2, size = _opencv(), (pixels.shape[1] // step, pixels.shape[0] // step)
    if step & (step - 1) == 0:
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # exact from 4 x 4 on, but slower than sums
    area = np.float32(step * step)
    near = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.rint(np.rint(near * area) / area).astype(np.uint8)  # sums are whole numbers: rounding makes them exact


class _Workplace:
    """Memory in which one thread averages pictures of one shape: always the same, so that it stays in the caches."""

    def __init__(self, shape: tuple[int, int, int], step: int) -> None:
        height, width, channels = shape
        self.step, self.pixels = step, cached_room(shape)
        self._blocks = [self.pixels[row::step] for row in range(step)]
        self._rows, self._spare = (np.empty((height // step, width, channels), np.uint16) for _ in range(2))
        self._sums, other, self._additions, distance = self._rows, self._spare, [], channels
        while distance < channels * step:
            # All rows are added to themselves, shifted; what runs over the end of a row is in no sum that is kept.
            flat, both = self._sums.reshape(-1), other.reshape(-1)
            self._additions.append((flat[:-distance], flat[distance:], both[:-distance]))
            self._sums, other, distance = other, self._sums, 2 * distance
        self._kept = np.empty((height // step, width // step, channels), np.uint16)

    def means(self, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(self._kept.shape, np.uint8) if out is None else out
        np.copyto(self._rows, self._blocks[0])
        for block in self._blocks[1:]:
            np.copyto(self._spare, block)  # widened by itself: NumPy is slow at additions that widen
            np.add(self._rows, self._spare, out=self._rows)
        for left, right, both in self._additions:
            np.add(left, right, out=both)
        cv2, (height, width, _) = _opencv(), self._kept.shape
        cv2.resize(self._sums, (width, height), dst=self._kept, interpolation=cv2.INTER_NEAREST)
        cv2.convertScaleAbs(self._kept, dst=out, alpha=1 / self.step**2)  # halves to even, as np.rint
        return out


def _workplace(shape: tuple[int, int, int], step: float) -> _Workplace | None:
    """Return this thread's memory for a shape; None where means are not made of sums."""
    if step not in SUMMED:
        return None
    found = _THREAD.__dict__.get((shape, step))
    if found is None:
        found = _THREAD.__dict__[shape, step] = _Workplace(shape, int(step))
    return found


def cached_room(shape: tuple[int, ...]) -> np.ndarray:
    """Allocate uint8 memory whose pixels pass through the caches; NumPy asks for large pages, so faults are few."""
    size = math.prod(shape)
    room = np.empty(size + SPARE_BYTES, np.uint8)
    return room[cached_from(room.ctypes.data) :][:size].reshape(shape)


def cached_from(address: int) -> int:
    """Return how many bytes at `address`, at most SPARE_BYTES, to skip so that pixels pass through the caches.

    Where rows begin at a multiple of 32 bytes, libjpeg-turbo writes past the caches, and averaging takes twice as long.
    """
    return (BESIDE_ALIGNED - address) % SPARE_BYTES
