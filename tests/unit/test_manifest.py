"""Files are whole or absent, recipes prove themselves, provenance tells."""

import json
import os

import pytest

from mdm import manifest
from mdm.manifest import ArtifactError


def test_the_digest_ignores_order_and_sees_values():
    assert manifest.digest({"a": 1, "b": [1, 2]}) == manifest.digest({"b": [1, 2], "a": 1})
    assert manifest.digest({"a": 1}) != manifest.digest({"a": 2})
    assert manifest.digest({"a": 1}) != manifest.digest({"a": "1"})


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    manifest.write_json(path, {"old": True})

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        manifest.write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        manifest.write_json(tmp_path / "x.json", {"loss": float("nan")})


def test_a_recipe_must_be_the_one_its_folder_is_named_after(tmp_path):
    recipe = {"kind": "data", "x": 1}
    path = tmp_path / "data" / f"d-{manifest.digest(recipe)}" / "recipe.json"
    manifest.write_json(path, recipe)
    assert manifest.read_recipe(path) == recipe
    assert manifest.results_root(path) == tmp_path
    manifest.write_json(path, {**recipe, "x": 2})
    with pytest.raises(ArtifactError, match="was changed"):
        manifest.read_recipe(path)


def test_damaged_json_names_its_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"x\.json is not valid JSON"):
        manifest.read_json(tmp_path / "x.json")
    with pytest.raises(ArtifactError, match="does not exist"):
        manifest.read_json(tmp_path / "y.json")


def test_provenance_tells_source_packages_and_machine():
    record = manifest.provenance("cpu")
    assert {"git", "packages", "python", "device", "machine"} == record.keys()
    assert record["packages"]["torch"].startswith("2.")
