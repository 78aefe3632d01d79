"""Two data sets side by side: what differs, by setting, key, bytes and reason."""

import shutil

import pytest
from test_shards import make_data

from mdm import cli
from mdm.data.shards.difference import compare, render
from mdm.files.atomic import ArtifactError, read_json, write_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("first")).parent


def test_a_copy_is_the_same(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "copy")
    assert cli.main(["data", "diff", str(data), str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().out == "samples: 20 and 20\nthe same samples\n"


def test_other_settings_other_bytes_and_missing_samples_are_named(data, tmp_path, capsys):
    other = make_data(tmp_path, num_images=18, seed=3).parent
    found = compare(data, other)
    assert found.settings == {"settings.num_images": (20, 18), "settings.seed": (0, 3)}
    assert found.only_first == ["00000018", "00000019"] and found.only_second == []
    assert {key for key, _, _ in found.changed} <= {f"{k:08d}" for k in range(18)} and len(found.changed) > 15
    assert not found.same_index and not found.same
    assert cli.main(["data", "diff", str(data), str(other)]) == 1
    text = capsys.readouterr().out
    assert "settings: settings.seed: 0 -> 3" in text and "only in the first: 2: 00000018, 00000019" in text
    assert f"other bytes: {len(found.changed)}: " in text and "more" in text


def test_shards_that_are_equal_are_not_opened(data, tmp_path):
    other = tmp_path / "data" / data.name
    shutil.copytree(data, other)
    record, manifest = read_json(other / "shards/00001.json"), read_json(other / "manifest.json")
    before, record["hashes"][2], record["sha256"] = record["hashes"][2], "f" * 64, "e" * 64
    manifest["shards"][1]["sha256"], manifest["digest"] = "e" * 64, "d" * 64
    manifest["failures"] = {"http 404": 3}
    write_json(other / "shards/00001.json", record)
    write_json(other / "manifest.json", manifest)
    (other / "shards/00000.json").unlink()
    found = compare(data, other)
    assert found.changed == [("00000010", before, "f" * 64)] and not found.only_first + found.only_second
    assert found.failures == {"http 404": (0, 3)} and "failures: http 404: 0 -> 3" in render(found)


def test_manifests_alone_are_compared_by_shard(data, tmp_path):
    other = make_data(tmp_path, seed=3).parent
    shutil.copy(other / "manifest.json", tmp_path / "published.json")
    found = compare(data / "manifest.json", tmp_path / "published.json")
    assert found.shards == ["shards/00000.tar", "shards/00001.tar", "shards/00002.tar"] and found.changed == []
    assert "shards that differ: 3" in render(found)


def test_what_is_no_data_set_is_refused(tmp_path):
    write_json(tmp_path / "manifest.json", {"samples": 3})
    with pytest.raises(ArtifactError, match="no manifest of a data set, it lacks recipe"):
        compare(tmp_path, tmp_path)
    with pytest.raises(ArtifactError, match="does not exist"):
        compare(tmp_path / "nowhere", tmp_path)
