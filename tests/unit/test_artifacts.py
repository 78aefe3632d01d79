"""Files are whole or absent, recipes prove themselves, provenance tells."""

import json
import os

import pytest

from mdm.config.recipe import DataRecipe
from mdm.files import artifact
from mdm.files.artifact import _source, digest, provenance, read_recipe, results_root
from mdm.files.atomic import ArtifactError, read_json, replacing, write_json


def test_the_digest_ignores_order_and_sees_values():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"old": True})

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"x\.json cannot be written: No space left on device; what stood there is"):
        write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x.json", tmp_path / ("x" * 300)):
        with pytest.raises(ArtifactError, match=r"cannot be written: .*; nothing was left there") as caught:
            write_json(place, {})
        assert "\n" not in str(caught.value)


def test_trouble_with_another_file_is_not_blamed_on_this_one(tmp_path):
    (tmp_path / "other" / "folder").mkdir(parents=True)
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "own" / "x") as stream:
        stream.write((tmp_path / "other" / "folder").read_bytes())
    assert not list((tmp_path / "own").iterdir())


def test_new_modules_and_studies_make_the_source_dirty(tmp_path, monkeypatch):
    import shutil
    import subprocess

    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-C", str(tmp_path)]
    (tmp_path / "mdm").mkdir()
    shutil.copy(__file__, tmp_path / "mdm" / "py")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    monkeypatch.setattr(artifact, "__file__", str(tmp_path / "mdm" / "artifact.py"))

    def dirty():
        return _source.__wrapped__()["dirty"]

    assert not dirty()
    (tmp_path / "notes.txt").write_text("nothing that makes numbers")
    assert not dirty()
    (tmp_path / "config" / "studies").mkdir(parents=True)
    (tmp_path / "config" / "studies" / "mine.yaml").write_text("")
    assert dirty()


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})


def test_a_recipe_must_be_the_one_its_folder_is_named_after(tmp_path):
    recipe = DataRecipe(source="scenes", settings={"x": 1}, shard_images=1)
    path = tmp_path / "data" / f"d-{digest(recipe.plain())}" / "recipe.json"
    write_json(path, recipe.plain())
    assert read_recipe(path, DataRecipe) == recipe
    assert results_root(path) == tmp_path
    write_json(path, {**recipe.plain(), "shard_images": 2})
    with pytest.raises(ArtifactError, match="was changed"):
        read_recipe(path, DataRecipe)


def test_damaged_json_names_its_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(ArtifactError, match="does not exist"):
        read_json(tmp_path / "y.json")
    (tmp_path / "z.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ArtifactError, match=r"z\.json is not valid JSON"):
        read_json(tmp_path / "z.json")
    with pytest.raises(ArtifactError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match=r"deep\.json is not valid JSON"):
        read_json(tmp_path / "deep.json")


def test_provenance_tells_source_packages_and_machine():
    record = provenance("cpu")
    assert {"git", "packages", "python", "device", "machine"} == record.keys()
    assert record["packages"]["torch"].startswith("2.")
