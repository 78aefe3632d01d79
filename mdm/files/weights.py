"""Weights on disk: safetensors files with a JSON note and the hash of the weights in their header."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mdm.files.atomic import ArtifactError, replacing

TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes, in the order of the names."""
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
    """Encode the safetensors header: its length, then JSON with the type, shape and offsets of every tensor."""
    header: dict[str, Any] = {"__metadata__": notes}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: Tensor) -> np.ndarray:
    """View a contiguous tensor as its bytes, uint8 [n], without a copy."""
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
    """Return the JSON note that was saved with the weights."""
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
        wrong = f"is not a complete safetensors file ({error})"
        raise ArtifactError(f"{path} {wrong}; delete it and make it again") from None
