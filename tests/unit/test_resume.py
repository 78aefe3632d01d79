"""A shard that is made again after a kill: whatever is on disk, the result is the same, byte for byte."""

import random
import shutil

import pytest
from test_shards import make_recipe

from mdm.data.pictures.failures import Failure
from mdm.data.rows import Picture, Row
from mdm.data.shards import index
from mdm.data.shards.index import index_data, read_index
from mdm.data.shards.journal import Journal
from mdm.data.shards.shard import write_shard
from mdm.data.sources.scenes import source as source_scenes
from mdm.files.atomic import ArtifactError, read_json


class Killed(BaseException):
    """Not an error anybody handles: like a kill, it ends everything where it is."""


def lively(path):
    """Names of what a shard leaves behind."""
    return sorted(found.name for found in path.parent.glob("shards/*") if found.is_file())


@pytest.fixture
def recipe(tmp_path):
    path = make_recipe(tmp_path, num_images=12, resolution=16, shard_images=12)
    index_data(path)
    return path


@pytest.fixture
def whole(recipe, tmp_path):
    """Tar and record of a shard that was made in one go, elsewhere."""
    other = tmp_path / "other" / "data" / recipe.parent.name
    shutil.copytree(recipe.parent, other)
    tar = write_shard(other / "recipe.json", 0)
    return tar.read_bytes(), tar.with_suffix(".json").read_bytes()


def interrupted(recipe, monkeypatch, after):
    """Make the shard, dying after some pictures; returns its journal."""
    original = source_scenes.pictures

    def dying(rows, settings):
        for number, result in enumerate(original(rows, settings)):
            if number == after:
                raise Killed
            yield result

    with monkeypatch.context() as patched:
        patched.setattr(source_scenes, "pictures", dying)
        with pytest.raises(Killed):
            write_shard(recipe, 0)
    return recipe.parent / "shards/00000.partial"


def test_any_torn_journal_gives_the_same_shard(recipe, whole, monkeypatch):
    content = interrupted(recipe, monkeypatch, after=9).read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: None)  # a hundred shards; what is torn here is torn by hand
    drawn = random.Random(1)
    for cut in [0, 1, len(content) - 1, len(content), *drawn.sample(range(len(content)), 25)]:
        for rest in (b"", b"\0" * 50, content[100:300]):
            shutil.rmtree(recipe.parent / "shards")
            (recipe.parent / "shards").mkdir()
            (recipe.parent / "shards/00000.partial").write_bytes(content[:cut] + rest)
            tar = write_shard(recipe, 0)
            assert (tar.read_bytes(), tar.with_suffix(".json").read_bytes()) == whole
            assert lively(recipe) == ["00000.json", "00000.tar"]


def test_what_is_in_the_journal_is_not_made_again(recipe, whole, monkeypatch):
    interrupted(recipe, monkeypatch, after=9)
    made, original = [], source_scenes.pictures

    def counting(rows, settings):
        made.extend(row.key for row in rows)
        return original(rows, settings)

    monkeypatch.setattr(source_scenes, "pictures", counting)
    assert write_shard(recipe, 0).read_bytes() == whole[0]
    assert made == ["00000009", "00000010", "00000011"]
    write_shard(recipe, 0)
    assert len(made) == 3


def test_a_kill_between_tar_and_record_and_leftovers_of_others(recipe, whole):
    tar = write_shard(recipe, 0)
    tar.with_suffix(".json").unlink()
    (tar.parent / ".00000.tar.4711.tmp").write_bytes(whole[0][:700])
    write_shard(recipe, 0)
    assert (tar.read_bytes(), tar.with_suffix(".json").read_bytes()) == whole
    assert lively(recipe) == ["00000.json", "00000.tar"]


def test_a_journal_of_other_rows_is_not_used(recipe, whole, monkeypatch):
    path = interrupted(recipe, monkeypatch, after=5)
    path.write_bytes(b'{"rows": "those of another index"}\n' + path.read_bytes().split(b"\n", 1)[1])
    assert write_shard(recipe, 0).read_bytes() == whole[0]


def test_two_processes_do_not_write_one_journal(tmp_path):
    busy = pytest.raises(ArtifactError, match="being written by another process")
    with Journal(tmp_path / "a.partial", "x"), busy:
        Journal(tmp_path / "a.partial", "x")
    with Journal(tmp_path / "a.partial", "x") as journal:
        assert journal.outcomes == {}


def test_a_journal_keeps_verdicts_and_forgets_mishaps(tmp_path):
    with Journal(tmp_path / "a.partial", "x") as journal:
        journal.add("1", Picture("jpg", b"some bytes\n with a line break"))
        journal.add("2", Failure.HTTP_404)
        journal.add("3", Failure.TIMEOUT)
        journal.add("4", "a reason of some other source")
        journal.add("5", Failure.NO_SUCH_NAME)
    with Journal(tmp_path / "a.partial", "x") as journal:
        assert list(journal.outcomes) == ["1", "2", "4"]
        journal.add("3", Picture("jpg", b"now it came"))
    with Journal(tmp_path / "a.partial", "x") as journal:
        assert journal.read(journal.outcomes["1"]) == b"some bytes\n with a line break"
        assert journal.read(journal.outcomes["3"]) == b"now it came" and journal.outcomes["2"] == "http 404"


@pytest.mark.parametrize("every", [1, 5, 12, 1000])
def test_any_part_of_the_index_is_the_part_of_the_whole(recipe, monkeypatch, every):
    monkeypatch.setattr(index, "MARK_EVERY", every)
    index_data(recipe)
    rows = read_index(recipe.parent)
    assert len(rows) == 12
    for start in range(14):
        for stop in (*range(start, 14), None):
            assert read_index(recipe.parent, start, stop) == rows[start:stop]


def test_a_part_of_the_index_is_read_without_the_rest(recipe, monkeypatch):
    monkeypatch.setattr(index, "MARK_EVERY", 5)
    path = index_data(recipe)
    rows, marks = read_index(recipe.parent), read_json(path.with_suffix(".json"))
    content = bytearray(path.read_bytes())
    content[marks["offsets"][0] : marks["offsets"][2]] = b"\xff" * (marks["offsets"][2] - marks["offsets"][0])
    path.write_bytes(content)
    assert read_index(recipe.parent, 10, 12) == rows[10:]
    path.write_bytes(content + b"more\n")
    with pytest.raises(ArtifactError, match=r"is not the file that index\.json describes"):
        read_index(recipe.parent, 10, 12)


def test_keys_ascend(recipe, monkeypatch):
    monkeypatch.setattr(source_scenes, "index", lambda _: iter([Row("2", "b"), Row("2", "c")]))
    with pytest.raises(ArtifactError, match="key '2' follows '2'"):
        index_data(recipe)
