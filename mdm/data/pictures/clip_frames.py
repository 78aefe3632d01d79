"""Frames of a film by their times: animated pictures through Pillow, everything else through OpenCV's FFmpeg.

Films are read from memory, and only containers that hold the film itself: a playlist could name other files.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import DAMAGED

ANIMATED = ("WEBP", "GIF", "PNG")
DEFAULT_MS = 100  # of a frame without a duration, as browsers show it
MOST_FRAMES = 20_000
MICROSECOND = 1e-6  # 0.9 s is the frame that begins at 0.9 s, whatever the last bit of either


class Animation:
    def __init__(self, data: bytes) -> None:
        self._opened = Image.open(io.BytesIO(data), formats=ANIMATED)
        self.size = self._opened.size
        self._count: int = getattr(self._opened, "n_frames", 1)

    def times(self) -> list[float]:
        """Return when each frame begins, and when the last one ends, in seconds."""
        found = [0.0]
        for number in range(min(self._count, MOST_FRAMES + 1)):
            self._opened.seek(number)
            self._opened.load()  # a WebP says how long a frame is when it is decoded
            found.append(found[-1] + (self._opened.info.get("duration") or DEFAULT_MS) / 1000)
        return found

    def frames(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        for number in numbers:
            self._opened.seek(number)
            yield self._opened.copy()


class Video:
    def __init__(self, data: bytes) -> None:
        import cv2

        self._cv2, self._data = cv2, data
        capture = self._capture()
        self.size = tuple(int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))

    def _capture(self) -> object:
        options = [self._cv2.CAP_PROP_N_THREADS, 1]
        capture = self._cv2.VideoCapture(io.BytesIO(self._data), self._cv2.CAP_FFMPEG, options)
        if not capture.isOpened():
            raise ValueError("no stream of pictures")
        return capture

    def times(self) -> list[float]:
        capture, found = self._capture(), []
        while len(found) <= MOST_FRAMES and capture.grab():
            found.append(capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000)
        if not found:
            raise ValueError("no frame can be decoded")
        gaps = np.diff(found) if len(found) > 1 else np.array([DEFAULT_MS / 1000])
        return [*found, found[-1] + float(np.median(gaps))]

    def frames(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        capture, wanted = self._capture(), set(numbers)
        for number in range(max(wanted) + 1):
            if not capture.grab():
                raise ValueError(f"frame {number} cannot be decoded again")
            if number in wanted:
                yield Image.fromarray(np.ascontiguousarray(capture.retrieve()[1][..., ::-1]))


def open_film(data: bytes) -> Animation | Video | Failure:
    """Open the film in these bytes, whose first ones tell its kind."""
    if (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or data[:4] in (b"GIF8", b"\x89PNG"):
        return Animation(data)
    containers = data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # MP4, MOV
    containers |= data[:4] in (b"\x1aE\xdf\xa3", b"OggS", b"FLV\x01")  # WebM and Matroska, Ogg, Flash
    containers |= data[:4] == b"RIFF" and data[8:12] == b"AVI "
    return Video(data) if containers else Failure.NOT_A_CLIP


def picked(times: Sequence[float], frames: int, per_second: float | None) -> list[int] | Failure:
    """Choose the frames shown: from the middle, `per_second` of them, or (None) evenly over the whole film."""
    start, end = times[0], times[-1]
    if len(times) - 1 > MOST_FRAMES:
        return Failure.TOO_LONG
    if per_second is None:
        wanted = start + (np.arange(frames) + 0.5) * (end - start) / frames
    else:
        span = frames / per_second
        if span > end - start + MICROSECOND:
            return Failure.TOO_SHORT
        wanted = start + (end - start - span) / 2 + (np.arange(frames) + 0.5) / per_second
    numbers = np.searchsorted(np.asarray(times[:-1]), wanted + MICROSECOND, side="right") - 1
    return numbers.tolist() if len(set(numbers.tolist())) == frames else Failure.TOO_SHORT


#: what the two decoders raise for damaged files
BROKEN = (*DAMAGED, TypeError, KeyError, AttributeError, RuntimeError)
