"""Locks on files, held by one process at a time, and who holds them.

The kernel drops such a lock when the last process with the open file has ended, so no kill leaves one behind. A child
that inherits the file (`pass_fds`) shares its parent's lock, and keeps it when the parent ends.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mdm.files.atomic import ArtifactError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # some cluster file systems are mounted without locks


def take(file: IO[Any]) -> bool | None:
    """Lock an open file without waiting: False if another holds it, None if its file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        if isinstance(error, BlockingIOError):
            return False
        raise
    return True


@contextmanager
def held(path: Path, work: str) -> Iterator[bool]:
    """Hold the lock file `path` for the block, or refuse because another process does the `work` ("writing x").

    The block is told whether there is a lock: False where the file system knows none, and nobody can be kept out.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        message = f"{path.parent} cannot be written: {error.strerror}; mend that or make room, then go on {work}"
        raise ArtifactError(message) from error
    with file:
        taken = take(file)
        # A holder may have removed the file between these two steps; the next one then locks another file.
        if taken and not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            taken = False
        if taken is False:
            by = f" by process {process}" if (process := holder(path)) else ""
            raise ArtifactError(f"another process is {work} ({path.name} is locked{by}); wait for it or stop it")
        yield bool(taken)


@contextmanager
def only_writer(folder: Path, *names: str) -> Iterator[None]:
    """Be the only writer of files of these names (without suffix), and remove what a killed one left of them."""
    path = folder / f"{names[0]}.lock"
    with held(path, f"writing {path.with_suffix('')}") as locked:
        if locked:
            for name in names:
                for torn in folder.glob(f".{name}.*.tmp"):
                    torn.unlink()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def holder(path: Path) -> int | None:
    """The living process of this machine that took the lock. Only looks: trying a lock could stop its owner."""
    with suppress(OSError):  # no such file, or not Linux
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 4242 08:01:131090 0 EOF
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode and began(int(words[4])):
                return int(words[4])
    return None


def began(process: int) -> str:
    """Ticks from the start of this machine to that of a process, which no setting of its clock changes; "" if gone."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if facts[0] in "ZX" else facts[19]  # a zombie is dead: whoever started it has not looked, or never looks


def machine() -> str | None:
    """Names this running machine (or container), whatever its host name; None where that cannot be told."""
    try:
        names = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return hashlib.sha256("".join(names).encode()).hexdigest()[:12]
