"""Random access to the pictures, captions and labels of a finished data set, with flat memory however large it is."""

import json
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from mdm.data.pictures.decode import BadPicture, Encoded, Policy, Room, decode_clip, decode_square
from mdm.files.atomic import ArtifactError, read_json

NEEDED = ("digest", "samples", "resolution", "shards")
PICTURES = ("png", "jpg")
# Shards kept open: enough for the loader's window and the next, few enough for memory and file descriptors.
OPEN_SHARDS = 512
OPEN_SAMPLES = 4 * 65_536


class _Shard:
    """One open tar and where its files lie; closed when the last reader lets go of it."""

    def __init__(self, path: Path, record: dict[str, Any], left_out: Iterable[int] = ()) -> None:
        gone = set(left_out)
        files = [file for row, file in enumerate(record["files"]) if row not in gone]
        self.path, self.keys = path, np.array([file["key"] for file in files])
        self.places = {
            extension: np.array([file.get(extension, (0, -1)) for file in files], dtype=np.int64)
            for extension in dict.fromkeys(name for file in files for name in file if name != "key")
        }
        self._spans = self._spans_of_samples(len(files))
        self._descriptor = os.open(path, os.O_RDONLY)

    def _spans_of_samples(self, count: int) -> np.ndarray:
        """Return what one read of a sample takes: its start and size, and in it picture and caption, int64 [n, 6]."""
        none = np.tile((0, -1), (count, 1))
        start, size = np.max([none, *(self.places[name] for name in PICTURES if name in self.places)], axis=0).T
        text, length = self.places.get("txt", none).T
        start = np.where(size < 0, text, start)  # no picture: nothing is read in its place
        size = np.maximum(size, 0)
        first, end = np.minimum(start, text), np.maximum(start + size, text + length)
        ends = (start + size - first, text + length - first)
        return np.stack([first, end - first, start - first, ends[0], text - first, ends[1]], axis=1)

    def sample(self, row: int) -> tuple[memoryview, str]:
        """Return picture (empty if there is none) and caption of a sample, from one read and without a copy."""
        first, size, start, end, text, text_end = self._spans[row].tolist()
        data = self._bytes(first, size)
        return memoryview(data)[start:end], data[text:text_end].decode()

    def read(self, row: int, extension: str) -> bytes:
        first, size = self.places[extension][row].tolist()
        return self._bytes(first, size)

    def _bytes(self, first: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, first)
        if len(data) != size:
            raise ArtifactError(f"{self.path} is shorter than its record; make the data set again")
        return data

    def expect(self) -> None:
        """Ask the system to read ahead in one sweep."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class Pictures:
    """The samples of a data folder by number 0..len-1, in the order of the manifest; safe to share among threads."""

    def __init__(self, folder: str | Path, take: int | None = None) -> None:
        """Open a finished data set, or its first `take` samples as if there were no more."""
        self.folder = Path(folder)
        self.manifest = read_json(self.folder / "manifest.json")
        missing = [key for key in NEEDED if key not in self.manifest]
        if missing:
            raise ArtifactError(f"{self.folder}/manifest.json lacks {', '.join(missing)}; make the data set again")
        self.resolution: int = self.manifest["resolution"]
        #: frames of each sample in a set of clips, None in a set of pictures
        self.frames: int | None = self.manifest.get("frames")
        #: whether pictures are stored whole (`crop: none`), so that a square can be cut where one likes
        self.whole = self.manifest.get("recipe", {}).get("settings", {}).get("crop") == "none"
        #: samples of each shard, in the order of their numbers
        self.shard_samples = self._taken([shard["samples"] for shard in self.manifest["shards"]], take)
        self._ends = list(accumulate(self.shard_samples))
        self._open: dict[int, _Shard] = {}
        self._lock = threading.Lock()

    def _taken(self, samples: list[int], take: int | None) -> list[int]:
        if take is None:
            return samples
        if (there := sum(samples)) < take:
            raise ArtifactError(f"{self.folder} has {there} pictures that can be used; write take: {there} or less")
        ends = accumulate(samples, initial=0)
        return [min(count, take - first) for count, first in zip(samples, ends, strict=False) if first < take]

    def __len__(self) -> int:
        return sum(self.shard_samples)

    def key(self, number: int) -> str:
        shard, row = self._place(number)
        return str(shard.keys[row])

    def caption(self, number: int) -> str:
        return self._read(number, "txt").decode()

    def labels(self, number: int) -> dict[str, Any]:
        """Return what the source says is in the picture ({} where it says nothing)."""
        return json.loads(self._read(number, "json"))["labels"]

    def image(self, number: int, resolution: int | None = None, policy: Policy = "exact") -> np.ndarray:
        """Return a picture (its middle square), uint8 [H, W, 3], or a clip, [T, H, W, 3], averaged to `resolution`."""
        shard, row = self._place(number)
        data, _ = shard.sample(row)
        return self._decoded(number, data, resolution or self.resolution, policy, 0.5)

    def sample(self, number: int, room: np.ndarray, policy: Policy = "exact", shift: float = 0.5) -> str:
        """Fill `room` with a clip or picture (stored whole: its square at `shift`, 0..1); return its caption.

        Where the picture cannot be used, `room` may hold anything afterwards.
        """
        shard, row = self._place(number)
        data, caption = shard.sample(row)
        found = self._decoded(number, data, room.shape[-2], policy, shift, room)
        if found is not room:
            room[...] = found
        return caption

    def shape(self, resolution: int) -> tuple[int, ...]:
        frames = (self.frames,) if self.frames else ()
        return (*frames, resolution, resolution, 3)

    def _decoded(
        self, number: int, data: Encoded, resolution: int, policy: Policy, shift: float, room: Room = None
    ) -> np.ndarray:
        try:
            if self.frames:
                return decode_clip(data, self.resolution, self.frames, resolution, policy)
            return decode_square(data, self.resolution, resolution, policy, shift if self.whole else None, room)
        except BadPicture as error:
            where = f"{self.folder}: picture {self.key(number)}"
            raise BadPicture(f"{where}: {error}; make the data set again", error.reason) from None

    def others(self, number: int) -> Iterable[int]:
        """Return the other samples of the same shard: those that follow, then those before."""
        shard = self._shard_of(number)
        end = self._ends[shard]
        return [*range(number + 1, end), *range(end - self.shard_samples[shard], number)]

    def expect(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._shard(shard).expect()

    def _shard_of(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.folder} has samples 0 to {len(self) - 1}, not {number}")
        return bisect_right(self._ends, number)

    def _place(self, number: int) -> tuple[_Shard, int]:
        shard = self._shard_of(number)
        # No lock where it is open already, which is nearly always; so those opened first are closed first.
        return self._open.get(shard) or self._shard(shard), number - self._ends[shard] + self.shard_samples[shard]

    def _read(self, number: int, extension: str) -> bytes:
        shard, row = self._place(number)
        return shard.read(row, extension)

    def _shard(self, number: int) -> _Shard:
        with self._lock:
            if number in self._open:
                return self._open[number]
            found = self._open[number] = self._opened(number)
            while len(self._open) > OPEN_SHARDS or (len(self._open) > 1 and self._open_samples() > OPEN_SAMPLES):
                self._open.pop(next(iter(self._open)))
            return found

    def _open_samples(self) -> int:
        return sum(self.shard_samples[shard] for shard in self._open)

    def _opened(self, number: int) -> _Shard:
        listed = self.manifest["shards"][number]
        path = self.folder / listed["file"]
        record = read_json(path.with_suffix(".json"))
        if record["sha256"] != listed["sha256"]:
            wrong = "is not the shard that the manifest lists; run `mdm manifest` again"
            raise ArtifactError(f"{path.with_suffix('.json')} {wrong}")
        return _Shard(path, record, listed.get("left_out", ()))

    def close(self) -> None:
        with self._lock:
            self._open.clear()
