"""One training batch, complete: pictures of all levels, times, noises, captions. A pure function of
(seed, image counter, manifest): the same after a restart and for any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, TrainConfig
from mdm.data.loader import Loader
from mdm.diffusion import noise
from mdm.diffusion.loss import pyramid
from mdm.manifest import results_root
from mdm.text.cache import Embeddings


@dataclass(frozen=True)
class Example:
    """images, noises: [B,3,R,R] per level, highest first; times [B]; text [B,S,D], mask [B,S] or None."""

    images: list[Tensor]
    noises: list[Tensor]
    times: Tensor
    text: Tensor | None
    mask: Tensor | None

    def to(self, device: torch.device) -> Example:
        """The batch on the device, pictures in the memory layout that convolutions like."""
        if device.type == "cpu":
            return self

        def send(x: Tensor) -> Tensor:
            # From pinned memory, or the copy would wait for all work that the device still has.
            return x.pin_memory().to(device, non_blocking=True)

        text, mask = (None if part is None else send(part) for part in (self.text, self.mask))
        return Example([send(x) for x in self.images], [send(x) for x in self.noises], send(self.times), text, mask)

    def inputs(self) -> tuple[Any, ...]:
        """In the order of `training_loss`."""
        return self.images, self.times, self.noises, self.text, self.mask


def dropped(seed: int, pictures: Sequence[int], share: float) -> Tensor:
    """Which captions are replaced by the empty one, bool [B]; guidance needs a model that knows both."""
    draws = [torch.rand((), generator=noise.generator("caption", seed, picture)) for picture in pictures]
    return torch.stack(draws) < share


def step_seed(seed: int, images: int) -> int:
    """Seed of what cannot be drawn per image, such as dropout masks: a function of (seed, image counter)."""
    return noise.generator("step", seed, images).initial_seed()


class Examples:
    """Batches of one stage by image counter."""

    def __init__(
        self, loader: Loader, embeddings: Embeddings | None, recipe: dict[str, Any], resolutions: tuple[int, ...]
    ) -> None:
        self._loader, self._resolutions, self._seed = loader, resolutions, recipe["seed"]
        self._diffusion = DiffusionConfig(**recipe["diffusion"])
        self._dropout = TrainConfig(**recipe["train"]).caption_dropout
        self._empty = embeddings.lookup([""]) if embeddings else None

    def at(self, images_seen: int) -> Example:
        """The batch that begins with the image numbered `images_seen`."""
        batch = self._loader.batch(images_seen)
        pictures = range(images_seen, images_seen + len(batch.images))
        text, mask = self._caption(batch.text, batch.mask, pictures)
        return Example(
            pyramid(batch.images.float() / 127.5 - 1, self._resolutions),
            noise.training_noises(self._diffusion, self._seed, pictures, self._resolutions),
            noise.training_times(self._diffusion, self._seed, pictures),
            text,
            mask,
        )

    def _caption(
        self, text: Tensor | None, mask: Tensor | None, pictures: Sequence[int]
    ) -> tuple[Tensor | None, Tensor | None]:
        if text is None or mask is None or self._empty is None or not self._dropout:
            return text, mask
        gone = dropped(self._seed, pictures, self._dropout)
        empty_text, empty_mask = self._empty
        return torch.where(gone[:, None, None], empty_text, text), torch.where(gone[:, None], empty_mask, mask)


def training_examples(recipe_path: Path, recipe: dict[str, Any], resolutions: tuple[int, ...]) -> Examples:
    """The examples of a training stage."""
    root, config = results_root(recipe_path), TrainConfig(**recipe["train"])
    embeddings = open_embeddings(root, recipe["text"])
    loader = Loader(
        root / recipe["data"], embeddings, config.batch_images, recipe["seed"], resolutions[0], prefetch=True
    )
    return Examples(loader, embeddings, recipe, resolutions)


def open_embeddings(root: Path, text: str | None) -> Embeddings | None:
    """The embedded captions of a text artifact; none for an unconditional model."""
    return Embeddings(root / text / "embeddings.safetensors") if text else None
