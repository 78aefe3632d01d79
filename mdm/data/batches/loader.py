"""Batches as a pure function: which pictures come next depends on (seed, images seen, manifest) only.

Neither ranks, nor decoding threads, nor an interruption change it. Pictures are never mirrored: in captions, left is
not right. A picture that cannot be used is counted in `skipped`, reported once, and noted in a log that the manifest of
a stage sums up; the next usable sample of its shard (in the manifest's order, cyclic) takes its place everywhere alike.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdm.data.batches.classes import ClassLabel
from mdm.data.batches.order import Order, draws
from mdm.data.batches.reader import Pictures
from mdm.data.batches.released_order import released_order
from mdm.data.batches.skipped import SkippedLog
from mdm.data.pictures.decode import BadPicture, Policy, cached_room
from mdm.data.text.cache import Embeddings
from mdm.files.atomic import ArtifactError

NEW_EVERY_EPOCH = "new-every-epoch"
CACHE_BYTES = 4 * 2**30
EXPECTED_EVERY = 1024  # images; a small part of a window, and the search for shards not a part of every small batch


@dataclass(frozen=True)
class Batch:
    """Samples by number: ids [B], images uint8 [B, 3, H, W], text [B, S, D], mask [B, S], classes [B] (or None).

    Images lie in memory as they were decoded, channels last. Clips are [B, T, 3, H, W]. In a joint batch `stills` are
    pictures [b, 3, H, W] without a clip; everything but `images` then counts clips and stills, clips first.
    """

    ids: torch.Tensor
    images: torch.Tensor
    text: torch.Tensor | None
    mask: torch.Tensor | None
    classes: torch.Tensor | None
    captions: tuple[str, ...]
    stills: torch.Tensor | None = None


def signal(images: torch.Tensor) -> torch.Tensor:
    """Return bytes as networks see them: float32 from -1 to 1, one channel after the other."""
    return images.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1


def from_bytes(pictures: np.ndarray) -> torch.Tensor:
    """Return bytes with colours last [B,R,R,3] as networks see them, [B,3,R,R], lying in memory as they did."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


class Loader:
    """Endless epochs over a data folder, each a new permutation unless `order` says otherwise (train.order)."""

    def __init__(
        self,
        data_dir: str | Path,
        embeddings: Embeddings | None,
        batch_images: int,
        seed: int,
        resolution: int,
        *,
        take: int | None = None,
        class_label: ClassLabel | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        policy: Policy = "exact",
        cache_bytes: int = CACHE_BYTES,
        skipped_log: SkippedLog | None = None,
        order: str = NEW_EVERY_EPOCH,
    ) -> None:
        self.pictures = Pictures(data_dir, take)
        _refuse_shares(batch_images, rank, world)
        if resolution > self.pictures.resolution:
            raise ValueError(
                f"{data_dir} is stored at {self.pictures.resolution} px, training asks for {resolution} px; "
                f"make the data set at {resolution} px or more"
            )
        self._embeddings, self._seed, self._resolution, self._policy = embeddings, seed, resolution, policy
        self._class_label, self._skipped_log = class_label, skipped_log
        self._global, self._rank, self._world = batch_images, rank, world
        samples, new = self.pictures.shard_samples, order == NEW_EVERY_EPOCH
        self._order = Order(samples, seed) if new else released_order(order, samples, seed)
        #: why a picture was not used, by its number
        self.skipped: dict[int, str] = {}
        self._expected: set[int] = set()
        self._expected_at: int | None = None
        self._captions: dict[int, str] = {}
        self._classes: dict[int, int] = {}
        self._kept = self._room(cache_bytes)
        self._lock = threading.Lock()
        self._decoders = ThreadPoolExecutor(workers, "decode") if workers else None
        self._workers = max(workers, 1)

    def _room(self, cache_bytes: int) -> np.ndarray | None:
        """Allocate memory for the whole set at the resolution asked for; None if that is over the budget."""
        shape = (len(self.pictures), *self.pictures.shape(self._resolution))
        fits = np.prod(shape, dtype=np.int64) <= cache_bytes and not self.pictures.whole
        return np.empty(shape, dtype=np.uint8) if fits else None

    def ids(self, images_seen: int, count: int) -> np.ndarray:
        """Return the sample numbers of images images_seen .. images_seen + count of the endless run, int64 [count]."""
        return self._order.numbers(images_seen, count)

    def images(self, images_seen: int, rank: int | None = None, world: int | None = None) -> range:
        """Return the images that a rank reads of the global batch after `images_seen`: every world-th.

        So the first pictures of a batch, which mixed batches send through the highest level, fall to all ranks alike.
        """
        rank, world = self._rank if rank is None else rank, self._world if world is None else world
        return range(images_seen + rank, images_seen + self._global, world)

    def batch(self, images_seen: int, rank: int | None = None, world: int | None = None) -> Batch:
        """Return this rank's part of the global batch that starts after `images_seen` images."""
        if self._kept is None:
            self._expect(images_seen)
        places = self.images(images_seen, rank, world)
        own = slice(places.start - images_seen, None, places.step)
        shifts = [0.5] * len(places)
        if self.pictures.whole:  # where their squares are cut, 0 to 1, is drawn anew for each image
            shifts = (draws(np.asarray(places), "square", self._seed) / 2.0**64).tolist()
        return self.take(self.ids(images_seen, self._global)[own], shifts)

    def _expect(self, images_seen: int) -> None:
        """Ask for the shards of this window in one sweep each, and for those of the next bit by bit."""
        if self._expected_at is not None and 0 <= images_seen - self._expected_at < EXPECTED_EVERY:
            return
        here, following = self._order.shards_near(images_seen)
        self.pictures.expect(shard for shard in (*here, *following) if shard not in self._expected)
        self._expected, self._expected_at = {*here, *following}, images_seen

    def take(self, numbers: Sequence[int] | np.ndarray, shifts: Sequence[float]) -> Batch:
        """Return the samples with these numbers, in this order; a substitute where one cannot be used."""
        images = torch.from_numpy(self._rooms(len(numbers)))
        ids = np.asarray(numbers).tolist()  # Python's own numbers are faster one by one
        captions, pixels = [""] * len(ids), images.numpy()

        def fill(first: int) -> None:
            for slot in range(first, len(ids), self._workers):
                ids[slot], captions[slot] = self._usable(ids[slot], shifts[slot], pixels[slot])

        if self._decoders is None:
            fill(0)
        else:
            list(self._decoders.map(fill, range(self._workers)))
        text, mask = self._embeddings.lookup(captions) if self._embeddings is not None else (None, None)
        classes = torch.tensor([self._class(number) for number in ids]) if self._class_label else None
        numbers = torch.from_numpy(np.array(ids, dtype=np.int64))  # of a list PyTorch itself makes one ten times slower
        return Batch(numbers, images.movedim(-1, -3), text, mask, classes, tuple(captions))

    def _rooms(self, count: int) -> np.ndarray:
        """Return memory for so many samples."""
        return cached_room((count, *self.pictures.shape(self._resolution)))

    def _usable(self, wanted: int, shift: float, room: np.ndarray) -> tuple[int, str]:
        """Fill `room` with the sample, or the first usable one after it in its shard; return its number and caption."""
        number, others = wanted, None
        while number is not None:
            if number not in self.skipped:
                try:
                    return number, self._sample(number, shift, room)
                except BadPicture as error:
                    self._skip(number, error)
            others = others or iter(self.pictures.others(wanted))
            number = next(others, None)
        raise ArtifactError(f"no picture of a whole shard can be used; the first: {self.skipped[wanted]}")

    def _skip(self, number: int, error: BadPicture) -> None:
        with self._lock:
            if number in self.skipped:
                return
            self.skipped[number] = str(error)
            print(f"warning: {error}. It is left out; the next one of its shard is taken instead", flush=True)
            if self._skipped_log is not None:
                self._skipped_log.add(number, self.pictures.key(number), error.reason, str(error))

    def _sample(self, number: int, shift: float, room: np.ndarray) -> str:
        if self._kept is None:
            return self.pictures.sample(number, room, self._policy, shift)
        if number not in self._captions:  # written last, so that where one is its pixels are
            self._captions[number] = self.pictures.sample(number, self._kept[number], self._policy, shift)
        room[...] = self._kept[number]
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
        if self._decoders is not None:
            self._decoders.shutdown(wait=True, cancel_futures=True)
        self.pictures.close()


def _refuse_shares(batch_images: int, rank: int, world: int) -> None:
    if batch_images < 1 or batch_images % world:
        raise ValueError(f"batch_images {batch_images} cannot be shared by {world} processes; write a multiple")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of 0 to {world - 1}")
