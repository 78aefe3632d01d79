"""One shard of embedded captions: a safetensors file, written in one pass and read where it lies on disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mdm.manifest import ArtifactError, replacing

if TYPE_CHECKING:
    from mdm.text.encoder import Encoder

BATCH = 256
HEADER_BYTES = 1024  # the header stands first and is known last
HALVES = {torch.float16: "F16", torch.bfloat16: "BF16"}
ARRAYS = {"I64": np.dtype("<i8"), "U64": np.dtype("<u8"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}


def write_shard(path: Path, captions: Sequence[str], encoder: Encoder) -> tuple[int, int]:
    """Encode the captions in this order, packed without padding; returns all tokens and the longest caption's."""
    lengths: list[Tensor] = []
    with replacing(path) as stream:
        stream.write(bytes(8 + HEADER_BYTES))
        for start in range(0, len(captions), BATCH):
            features, mask = encoder.encode(captions[start : start + BATCH])
            lengths.append(mask.sum(dim=1).long().cpu())
            stream.write(_halved(features[mask.bool()], encoder.stored).view(torch.uint8).numpy())
        tokens = torch.cat(lengths).numpy()
        texts = [caption.encode() for caption in captions]
        rest = {
            "offsets": _ends(tokens),
            "text_offsets": _ends(np.array([len(text) for text in texts])),
            "texts": np.frombuffer(b"".join(texts), np.uint8),
        }
        for array in rest.values():
            stream.write(array.tobytes())
        total = int(tokens.sum())
        stream.seek(0)
        stream.write(_header({"features": (HALVES[encoder.stored], 2, (total, encoder.channels))}, rest))
    return total, int(tokens.max())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays of whole numbers as a safetensors file."""
    with replacing(path) as stream:
        stream.write(_header({}, arrays))
        for array in arrays.values():
            stream.write(array.tobytes())


def _halved(features: Tensor, stored: torch.dtype) -> Tensor:
    half = features.to(stored).cpu()
    if not half.isfinite().all():
        raise ArtifactError(
            f"the encoder's features reach {float(features.abs().max()):.3g}, which {stored} cannot hold; "
            "write stored: bfloat16 in the encoder's settings"
        )
    return half


def _ends(lengths: np.ndarray) -> np.ndarray:
    """Where each part begins, and where the last one ends, int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")


def _header(first: dict[str, tuple[str, int, tuple[int, ...]]], rest: dict[str, np.ndarray]) -> bytes:
    """Names, types, shapes and places, padded to HEADER_BYTES."""
    names = {dtype: name for name, dtype in ARRAYS.items()}
    parts = first | {name: (names[array.dtype], array.itemsize, array.shape) for name, array in rest.items()}
    header, end = {}, 0
    for name, (kind, item, shape) in parts.items():
        start, end = end, end + item * int(np.prod(shape))
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    return struct.pack("<Q", HEADER_BYTES) + json.dumps(header).encode().ljust(HEADER_BYTES)


class Mapped:
    """The tensors of a safetensors file, mapped into memory: only what is looked at is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ArtifactError(f"{path} does not exist; run `python -m mdm embed` for this text artifact first")
        try:
            self._content = np.memmap(path, np.uint8, "r")
            self._start = 8 + int(self._content[:8].view("<u8")[0])
            self._header: dict[str, Any] = json.loads(self._content[8 : self._start].tobytes())
            ends = [entry["data_offsets"][1] for entry in self._header.values()]
        except (ValueError, TypeError, KeyError, AttributeError):  # empty, cut off, or of another kind
            raise ArtifactError(f"{path} is not a safetensors file; delete it and embed again") from None
        if self._start + max(ends) != len(self._content):
            raise ArtifactError(f"{path} was cut off; delete it and embed again")

    def array(self, name: str) -> np.ndarray:
        """A tensor as it lies in the file; halves as their bits, int16."""
        entry = self._header[name]
        start, end = (self._start + place for place in entry["data_offsets"])
        return self._content[start:end].view(ARRAYS.get(entry["dtype"], "<i2")).reshape(entry["shape"])

    def kind(self, name: str) -> torch.dtype:
        """Which halves a tensor of halves has."""
        return next(kind for kind, text in HALVES.items() if text == self._header[name]["dtype"])


class Shard:
    """Features and captions by row."""

    def __init__(self, path: Path) -> None:
        mapped = Mapped(path)
        self._features, self._kind = mapped.array("features"), mapped.kind("features")
        self._offsets, self._text_offsets = mapped.array("offsets"), mapped.array("text_offsets")
        self._texts = mapped.array("texts")
        self.channels: int = self._features.shape[1]

    def text(self, row: int) -> bytes:
        """The caption of a row."""
        return self._texts[self._text_offsets[row] : self._text_offsets[row + 1]].tobytes()

    def features(self, row: int) -> Tensor:
        """Features of a row, [tokens, D], as stored."""
        bits = np.array(self._features[self._offsets[row] : self._offsets[row + 1]])
        return torch.from_numpy(bits).view(self._kind)
