"""The training loop: one slice of one stage, from whatever was saved last to the slice's end."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, TrainConfig
from mdm.diffusion.schedule import levels
from mdm.manifest import ArtifactError, read_recipe
from mdm.model.execution import PLAIN, Execution
from mdm.sizes import Size
from mdm.train.attempts import Attempts
from mdm.train.checkpoint import Autosaves, only_trainer, write_checkpoint
from mdm.train.example import step_seed, training_examples
from mdm.train.loggers import open_loggers
from mdm.train.optim import rate_share, set_rates
from mdm.train.previews import open_previews
from mdm.train.start import identity, slice_end, start
from mdm.train.step import training_step
from mdm.train.validation import open_validation


class StopRequest:
    """Notes SIGTERM (a scheduler's warning) and SIGINT (Ctrl-C); the loop obeys at the end of a step."""

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def train(
    recipe_path: Path,
    out: Path,
    before: Path | None,
    autosave_seconds: float,
    execution: Execution = PLAIN,
    preview_images: int = 0,
    attempt: int = 1,
) -> None:
    """Train until the image count that `out` stands for, then write it."""
    attempts = Attempts(out.parent / "progress")
    with only_trainer(out.parent / "progress"), attempts.errors(attempt):
        _train(recipe_path, out, before, autosave_seconds, execution, preview_images, attempts)


def _train(
    recipe_path: Path,
    out: Path,
    before: Path | None,
    autosave_seconds: float,
    execution: Execution,
    preview_images: int,
    attempts: Attempts,
) -> None:
    recipe = read_recipe(recipe_path)
    config, diffusion = TrainConfig(**recipe["train"]), DiffusionConfig(**recipe["diffusion"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stop, end, total = StopRequest(), slice_end(recipe, out), recipe["num_images"]
    autosaves = Autosaves(out.parent / "progress", autosave_seconds)

    # The newest save of this slice, the slice before, the parent stage's weights, or fresh ones.
    state, progress = start(recipe_path, recipe, out, before, autosaves, device)
    resolutions = progress.resolutions
    loggers = open_loggers(out.parent / "progress", recipe, state.images)
    progress.report_to(loggers)
    execution.apply(state.model, device)
    gammas = levels(diffusion, resolutions).to(device)
    examples = training_examples(recipe_path, recipe, resolutions)
    validation = open_validation(recipe_path, recipe, resolutions, gammas)
    previews = open_previews(recipe_path, recipe, resolutions, preview_images, gammas, loggers)
    meta = identity(recipe_path, recipe)
    attempts.begin(state.images, end)

    state.model.train()
    while state.images < end:
        with progress.waiting():
            example = examples.at(state.images).to(device)
        share = rate_share(config, state.images, total)
        set_rates(state.optimizers, share)
        torch.manual_seed(step_seed(recipe["seed"], state.images))  # dropout inside the network
        loss, per_level, norm = training_step(state, config, diffusion, gammas, example)
        ticked = progress.add(state.images, config.batch_images, loss, per_level)
        saving = stop.received or autosaves.due() or state.images == end
        due = validation is not None and validation.due(state.images)
        if ticked or saving or due:
            refuse_nonfinite(norm, per_level.tolist(), state.images, resolutions)
        if ticked or due:
            measured = validation.measure(state) if validation and due else None
            progress.tick(state.images, config.learning_rate * share, float(norm), measured)
        previews.after(state)
        if saving and state.images < end:
            autosaves.save(state.images, {**state.tensors(), **progress.tensors()}, {**meta, "images": state.images})
        if stop.received and state.images < end:
            attempts.stop(stop.received, state.images)

    write_checkpoint(out, {**state.tensors(), **progress.tensors()}, {**meta, "images": end})
    autosaves.clear()
    attempts.finish(end)


def refuse_nonfinite(norm: Tensor, losses: list[float], images: int, resolutions: tuple[Size, ...]) -> None:
    """Training on NaN is lost time; the last save before it stays."""
    broken = [f"{r} px" for r, x in zip(resolutions, losses, strict=True) if not math.isfinite(x)]
    if broken or not math.isfinite(float(norm)):
        raise ArtifactError(
            f"loss or gradient is not finite before image {images:,} (levels: {', '.join(broken) or 'gradient only'}); "
            "lower train.learning_rate or raise train.warmup_images"
        )
