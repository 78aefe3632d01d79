"""Tensors and nodes of an ONNX file, read as data: the few fields that weights need, without the onnx package.

A protobuf message is a row of fields, each a number and a kind (a whole number, or bytes that may be a message).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdm.files.atomic import ArtifactError

# Field numbers of onnx.proto.
GRAPH, NODE, INITIALIZER = 7, 1, 5
NODE_INPUT, NODE_NAME, NODE_KIND = 1, 3, 4
DIMS, DATA_TYPE, FLOATS, WHOLE_NUMBERS, TENSOR_NAME, RAW_DATA = 1, 2, 4, 5, 8, 9
DATA_TYPES = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1")}
WIDTHS = {1: 8, 5: 4}  # of fixed-width fields


@dataclass(frozen=True)
class Node:
    """One operation of the graph, and the names of what it reads."""

    name: str
    kind: str
    inputs: tuple[str, ...]


def read_onnx(path: Path) -> tuple[dict[str, np.ndarray], list[Node]]:
    """The stored tensors by name, and the operations in their order."""
    content = memoryview(path.read_bytes())
    try:
        graph = next(value for number, value in _fields(content) if number == GRAPH)
        parts = list(_fields(graph))
        tensors = dict(_tensor(value) for number, value in parts if number == INITIALIZER)
        return tensors, [_node(value) for number, value in parts if number == NODE]
    except (StopIteration, IndexError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not an ONNX file of plain weights ({error!r}); fetch it again") from None


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(message):
        tag, place = _whole_number(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _whole_number(message, place)
            yield number, value
            continue
        size, place = _whole_number(message, place) if kind == 2 else (WIDTHS[kind], place)
        if place + size > len(message):
            raise ValueError(f"a field of {size} bytes ends behind the file")
        yield number, message[place : place + size]
        place += size


def _whole_number(message: memoryview, place: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    found: dict[int, list[int | memoryview]] = {}
    for number, value in _fields(message):
        found.setdefault(number, []).append(value)
    dtype = DATA_TYPES[found[DATA_TYPE][0]]
    if WHOLE_NUMBERS in found:  # small ones are written as a list of numbers
        values = np.array(_numbers(found[WHOLE_NUMBERS]), dtype=np.uint64).astype(dtype)
    else:
        values = np.frombuffer(b"".join(found.get(RAW_DATA) or found[FLOATS]), dtype)
    return bytes(found[TENSOR_NAME][0]).decode(), values.reshape(_numbers(found.get(DIMS, [])))


def _numbers(values: list[int | memoryview]) -> list[int]:
    """A repeated whole number: one after the other, or packed into bytes."""
    return [number for value in values for number in ([value] if isinstance(value, int) else _packed(value))]


def _packed(message: memoryview) -> Iterator[int]:
    place = 0
    while place < len(message):
        value, place = _whole_number(message, place)
        yield value


def _node(message: memoryview) -> Node:
    texts: dict[int, list[str]] = {NODE_INPUT: [], NODE_NAME: [""], NODE_KIND: [""]}
    for number, value in _fields(message):
        if number in texts:
            texts[number].append(bytes(value).decode())
    return Node(texts[NODE_NAME][-1], texts[NODE_KIND][-1], tuple(texts[NODE_INPUT]))
