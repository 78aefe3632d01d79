"""Reading the reference's files: tensors exactly, nothing executed, damage and nonsense refused."""

from __future__ import annotations

import argparse
import collections
import copy
import io
import pickle
import pickletools
import random
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_pickles import Acts, attacks, classes_of_the_trainer

from mdm.files.atomic import ArtifactError
from mdm.model import released_file
from mdm.model.released_file import IMPORT_MAPPING, KNOWN, NAME_MAPPING, StandIn, read_released


@pytest.fixture(params=["zip", "legacy"])
def save(request, tmp_path):
    """torch.save in either layout; returns the path."""

    def write(value: Any, name: str = "vis_model.pth") -> Path:
        torch.save(value, tmp_path / name, _use_new_zipfile_serialization=request.param == "zip")
        return tmp_path / name

    write.layout = request.param
    return write


def some_tensors() -> dict[str, torch.Tensor]:
    long = torch.randn(10, generator=torch.Generator().manual_seed(0))
    return {
        "plain": torch.arange(6.0).view(2, 3), "turned": torch.arange(6.0).view(2, 3).t(), "scalar": torch.tensor(3.0),
        "half": torch.ones(3).half(), "brain": torch.ones(2, 2).bfloat16(), "parameter": torch.nn.Parameter(long + 1),
        "part": long[2:5], "overlapping": long[4:], "same": long, "spread": torch.ones(1).expand(1000, 1000, 1000),
        "image": torch.arange(96.0).view(2, 3, 4, 4).to(memory_format=torch.channels_last), "odd": torch.ones(7).half(),
    }  # fmt: skip


def assert_equal(read: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(saved)
    for name, tensor in saved.items():
        assert read[name].dtype == tensor.dtype and read[name].stride() == tensor.stride(), name
        assert read[name].shape == tensor.shape, name
        few = tuple(slice(0, 5) for _ in tensor.shape)  # "spread" has a thousand million values in four bytes
        assert torch.equal(read[name][few], tensor[few]), name


def test_tensors_are_read_as_they_were_saved(save) -> None:
    reference = read_released(save({"state_dict": collections.OrderedDict(some_tensors())}))
    assert_equal(reference.state, some_tensors())
    assert reference.layout == save.layout and reference.prefix == ""
    reference.verify()


def test_the_trainers_classes_need_not_exist(save) -> None:
    with classes_of_the_trainer() as (config, schedule):
        arguments = argparse.Namespace(model=config, schedule=schedule, folder=Path("/somewhere"), n=4)
        items = {"batch_num": 10, "loss": 0.5, "best_avg_loss": np.float64(0.25), "args": arguments, "set": {1, 2}}
        moments = {3: torch.zeros(3, dtype=torch.long), (1, (2, 3)): [None, True, 1j, b"x"]}
        path = save(items | {"state_dict": some_tensors(), "moments": moments})
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    assert_equal(read_released(path).state, read_released(save({"state_dict": some_tensors()}, "plain.pth")).state)


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_every_pickle_protocol(tmp_path, protocol: int, layout: str) -> None:
    """torch.save writes protocol 2 unless it is told otherwise; torch.load reads 2 and 3 as data."""
    state, path = collections.OrderedDict(some_tensors()), tmp_path / "a.pth"
    torch.save({"state_dict": state}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=layout == "zip")
    if protocol in (2, 3):
        assert_equal(read_released(path).state, state)
    else:
        with pytest.raises(ArtifactError, match=r"protocol [45]; save it by torch\.save|operand 73|not begin as such"):
            read_released(path)


def test_a_bare_state_dict_and_the_prefix_of_parallel_training(save) -> None:
    state = {"a.weight": torch.ones(2), "b": torch.zeros(1)}
    assert_equal(read_released(save(state)).state, state)
    parallel = read_released(save({f"module.{name}": tensor for name, tensor in state.items()}))
    assert parallel.prefix == "module."
    assert_equal(parallel.state, state)
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert_equal(read_released(save(mixed)).state, mixed)


@pytest.mark.parametrize("attack", attacks(Path()))
def test_hostile_files_do_nothing(save, tmp_path, attack: str) -> None:
    marker = tmp_path / "it-ran"
    hostile = attacks(marker)[attack]
    state = {"a": torch.ones(3)}
    path = save({"state_dict": state, "args": hostile, "more": [{"deep": (hostile,)}]})
    beside = save({"state_dict": {**state, "b": hostile}}, "beside.pth")
    if attack == "system":  # torch.load takes nothing of the module `os`, not even as a stand-in
        for refused in (path, beside):
            with pytest.raises(ArtifactError, match=r"nothing in it was run: it names posix\.system, which"):
                read_released(refused)
    else:
        assert_equal(read_released(path).state, state)
        expected = r"state_dict\['b'\] is what .* would make \(it was not run\), not a tensor"
        with pytest.raises(ArtifactError, match=expected):
            read_released(beside)
    for value in (hostile, {"state_dict": hostile}, {"state_dict": {hostile: torch.ones(1)}}):
        with pytest.raises(ArtifactError):
            read_released(save(value, "other.pth"))
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the attack must be a real one"


def test_nothing_is_imported(save, tmp_path, monkeypatch) -> None:
    """A file may name a module that is there, and that does something when it is imported."""
    marker, module = tmp_path / "it-ran", types.ModuleType("acts_on_import")
    module.Thing = type("Thing", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = save({"state_dict": {"a": torch.ones(1)}, "args": module.Thing()})
    monkeypatch.delitem(sys.modules, module.__name__)
    (tmp_path / "acts_on_import.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    read_released(path)
    assert module.__name__ not in sys.modules and not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the module must be one that acts"


def test_a_forged_tensor_does_nothing(save, tmp_path) -> None:
    """A call of torch's own function with arguments that are calls."""
    marker = tmp_path / "it-ran"
    forged = Acts(torch._utils._rebuild_tensor_v2, attacks(marker)["eval"], 0, (1,), (1,), False, {})
    with pytest.raises(ArtifactError, match="'eval' object has no attribute 'dtype'"):
        read_released(save({"state_dict": {"a": forged}}))
    other = Acts(torch._utils._rebuild_sparse_tensor, attacks(marker)["eval"])
    with pytest.raises(ArtifactError, match=r"nothing in it was run: it names .*_rebuild_sparse_tensor"):
        read_released(save({"state_dict": {"a": other}}))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"weights": {"a": torch.ones(1)}, "epoch": 3}, "no item state_dict and is none itself; it holds weights"),
        ({"state_dict": {}}, "empty"),
        ({"state_dict": [torch.ones(1)]}, "its state_dict is of type list"),
        ([1], "of type list, not a dict"),
        ({"state_dict": {"a": 1.0}}, r"state_dict\['a'\] is of type float, not a tensor"),
        ({"state_dict": {1: torch.ones(1)}}, r"state_dict\[1\]: a name must be a string"),
        ({"state_dict": {"a": torch.ones(1).double()}}, "float64; weights must be float32"),
        ({"state_dict": {"a": torch.ones(1).to_sparse()}}, "it names .*_rebuild_sparse_tensor, which no file of"),
        ({"state_dict": {"a": torch.ones(0, 3)}}, "no weight has the shape"),
        ({"state_dict": {"a": argparse.Namespace}}, "Namespace .it was not imported., not a"),
        ({"state_dict": {"a": torch.nn.Linear}}, "it names torch.nn.modules.linear.Linear, which no file of weights"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_is_said(save, value: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_released(save(value))


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 2), (3, 1)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2**50,), (0,)),
     (0, (2**30, 2**30), (0, 0)), (0, (1,) * 9, (1,) * 9), (0, (2,), (1, 1)), (0, (True,), (1,)), (2**70, (1,), (1,))],
)  # fmt: skip
def test_a_tensor_cannot_leave_its_storage(save, offset, shape, stride) -> None:
    class Described:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (torch.ones(4).storage(), offset, shape, stride, False, {})

    with pytest.raises(ArtifactError, match=r"not a complete file|state_dict\['a'\]: no weight has the shape"):
        read_released(save({"state_dict": {"a": Described()}}))


def test_files_that_end_early(save) -> None:
    content = save({"state_dict": some_tensors()}).read_bytes()
    path = save({"state_dict": some_tensors()})
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="not a complete file"):
            read_released(path)


def test_damage_never_becomes_another_error(save) -> None:
    """Flipped bytes are refused, or touch nothing but padding and the values of a file without checksums."""
    tensors = {name: tensor for name, tensor in some_tensors().items() if name != "spread"}
    path, chance = save({"state_dict": tensors, "args": argparse.Namespace(x=1)}), random.Random(0)
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            reference = read_released(path)
            reference.verify()
        except ArtifactError:
            continue
        for tensor in reference.state.values():
            tensor.float().sum()
        if save.layout == "zip":
            assert all(torch.equal(reference.state[name], tensor) for name, tensor in tensors.items())


def test_a_flipped_bit_of_a_weight_is_noticed(tmp_path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.full((1000,), 3.25)}}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(np.float32(3.25).tobytes(), np.float32(3.5).tobytes(), 1))
    reference = read_released(path)
    with pytest.raises(ArtifactError, match="is damaged: a/data/0 does not have its checksum"):
        reference.verify()


def test_a_flipped_bit_of_a_name_is_damage_and_no_attack(tmp_path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.ones(1000)}}, path)
    path.write_bytes(path.read_bytes().replace(b"FloatStorage", b"FlobtStorage", 1))
    with pytest.raises(ArtifactError, match=r"is damaged: a/data\.pkl does not have its checksum; get it again"):
        read_released(path)


def test_files_without_checksums_are_read(tmp_path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    reference = read_released(tmp_path / "a.pth")
    reference.verify()
    assert_equal(reference.state, {"a": torch.ones(2)})


def repacked(path: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with some members replaced, or left out (None)."""
    target = path.with_name("repacked.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = change.get(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("change", "compression", "message"),
    [
        ({}, zipfile.ZIP_DEFLATED, "compressed or encrypted, which torch.save never does"),
        ({"data/0": None}, zipfile.ZIP_STORED, "data/0: file not found"),
        ({"data/0": b"\0" * 8}, zipfile.ZIP_STORED, "resize storage that is not resizable"),
        ({"data.pkl": None}, zipfile.ZIP_STORED, "data.pkl: file not found"),
        ({"byteorder": b"middle"}, zipfile.ZIP_STORED, "endianness"),
        ({"data.pkl": b"\x80\x02}"}, zipfile.ZIP_STORED, "pickle exhausted"),
    ],
)
def test_archives_that_torch_save_would_not_write(tmp_path, change, compression, message) -> None:
    torch.save({"state_dict": {"a": torch.ones(1000)}}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match=message):
        read_released(repacked(tmp_path / "a.pth", change, compression))


def test_storages_at_odd_places_are_read(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.arange(5.0)}}, tmp_path / "a.pth")
    reference = read_released(repacked(tmp_path / "a.pth", {".format_version": b"123"}))
    assert reference.state["a"].data_ptr() % 4, "this file must not be aligned, or the test shows nothing"
    assert_equal(reference.state, {"a": torch.arange(5.0)})


def test_the_other_byte_order_is_read(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.arange(5.0)}}, tmp_path / "a.pth")
    turned = {"byteorder": b"big", "data/0": np.arange(5, dtype=">f4").tobytes()}
    assert_equal(read_released(repacked(tmp_path / "a.pth", turned)).state, {"a": torch.arange(5.0)})


def test_other_files(tmp_path) -> None:
    for content in (b"", b"PK", b"hello", b"\x80\x02K\x01."):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ArtifactError, match="not a complete file"):
            read_released(tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match="does not exist"):
        read_released(tmp_path / "none.pth")
    with pytest.raises(ArtifactError, match="not a complete file"):
        read_released(tmp_path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_not_run_and_says_how_it_can_be_exported(tmp_path, protocol: int) -> None:
    """As EDM's snapshots are: a dict whose network brings its own source code."""
    path, witness = tmp_path / "network-snapshot-002509.pkl", tmp_path / "witness"
    path.write_bytes(pickle.dumps({"ema": Witness(witness), "loss_fn": None}, protocol))
    with pytest.raises(ArtifactError, match=r"bare pickle, which carries code.*\['ema'\].*state_dict") as refused:
        read_released(path)
    assert "nothing in it was run" in str(refused.value)
    assert not witness.exists()


class Witness:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(params=["zip", "legacy"])
def handmade(request, tmp_path):
    """A file of torch.save whose pickle was written by hand; returns the path."""

    def write(value: bytes) -> Path:
        path = tmp_path / "handmade.pth"
        torch.save({}, path, _use_new_zipfile_serialization=request.param == "zip")
        if request.param == "zip":
            return repacked(path, {"data.pkl": value})
        pieces = old_pieces(path.read_bytes())
        path.write_bytes(b"".join([*pieces[:3], value, *pieces[4:]]))
        return path

    return write


def old_pieces(content: bytes) -> list[bytes]:
    """The five pickles of an old file, and the rest."""
    stream, pieces = io.BytesIO(content), []
    for _ in range(5):
        start = stream.tell()
        collections.deque(pickletools.genops(stream), maxlen=0)
        pieces.append(content[start : stream.tell()])
    return [*pieces, stream.read()]


def word(text: bytes) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text


STATE = b"\x80\x02}(" + word(b"state_dict") + b"}"
TOWER = b")" + b"\x85" * 10**6  # tuples in tuples: hashing it would end the interpreter
DOUBLED = b")q\x00" + b"h\x00\x86q\x00" * 200  # hashing it would take 2**200 steps
TUPLES = "a tuple of more than 2000 parts, which could take for ever as a key"


@pytest.mark.parametrize("deep", [TOWER, DOUBLED], ids=["tower", "doubled"])
@pytest.mark.parametrize(
    "use", [(b"}", b"Ns"), (b"}(", b"Nu"), (b"c__builtin__\nset\n](", b"e\x85R"), (b"", b"Q"), (b"", b")R")],
    ids=["key", "keys", "set", "storage", "called"],
)  # fmt: skip
def test_tuples_that_would_end_the_interpreter_or_take_for_ever(handmade, deep: bytes, use: tuple[bytes, ...]) -> None:
    with pytest.raises(ArtifactError, match=TUPLES):
        read_released(handmade(b"\x80\x02" + deep.join(use) + b"."))


def test_lists_that_would_take_for_ever_to_write_out(handmade) -> None:
    """torch.load names what it refuses to call, be it a list of 2**200 parts or a tower of calls."""
    for value in (b"]q\x00" + b"](h\x00h\x00eq\x00" * 200 + b")R.", b"cunheard\nof\n" + b")R" * 100_000 + b"."):
        with pytest.raises(ArtifactError, match="it calls what is no class or function"):
            read_released(handmade(b"\x80\x02" + value))


def test_what_would_fill_the_memory(handmade) -> None:
    """Half a terabyte of hexadecimal digits in 700 bytes; two gigabytes of zeros; a slot of the memo far away."""
    digits = b"c_codecs\nencode\nq\x00" + b"h\x00" * 39 + word(b"a") + word(b"latin1") + b"\x86R"
    for value, message in {
        digits + (word(b"hex") + b"\x86R") * 39 + b".": "it encodes more than bytes",
        b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.": "it names builtins.bytearray, which no file of weights",
        b"Nr\xff\xff\xff\xff.": "of type NoneType, not a dict",
    }.items():
        with pytest.raises(ArtifactError, match=message):
            read_released(handmade(b"\x80\x02" + value))


@pytest.mark.parametrize("items", [2**28, 2**40, 2**62, -(2**40), -5])
def test_storages_that_are_larger_than_their_file(handmade, items: int) -> None:
    number = b"\x8a\x09" + items.to_bytes(9, "little", signed=True)
    for rest in (b"", b"N"):  # one is for archives, one for old files
        identity = (
            b"(" + word(b"storage") + b"ctorch\nFloatStorage\n" + word(b"0") + word(b"cpu") + number + rest + b"t"
        )
        with pytest.raises(ArtifactError):
            read_released(handmade(b"\x80\x02" + identity + b"Q."))


@pytest.mark.parametrize(
    "identity",
    [b"K\x05", b"]", b")", b"(" + word(b"module") + b"NNNt", b"(" + word(b"storage") + b"t", word(b"storage")],
    ids=["number", "list", "empty", "module", "nothing", "word"],
)
def test_other_things_outside_the_pickle(handmade, identity: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"not a complete file|was not read"):
        read_released(handmade(b"\x80\x02" + identity + b"Q."))


def test_a_pickle_is_not_endless(handmade, monkeypatch) -> None:
    monkeypatch.setattr(released_file, "MOST_STEPS", 1000)
    with pytest.raises(ArtifactError, match="longer than that of any network"):
        read_released(handmade(b"\x80\x02](" + b"N" * 1000 + b"e."))


def test_numbers_of_one_hash_are_few(handmade) -> None:
    """Each key would be compared with all before it."""
    keys = b"".join(b"\x8a\x10" + ((2**61 - 1) * i).to_bytes(16, "little") + b"N" for i in range(11_000))
    with pytest.raises(ArtifactError, match="longer than that of any network"):
        read_released(handmade(b"\x80\x02}(" + keys + b"u."))


def test_names_are_few(handmade) -> None:
    """torch.load looks through all of them at every call."""
    with pytest.raises(ArtifactError, match="longer than that of any network"):
        read_released(handmade(b"\x80\x02" + b"".join(b"cm%d\nn\n" % i for i in range(300)) + b"."))


def test_what_torch_would_run_by_itself_is_known_or_refused(handmade) -> None:
    """A new version of torch may run more; it would be refused here until somebody has looked at it."""
    allowed = torch._weights_only_unpickler._get_allowed_globals().keys()
    registered = {f"{item.__module__}.{item.__qualname__}" for item in torch.serialization.get_safe_globals()}
    assert {"torch._utils._rebuild_sparse_tensor", "torch.Tensor", "builtins.bytearray"} <= allowed
    for name in sorted((allowed | registered) - KNOWN):
        module, _, last = name.rpartition(".")
        with pytest.raises(ArtifactError, match=f"it names {name}, which no file of weights needs"):
            read_released(handmade(b"\x80\x02" + f"c{module}\n{last}\n.".encode()))


def test_old_names_of_modules_mean_what_torch_means() -> None:
    for ours, theirs in ((IMPORT_MAPPING, torch._utils.IMPORT_MAPPING), (NAME_MAPPING, torch._utils.NAME_MAPPING)):
        assert {key: ours.get(key) for key in theirs} == theirs


def test_stand_ins_keep_nothing_and_end_with_the_reading(save) -> None:
    before = torch.serialization.get_safe_globals()
    with pytest.raises(ArtifactError, match=r"what argparse\.Namespace would make"):
        read_released(save(argparse.Namespace(a=1)))
    assert sorted(map(str, torch.serialization.get_safe_globals())) == sorted(map(str, before))
    made = type("Anything", (StandIn,), {})(1, [2])
    made.__setstate__({"a": 1})
    assert vars(made) == {} and "__reduce__" not in vars(StandIn) and "__call__" not in dir(made)


PLAIN = {
    "numbers": [0, 1, -5, 300, 70000, 2**100, -(2**40), 2.5, float("inf"), True, False, None],
    "texts": ["", "x", "é" * 300, "y" * 70000, b"bytes", b""], "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": [[[]], {}, {"a": {"b": [{}]}}], "many": list(range(3000)), "items": {i: str(i) for i in range(3000)},
    "random": random.Random(0).getstate(), "arrays": [np.arange(5), np.random.RandomState(0).get_state()],
    "made": [print, {1, 2}, frozenset([3]), Path("/x"), 1j, range(3), slice(2), Ellipsis, collections.UserDict(a=1)],
    "torch's": [torch.Size([1]), torch.float32, torch.device("cuda"), torch.zeros(3, dtype=torch.uint8)],
}  # fmt: skip


def test_what_lies_beside_the_weights_is_left_alone(save) -> None:
    state = some_tensors()
    for name, value in PLAIN.items():
        assert_equal(read_released(save({name: value, "state_dict": state})).state, state)


@pytest.mark.parametrize(
    "value", [collections.Counter("aab"), collections.deque([1]), collections.defaultdict(int, a=1)]
)
def test_containers_that_torch_does_not_read_are_named(save, value: Any) -> None:
    with pytest.raises(ArtifactError, match=r"nothing in it was run: .*(Counter|deque|defaultdict)") as refused:
        read_released(save({"state_dict": some_tensors(), "beside": value}))
    assert "weights_only" not in str(refused.value), "torch's advice to run such a file must not be passed on"


@pytest.mark.parametrize(
    "stream",
    [b"", b".", b"N", b"NN.", b"0.", b"N00.", b"h\x01.", b"t.", b"R.", b"NR.", b"(Nu.", b"}(NNNu.", b"]NNs.", b"Na.",
     b"\x97.", b"\xff.", b"N(.", b"X\xff\xff\xff\x7fab.", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", b"Iabc\n.",
     b"N" + b"p%d\n" % (2**61 - 1) + b".", b"c\xe9\nn\n.", b"ca\x00\nn\n.", b"K\x01X\x01\x00\x00\x00x\x93."],
)  # fmt: skip
def test_broken_pickles(handmade, stream: bytes) -> None:
    for value in (stream, b"\x80\x02" + stream):
        with pytest.raises(ArtifactError):
            read_released(handmade(value))


LONG = b"\x8a\xff" + b"\x01" * 255


@pytest.mark.parametrize(
    "key",
    [LONG, word(b"\x1b[31m"), word(b"\xed\xa0\x80"), b"K\x01", b")", b"K\x01K\x02\x86", b"cx\x1b[31m\nn\n"],
    ids=len,
)
def test_names_that_a_terminal_would_obey_or_python_would_not_write(handmade, key: bytes) -> None:
    with pytest.raises(ArtifactError, match="a name must be a string without control characters") as refused:
        read_released(handmade(STATE + key + b"K\x01su."))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("arguments", [b"K\x05", b"}K\x05Ns"], ids=["number", "dict"])
def test_arguments_of_a_call_must_be_a_tuple(handmade, arguments: bytes) -> None:
    call = b"ctorch._utils\n_rebuild_parameter\n" + arguments + b"R"
    with pytest.raises(ArtifactError, match="not a complete file"):
        read_released(handmade(STATE + word(b"a") + call + b"su."))


def test_words_of_a_file_cannot_command_the_terminal_nor_fill_it(tmp_path) -> None:
    """Keys and types of storages, and names of an archive's members, stand in errors."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        value = archive.read("a/data.pkl")
    evil = b"\x1b[31m" + b"A" * 100_000
    for old, new in {
        b"X\x01\x00\x00\x000": b"X" + len(evil).to_bytes(4, "little") + evil,
        b"FloatStorage": b"\x1b[31mStorage",
    }.items():
        assert old in value
        with pytest.raises(ArtifactError) as refused:
            read_released(repacked(tmp_path / "a.pth", {"data.pkl": value.replace(old, new)}))
        assert str(refused.value).isprintable() and "x1b[31m" in str(refused.value) and len(str(refused.value)) < 1000


def test_a_state_dict_cannot_bring_methods_of_its_own(save) -> None:
    """An OrderedDict may have attributes, and those would be found before its methods."""

    class Dressed:
        def __reduce__(self):
            shadows = dict.fromkeys(("items", "get", "keys", "values", "__iter__"), torch.device)
            return collections.OrderedDict, (), shadows, None, iter([("a", torch.ones(2))])

    assert_equal(read_released(save({"state_dict": Dressed()})).state, {"a": torch.ones(2)})
    assert_equal(read_released(save(Dressed())).state, {"a": torch.ones(2)})


def test_values_that_are_marked_as_negated_are_negated(save) -> None:
    negated = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert negated.is_neg()
    read = read_released(save({"a": negated})).state["a"]
    assert not read.is_neg() and torch.equal(read, torch.tensor([-2.0, 4.0]))


def test_weights_have_no_gradients_nor_hooks(save) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    read = read_released(save({"a": weight})).state["a"]
    assert type(read) is torch.Tensor and not read.requires_grad


def test_storages_that_an_old_file_forgets_show_nothing_of_this_process(tmp_path) -> None:
    torch.save({"a": torch.ones(10_000)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    pieces = old_pieces((tmp_path / "a.pth").read_bytes())
    (tmp_path / "a.pth").write_bytes(b"".join([*pieces[:4], b"\x80\x02].", pieces[5]]))
    rubbish = [torch.full((10_000,), 7.0) for _ in range(100)]
    del rubbish
    assert not read_released(tmp_path / "a.pth").state["a"].any()


def test_members_that_share_their_bytes_are_refused(tmp_path) -> None:
    """Unpacked one by one they could be many times as long as the file."""
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        for number in range(1, 20):
            twin = copy.copy(archive.getinfo("a/data/0"))
            twin.filename = f"a/data/{number}"
            archive.filelist.append(twin)
        archive.writestr("a/changed", b"")
    with pytest.raises(ArtifactError, match="its members overlap"):
        read_released(tmp_path / "a.pth")


def test_a_name_that_torch_would_believe(tmp_path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match=r"whatever its name says; rename it to end with \.pth"):
        read_released(tmp_path / "a.safetensors")


def test_an_archive_with_two_members_of_one_name_is_refused(tmp_path) -> None:
    """Two readers of such a file could load different weights."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data/0", torch.zeros(1).numpy().tobytes())
    with pytest.raises(ArtifactError, match="two members of one name"):
        read_released(tmp_path / "a.pth")


def test_tensors_are_a_private_view_of_the_file(tmp_path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    state = read_released(path).state
    state["a"] += 1
    assert_equal(read_released(path).state, {"a": torch.arange(1000.0)})
    path.unlink()
    assert_equal(state, {"a": torch.arange(1000.0) + 1})
