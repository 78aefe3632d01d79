"""A pickle read as plain data: nothing that the file names is imported, and nothing in it is called.

Python's own unpickler is a machine that calls what a file tells it to. This one has the same instructions, but where
a file names a class or asks for a call, it writes that down (`Named`, `Made`) and goes on.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO


class PickleError(ValueError):
    """These bytes are not a complete pickle."""


@dataclass(frozen=True, eq=False, slots=True)
class Named:
    """A class or function that the file names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Made:
    """What the file asks to be made: by which class or function, from which arguments, with which items set."""

    by: Any
    arguments: tuple[Any, ...] = ()
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def maker(self) -> str:
        """The name of that class or function, which a file may also ask to be made."""
        return str(self.by) if isinstance(self.by, Named) else "the result of another call"


@dataclass(frozen=True, eq=False, slots=True)
class Outside:
    """A reference to something that is stored beside the pickle."""

    identity: Any


@dataclass(frozen=True)
class Pickle:
    """The value of a pickle, and everything outside it that it refers to."""

    value: Any
    references: tuple[Outside, ...]


def read_pickle(stream: BinaryIO) -> Pickle:
    """Read one pickle from where the stream stands; the stream then stands right behind it."""
    machine = _Machine()
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            machine.step(instruction.name, argument)
        (value,) = machine.stack
    # Damaged bytes ask for items, marks and memos that are not there, or for nonsense; each is one of these.
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise PickleError(f"it is not a complete pickle ({error or type(error).__name__})") from None
    return Pickle(value, tuple(machine.references))


class _Machine:
    """Stack, marks and memo of the pickle language."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.references: list[Outside] = []
        self._below: list[list[Any]] = []  # one stack per open mark
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _GETS:
            self.stack.append(self._memo[argument])
        elif name in _PUTS:
            self._put(len(self._memo) if argument is None else argument)
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name not in _IGNORED:
            _INSTRUCTIONS[name](self, argument)  # a KeyError is an instruction for data outside the pickle

    def _put(self, slot: int) -> None:
        if not 0 <= slot <= _LAST_SLOT:
            raise ValueError("a slot of its memo is out of range")
        self._memo[slot] = self.stack[-1]

    def _pop(self, count: int) -> list[Any]:
        """The top `count` items, lowest first."""
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def mark(self, _: None) -> None:
        self._below.append(self.stack)
        self.stack = []

    def discard(self, _: None) -> None:
        self._pop(1) if self.stack else self._since_mark()

    def discard_mark(self, _: None) -> None:
        self._since_mark()

    def duplicate(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def close_tuple(self, _: None) -> None:
        closed = tuple(self._since_mark())
        self.stack.append(closed)

    def close_list(self, _: None) -> None:
        closed = self._since_mark()
        self.stack.append(closed)

    def append(self, _: None) -> None:
        self._extend(self._pop(1))

    def appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
        elif not isinstance(self.stack[-1], Made):  # what is appended to a made thing is of no use here
            raise ValueError("it appends to something that is not a list")

    def close_dict(self, _: None) -> None:
        closed = _items(self._since_mark())
        self.stack.append(closed)

    def set_item(self, _: None) -> None:
        self._set(self._pop(2))

    def set_items(self, _: None) -> None:
        self._set(self._since_mark())

    def _set(self, flat: list[Any]) -> None:
        owner = self.stack[-1].items if isinstance(self.stack[-1], Made) else self.stack[-1]
        if not isinstance(owner, dict):
            raise ValueError("it sets an item of something that is not a dict")
        owner.update(_items(flat))

    def frozen_set(self, _: None) -> None:
        self._since_mark()
        self.stack.append(_set())

    def name(self, argument: str) -> None:
        self.stack.append(_named(argument))

    def name_on_stack(self, _: None) -> None:
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("the name of a class is not text")
        self.stack.append(Named(module, name))

    def extension(self, code: int) -> None:
        self.stack.append(Named("copyreg", f"extension {code}"))

    def make(self, _: None) -> None:
        by, arguments = self._pop(2)
        self.stack.append(Made(by, arguments if isinstance(arguments, tuple) else (arguments,)))

    def make_with_keywords(self, _: None) -> None:
        by, arguments, _keywords = self._pop(3)
        if not isinstance(arguments, tuple):
            raise ValueError("the arguments of a call are not a tuple")
        self.stack.append(Made(by, arguments))

    def make_from_mark(self, argument: str | None) -> None:
        values = self._since_mark()
        by = _named(argument) if argument else values.pop(0)
        self.stack.append(Made(by, tuple(values)))

    def ignore_state(self, _: None) -> None:
        self._pop(1)

    def refer(self, argument: str | None) -> None:
        self.references.append(Outside(self._pop(1)[0] if argument is None else argument))
        self.stack.append(self.references[-1])


def _named(pair: str) -> Named:
    module, _, name = pair.partition(" ")
    return Named(module, name)


def _items(flat: list[Any]) -> dict[Any, Any]:
    """Key, value, key, value, ... as a dict. Keys that could take for ever to hash or to find become opaque."""
    return {
        key if _is_cheap(key) else Made(Named("builtins", type(key).__name__)): value
        for key, value in zip(flat[::2], flat[1::2], strict=True)
    }


def _is_cheap(key: Any) -> bool:
    """Nested keys are hashed whole; integers share one hash if they differ by multiples of 2**61 - 1."""
    return abs(key) < 2**60 if isinstance(key, int) else isinstance(key, _PLAIN)


def _set() -> Made:
    """A set; its members are of no use here and could take for ever to hash."""
    return Made(Named("builtins", "set"))


_LAST_SLOT = 2**32 - 1  # what four bytes hold: larger numbers of one hash would be searched one by one
_PLAIN = (str, float, bytes, type(None), Named, Made, Outside)  # the last three are hashed by identity
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
))  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": _set,
}  # fmt: skip
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset(("PROTO", "FRAME", "STOP"))
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark, "POP": _Machine.discard, "POP_MARK": _Machine.discard_mark, "DUP": _Machine.duplicate,
    "TUPLE": _Machine.close_tuple, "LIST": _Machine.close_list, "APPEND": _Machine.append, "APPENDS": _Machine.appends,
    "DICT": _Machine.close_dict, "SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.discard_mark, "FROZENSET": _Machine.frozen_set,
    "GLOBAL": _Machine.name, "STACK_GLOBAL": _Machine.name_on_stack,
    "EXT1": _Machine.extension, "EXT2": _Machine.extension, "EXT4": _Machine.extension,
    "REDUCE": _Machine.make, "NEWOBJ": _Machine.make, "NEWOBJ_EX": _Machine.make_with_keywords,
    "INST": _Machine.make_from_mark, "OBJ": _Machine.make_from_mark, "BUILD": _Machine.ignore_state,
    "PERSID": _Machine.refer, "BINPERSID": _Machine.refer,
}  # fmt: skip
