"""Batches as a pure function: which pictures come next depends on (seed, images seen, manifest) only.

Not on the number of ranks, not on where a run was interrupted. Pictures are never mirrored: in scenes, and in
many captions, left is not right.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mdm.data.classes import ClassLabel
from mdm.data.reader import Pictures

if TYPE_CHECKING:
    from mdm.text.cache import Embeddings

CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Batch:
    """Samples by number: ids [B], images uint8 [B, 3, H, W], text [B, S, D], mask [B, S], classes [B] (or None)."""

    ids: torch.Tensor
    images: torch.Tensor
    text: torch.Tensor | None
    mask: torch.Tensor | None
    classes: torch.Tensor | None
    captions: tuple[str, ...]


class Loader:
    """Endless epochs over a data folder, each a new permutation."""

    def __init__(
        self,
        data_dir: str | Path,
        embeddings: Embeddings | None,
        batch_images: int,
        seed: int,
        resolution: int,
        *,
        class_label: ClassLabel | None = None,
        rank: int = 0,
        world: int = 1,
        prefetch: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.pictures = Pictures(data_dir)
        if batch_images < 1 or batch_images % world:
            raise ValueError(f"batch_images {batch_images} cannot be shared by {world} processes; write a multiple")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of 0 to {world - 1}")
        if resolution > self.pictures.resolution:
            raise ValueError(
                f"{data_dir} is stored at {self.pictures.resolution} px, training asks for {resolution} px; "
                f"make the data set at {resolution} px or more"
            )
        self._embeddings, self._seed, self._resolution = embeddings, seed, resolution
        self._class_label = class_label
        self._global, self._rank, self._world = batch_images, rank, world
        self._orders: dict[int, np.ndarray] = {}
        self._captions: dict[int, str] = {}
        self._classes: dict[int, int] = {}
        self._kept = self._room(cache_bytes)
        self._have = np.zeros(len(self.pictures), dtype=bool)
        self._worker = ThreadPoolExecutor(1, "prefetch") if prefetch else None
        self._ahead: tuple[tuple[int, int, int], Future[Batch]] | None = None

    def _room(self, cache_bytes: int) -> np.ndarray | None:
        """Memory for the whole set at the resolution asked for, or None if that is over the budget."""
        shape = (len(self.pictures), 3, self._resolution, self._resolution)
        return np.empty(shape, dtype=np.uint8) if np.prod(shape, dtype=np.int64) <= cache_bytes else None

    def ids(self, images_seen: int, count: int) -> np.ndarray:
        """Sample numbers of images images_seen .. images_seen + count of the endless run, int64 [count]."""
        total, parts = len(self.pictures), []
        while count > 0:
            epoch, start = divmod(images_seen, total)
            part = self._order(epoch)[start : start + count]
            parts.append(part)
            images_seen, count = images_seen + len(part), count - len(part)
        return np.concatenate(parts)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            for old in [known for known in self._orders if known < epoch - 1]:
                del self._orders[old]
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._orders[epoch] = generator.permutation(len(self.pictures))
        return self._orders[epoch]

    def batch(self, images_seen: int, rank: int | None = None, world: int | None = None) -> Batch:
        """This rank's contiguous part of the global batch that starts after `images_seen` images."""
        rank, world = self._rank if rank is None else rank, self._world if world is None else world
        wanted = (images_seen, rank, world)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == wanted:
            found = ahead[1].result()
        else:
            if ahead is not None:
                ahead[1].result()  # one reader at a time, and an error of the worker must not vanish
            found = self._part(*wanted)
        if self._worker is not None:
            following = (images_seen + self._global, rank, world)
            self._ahead = (following, self._worker.submit(self._part, *following))
        return found

    def _part(self, images_seen: int, rank: int, world: int) -> Batch:
        share = self._global // world
        return self.take(self.ids(images_seen, self._global)[rank * share : (rank + 1) * share])

    def take(self, numbers: Sequence[int] | np.ndarray) -> Batch:
        """The samples with these numbers, in this order."""
        images = np.stack([self._image(int(number)) for number in numbers])
        captions = tuple(self._caption(int(number)) for number in numbers)
        text, mask = self._embeddings.lookup(captions) if self._embeddings is not None else (None, None)
        ids = torch.as_tensor(np.asarray(numbers, dtype=np.int64))
        classes = torch.tensor([self._class(int(number)) for number in numbers]) if self._class_label else None
        return Batch(ids, torch.from_numpy(images), text, mask, classes, captions)

    def _image(self, number: int) -> np.ndarray:
        if self._kept is not None and self._have[number]:
            return self._kept[number]
        pixels = self.pictures.image(number, self._resolution).transpose(2, 0, 1)
        if self._kept is not None:
            self._kept[number] = pixels
            self._have[number] = True
        return pixels

    def _caption(self, number: int) -> str:
        if self._kept is None:
            return self.pictures.caption(number)
        if number not in self._captions:
            self._captions[number] = self.pictures.caption(number)
        return self._captions[number]

    def _class(self, number: int) -> int:
        if number in self._classes:
            return self._classes[number]
        where = f"picture {self.pictures.key(number)} of {self.pictures.folder}"
        found = self._class_label.of(self.pictures.labels(number), where)
        if self._kept is not None:
            self._classes[number] = found
        return found

    def close(self) -> None:
        """Stop the prefetching thread and close the shards."""
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        self.pictures.close()
