"""The training loop: one slice of one stage, from whatever was saved last to the slice's end."""

import signal
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from torch import Tensor

from mdm.model.execution import PLAIN, Execution
from mdm.train.attempts import Attempts
from mdm.train.checkpoint import only_trainer
from mdm.train.guards import advising_on_memory
from mdm.train.optim import rate_share, set_rates
from mdm.train.ranks import joined
from mdm.train.slice import Slice
from mdm.train.start import SliceOrder
from mdm.train.step import training_step


class StopRequest:
    """Notes SIGTERM (a scheduler's warning) and SIGINT (Ctrl-C); the loop obeys at the end of a step.

    A training that gets ready has nothing to save yet: if `at_once`, it ends when Ctrl-C comes.
    """

    def __init__(self, at_once: bool) -> None:
        self.received: int | None = None
        self.at_once = at_once
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self.at_once and number == signal.SIGINT:
            raise KeyboardInterrupt


def train(
    recipe_path: Path,
    out: Path,
    before: Path | None,
    autosave_seconds: float,
    execution: Execution = PLAIN,
    preview_images: int = 0,
    snapshots: tuple[int, ...] = (),
    attempt: int = 1,
) -> None:
    """Train until the image count that `out` stands for, then write it; with others if torchrun or srun started us."""
    order = SliceOrder(recipe_path, out, before, autosave_seconds, execution, preview_images, snapshots)
    with joined() as ranks:
        # One of several must not leave the others: they agree on a step after which all stop.
        stop, attempts = StopRequest(at_once=ranks.world == 1), Attempts(order.folder, speaks=ranks.first)
        with only_trainer(order.folder) if ranks.first else nullcontext():
            ranks.barrier()  # where the first one may not train, the others have nothing to note about whoever does
            with attempts.errors(attempt):
                train_slice(Slice(order, ranks), stop, attempts)


def train_slice(s: Slice, stop: StopRequest, attempts: Attempts) -> None:
    """Step after step, with what is due between them; a process that is asked to stop saves and leaves."""
    state, begun = s.state, s.state.images
    s.ranks.barrier()  # a process that failed on its way here ends us before training has begun
    stop.at_once = False
    attempts.begin(begun, s.end, s.ranks.world)
    s.ranks.barrier()  # and an error from here on is written after that line

    state.model.train()
    while state.images < s.end:
        share = rate_share(s.config, state.images, s.total)
        loss, per_level, norm = _step(s, share)
        if state.images == begun + s.config.batch_images:  # from now on the optimisers have moments
            s.autosaves.make_room(s.checkpoint()[0])
        s.finite.note(state.images, per_level, norm)
        ticked = s.progress.add(state.images, s.config.batch_images, loss, per_level)
        due = s.validation is not None and s.validation.due(state.images)
        # What one process is asked, all do after the same step.
        stopping, saving, looking = s.ranks.all_max(stop.received, s.autosaves.due(), ticked or due)
        last, leaving = state.images == s.end, s.snapshots.due(state.images)
        if looking or saving or stopping or last or leaving:
            s.finite.check(state)
        if looking:
            s.pace.look()
        if ticked or due:
            measured = s.validation.measure(state) if s.validation and due else None
            s.progress.tick(state.images, s.config.learning_rate * share, float(norm), measured)
        s.previews.after(state)
        if leaving:
            s.snapshots.leave(state, s.progress.seconds)
        if (saving or stopping) and not last:
            s.autosaves.save(state.images, *s.checkpoint())
        if stopping and not last:
            s.autosaves.settle()
            s.ranks.barrier()  # or the first of us to leave would have the others killed while they save
            attempts.stop(stopping, state.images)

    s.autosaves.finish(s.out, *s.checkpoint())
    s.ranks.barrier()
    attempts.finish(state.images)


def _step(s: Slice, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """A batch and a step with this share of the peak rates; the loss, the loss of each level, the gradient's norm."""
    with s.pace.waiting():
        example = s.examples.at(s.state.images).to(s.ranks.device)
    set_rates(s.state.optimizers, share)
    with advising_on_memory(s.config, s.ranks, s.accumulate):
        return training_step(s.state, s.config, s.diffusion, s.gammas, example, s.ranks, s.accumulate, s.pace.forward)
