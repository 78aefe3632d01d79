"""Decoding of stored pictures: the same pixels whichever decoder, exact means, and damage is noticed."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from test_preprocess import saved, smooth

from mdm.data.decode import BadPicture, decode, decode_square, shrink
from mdm.manifest import ArtifactError

JPEGS = {
    "4:2:0": {}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0}, "progressive": {"progressive": True},
    "rgb": {"keep_rgb": True}, "low": {"quality": 20},
}  # fmt: skip


def by_pillow(data, side=None):
    with Image.open(io.BytesIO(data)) as picture:
        if side:
            picture.draft(None, (side, side))
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_equal_pillows(kind):
    for width, height in ((64, 64), (101, 77)):
        data = saved(smooth(width, height, seed=4), "JPEG", **JPEGS[kind])
        np.testing.assert_array_equal(decode(data), by_pillow(data))
    data = saved(smooth(64, 64, seed=4), "JPEG", **JPEGS[kind])
    for step in (2, 4, 8):
        np.testing.assert_array_equal(decode(data, step), by_pillow(data, 64 // step))


def test_grey_jpegs_and_pngs():
    for data in (saved(smooth(40, 40).convert("L"), "JPEG"), saved(smooth(40, 40)), saved(smooth(40, 40), "WEBP")):
        np.testing.assert_array_equal(decode(data), by_pillow(data))


@pytest.mark.parametrize("step", [2, 3, 4, 5, 6, 7, 8, 12, 16, 32])
def test_means_are_exact_with_halves_to_even(step):
    rng = np.random.default_rng(step)
    for values in (rng.integers(0, 256, (8 * step, 8 * step, 3)), rng.integers(0, 2, (8 * step, 8 * step, 3)) * 255):
        blocks = values.reshape(8, step, 8, step, 3).astype(np.float64).mean(axis=(1, 3))
        np.testing.assert_array_equal(shrink(values.astype(np.uint8), 8), np.rint(blocks))


def test_threads_do_not_share_the_memory_of_sums():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(200)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda picture: shrink(picture, 16), pictures))
    for picture, mean in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(mean, shrink(picture, 16))
    assert not np.shares_memory(found[0], found[1])


def test_damage_is_noticed():
    whole = saved(smooth(64, 64), "JPEG")
    for bad in (b"", b"\xff\xd8\xff\xd9", whole[:-20], whole[: len(whole) // 2], saved(smooth(64, 64))[:-200]):
        with pytest.raises(BadPicture, match=r"not a picture|damaged"):
            decode(bad)
    with pytest.raises(BadPicture, match="64 x 64, the manifest says 32 x 32"):
        decode_square(whole, 32, 32)
    with pytest.raises(ArtifactError, match="cannot be shown at 128"):
        decode_square(whole, 64, 128)


def test_dct_policy():
    detail = np.asarray(smooth(256, 256)) + np.random.default_rng(0).normal(0, 8, (256, 256, 3))
    data = saved(Image.fromarray(np.clip(detail, 0, 255).astype(np.uint8)), "JPEG", quality=95)
    for side in (128, 64, 32, 16):
        exact, dct = (decode_square(data, 256, side, policy).astype(float) for policy in ("exact", "dct"))
        assert dct.shape == (side, side, 3) and not np.array_equal(exact, dct)
        assert 10 * np.log10(255**2 / np.mean((exact - dct) ** 2)) > 40
    for same in (data, saved(smooth(256, 256))):
        np.testing.assert_array_equal(decode_square(same, 256, 256, "dct"), decode_square(same, 256, 256))
