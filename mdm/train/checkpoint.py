"""Checkpoints that prove themselves: safetensors with a hash of their own content, written atomically."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mdm.manifest import ArtifactError
from mdm.model.checkpoints import state_hash

KEPT_AUTOSAVES = 2  # the newest, and the one before in case the newest is damaged


def write_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and meta data; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {**meta, "content": state_hash(tensors)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, {"mdm": json.dumps(meta)})
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot save {path}: {error.strerror}; the checkpoint before it is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint and verify its hash; damage is an ArtifactError."""
    try:
        with safe_open(path, framework="pt") as stream:
            meta = json.loads(stream.metadata()["mdm"])
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} is not a readable checkpoint ({error}); it is damaged or half-written") from error
    if state_hash(tensors) != meta["content"]:
        raise ArtifactError(f"{path} is damaged: its content does not match its hash")
    return tensors, meta


class Autosaves:
    """Saves of a running slice, in a folder that Snakemake does not know and so does not delete."""

    def __init__(self, folder: Path, every_seconds: float) -> None:
        self._folder = folder
        self._every = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def save(self, images: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        write_checkpoint(self._folder / f"autosave-{images:012d}.ckpt", tensors, meta)
        for old in self._newest_first()[KEPT_AUTOSAVES:]:
            old.unlink()
        self._last = time.monotonic()

    def latest(self, after: int, until: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest undamaged save with after < images <= until; damaged ones are reported and passed over."""
        for path in self._newest_first():
            if not after < int(path.stem.rpartition("-")[2]) <= until:
                continue
            try:
                return read_checkpoint(path)
            except ArtifactError as error:
                print(f"warning: {error}; trying the save before it", flush=True)
        return None

    def clear(self) -> None:
        """Remove every save: the slice is finished and its declared checkpoint holds the same."""
        for path in self._newest_first():
            path.unlink()

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("autosave-*.ckpt"), reverse=True)
