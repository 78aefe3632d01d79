"""One process at a time makes a file, also where an orphan of a killed workflow is still at work."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mdm.data.shards.journal import NO_LOCKS
from mdm.files.atomic import ArtifactError


@contextmanager
def only_writer(folder: Path, *names: str) -> Iterator[None]:
    """Hold the lock of files of these names (without suffix), and remove what a killed writer left of them."""
    path = folder / f"{names[0]}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = open(path, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror}; make room and run it again") from error
    with opened as lock:
        if _locked(lock, path):
            for name in names:
                for torn in folder.glob(f".{name}.*.tmp"):
                    torn.unlink()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(lock: IO[str], path: Path) -> bool:
    """Take the lock; False where the file system has none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())):
            raise BlockingIOError  # whoever held it has removed it just now, and the next one locks another file
    except BlockingIOError:
        raise ArtifactError(
            f"another process is writing {path.with_suffix('')} ({path.name} is locked); wait until it has ended"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:  # some cluster file systems are mounted without locks
            raise
        return False
    return True
