"""The training loop: one slice of one stage, from whatever was saved last to the slice's end."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from mdm.config import DiffusionConfig, ModelConfig, TrainConfig
from mdm.diffusion.schedule import levels
from mdm.manifest import read_recipe
from mdm.model.execution import PLAIN, Execution
from mdm.train.attempts import Attempts
from mdm.train.checkpoint import Autosaves, only_trainer
from mdm.train.example import decoding_threads, training_examples
from mdm.train.guards import Finite, advising_on_memory
from mdm.train.loggers import open_loggers
from mdm.train.machine import machine, trained_on
from mdm.train.optim import rate_share, set_rates
from mdm.train.pace import Pace
from mdm.train.previews import open_previews
from mdm.train.ranks import Ranks, joined
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
    """Train until the image count that `out` stands for, then write it; with others if torchrun or srun started us."""
    folder = out.parent / "progress"
    with joined() as ranks, only_trainer(folder) if ranks.first else nullcontext():
        attempts = Attempts(folder, speaks=ranks.first)
        with attempts.errors(attempt):
            _train(recipe_path, out, before, autosave_seconds, execution, preview_images, ranks, attempts)


def _train(
    recipe_path: Path,
    out: Path,
    before: Path | None,
    autosave_seconds: float,
    execution: Execution,
    preview_images: int,
    ranks: Ranks,
    attempts: Attempts,
) -> None:
    recipe = read_recipe(recipe_path)
    config, diffusion = TrainConfig(**recipe["train"]), DiffusionConfig(**recipe["diffusion"])
    config.require_parts(ranks.world * execution.accumulate, diffusion)
    stop, end, total = StopRequest(), slice_end(recipe, out), recipe["num_images"]
    resolutions = ModelConfig(**recipe["model"]).resolutions
    autosaves = Autosaves(out.parent / "progress", autosave_seconds, writes=ranks.first)

    # The newest save of this slice, the slice before, the parent stage's weights, or fresh ones.
    state, progress = start(recipe_path, recipe, out, before, autosaves, ranks, execution.shard_optimizer)
    execution.apply(state.model, ranks.device)
    state.share(ranks)
    gammas = levels(diffusion, resolutions).to(ranks.device)
    examples = training_examples(recipe_path, recipe, resolutions, ranks)
    finite, pace = Finite(config, resolutions, autosaves, state), Pace(ranks, decoding_threads(), progress.waits)
    validation = open_validation(recipe_path, recipe, resolutions, gammas) if ranks.first else None
    loggers = open_loggers(out.parent / "progress", recipe, state.images) if ranks.first else []
    progress.report_to(loggers)
    previews = open_previews(recipe_path, recipe, resolutions, preview_images * ranks.first, gammas, loggers)
    belongs_to = identity(recipe_path, recipe)
    state.machines = trained_on(state.machines, state.images, machine(ranks))
    ranks.wait()  # a process that failed on its way here ends us before training has begun
    attempts.begin(state.images, end, ranks.world)
    ranks.wait()  # and an error from here on is written after that line

    state.model.train()
    while state.images < end:
        with pace.waiting():
            example = examples.at(state.images).to(ranks.device)
        share = rate_share(config, state.images, total)
        set_rates(state.optimizers, share)
        with advising_on_memory(config, ranks, execution.accumulate):
            loss, per_level, norm = training_step(
                state, config, diffusion, gammas, example, ranks, execution.accumulate, pace.forward
            )
        ticked = progress.add(state.images, config.batch_images, *finite.note(state, loss, per_level, norm))
        due = validation is not None and validation.due(state.images)
        # What one process is asked, all do after the same step.
        stopping, saving, looking = ranks.agree(stop.received, autosaves.due(), ticked or due)
        if looking or saving or stopping or state.images == end:
            finite.check(state)
        if looking:
            pace.look()
        if ticked or due:
            measured = validation.measure(state) if validation and due else None
            progress.tick(state.images, config.learning_rate * share, float(norm), measured)
        previews.after(state)
        if (saving or stopping) and state.images < end:
            autosaves.save(state.images, {**state.tensors(), **progress.tensors()}, {**belongs_to, **state.story()})
        if stopping and state.images < end:
            autosaves.settle()
            ranks.wait()  # or the first of us to leave would have the others killed while they save
            attempts.stop(stopping, state.images)

    autosaves.finish(out, {**state.tensors(), **progress.tensors()}, {**belongs_to, **state.story()})
    ranks.wait()
    attempts.finish(state.images)
