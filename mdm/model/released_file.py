"""The reference's `vis_model*.pth` as a state dict of tensors that lie in the file; nothing that it names is run.

`torch.load(weights_only=True)` makes the tensors, and gets a stand-in for every class and function it does not know. It
would still obey a file that fills the memory or never ends: `_names` reads each pickle first and refuses such ones.
"""

import io
import math
import pickle
import pickletools
import re
import struct
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # torch.load translates the names of Python 2 like this
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import torch
from torch import Tensor, UntypedStorage

from mdm.files.atomic import ArtifactError, printable

PARALLEL = "module."  # torch's DistributedDataParallel puts this before every name
WEIGHTS = (torch.float32, torch.float16, torch.bfloat16)
MOST_VALUES, MOST_DIMENSIONS = 2**40, 8  # beyond any weight
# Of one pickle: instructions, names that torch.load may not run, parts of a tuple (hashed whole where it is a key), and
# whole numbers beyond 32 bits (many of them can share one hash). A network of 1,500 tensors: 45,000, ten, 20 and none.
MOST_STEPS, MOST_NAMES, MOST_PARTS, MOST_WIDE = 10**6, 200, 2000, 10_000
# What torch.load may run. It would also run bytearray(10**12), and make tensors whose indices it takes on trust.
KNOWN = {
    "collections.OrderedDict", "builtins.set", "builtins.complex", "_codecs.encode", "torch.Size", "torch.device",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    *(f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype) or "Storage" in name),
}  # fmt: skip
# What it would run, or not take even as a stand-in, where it is not KNOWN: whole packages and single names.
REFUSED = {"torch", "os", "posix", "nt", "sys", "builtins.bytearray", "collections.Counter"}
# How files from before PyTorch 1.6 begin: the first two of five pickles, behind which the storages lie.
OLD = {b"".join(pickle.dumps(number, protocol) for number in (0x1950A86A20F9469CFC6C, 1001)) for protocol in (2, 3)}


# EDM's and DiffMemorize's network-snapshot-*.pkl are such files.
BARE = (
    "it is a bare pickle, which carries code that would have to be run, as the network-snapshot-*.pkl of EDM do; where "
    'you trust it, in the folder of the code that made it, run: python -c "import pickle, torch; net = '
    "pickle.load(open('IN.pkl', 'rb'))['ema']; torch.save({'state_dict': net.state_dict()}, 'OUT.pth')\" and convert "
    "OUT.pth"
)


class StandIn:
    """Stands for a class or function that a file names: takes what that would take, keeps nothing, does nothing."""

    def __new__(cls, *_: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _Refused(Exception):
    """The file asks for what no file of weights needs."""


@dataclass(frozen=True)
class Source:
    """Weights as a file has them, what it says of itself, and a proof of its bytes (read once they are wanted)."""

    state: dict[str, Tensor]
    layout: str
    verify: Callable[[], None]
    prefix: str = ""  # that stood before every name
    meta: dict[str, Any] = field(default_factory=dict)


def read_released(path: Path) -> Source:
    """The item `state_dict` of a file of torch.save, or the whole of it if that is a state dict."""
    layout, value = _load(path)
    state = {name: _weight(path, name, tensor) for name, tensor in _entries(path, value).items()}
    prefix = PARALLEL if all(name.startswith(PARALLEL) for name in state) else ""
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return Source(state, layout, lambda: _verify(path) if layout == "zip" else None, prefix)


def _load(path: Path) -> tuple[str, Any]:
    """How the file is laid out, and its value, with a stand-in for all that is neither tensor nor plain data."""
    try:
        with open(path, "rb") as stream:
            is_zip = stream.read(4) == b"PK\3\4"
            if path.suffix == ".safetensors":  # torch.load believes names
                raise _Refused("it is a file of torch.save, whatever its name says; rename it to end with .pth")
            pickles = [_zipped_pickle(path)] if is_zip else _old_pickles(stream)
            names = set().union(*map(_names, pickles))
        stand_ins = [type(name, (StandIn,), {"__module__": module}) for module, name in names]
        with torch.serialization.safe_globals(stand_ins):
            place = "cpu" if is_zip else _cleared(path.stat().st_size)
            value = torch.load(path, weights_only=True, mmap=is_zip, map_location=place)
        return "zip" if is_zip else "legacy", value
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except ArtifactError:
        raise
    except (_Refused, pickle.UnpicklingError) as error:
        raise ArtifactError(f"{path} was not read, and nothing in it was run: {_said(error)}") from None
    except Exception as error:  # damaged bytes end in errors of all kinds
        said = f"{type(error).__name__}: {_said(error)}; if it is a download, get it again"
        raise ArtifactError(f"{path} is not a complete file of torch.save: {said}") from None


def _said(error: Exception) -> str:
    """The first line of an error, without torch.load's own, which recommend that the file be run."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    return printable(said.partition(". Please use")[0].partition(". Re-running")[0], 500)


def _zipped_pickle(path: Path) -> BinaryIO:
    """The pickle of an archive that unpacks to no more than it is, as torch.load will find it."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len({member.filename.partition("/")[2] for member in members}) < len(members):
        raise ValueError("the archive has two members of one name, of which readers may take either")
    for member in members:
        if member.compress_type or member.file_size != member.compress_size or member.flag_bits & 1:
            raise ValueError(f"{printable(member.filename)} is compressed or encrypted, which torch.save never does")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members overlap")
    _verify(path, "data.pkl")
    return io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))


def _old_pickles(stream: BinaryIO) -> list[BinaryIO]:
    """The other three pickles of an old file, all in one stream: its machine, its value, the keys of its storages."""
    stream.seek(0)
    if _is_bare_pickle(stream):
        raise _Refused(BARE)
    stream.seek(0)
    if stream.read(len(next(iter(OLD)))) not in OLD:
        raise ValueError("it does not begin as such files do")
    return [stream] * 3


def _is_bare_pickle(stream: BinaryIO) -> bool:
    """Whether a file is one pickle of a dict, and not the several that torch.save wrote of old, a number first."""
    return bool(re.match(rb"\x80([\2\3]|[\4\5]\x95.{8})}", stream.read(12), re.DOTALL))


class _Item(NamedTuple):
    """What is known of an item in a pickle: the instruction that makes it, its parts, its text or its last part's."""

    by: str
    parts: int = 1
    text: str = ""


def _names(stream: BinaryIO) -> set[tuple[str, str]]:
    """The module and name of all in a pickle that torch.load may not run; an error if the pickle is a trap."""
    stack: list[_Item] = []
    below: list[list[_Item]] = []  # one stack per open mark
    memo: dict[int, _Item] = {}
    names: set[tuple[str, str]] = set()
    wide = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name, needed = instruction.name, len(instruction.stack_before)
        wide += name == "LONG1"
        if count > MOST_STEPS or wide > MOST_WIDE or len(names) > MOST_NAMES:
            raise _Refused("its pickle is longer than that of any network")
        if pickletools.stackslice in instruction.stack_before:
            taken, stack = stack, below.pop()
        else:
            taken = stack[len(stack) - needed :]
            del stack[len(stack) - needed :]
        if name == "GLOBAL":
            argument = _judged(argument, names)
        if name == "MARK":
            below.append(stack)
            stack = []
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in ("APPENDS", "SETITEMS"):  # these leave the list or dict below the mark as it is
            stack += [_made(name, argument, taken)] * len(instruction.stack_after)
    return names


def _judged(argument: str, names: set[tuple[str, str]]) -> str:
    """The full name of a class or function; it joins `names` unless torch.load may run it."""
    written, _, name = argument.partition(" ")
    module, now = NAME_MAPPING.get((written, name), (IMPORT_MAPPING.get(written, written), name))
    full = f"{module}.{now}"
    if full not in KNOWN:
        if not REFUSED.isdisjoint((module.partition(".")[0], full)):
            raise _Refused(f"it names {printable(full)}, which no file of weights needs")
        names |= {(written, name), (module, now)}  # torch.load translates some of them only
    return full


def _made(name: str, argument: Any, taken: list[_Item]) -> _Item:
    if name == "PROTO" and argument not in (2, 3):
        raise _Refused(f"it has pickle protocol {argument}; save it by torch.save without `pickle_protocol`")
    text = argument if isinstance(argument, str) else ""
    parts = 1 + len(text) // 10**5
    if name in ("REDUCE", "NEWOBJ"):
        if taken[0].by != "GLOBAL":
            raise _Refused("it calls what is no class or function")  # torch.load would write out what it is
        if taken[0].text == "_codecs.encode":
            parts = taken[1].parts
            if (taken[1].by, taken[1].text) != ("TUPLE2", "latin1"):
                raise _Refused("it encodes more than bytes")  # as hexadecimal, say, again and again
    elif name.startswith("TUPLE"):
        parts, text = 1 + sum(item.parts for item in taken), taken[-1].text
        if parts > MOST_PARTS:
            raise _Refused(f"it has a tuple of more than {MOST_PARTS} parts, which could take for ever as a key")
    return _Item(name, parts, text)


def _cleared(room: int) -> Callable[[UntypedStorage, str], UntypedStorage]:
    """Zeros for the storages of an old file: one that it forgets to fill would show what this process holds."""

    def clear(storage: UntypedStorage, _: str) -> UntypedStorage:
        nonlocal room
        room -= storage.nbytes()
        if room < 0:
            raise ValueError("its storages are larger than the file")
        return storage.fill_(0)

    return clear


def _entries(path: Path, value: Any) -> dict[Any, Any]:
    top = _items(value)
    if top is None:
        raise ArtifactError(f"{path} holds {_described(value)}, not a dict with a state_dict")
    inside = top.get("state_dict", value)
    entries = _items(inside)
    if entries is None:
        raise ArtifactError(f"{path}: its state_dict is {_described(inside)}, not a dict of tensors")
    if inside is value and not any(isinstance(tensor, Tensor) for tensor in top.values()):
        found = ", ".join(_shown(key) for key in list(top)[:20]) or "nothing"
        raise ArtifactError(f"{path} has no item state_dict and is none itself; it holds {found}")
    if not entries:
        raise ArtifactError(f"{path}: its state_dict is empty")
    return entries


def _items(value: Any) -> dict[Any, Any] | None:
    # Not by its own `items`: a file may give an OrderedDict attributes of that name.
    return dict(dict.items(value)) if type(value) in (dict, OrderedDict) else None


def _weight(path: Path, name: Any, value: Any) -> Tensor:
    """An entry of the state dict, proved to be a plain tensor with a plain name."""
    if not (isinstance(name, str) and name.isprintable()):
        raise ArtifactError(f"{path}: state_dict[{_shown(name)}]: a name must be a string without control characters")
    where = f"{path}: state_dict[{printable(name)!r}]"
    if not isinstance(value, Tensor):
        raise ArtifactError(f"{where} is {_described(value)}, not a tensor; nothing was converted")
    if value.dtype not in WEIGHTS:
        raise ArtifactError(f"{where}: its type is {value.dtype}; weights must be float32, float16 or bfloat16")
    if not 0 < math.prod(value.shape) <= MOST_VALUES or value.ndim > MOST_DIMENSIONS:
        raise ArtifactError(f"{where}: no weight has the shape {tuple(value.shape)}")
    return value.detach().resolve_neg()  # without hooks and marks


def _described(value: Any) -> str:
    """What stands where something else was expected, in words."""
    if isinstance(value, StandIn):
        return f"what {_shown(type(value))} would make (it was not run)"
    if isinstance(value, type) and issubclass(value, StandIn):
        return f"{_shown(value)} (it was not imported)"
    return f"of type {type(value).__name__}"


def _shown(word: Any) -> str:
    """A word of the file, in words of ours if it is none: to write out what it holds could take for ever."""
    if isinstance(word, type):
        return printable(f"{word.__module__}.{word.__qualname__}")
    return printable(str(word)) if isinstance(word, str | int | float) else _described(word)


def _verify(path: Path, ending: str = "") -> None:
    """Compare the members of an archive with their checksums, which torch.load does not do."""
    with zipfile.ZipFile(path) as archive:
        # torch.save can be told to leave checksums out, and then writes zeros.
        for member in (member for member in archive.infolist() if member.CRC and member.filename.endswith(ending)):
            try:
                with archive.open(member) as stream:
                    while stream.read(2**20):
                        pass
            except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error):
                name = printable(member.filename)
                raise ArtifactError(f"{path} is damaged: {name} does not have its checksum; get it again") from None
