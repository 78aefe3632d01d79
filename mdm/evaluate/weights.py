"""Weights from disk: named by path and hash, checked before anything heavy is imported, never downloaded."""

from pathlib import Path

from mdm.config import StudyError
from mdm.files.hashes import sha256_file


def verified(path: str | Path, sha256: str | None, purpose: str) -> Path:
    """The path, once the file is there and its SHA-256 is the expected one."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise StudyError(
            f"{purpose}: no weights at {path}; nothing is downloaded: put the file there, or write its path "
            "in the study file"
        )
    if not sha256:
        raise StudyError(f"{purpose}: {path} has no sha256 in the study file; write sha256: {sha256_file(path)}")
    found = sha256_file(path)
    if found != sha256:
        raise StudyError(
            f"{purpose}: {path} is not the file that the study names: its SHA-256 is {found}, "
            f"the study says {sha256}; fetch the right file, or write the new hash if the change is meant "
            "(all scores change with it)"
        )
    return path
