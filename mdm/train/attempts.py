"""Every start of a stage's training and how it ended: one JSON line each, which no later attempt rewrites."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.distributed import DistError

from mdm.manifest import ArtifactError
from mdm.train import slurm

# A broken GPU or a lost connection: another try, likely on another machine, may end well. Other errors come again.
OF_THE_MACHINE = (torch.AcceleratorError, DistError)


class Attempts:
    """The journal of a stage: begins, ends and errors in the order they happened."""

    def __init__(self, folder: Path, speaks: bool = True) -> None:
        """Of several processes that train together one speaks; errors are recorded by each."""
        self._path, self._speaks, self._begun = folder / "attempts.jsonl", speaks, 0

    def begin(self, images: int, until: int, processes: int = 1) -> None:
        """Training is taken up at `images`."""
        self._begun = images
        job = {"job": int(os.environ["SLURM_JOB_ID"])} if "SLURM_JOB_ID" in os.environ else {}
        nodes = os.environ.get("SLURM_STEP_NODELIST", socket.gethostname())
        place = {"node": nodes, "processes": processes, "pid": os.getpid()}
        self._tell({"begin": images, "until": until, **job, **place})

    def finish(self, images: int) -> None:
        """The slice is done and written."""
        self._tell({"end": images, "why": "the slice is finished"})

    def stop(self, number: int, images: int) -> NoReturn:
        """End after a signal, with everything saved; a job that SLURM warned goes back into its queue."""
        if self._speaks:
            queued = slurm.run_again(images - self._begun) if number == signal.SIGTERM else None
            self._tell({"end": images, "why": "; ".join(filter(None, (f"stopped by signal {number}", queued)))})
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
            told = f"{type(error).__name__}: {error}"
            self._write({"error": told, "comes_again": not isinstance(error, OF_THE_MACHINE)})
            raise

    def lines(self) -> list[dict[str, Any]]:
        """What is recorded; a power cut or a full disk can leave part of a line, which counts as none."""
        if not self._path.exists():
            return []
        return [line for text in self._path.read_text().splitlines() if (line := _whole(text)) is not None]

    def _tell(self, line: dict[str, Any]) -> None:
        if self._speaks:
            self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **line}) + "\n"
        with self._path.open("a+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            torn = stream.read() not in (b"", b"\n")
            # One write of a short line: a kill does not tear it, nor does another process.
            stream.write((b"\n" if torn else b"") + text.encode())


def _whole(text: str) -> dict[str, Any] | None:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
