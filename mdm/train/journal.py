"""Every start of a stage's training and how it ended: one JSON line each, which no later attempt rewrites. No torch."""

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from mdm.files.atomic import ArtifactError
from mdm.files.lock import machine

FILE, LOCK = "attempts.jsonl", "lock"
FINISHED = "the slice is finished"


def snapshot_file(folder: Path, images: int) -> Path:
    """Name the file in which a training leaves its averaged weights at an image count on its way."""
    return folder / "snapshots" / f"{images:012d}.safetensors"


class Journal:
    """Begins, ends and errors of a stage, in the order in which they happened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def lines(self) -> list[dict[str, Any]]:
        """What is recorded; a power cut or a full disk can leave part of a line, which counts as none."""
        if not self.path.exists():
            return []
        found = []
        for text in self.path.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(text))
        return found

    def begin(self, images: int, until: int, processes: int) -> None:
        """Note that training begins at `images`; one of its processes writes this."""
        job = {"job": int(os.environ["SLURM_JOB_ID"])} if "SLURM_JOB_ID" in os.environ else {}
        nodes = os.environ.get("SLURM_STEP_NODELIST", socket.gethostname())
        where = {"node": nodes, "machine": machine(), "processes": processes, "pid": os.getpid()}
        self.write({"begin": images, "until": until, **job, **where})

    def end(self, images: int, why: str) -> None:
        self.write({"end": images, "why": why})

    def error(self, error: BaseException, comes_again: bool) -> None:
        """An exception; whether another attempt would meet it too."""
        self.write({"error": f"{type(error).__name__}: {error}", "comes_again": comes_again})

    def write(self, line: dict[str, Any]) -> None:
        text = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **line}) + "\n"
        try:
            self._append(text.encode())
        except OSError as error:
            raise ArtifactError(
                f"{self.path} cannot be written: {error.strerror}; make room and start again"
            ) from error

    def _append(self, text: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            torn = stream.read() not in (b"", b"\n")
            # One write of a short line: a kill does not tear it, nor does another process.
            stream.write((b"\n" if torn else b"") + text)


def last_error(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the error that a training ended with; prefer the process that failed over those that lost it."""
    errors = list(takewhile(lambda line: "error" in line, reversed(lines)))
    return next((line for line in errors if line["comes_again"]), errors[0] if errors else None)
