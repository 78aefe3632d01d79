"""One attempt at a slice: what goes into the journal, and whether a failed one is worth another."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
from torch.distributed import DistError

from mdm.manifest import ArtifactError
from mdm.train import slurm
from mdm.train.journal import FINISHED, Journal

GLOO_CONNECTION = "gloo/transport/"  # where gloo's errors say they come from; they have no type of their own


class Attempts:
    """Of several processes that train together one speaks; errors are recorded by each."""

    def __init__(self, folder: Path, speaks: bool = True) -> None:
        self._journal, self._speaks, self._begun = Journal(folder), speaks, 0
        self.lines = self._journal.lines

    def begin(self, images: int, until: int, processes: int = 1) -> None:
        """Training is taken up at `images`."""
        self._begun = images
        if self._speaks:
            self._journal.begin(images, until, processes)

    def finish(self, images: int) -> None:
        """The slice is done and written."""
        if self._speaks:
            self._journal.end(images, FINISHED)

    def stop(self, number: int, images: int) -> NoReturn:
        """End after a signal, with everything saved; a job that SLURM warned goes back into its queue."""
        if self._speaks:
            queued = slurm.run_again(images - self._begun) if number == signal.SIGTERM else None
            self._journal.end(images, "; ".join(filter(None, (f"stopped by signal {number}", queued))))
            print(f"stopped by signal {number}; saved at {images:,} images", queued or "", flush=True)
        raise SystemExit(128 + number)

    @contextmanager
    def errors(self, attempt: int) -> Iterator[None]:
        """Record an error; an error of our own is not tried again by Snakemake's next attempt (2, 3, ...)."""
        last = self.lines()[-1:]
        if attempt > 1 and last and last[0].get("comes_again"):
            raise ArtifactError(f"not tried again, the attempt before ended with an error: {last[0]['error']}")
        try:
            yield
        except Exception as error:
            self._record(error)
            raise

    def _record(self, error: Exception) -> None:
        """After a broken GPU or a lost connection another try, likely elsewhere, may end well. Others come again."""
        lost = isinstance(error, DistError) or GLOO_CONNECTION in str(error)
        try:
            if lost and "error" in (self.lines() or [{}])[-1]:
                return  # the process that is gone has said why, and that is what counts
            self._journal.error(error, comes_again=not (lost or isinstance(error, torch.AcceleratorError)))
        except OSError as full:
            error.add_note(f"(not recorded: {self._journal.path} cannot be written: {full.strerror})")
