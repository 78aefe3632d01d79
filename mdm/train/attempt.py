"""Who is training a stage, since when, and how it ended: one small file that `mdm status` reads, without torch."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdm.manifest import write_json

FILE = "attempt.json"
SLICE_DONE, STOPPED, FAILED = "slice done", "stopped", "failed"  # how an attempt ends


@contextmanager
def attempt(out: Path) -> Iterator[None]:
    """Note the beginning and the end of the work on a slice; after kill -9 the note has no end."""
    path = out.parent / "progress" / FILE
    note: dict[str, Any] = {
        "pid": os.getpid(), "machine": machine(), "slice": out.stem, "begun": time.time(), "ended": None,
    }  # fmt: skip
    write_json(path, note)
    how, why = SLICE_DONE, ""
    try:
        yield
    except SystemExit as stop:
        how, why = STOPPED, f"exit status {stop.code}"
        raise
    except BaseException as error:
        how, why = FAILED, (str(error).strip() or type(error).__name__).splitlines()[0]
        raise
    finally:
        write_json(path, {**note, "ended": time.time(), "how": how, "why": why})


def machine() -> str | None:
    """Names this running machine (or container) without telling its host name; None where that cannot be told."""
    try:
        names = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return hashlib.sha256("".join(names).encode()).hexdigest()[:12]


def holds(pid: int, lock: Path) -> bool:
    """Whether a process of this machine holds the lock file. Only looks: trying the lock could stop a trainer."""
    if not lock.exists():
        return False
    inode = str(lock.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()  # 1: FLOCK ADVISORY WRITE 4242 08:01:131090 0 EOF
        if words[1] == "FLOCK" and words[4] == str(pid) and words[5].rpartition(":")[2] == inode:
            return True
    return False
