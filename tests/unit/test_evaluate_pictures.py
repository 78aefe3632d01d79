"""Archives of pictures, and the pictures that are measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluate_artifacts import put, random_pictures, scenes

from mdm.evaluate.archive import ArrayStream, array_names, read_array, read_batches, write_archive
from mdm.evaluate.pictures import open_pictures
from mdm.files.atomic import ArtifactError


def test_archive_is_what_numpy_reads_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    pixels = random_pictures(7, 8)
    for name in ("a", "b"):
        pieces = ArrayStream(pixels.shape, pixels.dtype, iter([pixels[:3], pixels[3:]]))
        words = ArrayStream.of(np.array(["red", "ein Würfel", ""]))
        write_archive(tmp_path / f"{name}.npz", {"images_8": pieces, "captions": words})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["images_8"], pixels)
        assert archive["captions"].tolist() == ["red", "ein Würfel", ""]
    assert array_names(tmp_path / "a.npz") == ["images_8", "captions"]
    batches = list(read_batches(tmp_path / "a.npz", "images_8", 2, 5))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), pixels[:5])


def test_archive_errors_name_the_array_and_leave_no_file(tmp_path: Path) -> None:
    short = ArrayStream((3, 2), np.dtype(np.uint8), [np.zeros((2, 2), np.uint8)])
    with pytest.raises(ValueError, match="array x was announced with 3 rows, but 2 came"):
        write_archive(tmp_path / "x.npz", {"x": short})
    assert list(tmp_path.iterdir()) == []
    write_archive(tmp_path / "y.npz", {"y": ArrayStream.of(np.zeros(2))})
    with pytest.raises(ArtifactError, match=r"no array 'z'; it holds \['y'\]"):
        read_array(tmp_path / "y.npz", "z")
    with pytest.raises(ArtifactError, match="holds 2 pictures, but 3 are asked for"):
        next(read_batches(tmp_path / "y.npz", "y", 1, 3))


def test_real_pictures_are_averaged_down(tmp_path: Path) -> None:
    folder = scenes(tmp_path, 70, resolution=32).parent
    full, half = open_pictures(folder), open_pictures(folder, 5, 16)
    assert (len(full), full.resolution, len(half), half.resolution) == (70, 32, 5, 16)
    expected = full.all()[:5].reshape(5, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(half.all(), expected, atol=0.51)
    assert half.captions == full.captions[:5]
    assert half.labels[0]["count"] in (1, 2, 3, 4)
    assert [len(batch) for batch in full.batches(32)] == [32, 32, 6]
    with pytest.raises(ArtifactError, match="holds 70 pictures, but 71 are asked for"):
        open_pictures(folder, 71)
    with pytest.raises(ArtifactError, match="stored at 32 px and cannot be shown at 64 px"):
        open_pictures(folder, 5, 64).all()


def test_real_pictures_may_begin_at_any_number(tmp_path: Path) -> None:
    folder = scenes(tmp_path, 70).parent
    whole, rest, few = open_pictures(folder), open_pictures(folder, first=60), open_pictures(folder, 7, 8, first=62)
    assert (len(rest), len(few), few.resolution) == (10, 7, 8)
    np.testing.assert_array_equal(rest.all(), whole.all()[60:])
    np.testing.assert_array_equal(few.all(), open_pictures(folder, 70, 8).all()[62:69])
    assert (few.keys, few.captions, few.labels) == (whole.keys[62:69], whole.captions[62:69], whole.labels[62:69])
    assert [len(batch) for batch in few.batches(3)] == [3, 3, 1]  # over the end of a shard
    with pytest.raises(ArtifactError, match="holds 70 pictures, but 71 are asked for"):
        open_pictures(folder, 9, first=62)


def test_generated_pictures_come_from_the_highest_level(tmp_path: Path) -> None:
    recipe = put(tmp_path, "samples", "x")
    high, low = random_pictures(4, 16), random_pictures(4, 8, 1)
    text = {"keys": ["a", "b", "c", "d"], "captions": ["one", "", "three", "four"], "labels": ["{}"] * 4}
    arrays = {"images_8": low, "images_16": high, **{k: np.array(v) for k, v in text.items()}}
    archive = {name: ArrayStream.of(array) for name, array in arrays.items()}
    write_archive(recipe.with_name("images.npz"), archive)
    pictures = open_pictures(recipe.parent, 3)
    np.testing.assert_array_equal(pictures.all(), high[:3])
    assert (pictures.resolution, pictures.captions, pictures.labels) == (16, ["one", "", "three"], [{}, {}, {}])


def test_other_artifacts_hold_no_pictures(tmp_path: Path) -> None:
    recipe = put(tmp_path, "scores", "x")
    with pytest.raises(ArtifactError, match="kind 'scores' and holds no pictures"):
        open_pictures(recipe.parent)
    assert json.loads(recipe.read_text())["kind"] == "scores"
