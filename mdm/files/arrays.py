"""Safetensors files of whole numbers and halves, written in one pass and read where they lie on disk. No torch."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from mdm.files.atomic import ArtifactError, replacing

HEADER_BYTES = 1024  # the header stands first and is known last
DTYPES = {"I64": np.dtype("<i8"), "U64": np.dtype("<u8"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as stream:
        stream.write(header({}, arrays))
        for array in arrays.values():
            stream.write(array.tobytes())


def header(first: dict[str, tuple[str, int, tuple[int, ...]]], rest: dict[str, np.ndarray]) -> bytes:
    """Return the header: names, types, shapes and offsets, padded to HEADER_BYTES."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    parts = first | {name: (names[array.dtype], array.itemsize, array.shape) for name, array in rest.items()}
    entries, end = {}, 0
    for name, (kind, item, shape) in parts.items():
        start, end = end, end + item * int(np.prod(shape))
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    return struct.pack("<Q", HEADER_BYTES) + json.dumps(entries).encode().ljust(HEADER_BYTES)


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
        """Return a tensor as it lies in the file; halves as their bits, int16."""
        entry = self._header[name]
        start, end = (self._start + place for place in entry["data_offsets"])
        return self._content[start:end].view(DTYPES.get(entry["dtype"], "<i2")).reshape(entry["shape"])

    def kind(self, name: str) -> str:
        """Return the type of a tensor's numbers as the file names it: F16, BF16, I64, ..."""
        return str(self._header[name]["dtype"])
