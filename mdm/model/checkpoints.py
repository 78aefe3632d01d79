"""Weights on disk (safetensors with a JSON note in the header), strict loading, and growing a nest."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mdm.config import ModelConfig, StudyError
from mdm.manifest import ArtifactError, printable, replacing
from mdm.model import build
from mdm.model.unet import time_channels

INNER = "inner_unet."
TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def save_weights(path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> str:
    """Write a state dict atomically, with `meta` (JSON) and its hash in the header; return the hash."""
    # The widest types first: then every tensor lies at a multiple of its item's size.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    tensors = {name: state[name].detach().cpu().contiguous() for name in names}
    digest = state_hash(tensors)
    notes = {"meta": json.dumps(dict(meta or {}), allow_nan=False, sort_keys=True), "state_hash": digest}
    # The library's own writer orders the notes at random, so that equal weights become different files.
    with replacing(path) as stream:
        stream.write(_header_bytes(tensors, notes))
        for tensor in tensors.values():
            stream.write(_bytes_of(tensor))
    return digest


def _header_bytes(tensors: Mapping[str, Tensor], notes: dict[str, str]) -> bytes:
    """The safetensors header: its length, then JSON with the type, shape and place of every tensor."""
    header: dict[str, Any] = {"__metadata__": notes}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: Tensor) -> np.ndarray:
    """The bytes of a contiguous tensor, uint8 [n], without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict and prove that it is the one that was written."""
    header = _header(path)
    with safe_open(path, framework="pt") as stream:
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
    if "state_hash" in header and state_hash(state) != header["state_hash"]:
        raise ArtifactError(f"{path} is damaged: its weights do not have the hash in its header; make it again")
    return state


def read_meta(path: str | Path) -> dict[str, Any]:
    """The JSON note that was saved with the weights."""
    try:
        meta = json.loads(_header(path).get("meta", "{}"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise ArtifactError(f"{path}: the note `meta` in its header is not a JSON object; the file was not made here")
    return meta


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _header(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as stream:
            return stream.metadata() or {}
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; the stage that makes it has not finished") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ArtifactError(
            f"{path} is not a complete safetensors file ({error}); delete it and make it again"
        ) from None


def load_into(model: nn.Module, state: Mapping[str, Tensor], origin: str = "these weights") -> None:
    """Strict load: every name, shape and type must agree, or all differences are listed."""
    require_same(model.state_dict(), state, origin)
    model.load_state_dict(state)


def load_inner(model: nn.Module, parent: Mapping[str, Tensor], levels: int) -> None:
    """Put the weights of a nest into the inside of a nest that has `levels` more levels around it."""
    for _ in range(levels):
        model = model.get_submodule(INNER.rstrip("."))
    load_into(model, parent, "the parent's weights")


def inner_state(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The part of a state dict inside the outermost `levels` levels, under its own names."""
    prefix = INNER * levels
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def grow(
    parent: Mapping[str, Tensor], parent_config: ModelConfig, config: ModelConfig, seed: int = 0
) -> dict[str, Tensor]:
    """Weights of a deeper nest around a trained one; fresh levels leave the inner predictions as they are."""
    added = len(config.levels) - len(parent_config.levels)
    _require_same_inside(parent_config, config, added)
    model = build(config, seed)
    load_inner(model, parent, added)
    state = model.state_dict()
    if state_hash(inner_state(state, added)) != state_hash(parent):
        raise ArtifactError("the inner weights of the grown network are not the parent's")
    return state


def _require_same_inside(parent: ModelConfig, config: ModelConfig, added: int) -> None:
    if added < 0:
        raise StudyError(f"the parent has {len(parent.levels)} levels, the network around it only {len(config.levels)}")
    # Input normalisation and dropout may change from stage to stage: they hold no weights.
    free = {"levels": {"__all__": {"normalize_input", "dropout"}}}
    inside = config.model_copy(update={"levels": config.levels[: len(parent.levels)]})
    before, after = (c.model_dump(exclude=free) | {"time_channels": time_channels(c)} for c in (parent, inside))
    wrong = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    if wrong:
        listing = "; ".join(f"{key}: {old} became {new}" for key, (old, new) in wrong.items())
        raise StudyError(f"the inner levels are not those of the parent: {listing}")


def require_same(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Names, shapes and types must agree, or the error lists what does not. Values are not looked at."""
    common = [name for name in wanted if name in state]
    problems = {
        "missing": [f"{name} {tuple(wanted[name].shape)}" for name in wanted if name not in state],
        "unexpected": [f"{printable(name)} {tuple(state[name].shape)}" for name in state if name not in wanted],
        "of the wrong shape": _differences("shape", wanted, state, common),
        "of the wrong type": _differences("dtype", wanted, state, common),
    }
    listing = [_listed(kind, entries) for kind, entries in problems.items() if entries]
    if listing:
        raise ArtifactError(f"{origin} do not fit this network:\n" + "\n".join(listing))


def _differences(key: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], names: list[str]) -> list[str]:
    pairs = ((name, getattr(state[name], key), getattr(wanted[name], key)) for name in names)
    return [f"{name} {_shown(seen)} instead of {_shown(right)}" for name, seen, right in pairs if seen != right]


def _shown(value: torch.Size | torch.dtype) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value).removeprefix("torch.")


def _listed(kind: str, entries: list[str], most: int = 30) -> str:
    more = [f"... and {len(entries) - most} more"] if len(entries) > most else []
    return "\n    ".join([f"  {len(entries)} {kind}:", *entries[:most], *more])
