"""Which sample comes next: a pure function of (seed, epoch, manifest), found without a list of the whole epoch.

An epoch shuffles the shards and cuts them into windows of about WINDOW_IMAGES samples, each permuted freely. So any
place of an endless run is found at once, few shards are open, and each epoch shows every sample once. Sorting by a
keyed hash needs no library's generator, whose stream a new version may change.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

WINDOW_IMAGES = 65_536
WINDOWS_KEPT = 2  # a batch may lie across a border


class Order:
    """The endless order over shards of `shard_samples` samples each."""

    def __init__(self, shard_samples: Sequence[int], seed: int, window_images: int = WINDOW_IMAGES) -> None:
        self._samples = np.asarray(shard_samples, dtype=np.int64)
        self._firsts = np.cumsum(self._samples) - self._samples
        self.total = int(self._samples.sum())
        self._seed, self._window_images = seed, window_images
        self._epoch = lru_cache(WINDOWS_KEPT)(self._new_epoch)
        self._window = lru_cache(WINDOWS_KEPT)(self._new_window)

    def numbers(self, start: int, count: int) -> np.ndarray:
        """Return the sample numbers at the places start .. start + count of the endless run, int64 [count]."""
        parts = [np.empty(0, dtype=np.int64)]
        while count > 0:
            epoch, window, offset = self._locate(start)
            part = self._window(epoch, window)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def shards_near(self, start: int) -> tuple[list[int], list[int]]:
        """Return the shards read around this place, and of those that follow as many as the window is advanced."""
        epoch, window, offset = self._locate(start)
        shards, starts, _ = self._epoch(epoch)
        here = shards[starts[window] : starts[window + 1]]
        if window + 2 < len(starts):
            following = shards[starts[window + 1] : starts[window + 2]]
        else:
            shards, starts, _ = self._epoch(epoch + 1)
            following = shards[: starts[1]]
        share = offset / int(self._samples[here].sum())
        return here.tolist(), following[: int(np.ceil(share * len(following)))].tolist()

    def _locate(self, place: int) -> tuple[int, int, int]:
        """Return epoch, window and offset in the window of a place of the endless run."""
        epoch, place = divmod(place, self.total)
        ends = self._epoch(epoch)[2]
        window = int(np.searchsorted(ends, place, side="right"))
        return epoch, window, place - (int(ends[window - 1]) if window else 0)

    def _new_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the shards in order, where in it windows start (W + 1), and the samples up to each window's end."""
        # An empty shard has no samples to show, and must not become an empty window.
        filled = np.flatnonzero(self._samples)
        shards = filled[_shuffled(len(filled), self._seed, epoch)]
        after = np.cumsum(self._samples[shards])
        before = after - self._samples[shards]
        starts = np.append(np.flatnonzero(np.diff(before // self._window_images, prepend=-1)), len(shards))
        return shards, starts, after[starts[1:] - 1]

    def _new_window(self, epoch: int, window: int) -> np.ndarray:
        shards, starts, _ = self._epoch(epoch)
        ranges = [
            np.arange(self._firsts[shard], self._firsts[shard] + self._samples[shard])
            for shard in shards[starts[window] : starts[window + 1]]
        ]
        numbers = np.concatenate(ranges)
        return numbers[_shuffled(len(numbers), self._seed, epoch, window)]


def draws(places: np.ndarray, *key: int | str) -> np.ndarray:
    """Draw one uint64 per place, uniform and a function of (key, place) only: the finisher of SplitMix64."""
    base = int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8], "big")
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        z = np.uint64(base) + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _shuffled(count: int, *key: int) -> np.ndarray:
    """Return a permutation of 0 .. count - 1 that the key determines."""
    return np.argsort(draws(np.arange(count), "order", *key), kind="stable")
