"""Codes of a data set from disk: mean and deviation of each picture's, in the place of its pixels.

shards/00000.safetensors    moments [N,2,H,W,C] in halves, of the pictures of the data set's shard of this number
shards/00000.json           its hash, and the rows whose picture could not be read
"""

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from mdm.data.batches.loader import Loader
from mdm.data.text.cache import Embeddings
from mdm.files.arrays import Mapped
from mdm.files.atomic import ArtifactError, read_json


def shard_path(folder: Path, number: int) -> Path:
    """Return where a shard of codes lies; its record stands beside it as .json."""
    return folder / "shards" / f"{number:05d}.safetensors"


class Moments:
    """Mean and deviation of the codes of every picture, by its number in the data set, read where they lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_json(folder / "manifest.json")
        self.data_digest: str = manifest["data_digest"]
        #: channels, and side of the grid
        self.channels, self.side = int(manifest["channels"]), int(manifest["side"])
        self._ends = list(accumulate(shard["samples"] for shard in manifest["shards"]))
        starts = [end - shard["samples"] for end, shard in zip(self._ends, manifest["shards"], strict=True)]
        #: numbers of pictures that could not be read
        self.missing = [
            s + row for s, shard in zip(starts, manifest["shards"], strict=True) for row in shard["missing"]
        ]
        self._shards: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def of(self, number: int) -> np.ndarray:
        """Return mean and deviation of a picture's codes, float16 [2,H,W,C]."""
        if not 0 <= number < len(self):
            raise IndexError(f"{self.folder} has codes of pictures 0 to {len(self) - 1}, not of {number}")
        shard = bisect_right(self._ends, number)
        found = self._shard(shard)
        return found[number - self._ends[shard]]  # counted from its end

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            # As bits of halves: numpy knows the type, but the mapped file does not say so.
            self._shards[number] = Mapped(shard_path(self.folder, number)).array("moments").view(np.float16)
        return self._shards[number]


class CodeLoader(Loader):
    """A loader whose `images` are the moments [B,2,C,H,W] of codes, float32; all else is the same."""

    def __init__(
        self, data_dir: str | Path, embeddings: Embeddings | None, batch_images: int, seed: int, resolution: int,
        *, codes: Path, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(data_dir, embeddings, batch_images, seed, resolution, **settings, cache_bytes=0)
        self._moments, there = Moments(codes), len(self.pictures)
        if self._moments.data_digest != self.pictures.manifest["digest"] or len(self._moments) < there:
            raise ArtifactError(f"{codes} holds codes of other pictures than {data_dir} has now; make it again")
        self.skipped |= {n: f"{codes}: picture {n} could not be read" for n in self._moments.missing if n < there}

    def _rooms(self, count: int) -> np.ndarray:
        side = self._moments.side
        return np.empty((count, 2, side, side, self._moments.channels), np.float32)

    def _sample(self, number: int, shift: float, room: np.ndarray) -> str:
        room[...] = self._moments.of(number)
        return self.pictures.caption(number)

    def _expect(self, images_seen: int) -> None:
        """Ask for no shards of pictures, of which nothing but captions and labels is read."""
