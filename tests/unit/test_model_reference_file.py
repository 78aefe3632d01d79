"""Reading the reference's files: tensors exactly, nothing executed, damage and nonsense refused."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
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
from mdm.model.pickle_as_data import Made, Named, PickleError, read_pickle
from mdm.model.reference_file import read_reference


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
    reference = read_reference(save({"state_dict": collections.OrderedDict(some_tensors())}))
    assert_equal(reference.state, some_tensors())
    assert reference.file.layout == save.layout and reference.prefix == ""
    reference.file.verify()


def test_the_trainers_classes_need_not_exist(save) -> None:
    with classes_of_the_trainer() as (config, schedule):
        arguments = argparse.Namespace(model=config, schedule=schedule, folder=Path("/somewhere"), n=4)
        items = {"batch_num": 10, "loss": 0.5, "best_avg_loss": np.float64(0.25), "args": arguments, "set": {1, 2}}
        moments = {3: torch.zeros(3, dtype=torch.long), (1, (2, 3)): [None, True, 1j, b"x"]}
        path = save(items | {"state_dict": some_tensors(), "moments": moments})
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    assert_equal(read_reference(path).state, read_reference(save({"state_dict": some_tensors()}, "plain.pth")).state)


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_every_pickle_protocol(tmp_path, protocol: int, layout: str) -> None:
    state, path = collections.OrderedDict(some_tensors()), tmp_path / "a.pth"
    torch.save({"state_dict": state}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=layout == "zip")
    assert_equal(read_reference(path).state, state)


def test_a_bare_state_dict_and_the_prefix_of_parallel_training(save) -> None:
    state = {"a.weight": torch.ones(2), "b": torch.zeros(1)}
    assert_equal(read_reference(save(state)).state, state)
    parallel = read_reference(save({f"module.{name}": tensor for name, tensor in state.items()}))
    assert parallel.prefix == "module."
    assert_equal(parallel.state, state)
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert_equal(read_reference(save(mixed)).state, mixed)


@pytest.mark.parametrize("attack", attacks(Path()))
def test_hostile_files_do_nothing(save, tmp_path, attack: str) -> None:
    marker = tmp_path / "it-ran"
    hostile = attacks(marker)[attack]
    state = {"a": torch.ones(3)}
    path = save({"state_dict": state, "args": hostile, "more": [{"deep": (hostile,)}]})
    assert_equal(read_reference(path).state, state)

    beside = save({"state_dict": {**state, "b": hostile}})
    with pytest.raises(
        ArtifactError, match=r"state_dict\['b'\] is what .* would make \(it was not run\), not a tensor"
    ):
        read_reference(beside)
    for value in (hostile, {"state_dict": hostile}, {"state_dict": {hostile: torch.ones(1)}}):
        with pytest.raises(ArtifactError):
            read_reference(save(value, "other.pth"))
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
    read_reference(path)
    assert module.__name__ not in sys.modules and not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the module must be one that acts"


def test_a_forged_tensor_does_nothing(save, tmp_path) -> None:
    """A call of torch's own function with arguments that are calls."""
    marker = tmp_path / "it-ran"
    forged = Acts(torch._utils._rebuild_tensor_v2, attacks(marker)["eval"], 0, (1,), (1,), False, {})
    with pytest.raises(ArtifactError, match="not that of a plain tensor"):
        read_reference(save({"state_dict": {"a": forged}}))
    other = Acts(torch._utils._rebuild_sparse_tensor, attacks(marker)["eval"])
    with pytest.raises(ArtifactError, match=r"_rebuild_sparse_tensor would make"):
        read_reference(save({"state_dict": {"a": other}}))
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
        ({"state_dict": {"a": torch.ones(1).double()}}, "DoubleStorage; weights must be float32"),
        ({"state_dict": {"a": torch.ones(1).to_sparse()}}, "_rebuild_sparse_tensor would make"),
        ({"state_dict": {"a": torch.ones(0, 3)}}, "no weight has the shape"),
        ({"state_dict": {"a": torch.nn.Linear}}, "(Linear .it was not imported.|outside the pickle), not a"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_is_said(save, value: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_reference(save(value))


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

    with pytest.raises(ArtifactError, match=r"state_dict\['a'\]: (shape|no weight|its description)"):
        read_reference(save({"state_dict": {"a": Described()}}))


def test_files_that_end_early(save) -> None:
    content = save({"state_dict": some_tensors()}).read_bytes()
    path = save({"state_dict": some_tensors()})
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="not a complete file"):
            read_reference(path)


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
            reference = read_reference(path)
            reference.file.verify()
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
    reference = read_reference(path)
    with pytest.raises(ArtifactError, match="storage 0 does not have its checksum"):
        reference.file.verify()


def test_files_without_checksums_are_read(tmp_path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    reference = read_reference(tmp_path / "a.pth")
    reference.file.verify()
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
        ({"data/0": None}, zipfile.ZIP_STORED, "storage 0 is not in the archive"),
        ({"data/0": b"\0" * 8}, zipfile.ZIP_STORED, "storage 0 has 8 bytes"),
        ({"data.pkl": None}, zipfile.ZIP_STORED, "0 members named data.pkl"),
        ({"byteorder": b"big"}, zipfile.ZIP_STORED, "byte order"),
        ({"data.pkl": b"\x80\x02}"}, zipfile.ZIP_STORED, "not a complete pickle"),
    ],
)
def test_archives_that_torch_save_would_not_write(tmp_path, change, compression, message) -> None:
    torch.save({"state_dict": {"a": torch.ones(1000)}}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match=message):
        read_reference(repacked(tmp_path / "a.pth", change, compression))


def test_storages_at_odd_places_are_read(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.arange(5.0)}}, tmp_path / "a.pth")
    reference = read_reference(repacked(tmp_path / "a.pth", {".format_version": b"123"}))
    assert reference.file.storages["0"].start % 4, "this file must not be aligned, or the test shows nothing"
    assert_equal(reference.state, {"a": torch.arange(5.0)})


def test_other_files(tmp_path) -> None:
    for content in (b"", b"PK", b"hello", b"\x80\x02K\x01.", pickle.dumps({"state_dict": 1}, 2)):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ArtifactError, match="not a complete file"):
            read_reference(tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match="does not exist"):
        read_reference(tmp_path / "none.pth")
    with pytest.raises(ArtifactError, match="not a complete file"):
        read_reference(tmp_path)


PLAIN = {
    "numbers": [0, 1, -5, 300, 70000, 2**100, -(2**40), 2.5, float("inf"), True, False, None],
    "texts": ["", "x", "é" * 300, "y" * 70000], "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": [[[]], {}, {"a": {"b": [{}]}}], "many": list(range(3000)), "items": {i: str(i) for i in range(3000)},
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_as_pickle_reads_it(protocol: int) -> None:
    twice = [1, 2]
    for value in (PLAIN, [twice, twice, {"again": twice}]):
        stream = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
        assert read_pickle(stream).value == value
        assert stream.read() == b"rest"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_classes_and_calls_are_written_down(protocol: int) -> None:
    values = [print, collections.Counter("aab"), {1, 2}, frozenset([3]), collections.deque([1]), Path("/x"), 1j]
    read = read_pickle(io.BytesIO(pickle.dumps([*values, "end"], protocol))).value
    assert isinstance(read[0], Named) and read[0].name == "print"
    assert all(isinstance(value, Made) for value in read[1:7]) and read[7] == "end"
    assert read[1].maker == "collections.Counter"


@pytest.mark.parametrize(
    "stream",
    [b"", b".", b"N", b"NN.", b"0.", b"N00.", b"h\x01.", b"t.", b"R.", b"NR.", b"(Nu.", b"}(NNNu.", b"]NNs.", b"Na.",
     b"\x97.", b"\xff.", b"N(.", b"X\xff\xff\xff\x7fab.", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", b"Iabc\n."],
)  # fmt: skip
def test_broken_pickles(stream: bytes) -> None:
    with pytest.raises(PickleError, match="not a complete pickle"):
        read_pickle(io.BytesIO(stream))


def test_pickles_that_would_fill_the_memory_or_take_for_ever() -> None:
    """A memo slot beyond four thousand million, a tower of calls, and keys whose hashes double 200 times."""
    assert read_pickle(io.BytesIO(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.")).value is None
    assert isinstance(read_pickle(io.BytesIO(b"cos\nsystem\n" + b")R" * 100_000 + b".")).value, Made)
    doubled = b")" + b"2\x86" * 200
    assert len(read_pickle(io.BytesIO(b"}" + doubled + b"Ns.")).value) == 1
    assert len(read_pickle(io.BytesIO(b"\x8f(" + doubled + b"\x90" + b"(" + doubled + b"\x91\x86.")).value) == 2


def colliding(count: int) -> bytes:
    """A dict of integers that all have the hash zero: found one after the other, in steps of count squared."""
    keys = (((2**61 - 1) * i).to_bytes(16, "little") for i in range(count))
    return b"}(" + b"".join(b"\x8a\x10" + key + b"N" for key in keys) + b"u."


def test_keys_with_one_hash_are_not_searched() -> None:
    read = read_pickle(io.BytesIO(colliding(3000))).value
    assert sum(isinstance(key, int) for key in read) <= 1 and len(read) == 3000


def test_memo_slots_are_no_further_than_a_file_needs_them() -> None:
    """Slots that all have the hash zero would be searched one after the other."""
    with pytest.raises(PickleError, match="not a complete pickle"):
        read_pickle(io.BytesIO(b"N" + b"".join(b"p%d\n" % ((2**61 - 1) * i) for i in range(100)) + b"."))


@pytest.mark.parametrize("name", [b")" + b"\x85" * 100_000, b"](K\x01e" + b"2\x86" * 200, b"K\x01"], ids=len)
def test_the_name_of_a_class_must_be_text(name: bytes) -> None:
    """Towers that would end the interpreter, or need 2**200 letters, if they were written as text."""
    with pytest.raises(PickleError, match="the name of a class is not text"):
        read_pickle(io.BytesIO(name + b"X\x01\x00\x00\x00x\x93."))


def pickled(tmp_path: Path, key: bytes) -> Path:
    """A file of torch.save whose state_dict has one entry, under this key."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    value = b"\x80\x02}X\x0a\x00\x00\x00state_dict}" + key + b"K\x01ss."
    return repacked(tmp_path / "a.pth", {"data.pkl": value})


LONG = b"\x8b" + (5000).to_bytes(4, "little") + b"\x01" * 5000  # has more digits than Python writes


@pytest.mark.parametrize("key", [LONG, b"X\x05\x00\x00\x00\x1b[31m", b"X\x03\x00\x00\x00\xed\xa0\x80"], ids=len)
def test_names_that_a_terminal_would_obey_or_python_would_not_write(tmp_path, key: bytes) -> None:
    with pytest.raises(ArtifactError, match="a name must be a string without control characters") as refused:
        read_reference(pickled(tmp_path, key))
    assert str(refused.value).isprintable()


TOWER, DOUBLED = b")" + b"\x85" * 100_000, b")" + b"2\x86" * 200


@pytest.mark.parametrize("identity", [TOWER, DOUBLED], ids=["tower", "doubled"])
def test_what_stands_outside_is_not_written_as_text(tmp_path, identity: bytes) -> None:
    """As a name it would end the interpreter, or need 2**200 letters."""
    with pytest.raises(ArtifactError, match="a name must be a string"):
        read_reference(pickled(tmp_path, identity + b"Q"))


@pytest.mark.parametrize("arguments", [b"K\x05", b"}K\x05Ns"], ids=["number", "dict"])
def test_arguments_of_a_call_must_be_a_tuple(tmp_path, arguments: bytes) -> None:
    call = b"ctorch._utils\n_rebuild_parameter\n" + arguments + b"}\x92"
    with pytest.raises(ArtifactError, match="arguments of a call are not a tuple"):
        read_reference(pickled(tmp_path, b"X\x01\x00\x00\x00a" + call + b"s" + b"K\x02"))


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
            read_reference(repacked(tmp_path / "a.pth", {"data.pkl": value.replace(old, new)}))
        assert str(refused.value).isprintable() and "x1b[31m" in str(refused.value) and len(str(refused.value)) < 1000


def test_an_archive_with_two_members_of_one_name_is_refused(tmp_path) -> None:
    """Two readers of such a file could load different weights."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data/0", torch.zeros(1).numpy().tobytes())
    with pytest.raises(ArtifactError, match="two members of one name"):
        read_reference(tmp_path / "a.pth")


def test_tensors_are_a_private_view_of_the_file(tmp_path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    state = read_reference(path).state
    state["a"] += 1
    assert_equal(read_reference(path).state, {"a": torch.arange(1000.0)})
    path.unlink()
    assert_equal(state, {"a": torch.arange(1000.0) + 1})
