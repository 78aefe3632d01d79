"""`mdm convert`: weights from the reference's files to ours and back, checked name by name against a configuration."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config import ModelConfig, SongConfig, StudyError
from mdm.config.families import parse_model
from mdm.files.atomic import ArtifactError, refuse_overwriting, replacing
from mdm.files.hashes import sha256_file
from mdm.files.weights import load_weights, read_meta, save_weights, state_hash
from mdm.model.checkpoints import require_same
from mdm.model.networks import build
from mdm.model.presets import PRESETS, named
from mdm.model.released_file import Source, read_released
from mdm.model.song_layers import filter_of

OURS, THEIRS = ".safetensors", ".pth"
PRECONDITIONED = "model."  # EDM's preconditioned networks put this before every name of their U-Net
WIDENED = (torch.float16, torch.bfloat16)  # float32 holds each of their values exactly


def convert(path: Path, model: str | None, out: Path, force: bool = False) -> None:
    """Check the weights of a file against a configuration and write them in the layout that `out` ends with."""
    if out.suffix not in (OURS, THEIRS):
        raise StudyError(f"--out {out}: write a name that ends with {OURS} (ours) or {THEIRS} (the reference's)")
    refuse_overwriting(out, force)
    source = read_source(path)
    config = configuration(path, source.meta, model)
    if out.suffix == THEIRS and isinstance(config, ModelConfig) and config.upsamples:
        raise StudyError(f"--out {out}: the reference has no upsamplers; write a name that ends with {OURS}")
    if isinstance(config, SongConfig):
        source = _inner(source, str(path))
    state = fitting_state(source, config, str(path))
    source.verify()
    parameters = sum(tensor.numel() for tensor in state.values())
    print(f"{path} ({source.layout}): {len(state)} tensors, {parameters:,} parameters, every name and shape fits")
    if out.suffix == OURS:
        converted = {"file": path.name, "sha256": sha256_file(path), "layout": source.layout}
        converted |= {"prefix": source.prefix} if source.prefix == PRECONDITIONED else {}
        meta = {**source.meta, "model": config.model_dump(mode="json"), "converted": converted}
        digest = save_weights(out, state, meta)
    else:
        prefix = source.prefix if isinstance(config, SongConfig) else ""
        digest = _save_reference(out, {f"{prefix}{name}": tensor for name, tensor in state.items()})
    print(f"{out}: weights {digest}")


def read_source(path: Path) -> Source:
    """Open a file of either kind, told apart by how it begins."""
    try:
        with open(path, "rb") as stream:
            beginning = stream.read(9)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    if beginning[8:] == b"{":  # after the length of a safetensors header
        return Source(load_weights(path), "safetensors", lambda: None, meta=read_meta(path))
    released = read_released(path)
    if released.prefix:
        print(f"{path}: every name began with '{released.prefix}', which is left out")
    return replace(released, layout=f"torch.save, {released.layout}")


def _inner(source: Source, origin: str) -> Source:
    """The U-Net of a preconditioned network; a file that was one before goes back as one."""
    if all(name.startswith(PRECONDITIONED) for name in source.state):
        print(f"{origin}: every name began with '{PRECONDITIONED}', which is left out")
        state = {name.removeprefix(PRECONDITIONED): tensor for name, tensor in source.state.items()}
        return replace(source, state=state, prefix=PRECONDITIONED)
    before = source.meta.get("converted")
    once = isinstance(before, dict) and before.get("prefix") == PRECONDITIONED
    return replace(source, prefix=PRECONDITIONED if once else "")


def configuration(path: Path, meta: Mapping[str, Any], model: str | None = None) -> ModelConfig | SongConfig:
    asked = named(model) if model is not None else None
    written = parse_model(meta["model"], f"{path}: model") if "model" in meta else None
    if asked is None and written is None:
        raise StudyError(
            f"{path} does not say which network its weights are of; add --model with a preset "
            f"({', '.join(PRESETS)}) or the recipe.json of a trained stage"
        )
    if asked and written and asked != written:
        print(f"note: {path} says that it is of another configuration than {model}, which is used instead")
    return asked or written


def fitting_state(source: Source, config: ModelConfig | SongConfig, origin: str) -> dict[str, Tensor]:
    """The weights in the network's order, as float32; an error that lists every difference if they do not fit."""
    wanted = _skeleton(config)
    widened = [name for name, tensor in source.state.items() if tensor.dtype in WIDENED]
    outlines = {
        name: torch.empty(tensor.shape, dtype=torch.float32 if name in widened else tensor.dtype, device="meta")
        for name, tensor in source.state.items()
    }
    try:
        require_same(wanted, outlines, f"the weights in {origin}")
    except ArtifactError as error:
        raise ArtifactError("\n".join([str(error), *_hints(outlines, config)])) from None
    if isinstance(config, SongConfig):
        _require_filters(source.state, config, origin)
    if widened:
        print(f"{origin}: {len(widened)} half-precision tensors are widened to float32, which changes no value")
    return {name: source.state[name].float() for name in wanted}


def _require_filters(state: Mapping[str, Tensor], config: SongConfig, origin: str) -> None:
    """Filters stand in the file, but the network computes with those of its configuration."""
    own = filter_of(config.filter)
    for name, tensor in state.items():
        if name.endswith("resample_filter") and not torch.allclose(tensor.float(), own, rtol=1e-6, atol=0):
            raise ArtifactError(
                f"{origin}: {name} is {tensor.flatten().tolist()}, but the filter {list(config.filter)} of the "
                f"configuration is {own.flatten().tolist()}; nothing was converted"
            )


def _skeleton(config: ModelConfig | SongConfig) -> dict[str, Tensor]:
    """Names and shapes of a network, without its gigabytes."""
    with torch.device("meta"):
        return build(config).state_dict()


def _hints(state: Mapping[str, Tensor], config: ModelConfig | SongConfig) -> list[str]:
    hints = []
    width = _text_width(state)
    if width and config.text_channels and width != config.text_channels:
        hints.append(
            f"these weights read text features of width {width}, the configuration says text_channels: "
            f"{config.text_channels} (FLAN-T5 XL has 2048); give --model a model.json with text_channels: {width}"
        )
    shapes = {name: tensor.shape for name, tensor in state.items()}
    for name, preset in PRESETS.items():
        if {key: tensor.shape for key, tensor in _skeleton(preset()).items()} == shapes:
            hints.append(f"they fit --model {name}")
    return hints


def _text_width(state: Mapping[str, Tensor]) -> int | None:
    """Width of the text encoder's features that the weights were made for; None where there is no text."""
    readers = [name for ending in ("lm_proj.weight", ".kv_cond.weight") for name in state if name.endswith(ending)]
    return state[readers[0]].shape[1] if readers and state[readers[0]].ndim == 2 else None


def _save_reference(out: Path, state: Mapping[str, Tensor]) -> str:
    """Write what the reference's loader reads, plain tensors under `state_dict`; return their hash."""
    tensors = OrderedDict((name, _alone(tensor)) for name, tensor in state.items())
    with replacing(out) as stream:
        try:
            torch.save({"state_dict": tensors}, stream)
        except RuntimeError as error:  # closing its archive fails too, and hides what the disk said
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    if ours := [name for name in state if name.endswith("class_emb.weight")]:
        print(f"{out}: the reference has no classes; its loader will leave out {', '.join(ours)}")
    return state_hash(state)


def _alone(tensor: Tensor) -> Tensor:
    """The tensor in a storage of its own: torch.save writes storages, with all that is in them."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
