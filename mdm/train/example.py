"""One training batch, complete: pictures of all levels, times, noises, captions. A pure function of
(seed, image counter, manifest): the same after a restart and for any number of ranks."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from mdm.config import StudyError
from mdm.config.recipe import StageRecipe
from mdm.config.sizes import as_clip
from mdm.data.batches.classes import class_label
from mdm.data.batches.loader import Batch, Loader, signal
from mdm.data.batches.skipped import SkippedLog
from mdm.data.text.cache import Embeddings
from mdm.diffusion import noise
from mdm.diffusion.loss import pyramid
from mdm.files.artifact import results_root
from mdm.model.upsampler import Low
from mdm.train.joint import JointLoader, clip_rows
from mdm.train.latents import open_loader, shown
from mdm.train.low import training_low
from mdm.train.ranks import Ranks


@dataclass(frozen=True)
class Example:
    """images, noises: [B,3,R,R] or clips [B,T,3,R,R] per level, highest first; times [B]; text [B,S,D], mask [B,S],
    labels [B], or None; pictures: their image counters; low: what an upsampler enlarges."""

    images: list[Tensor]
    noises: list[Tensor]
    times: Tensor
    text: Tensor | None
    mask: Tensor | None
    labels: Tensor | None
    pictures: Sequence[int] = ()
    low: Low | None = None

    def part(self, index: int, count: int) -> Self:
        """Every count-th picture from number `index` on."""
        if count == 1:
            return self
        return replace(self._each(lambda x: x[index::count]), pictures=self.pictures[index::count])

    def pinned(self) -> Self:
        """In memory that a GPU copies from by itself; from other memory it would first have to end all its work."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        return self if device.type == "cpu" else self._each(lambda x: x.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        images, noises = ([change(x) for x in part] for part in (self.images, self.noises))
        condition = (None if part is None else change(part) for part in (self.text, self.mask, self.labels))
        low = self.low and self.low.each(change)
        return Example(images, noises, change(self.times), *condition, self.pictures, low)

    def inputs(self) -> tuple[Any, ...]:
        """In the order of `training_loss`."""
        return self.images, self.times, self.noises, self.text, self.mask, self.labels


def dropped(seed: int, pictures: Sequence[int], share: float) -> Tensor:
    """Which pictures lose caption and class, bool [B]; guidance needs a model that knows both with and without."""
    draws = [torch.rand((), generator=noise.generator("caption", seed, picture)) for picture in pictures]
    return torch.stack(draws) < share


class Ahead:
    """Makes the next batch in a thread; whoever asks for one image counter will ask for the one `step` further on."""

    def __init__(self, make: Callable[[int], Example], step: int) -> None:
        self._make, self._step = make, step
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._next: tuple[int, Future[Example]] | None = None

    def at(self, images_seen: int) -> Example:
        """Return make(images_seen), which is ready if it was the expected one."""
        found, following = self._taken(images_seen), images_seen + self._step
        self._next = (following, self._thread.submit(self._make, following))
        return found

    def _taken(self, images_seen: int) -> Example:
        if self._next is None:
            return self._make(images_seen)
        (number, future), self._next = self._next, None
        made = future.result()  # waited for in any case: one maker at a time, and no error of it may vanish
        return made if number == images_seen else self._make(images_seen)


class Examples:
    """Batches of one stage by image counter, each made while the one before it is trained on."""

    def __init__(
        self, loader: Loader | JointLoader, embeddings: Embeddings | None, recipe: StageRecipe, device: torch.device
    ) -> None:
        self._loader, self._resolutions, self._seed = loader, recipe.sizes, recipe.seed
        self._pin = device.type == "cuda"
        self._ahead = Ahead(self._made, recipe.train.batch_images)
        self._diffusion, self._dropout = recipe.diffusion, recipe.train.condition_dropout
        self._empty = embeddings.lookup([""]) if embeddings else None
        self._class_label, self._recipe = class_label(recipe), recipe

    def at(self, images_seen: int) -> Example:
        """This process's part of the batch that begins with the image numbered `images_seen`."""
        return self._ahead.at(images_seen)

    def _made(self, images_seen: int) -> Example:
        batch = self._loader.batch(images_seen)
        pictures = self._loader.images(images_seen)
        stills = None if batch.stills is None else signal(batch.stills)
        total = len(self._loader.pictures) if isinstance(self._loader, Loader) else 1
        images = pyramid(shown(self._recipe, batch, self._seed, pictures, total), self._resolutions, stills)
        made = Example(
            images,
            noise.training_noises(self._diffusion, self._seed, pictures, self._resolutions),
            noise.training_times(self._diffusion, self._seed, pictures),
            *self._condition(batch, pictures),
            pictures,
            training_low(self._recipe, images[0], pictures),
        )
        return made.pinned() if self._pin else made

    def _condition(self, batch: Batch, pictures: Sequence[int]) -> tuple[Tensor | None, ...]:
        text, mask, labels = batch.text, batch.mask, batch.classes
        if not self._dropout:
            return text, mask, labels
        gone = dropped(self._seed, pictures, self._dropout)
        if self._empty is not None:
            empty_text, empty_mask = self._empty
            text = torch.where(gone[:, None, None], empty_text, text)
            mask = torch.where(gone[:, None], empty_mask, mask)
        if self._class_label is not None:
            labels = torch.where(gone, self._class_label.none, labels)
        return text, mask, labels


def training_examples(recipe_path: Path, recipe: StageRecipe, ranks: Ranks) -> Examples:
    """The examples of a training stage; joint batches where it has `stills`."""
    root, batch_images = results_root(recipe_path), recipe.train.batch_images
    embeddings, side = open_embeddings(root, recipe.text), as_clip(recipe.drawn[0]).resolution

    def opened(
        role: str, data: str, embeddings: Embeddings | None, batch_images: int, side: int, take: int | None = None
    ) -> Loader:
        return open_loader(
            root, recipe.latents and recipe.latents.codes,
            root / data, embeddings, batch_images, recipe.seed, side, take=take, class_label=class_label(recipe),
            rank=ranks.rank, world=ranks.world, workers=decoding_threads(), policy=recipe.train.decode,
            order=recipe.train.order,
            skipped_log=SkippedLog(recipe_path.parent / "progress", role, ranks.rank),
        )  # fmt: skip

    if not recipe.stills:
        loader = opened("training", recipe.data, embeddings, batch_images, side, recipe.take)
        return Examples(loader, embeddings, recipe, ranks.device)
    still_embeddings = open_embeddings(root, recipe.stills_text)
    if embeddings and still_embeddings:
        # Captions of both stand in one batch: the shorter ones are padded to the longer.
        embeddings.tokens = still_embeddings.tokens = max(embeddings.tokens, still_embeddings.tokens)
    clips, largest = clip_rows(recipe), max(r for r in recipe.sizes if isinstance(r, int))
    if clips % ranks.world:
        raise StudyError(
            f"{clips} of the {batch_images} rows of a batch are clips, which {ranks.world} processes cannot share "
            "evenly; use another number of processes, or change diffusion.mixed_ratio"
        )
    moving = opened("training", recipe.data, embeddings, clips, side, recipe.take)
    still = opened("stills", recipe.stills, still_embeddings, batch_images - clips, largest)
    loader = JointLoader(moving, still, batch_images, clips)
    return Examples(loader, embeddings, recipe, ranks.device)


def decoding_threads() -> int:
    """One for each processor of this process but two; none where those train. The batches are the same."""
    # srun gives each process processors of its own, torchrun all of them to all.
    own = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(16, own - 2)) if torch.cuda.is_available() else 0


def open_embeddings(root: Path, text: str | None) -> Embeddings | None:
    return Embeddings(root / text) if text else None
