"""Duplicates are found whatever the order of comparison; looks survive what files of one picture differ in."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from test_preprocess import saved, smooth
from test_shards import make_data

from mdm.config import StudyError
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.duplicates import LOOK_DISTANCE, as_keys, look, look_alikes, repeated


def test_repeated():
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in "abacb"]
    assert repeated(as_keys(hashes)).tolist() == [False, False, True, False, True]
    assert repeated(as_keys([])).tolist() == []


@pytest.mark.parametrize("distance", [0, 1, 3, 6, 12])
def test_look_alikes_equal_the_comparison_of_all(distance):
    rng = np.random.default_rng(distance)
    looks = [int(value) for value in rng.integers(0, 2**64, 40, dtype=np.uint64)]
    for _ in range(160):
        flipped = rng.choice(64, rng.integers(0, 2 * distance + 2), replace=False).tolist()
        looks.append(looks[int(rng.integers(len(looks)))] ^ sum(1 << bit for bit in flipped))
    kept, expected = [], []
    for value in looks:
        expected.append(any((value ^ other).bit_count() <= distance for other in kept))
        kept += [] if expected[-1] else [value]
    assert look_alikes(np.array(looks, dtype=np.uint64), distance).tolist() == expected and any(expected)


def test_look_alikes_of_a_large_set_with_crowds():
    """Of 200,000 looks, some nearly flat: those that were planted are found, the others are not."""
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    looks[1000:3000] &= rng.integers(0, 2**8, 2000, dtype=np.uint64)  # share 56 bits
    originals = rng.choice(np.arange(5000, 100_000), 500, replace=False)
    copies = rng.choice(np.arange(100_000, 200_000), 500, replace=False)
    looks[copies] = looks[originals] ^ np.uint64(0b1000_0100_0000_0001) ^ np.uint64(1 << 60)
    gone = look_alikes(looks, 4)
    assert gone[copies].all() and not gone[originals].any()
    assert gone.sum() - gone[1000:3000].sum() == 500 and gone[1000:3000].sum() > 1900


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
