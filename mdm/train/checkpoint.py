"""Checkpoints of a running stage: hashed, atomic, and the damaged ones passed over."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config import StudyError
from mdm.files.atomic import ArtifactError
from mdm.files.lock import held
from mdm.files.weights import load_weights, read_meta, save_weights
from mdm.train.journal import LOCK

KEPT_AUTOSAVES = 2  # the newest, and the one before in case the newest is damaged
NAME = re.compile(r"autosave-(\d{12})\.ckpt$")
Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """One trainer for a stage: an orphan of a killed workflow may still be at work; the kernel frees the lock."""
    with held(folder / LOCK, f"training in {folder.parent}") as locked:
        if not locked:
            raise ArtifactError(
                f"{folder} lies on a file system without locks, where nothing keeps two trainings of one stage apart; "
                "have it mounted with flock, or choose another results folder"
            )
        for torn in (*folder.glob(".*.tmp"), *folder.parent.glob(".*.ckpt.*.tmp")):
            torn.unlink()  # of a trainer that was killed while it wrote: nobody else writes here
        yield


def write_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and meta data; the file appears complete or not at all."""
    try:
        save_weights(path, tensors, meta)
    except (OSError, ArtifactError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        size = sum(tensor.nbytes for tensor in tensors.values()) / 2**30
        raise ArtifactError(
            f"cannot save {path} ({size:.2f} GiB): {cause.strerror}; every checkpoint before it is kept. Make room and "
            "start again: training continues from the newest"
        ) from cause


def read_checkpoint(path: Path) -> Checkpoint:
    """Tensors and meta data of a checkpoint, proved by its hash."""
    return load_weights(path), read_meta(path)


class MemoryCopy:
    """A copy of a training state in main memory, which is taken again and again into the same place."""

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}

    def make_room(self, tensors: dict[str, Tensor]) -> None:
        """Memory for copies of these, every page of it touched: the kernel hands pages out at the first touch only,
        244,000 for a gigabyte, and a copy into fresh memory waits for each of them."""
        self._copies = self._rooms(tensors)
        for copy in self._copies.values():
            copy.zero_()

    def take(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies that no later step changes; those of the copy before are overwritten."""
        self._copies = self._rooms(tensors)
        for name, tensor in tensors.items():
            self._copies[name].copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.current_stream().synchronize()
        return self._copies

    def _rooms(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, tensor in tensors.items():
            old = self._copies.get(name)
            fits = old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype
            # In the same layout, or the copy would be a transposition; the writer has time for that.
            found[name] = old if fits else torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return found


class Autosaves:
    """Saves of a running slice, in a folder that Snakemake does not know and so does not delete.

    Training goes on while a save is written. Of several processes only the first `writes`, and says when.
    """

    def __init__(self, folder: Path, every_seconds: float, writes: bool = True) -> None:
        if not every_seconds >= 0:
            raise StudyError(f"--autosave-seconds {every_seconds} is no time: write 0 (after every step) or more")
        self._folder, self._writes = folder, writes
        self._every = every_seconds
        self._last = time.monotonic()
        self._copy = MemoryCopy()
        self._writer = ThreadPoolExecutor(1, "autosave")
        self._writing: Future[None] | None = None

    def due(self) -> bool:
        """Whether it is time for another save; an error of the one before comes out here."""
        if not self._writes:
            return False
        if self._writing is not None:
            if not self._writing.done():
                return False
            self.settle()
        return time.monotonic() - self._last >= self._every

    def make_room(self, tensors: dict[str, Tensor]) -> None:
        """Get memory for copies of these while training goes on, so that the first save need not."""
        self.settle()
        if self._writes:
            self._writing = self._writer.submit(self._copy.make_room, tensors)

    def at(self, images: int) -> Path:
        return self._folder / f"autosave-{images:012d}.ckpt"

    def save(self, images: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Copy the state, and have the copy written while training goes on."""
        self.settle()
        if self._writes:
            copy = self._copy.take(tensors)
            self._writing = self._writer.submit(self._write, self.at(images), copy, meta)
        self._last = time.monotonic()

    def settle(self) -> None:
        """Wait for what is done beside training, a save above all; its error, if it has one, is raised here."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        write_checkpoint(path, tensors, meta)
        for old in self._newest_first()[KEPT_AUTOSAVES:]:
            old.unlink(missing_ok=True)

    def latest(self, after: int) -> Checkpoint | None:
        """The newest undamaged save with images > after; damaged ones are reported and passed over."""
        for path in self._newest_first():
            if _images(path) <= after:
                continue
            try:
                tensors, meta = read_checkpoint(path)
                if meta.get("images") != _images(path):
                    raise ArtifactError(f"{path.name} is a save at {meta.get('images')} images, so somebody renamed it")
                return tensors, meta
            except ArtifactError as error:
                print(f"warning: {error}; trying the save before it", flush=True)
        return None

    def newest(self) -> Path | None:
        """The newest save that is on disk, once the one that is being written is there too."""
        self.settle()
        return next(iter(self._newest_first()), None)

    def finish(self, out: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Write the checkpoint that ends the slice, and keep one save: Snakemake deletes what a job has written if the
        job, or Snakemake itself, is killed before it has heard that all went well."""
        try:
            self.settle()
        except ArtifactError as error:  # there may be room by now, and if not, the end says so itself
            print(f"warning: {error}", flush=True)
        if self._writes:
            write_checkpoint(out, tensors, meta)
            kept = self._kept(out, self.at(meta["images"]))
            for path in self._newest_first():
                if path != kept:
                    path.unlink(missing_ok=True)

    def _kept(self, out: Path, save: Path) -> Path | None:
        """A second name for the file, which takes no room; where there is no such thing the newest save has to do."""
        try:
            save.unlink(missing_ok=True)
            os.link(out, save)
        except OSError:
            return next((path for path in self._newest_first() if path < save), None)
        return save

    def remove(self) -> None:
        """Delete all autosaves; called once the stage is exported."""
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self._folder.glob("autosave-*.ckpt") if NAME.match(path.name)), reverse=True)


def _images(path: Path) -> int:
    return int(NAME.match(path.name)[1])
