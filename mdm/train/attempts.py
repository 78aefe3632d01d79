"""One attempt at a slice: what goes into the journal, and whether a failed one is worth another."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
from torch.distributed import DistError

from mdm.files.atomic import ArtifactError
from mdm.train import slurm
from mdm.train.journal import FINISHED, Journal, last_error

# A broken GPU or a lost connection: another try, likely on another machine, may end well. Other errors come again.
OF_THE_MACHINE = (torch.AcceleratorError, DistError)
LOST_PEER = "/gloo/"  # between hosts a lost connection is a plain RuntimeError; its text names gloo's file


def of_the_machine(error: Exception) -> bool:
    """Whether another attempt may end better: it was a machine that failed, or another process."""
    return isinstance(error, OF_THE_MACHINE) or (isinstance(error, RuntimeError) and LOST_PEER in str(error))


class Attempts:
    """Of several processes that train together one speaks; errors are recorded by each."""

    def __init__(self, folder: Path, speaks: bool = True) -> None:
        self._journal, self._speaks, self._begun = Journal(folder), speaks, 0
        self.lines = self._journal.lines

    def begin(self, images: int, until: int, processes: int = 1) -> None:
        self._begun = images
        if self._speaks:
            self._journal.begin(images, until, processes)

    def finish(self, images: int) -> None:
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
        before = last_error(self.lines())
        if attempt > 1 and before and before["comes_again"]:
            raise ArtifactError(f"not tried again, the attempt before ended with an error: {before['error']}")
        try:
            yield
        except Exception as error:
            try:
                self._journal.error(error, comes_again=not of_the_machine(error))
            except ArtifactError as other:  # a full disk must not hide what it did
                print(f"warning: {other}", flush=True)
            raise
