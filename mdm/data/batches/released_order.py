"""Which sample comes next in the released code of EDM and of the memorization study: one permutation for all epochs.

NumPy keeps the stream of `RandomState` as it is for ever, which is why these numbers may depend on it. The whole set
counts as one list, so it should fit into memory: shards are read in no order that would suit a disk.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

EPOCHS_KEPT = 2  # a batch may lie across a border
SLIDING = 0.5  # EDM's window, as a share of the set


class ReleasedOrder:
    """The endless order over shards of `shard_samples` samples each, with the interface of `Order`.

    `window`: after each picture it changes places with a random one of the part of the list, a share of the whole,
    that was shown just before; 0: nothing ever changes places, and every epoch is the same.
    """

    def __init__(self, shard_samples: Sequence[int], seed: int, window: float = 0.0) -> None:
        self.total, self._shards = int(np.sum(shard_samples)), np.flatnonzero(shard_samples).tolist()
        self._seed, self._window = seed % 2**32, round(self.total * window)
        self._epoch = lru_cache(EPOCHS_KEPT)(self._new_epoch)
        self._begin()

    def _begin(self) -> None:
        self._random, self._following = np.random.RandomState(self._seed), 0
        self._list = np.arange(self.total)
        self._random.shuffle(self._list)

    def numbers(self, start: int, count: int) -> np.ndarray:
        """Return the sample numbers at the places start .. start + count of the endless run, int64 [count]."""
        parts = [np.empty(0, dtype=np.int64)]
        while count > 0:
            epoch, offset = divmod(start, self.total)
            parts.append(self._epoch(epoch)[offset : offset + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def shards_near(self, start: int) -> tuple[list[int], list[int]]:
        """Return all shards: any picture may come next."""
        return self._shards, []

    def _new_epoch(self, epoch: int) -> np.ndarray:
        if self._window < 2:  # there is nothing to change places with
            return self._list
        if epoch < self._following:  # places follow from those before them
            self._begin()
        while self._following <= epoch:
            shown = self._advance()
        return shown

    def _advance(self) -> np.ndarray:
        """Go through the list once, and return what was shown."""
        shown, places = np.empty(self.total, dtype=np.int64), self._list
        for place, back in enumerate(self._random.randint(self._window, size=self.total).tolist()):
            shown[place], other = places[place], (place - back) % self.total
            places[place], places[other] = places[other], places[place]
        self._following += 1
        return shown


def released_order(name: str, shard_samples: Sequence[int], seed: int) -> ReleasedOrder:
    """The order that a training's settings name."""
    return ReleasedOrder(shard_samples, seed, {"same-every-epoch": 0.0, "sliding-window": SLIDING}[name])
