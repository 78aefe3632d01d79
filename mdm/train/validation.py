"""Held-out loss on fixed pictures, times and noises: curves of different runs can be laid over one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, ModelConfig, TrainConfig
from mdm.data.classes import class_label
from mdm.data.loader import Loader
from mdm.data.skipped import SkippedLog
from mdm.diffusion import noise
from mdm.diffusion.loss import pyramid, training_loss
from mdm.manifest import results_root
from mdm.sizes import Size, as_clip, shape
from mdm.train.example import Example, open_embeddings
from mdm.train.state import TrainingState

NUM_IMAGES = 64
SEED = 20231023  # one for all runs and seeds, so that their numbers differ by their weights only


class Validation:
    """Measures the averaged weights; the loss of a level is comparable between runs that share its schedule."""

    def __init__(self, recipe: dict[str, Any], example: Example, gammas: Tensor) -> None:
        self._every = TrainConfig(**recipe["train"]).validate_images
        self._batch, self._total = TrainConfig(**recipe["train"]).batch_images, recipe["num_images"]
        self._diffusion = DiffusionConfig(**recipe["diffusion"]).model_copy(update={"mixed_ratio": None})
        self._model_config = ModelConfig(**recipe["model"])
        self._example, self._gammas = example.to(gammas.device), gammas

    def due(self, images: int) -> bool:
        """True once per `validate_images`, and at the end of the stage."""
        return images // self._every > (images - self._batch) // self._every or images >= self._total

    @torch.no_grad()
    def measure(self, state: TrainingState) -> dict[str, float]:
        """Loss of each level, by resolution."""
        state.model.eval()
        with state.ema.applied():
            _, per_level = training_loss(state.model, self._diffusion, self._gammas, *self._example.inputs())
        state.model.train()
        return dict(zip(map(str, self._model_config.resolutions), per_level.tolist(), strict=True))


def open_validation(
    recipe_path: Path, recipe: dict[str, Any], resolutions: tuple[Size, ...], gammas: Tensor
) -> Validation | None:
    """The held-out measurement of a stage, if its recipe asks for one."""
    if not recipe["validation"] or not recipe["train"]["validate_images"]:
        return None
    root, diffusion = results_root(recipe_path), DiffusionConfig(**recipe["diffusion"])
    embeddings = open_embeddings(root, recipe["validation_text"])
    loader = Loader(
        root / recipe["validation"], embeddings, NUM_IMAGES, SEED, as_clip(resolutions[0]).resolution,
        class_label=class_label(recipe),
        skipped_log=SkippedLog(recipe_path.parent / "progress", "validation"),
    )  # fmt: skip
    batch = loader.batch(0)
    pictures = range(len(batch.images))
    # Evenly spread instead of drawn: 64 random times would make the number depend on their luck.
    times = noise.spread_times(diffusion, len(batch.images))
    noises = [noise.normal("validation", SEED, pictures, shape(size), level=size) for size in resolutions]
    images = pyramid(batch.signal(), resolutions)
    example = Example(images, noises, times, batch.text, batch.mask, batch.classes)
    return Validation(recipe, example, gammas)
