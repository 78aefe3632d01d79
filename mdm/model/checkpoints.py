"""Strict loading of weights into a network, and growing a nest around them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mdm.config import ModelConfig, SongConfig, StudyError
from mdm.files.atomic import ArtifactError, printable
from mdm.files.weights import state_hash
from mdm.model.arithmetic import time_channels
from mdm.model.networks import build

INNER = "inner_unet."


def load_into(model: nn.Module, state: Mapping[str, Tensor], origin: str = "these weights") -> None:
    """Strict load: every name, shape and type must agree, or all differences are listed."""
    require_same(model.state_dict(), state, origin)
    model.load_state_dict(state)


def inner_state(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The part of a state dict inside the outermost `levels` levels, under its own names."""
    prefix = INNER * levels
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def grow(
    parent: Mapping[str, Tensor],
    parent_config: ModelConfig | SongConfig,
    config: ModelConfig | SongConfig,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Weights of a deeper nest around a trained one; fresh levels leave the inner predictions as they are."""
    if isinstance(parent_config, SongConfig) or isinstance(config, SongConfig):
        _require_same_song(parent_config, config)
        require_same(build(config).state_dict(), parent, "the parent's weights")
        return dict(parent)
    added = len(config.levels) - len(parent_config.levels)
    _require_same_inside(parent_config, config, added)
    model = build(config, seed)
    load_into(model.get_submodule((INNER * added).rstrip(".")), parent, "the parent's weights")
    state = model.state_dict()
    if state_hash(inner_state(state, added)) != state_hash(parent):
        raise ArtifactError("the inner weights of the grown network are not the parent's")
    return state


def _require_same_song(parent: ModelConfig | SongConfig, config: ModelConfig | SongConfig) -> None:
    """DDPM++ and NCSN++ do not grow: only dropout and skip connections, which hold no weights, may change."""
    if not (isinstance(parent, SongConfig) and isinstance(config, SongConfig)):
        raise StudyError("a nested network and one of the family song cannot continue one another")
    before, after = (c.model_dump(exclude={"dropout", "skips"}) for c in (parent, config))
    if wrong := [f"{key}: {before[key]} became {after[key]}" for key in before if before[key] != after[key]]:
        raise StudyError(f"the network is not that of the parent, and this family does not grow: {'; '.join(wrong)}")


def _require_same_inside(parent: ModelConfig, config: ModelConfig, added: int) -> None:
    if added < 0:
        raise StudyError(f"the parent has {len(parent.levels)} levels, the network around it only {len(config.levels)}")
    # Input normalisation and dropout may change from stage to stage: they hold no weights.
    free = {"levels": {"__all__": {"normalize_input", "dropout"}}}
    inside = config.model_copy(update={"levels": config.levels[: len(parent.levels)]})
    before, after = (c.model_dump(exclude=free) | {"time_channels": time_channels(c)} for c in (parent, inside))
    keys = dict.fromkeys([*before, *after])  # what was added later stands in one only if it is used
    wrong = {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
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
