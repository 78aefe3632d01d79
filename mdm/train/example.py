"""One training batch, complete: pictures of all levels, times, noises, captions. A pure function of
(seed, image counter, manifest): the same after a restart and for any number of ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, TrainConfig
from mdm.data.classes import class_label
from mdm.data.loader import Batch, Loader
from mdm.diffusion import noise
from mdm.diffusion.loss import pyramid
from mdm.manifest import results_root
from mdm.sizes import Size
from mdm.text.cache import Embeddings
from mdm.train.ranks import Ranks


@dataclass(frozen=True)
class Example:
    """images, noises: [B,3,R,R] or clips [B,T,3,R,R] per level, highest first; times [B]; text [B,S,D], mask [B,S],
    labels [B], or None; pictures: their image counters."""

    images: list[Tensor]
    noises: list[Tensor]
    times: Tensor
    text: Tensor | None
    mask: Tensor | None
    labels: Tensor | None
    pictures: Sequence[int] = ()

    def part(self, index: int, count: int) -> Example:
        """Every count-th picture from number `index` on."""
        if count == 1:
            return self

        def cut(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index::count]

        images, noises = ([cut(x) for x in level] for level in (self.images, self.noises))
        condition = map(cut, (self.text, self.mask, self.labels))
        return Example(images, noises, cut(self.times), *condition, self.pictures[index::count])

    def to(self, device: torch.device) -> Example:
        """The batch on the device, pictures in the memory layout that convolutions like."""
        if device.type == "cpu":
            return self

        def send(x: Tensor) -> Tensor:
            # From pinned memory, or the copy would wait for all work that the device still has.
            return x.pin_memory().to(device, non_blocking=True)

        images, noises = ([send(x) for x in part] for part in (self.images, self.noises))
        condition = (None if part is None else send(part) for part in (self.text, self.mask, self.labels))
        return Example(images, noises, send(self.times), *condition, self.pictures)

    def inputs(self) -> tuple[Any, ...]:
        """In the order of `training_loss`."""
        return self.images, self.times, self.noises, self.text, self.mask, self.labels


def dropped(seed: int, pictures: Sequence[int], share: float) -> Tensor:
    """Which pictures lose caption and class, bool [B]; guidance needs a model that knows both with and without."""
    draws = [torch.rand((), generator=noise.generator("caption", seed, picture)) for picture in pictures]
    return torch.stack(draws) < share


class Examples:
    """Batches of one stage by image counter."""

    def __init__(
        self, loader: Loader, embeddings: Embeddings | None, recipe: dict[str, Any], resolutions: tuple[Size, ...]
    ) -> None:
        self._loader, self._resolutions, self._seed = loader, resolutions, recipe["seed"]
        self._diffusion = DiffusionConfig(**recipe["diffusion"])
        self._dropout = TrainConfig(**recipe["train"]).condition_dropout
        self._empty = embeddings.lookup([""]) if embeddings else None
        self._class_label = class_label(recipe)

    def at(self, images_seen: int) -> Example:
        """This process's part of the batch that begins with the image numbered `images_seen`."""
        batch = self._loader.batch(images_seen)
        pictures = self._loader.images(images_seen)
        return Example(
            pyramid(batch.signal(), self._resolutions),
            noise.training_noises(self._diffusion, self._seed, pictures, self._resolutions),
            noise.training_times(self._diffusion, self._seed, pictures),
            *self._condition(batch, pictures),
            pictures,
        )

    def _condition(self, batch: Batch, pictures: Sequence[int]) -> tuple[Tensor | None, ...]:
        """Text, mask and labels after dropout."""
        text, mask, labels = batch.text, batch.mask, batch.classes
        if not self._dropout:
            return text, mask, labels
        gone = dropped(self._seed, pictures, self._dropout)
        if self._empty is not None:
            empty_text, empty_mask = self._empty
            text, mask = (
                torch.where(gone[:, None, None], empty_text, text),
                torch.where(gone[:, None], empty_mask, mask),
            )
        if self._class_label is not None:
            labels = torch.where(gone, self._class_label.none, labels)
        return text, mask, labels


def training_examples(
    recipe_path: Path, recipe: dict[str, Any], resolutions: tuple[Size, ...], ranks: Ranks
) -> Examples:
    """The examples of a training stage."""
    root, config = results_root(recipe_path), TrainConfig(**recipe["train"])
    embeddings = open_embeddings(root, recipe["text"])
    loader = Loader(
        root / recipe["data"], embeddings, config.batch_images, recipe["seed"], resolutions[0],
        class_label=class_label(recipe), rank=ranks.rank, world=ranks.world, prefetch=True,
        workers=decoding_threads(), policy=config.decode,
    )  # fmt: skip
    return Examples(loader, embeddings, recipe, resolutions)


def decoding_threads() -> int:
    """One for each processor of this process but two; none where those train. The batches are the same."""
    # srun gives each process processors of its own, torchrun all of them to all.
    own = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(16, own - 2)) if torch.cuda.is_available() else 0


def open_embeddings(root: Path, text: str | None) -> Embeddings | None:
    """The embedded captions of a text artifact; none for an unconditional model."""
    return Embeddings(root / text / "embeddings.safetensors") if text else None
