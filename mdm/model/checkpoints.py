"""Weights on disk (safetensors with a JSON note in the header), strict loading, and growing a nest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mdm.config import ModelConfig, StudyError
from mdm.manifest import ArtifactError, write_atomic
from mdm.model import build
from mdm.model.unet import time_channels

INNER = "inner_unet."


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def save_weights(path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> str:
    """Write a state dict atomically, with `meta` (JSON) and its hash in the header; return the hash."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    digest = state_hash(tensors)
    header = {"meta": json.dumps(dict(meta or {}), allow_nan=False, sort_keys=True), "state_hash": digest}
    write_atomic(path, save(tensors, metadata=header))
    return digest


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
    return json.loads(_header(path).get("meta", "{}"))


def _header(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as stream:
            return stream.metadata() or {}
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; the stage that makes it has not finished") from None
    except SafetensorError as error:
        raise ArtifactError(
            f"{path} is not a complete safetensors file ({error}); delete it and make it again"
        ) from None


def load_into(model: nn.Module, state: Mapping[str, Tensor], origin: str = "these weights") -> None:
    """Strict load: every name and shape must agree, or all differences are listed."""
    _require_same(model.state_dict(), state, origin)
    model.load_state_dict(state)


def load_inner(model: nn.Module, parent: Mapping[str, Tensor], levels: int, origin: str = "the parent") -> None:
    """Put the weights of a nest into the inside of a nest that has `levels` more levels around it."""
    for _ in range(levels):
        model = model.get_submodule(INNER.rstrip("."))
    load_into(model, parent, origin)


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
        raise StudyError(f"the parent has {len(parent.levels)} levels, the stage only {len(config.levels)}")
    # Input normalisation and dropout may change from stage to stage: they hold no weights.
    free = {"levels": {"__all__": {"normalize_input", "dropout"}}}
    inside = config.model_copy(update={"levels": config.levels[: len(parent.levels)]})
    before, after = (c.model_dump(exclude=free) | {"time_channels": time_channels(c)} for c in (parent, inside))
    wrong = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    if wrong:
        listing = "; ".join(f"{key}: {old} became {new}" for key, (old, new) in wrong.items())
        raise StudyError(f"the inner levels of this stage are not those of its parent: {listing}")


def _require_same(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "unexpected": sorted(state.keys() - wanted.keys()),
        "wrong shape": shapes,
    }
    listing = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    if listing:
        raise ArtifactError(f"{origin} do not fit this network; " + "; ".join(listing))


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names) - most} more)" if len(names) > most else "")
