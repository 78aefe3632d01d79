"""Checkpoints of a running stage: hashed, atomic, and the damaged ones passed over."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from mdm.manifest import ArtifactError
from mdm.model.checkpoints import load_weights, read_meta, save_weights

KEPT_AUTOSAVES = 2  # the newest, and the one before in case the newest is damaged
Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """One trainer for a stage: an orphan of a killed workflow may still be at work; the kernel frees the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"another process is training in {folder.parent}; wait for it or stop it") from None
        yield


def write_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and meta data; the file appears complete or not at all."""
    try:
        save_weights(path, tensors, meta)
    except OSError as error:
        raise ArtifactError(f"cannot save {path}: {error.strerror}; the checkpoint before it is kept") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Tensors and meta data of a checkpoint, proved by its hash."""
    return load_weights(path), read_meta(path)


class Autosaves:
    """Saves of a running slice, in a folder that Snakemake does not know and so does not delete.

    Of several processes only the first `writes`; the others keep the same clock.
    """

    def __init__(self, folder: Path, every_seconds: float, writes: bool = True) -> None:
        self._folder, self._writes = folder, writes
        self._every = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def at(self, images: int) -> Path:
        """The file of the save at this image count."""
        return self._folder / f"autosave-{images:012d}.ckpt"

    def save(self, images: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        if self._writes:
            write_checkpoint(self.at(images), tensors, meta)
            for old in self._newest_first()[KEPT_AUTOSAVES:]:
                old.unlink(missing_ok=True)
        self._last = time.monotonic()

    def latest(self, after: int, until: int) -> Checkpoint | None:
        """The newest undamaged save with after < images <= until; damaged ones are reported and passed over."""
        for path in self._newest_first():
            if not after < int(path.stem.rpartition("-")[2]) <= until:
                continue
            try:
                return read_checkpoint(path)
            except ArtifactError as error:
                print(f"warning: {error}; trying the save before it", flush=True)
        return None

    def finish(self, out: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Write the checkpoint that ends the slice; what was saved on the way is then of no more use."""
        if self._writes:
            write_checkpoint(out, tensors, meta)
            for path in self._newest_first():
                path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("autosave-*.ckpt"), reverse=True)
