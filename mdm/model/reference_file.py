"""The reference's `vis_model*.pth` as a state dict: tensors are rebuilt, everything else in the file is left alone.

A tensor is a view of the mapped file: names and shapes are checked before weights (docs/reference.md, section 15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.files.atomic import ArtifactError, printable
from mdm.model.pickle_as_data import Made, Named, Outside
from mdm.model.torch_file import Region, TorchFile, open_torch_file, storage_id

PARALLEL = "module."  # torch's DistributedDataParallel puts this before every name
DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16}
REBUILDERS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETER = "torch._utils._rebuild_parameter"
MOST_VALUES, MOST_DIMENSIONS = 2**40, 8  # beyond any weight: numbers in a file must not overflow anything


@dataclass(frozen=True)
class Reference:
    """A state dict whose tensors lie in the file, and how it was found there."""

    file: TorchFile
    state: dict[str, Tensor]
    prefix: str = ""


def read_reference(path: Path) -> Reference:
    """The item `state_dict` of a file of torch.save, or the whole of it if that is a state dict."""
    file = open_torch_file(path)
    entries = _state_entries(file)
    tensors = _Tensors(file)
    state = {name: tensors.build(name, value) for name, value in entries.items()}
    prefix = PARALLEL if all(name.startswith(PARALLEL) for name in state) else ""
    return Reference(file, {name.removeprefix(prefix): tensor for name, tensor in state.items()}, prefix)


def _state_entries(file: TorchFile) -> dict[str, Any]:
    top = _mapping(file.value)
    if top is None:
        raise ArtifactError(f"{file.path} holds {_described(file.value)}, not a dict with a state_dict")
    inside = top.get("state_dict", top)
    entries = _mapping(inside)
    if entries is None:
        raise ArtifactError(f"{file.path}: its state_dict is {_described(inside)}, not a dict of tensors")
    if inside is top and not any(_is_tensor(value) for value in top.values()):
        found = ", ".join(_shown(key) for key in list(top)[:20]) or "nothing"
        raise ArtifactError(f"{file.path} has no item state_dict and is none itself; it holds {found}")
    if not entries:
        raise ArtifactError(f"{file.path}: its state_dict is empty")
    return entries


def _mapping(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Made) and value.maker == "collections.OrderedDict" and not value.arguments:
        return value.items
    return value if isinstance(value, dict) else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Made) and value.maker in (*REBUILDERS, PARAMETER)


def _described(value: Any) -> str:
    """What stands where something else was expected, in words."""
    if isinstance(value, Made):
        return f"what {_shown(value.maker)} would make (it was not run)"
    if isinstance(value, Named):
        return f"{_shown(value)} (it was not imported)"
    return "something outside the pickle" if isinstance(value, Outside) else f"of type {type(value).__name__}"


def _shown(word: Any) -> str:
    """A word of the file, in words of ours if it is none: to write out what it holds could take for ever."""
    return printable(str(word)) if isinstance(word, str | int | float | Named) else _described(word)


class _Tensors:
    """Rebuilds the tensors of one file as views of it."""

    def __init__(self, file: TorchFile) -> None:
        self._file = file
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def build(self, name: Any, value: Any) -> Tensor:
        """The tensor that an entry of the state dict describes."""
        if not (isinstance(name, str) and name.isprintable()):
            raise ArtifactError(
                f"{self._file.path}: state_dict[{_shown(name)}]: a name must be a string without control characters"
            )
        where = f"{self._file.path}: state_dict[{name!r}]"
        if isinstance(value, Made) and value.maker == PARAMETER and value.arguments:
            value = value.arguments[0]
        if not (isinstance(value, Made) and value.maker in REBUILDERS):
            raise ArtifactError(f"{where} is {_described(value)}, not a tensor; nothing was converted")
        try:
            return self._view(*_description(value.arguments))
        except ValueError as error:
            raise ArtifactError(f"{where}: {error}") from None

    def _view(self, outside: Outside, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        identity = storage_id(outside)
        if identity is None:
            raise ValueError("it refers to something outside that is no storage known here")
        if identity.kind not in DTYPES:
            raise ValueError(f"its type is {printable(identity.kind)}; weights must be float32, float16 or bfloat16")
        if 0 in shape or math.prod(shape) > MOST_VALUES:
            raise ValueError(f"no weight has the shape {shape}")
        if offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) >= identity.items:
            raise ValueError(f"shape {shape} with strides {stride} from {offset} leaves its {identity.items} items")
        return self._storage(identity.key, DTYPES[identity.kind], identity.items).as_strided(shape, stride, offset)

    def _storage(self, key: str, dtype: torch.dtype, items: int) -> Tensor:
        region, data = self._file.storages[key], self._file.data
        if items * dtype.itemsize > region.size:
            needed = f"{items} items of {dtype} need more"
            raise ValueError(f"its storage {printable(key)} has {region.size} bytes, {needed}")
        if (key, dtype) not in self._storages:
            self._storages[key, dtype] = _mapped(data, region, dtype)
        return self._storages[key, dtype]


def _mapped(data: Any, region: Region, dtype: torch.dtype) -> Tensor:
    """All items of a storage, [n], without a copy where they lie at a multiple of their size."""
    count = region.size // dtype.itemsize
    if region.start % dtype.itemsize == 0:
        return torch.frombuffer(data, dtype=dtype, count=count, offset=region.start)
    return torch.frombuffer(bytearray(data[region.start : region.start + region.size]), dtype=dtype, count=count)


def _description(arguments: tuple[Any, ...]) -> tuple[Outside, int, tuple[int, ...], tuple[int, ...]]:
    """Storage, offset, shape and strides, checked to be of that kind."""
    match arguments:
        # The rest are gradients and hooks, of which weights have none, then marks such as "negated".
        case (Outside() as outside, int(offset), tuple(shape), tuple(stride), *rest) if not any(rest[2:]):
            numbers = (offset, *shape, *stride)
            sane = all(type(number) is int and 0 <= number <= MOST_VALUES for number in numbers)
            if sane and len(shape) == len(stride) <= MOST_DIMENSIONS:
                return outside, offset, shape, stride
    raise ValueError("its description is not that of a plain tensor")
