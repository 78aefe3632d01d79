"""Held-out loss on fixed pictures, times and noises: curves of different runs can be laid over one another."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mdm.config.recipe import StageRecipe
from mdm.config.sizes import Size, as_clip, shape, side
from mdm.data.batches.classes import class_label
from mdm.data.batches.skipped import SkippedLog
from mdm.diffusion import noise
from mdm.diffusion.loss import Part, pyramid, training_loss
from mdm.files.artifact import results_root
from mdm.model.upsampler import seeing
from mdm.train.example import Example, open_embeddings
from mdm.train.latents import open_loader, shown
from mdm.train.low import validation_low
from mdm.train.state import TrainingState

NUM_IMAGES = 64
PAIRINGS = 8  # a single one hangs on the few pictures that happen to get the highest noise
PIXELS = 64 * 64**2  # at the same time: 64 pictures of 1024 px take 88 GiB in the network of the paper study
SEED = 20231023  # one for all runs and seeds, so that their numbers differ by their weights only


class Validation:
    """Measures the averaged weights; the loss of a level is comparable between runs that share its schedule."""

    def __init__(self, recipe: StageRecipe, example: Example, gammas: Tensor) -> None:
        self._every, self._batch = recipe.train.validate_images, recipe.train.batch_images
        self._total, self._sizes = recipe.num_images, recipe.sizes
        self._diffusion = recipe.diffusion.model_copy(update={"mixed_ratio": None})
        self._example, self._gammas = example.to(gammas.device), gammas
        self._parts = parts(len(example.times), self._sizes[0])

    def due(self, images: int) -> bool:
        """True once per `validate_images`, and at the end of the stage."""
        return images // self._every > (images - self._batch) // self._every or images >= self._total

    @torch.no_grad()
    def measure(self, state: TrainingState) -> dict[str, list[float]]:
        """Loss of each level, by resolution; at the end of the stage also with other pairings of picture and noise."""
        pairings = PAIRINGS if state.images >= self._total else 1
        state.model.eval()
        with state.ema.applied():
            draws = [self._losses(state, pairing) for pairing in range(pairings)]
        state.model.train()
        return {str(r): [losses[i] for losses in draws] for i, r in enumerate(self._sizes)}

    def _losses(self, state: TrainingState, pairing: int) -> list[float]:
        """The sum over parts, whose number depends on the size of the pictures alone."""
        example, found = self._paired(pairing) if pairing else self._example, []
        for index in range(self._parts):
            micro, part = example.part(index, self._parts), Part(index, self._parts)
            network, inputs = seeing(state.model, micro.low), micro.inputs()
            found.append(training_loss(network, self._diffusion, self._gammas, *inputs, part=part)[1])
        return torch.stack(found).sum(dim=0).tolist()

    def _paired(self, pairing: int) -> Example:
        """The same pictures and the same times, but each picture at another time and with another noise."""
        first, count = self._example, len(self._example.times)
        noises = [
            noise.normal("validation", SEED, range(count), x.shape[1:], step=pairing, level=size)
            for x, size in zip(first.noises, self._sizes, strict=True)
        ]
        times = first.times.roll(pairing * count // PAIRINGS)
        return replace(first, noises=[x.to(times.device) for x in noises], times=times)


def parts(count: int, size: Size) -> int:
    """In how many equal parts `count` pictures of the highest level are measured one after the other."""
    found = 1
    while count / found * side(size) ** 2 > PIXELS and count % (2 * found) == 0:
        found *= 2
    return found


def open_validation(recipe_path: Path, recipe: StageRecipe, gammas: Tensor) -> Validation | None:
    if not recipe.validation or not recipe.train.validate_images:
        return None
    root, sizes = results_root(recipe_path), recipe.sizes
    embeddings = open_embeddings(root, recipe.validation_text)
    loader = open_loader(
        root, recipe.latents and recipe.latents.validation,
        root / recipe.validation, embeddings, NUM_IMAGES, SEED, as_clip(recipe.drawn[0]).resolution,
        class_label=class_label(recipe),
        skipped_log=SkippedLog(recipe_path.parent / "progress", "validation"),
    )  # fmt: skip
    batch = loader.batch(0)
    pictures = range(len(batch.images))
    # Evenly spread instead of drawn: 64 random times would make the number depend on their luck.
    times = noise.spread_times(recipe.diffusion, len(batch.images))
    noises = [noise.normal("validation", SEED, pictures, shape(size), level=size) for size in sizes]
    images = pyramid(shown(recipe, batch, SEED, pictures, len(pictures)), sizes)
    condition = (batch.text, batch.mask, batch.classes)
    example = Example(images, noises, times, *condition, low=validation_low(recipe, images[0], SEED))
    return Validation(recipe, example, gammas)
