"""Duplicates are found whatever the order of comparison; looks survive what files of one picture differ in."""

import io

import numpy as np
import pytest
from PIL import Image
from test_preprocess import saved, smooth
from test_shards import make_data

from mdm.config import StudyError
from mdm.data.duplicates import look, look_alikes, repeated
from mdm.data.reader import Pictures
from mdm.data.source_folder import LOOK_DISTANCE


def test_repeated():
    assert repeated(["a", "b", "a", "c", "b"]) == [False, False, True, False, True]


@pytest.mark.parametrize("distance", [0, 1, 3, 6, 12])
def test_look_alikes_equal_the_comparison_of_all(distance):
    rng = np.random.default_rng(distance)
    looks = [int(value) for value in rng.integers(0, 2**63, 40)]
    for _ in range(160):
        flipped = rng.choice(64, rng.integers(0, 2 * distance + 2), replace=False).tolist()
        looks.append(looks[int(rng.integers(len(looks)))] ^ sum(1 << bit for bit in flipped))
    kept, expected = [], []
    for value in looks:
        expected.append(any((value ^ other).bit_count() <= distance for other in kept))
        kept += [] if expected[-1] else [value]
    assert look_alikes(looks, distance) == expected and any(expected)


def test_looks_survive_scaling_and_compression():
    pictures = [smooth(96, 96, seed) for seed in range(12)]
    looks = [look(np.asarray(picture)) for picture in pictures]
    for picture, value in zip(pictures, looks, strict=True):
        with Image.open(io.BytesIO(saved(picture.resize((48, 48)), "JPEG", quality=80))) as other:
            assert (look(np.asarray(other)) ^ value).bit_count() <= LOOK_DISTANCE
    assert min((a ^ b).bit_count() for a in looks for b in looks if a != b) > LOOK_DISTANCE


def test_a_folder_without_its_duplicates(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    first, other = smooth(64, 64, 1), smooth(64, 64, 2)
    files = {"a": saved(first), "b": saved(first), "c": saved(first, "JPEG"), "d": saved(other), "e": b"broken"}
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
        (folder / f"{name}.txt").write_text(name)
    (folder / "e.png").unlink()
    for drop, kept in (("none", "abcd"), ("files", "acd"), ("looks", "ad")):
        path = make_data(
            tmp_path / drop, source="folder", path=str(folder), duplicates=drop, num_images=len(kept), resolution=32
        )
        pictures = Pictures(path.parent)
        assert "".join(pictures.caption(number) for number in range(len(pictures))) == kept
    with pytest.raises(StudyError, match="duplicates"):
        make_data(tmp_path, source="folder", path=str(folder), duplicates="all", num_images=4)
