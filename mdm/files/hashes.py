"""SHA-256 of files, remembered for files from outside: a zip of gigabytes is read once, not before every run.

A file counts as unchanged while its size, its mtime, its ctime (which nobody can set back) and its inode are the same.
A file written in the last seconds is not remembered: the clocks of file systems are coarse.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from mdm.files.atomic import read_json, write_json

SETTLED_SECONDS = 3.0


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def whole(path: Path, identity: str) -> dict[str, Any] | None:
    """Return the record beside a file, if the file was made from what `identity` names and still has its hash."""
    record = path.with_suffix(".json")
    if not (path.is_file() and record.is_file()):
        return None
    known: dict[str, Any] = read_json(record)
    return known if known.get("identity") == identity and known["sha256"] == sha256_file(path) else None


class Proofs:
    """SHA-256 of files; `kept` is where they are remembered (results/proofs.json)."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._known: dict[str, list[Any]] = read_json(kept) if kept.is_file() else {}
        self._new = False

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file, which is read only if it may have changed."""
        name, seen = str(path.resolve()), _seen(path)
        known = self._known.get(name)
        if known and known[:-1] == seen:
            return known[-1]
        found = sha256_file(path)
        if _seen(path) == seen and time.time_ns() - max(seen[1:3]) > SETTLED_SECONDS * 1e9:
            self._known[name] = [*seen, found]
            self._new = True
        return found

    def keep(self) -> None:
        """Write down what was hashed, where the folder can be written."""
        if self._new and os.access(self._kept.parent, os.W_OK):
            write_json(self._kept, self._known)
            self._new = False


def _seen(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
