"""Decoding of stored pictures: the same pixels whichever decoder, exact means, and damage is noticed."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from test_preprocess import saved, smooth

from mdm.data.pictures.decode import SPARE_BYTES, BadPicture, cached_from, decode, decode_square, shrink
from mdm.files.atomic import ArtifactError

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


def test_four_colours_are_left_to_pillow():
    data = saved(smooth(64, 64).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decode(data), by_pillow(data))


def test_jpegs_are_decoded_in_place():
    data = saved(smooth(64, 64), "JPEG")
    for step, side in ((1, 64), (2, 32), (4, 16)):
        room, wrong = np.zeros((side, side, 3), np.uint8), np.zeros((side, side + 1, 3), np.uint8)
        assert decode(data, step, room) is room
        np.testing.assert_array_equal(room, decode(data, step))
        assert decode(data, step, wrong).shape == room.shape and not wrong.any()
    for policy in ("exact", "dct"):
        for side in (64, 32, 16, 8):
            room = np.zeros((side, side, 3), np.uint8)
            assert decode_square(data, 64, side, policy, out=room) is room
            np.testing.assert_array_equal(room, decode_square(data, 64, side, policy))
    assert not np.shares_memory(decode_square(data, 64, 16), decode_square(data, 64, 16))


@pytest.mark.parametrize("side", [1, 3, 5, 8, 9])
def test_tiny_pictures(side):
    data = saved(smooth(side, side, seed=4), "JPEG")
    np.testing.assert_array_equal(decode_square(data, side, side), by_pillow(data))
    if side == 8:
        np.testing.assert_array_equal(decode_square(data, 8, 4, "dct"), by_pillow(data, 4))


def test_memory_that_pixels_reach_through_the_caches():
    for address in range(1000, 1200):
        assert 0 <= cached_from(address) < SPARE_BYTES and (address + cached_from(address)) % 32 == 16


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
    for cut in range(4, len(whole), 7):
        with pytest.raises(BadPicture):
            decode(whole[:-cut])
        with pytest.raises(BadPicture):
            decode(whole[:-cut] + b"\xff\xd9")  # as OpenCV and Pillow take it: grey where the rest is missing
    with pytest.raises(BadPicture, match="64 x 64, the manifest says 32 x 32"):
        decode_square(whole, 32, 32)
    with pytest.raises(ArtifactError, match="cannot be shown at 128"):
        decode_square(whole, 64, 128)


def test_sizes_that_would_fill_the_memory_are_refused():
    whole = saved(smooth(64, 64), "JPEG")
    size = (64).to_bytes(2, "big") * 2
    assert whole[163:167] == size
    for claimed in (b"\xff\xdc\xff\xdc", b"\xff\xdc\x00\x40", b"\x00\x00\x00\x40"):
        with pytest.raises(BadPicture):
            decode(whole.replace(size, claimed))
    hidden = whole[:2] + b"\xff\xfe\x00\x13\xff\xc0\x00\x11\x08" + size + b"\x03" + bytes(7) + whole[2:]
    np.testing.assert_array_equal(decode(hidden), decode(whole))  # a remark that looks like a size is not one


def test_dct_policy():
    detail = np.asarray(smooth(256, 256)) + np.random.default_rng(0).normal(0, 8, (256, 256, 3))
    data = saved(Image.fromarray(np.clip(detail, 0, 255).astype(np.uint8)), "JPEG", quality=95)
    for side in (128, 64, 32, 16):
        exact, dct = (decode_square(data, 256, side, policy).astype(float) for policy in ("exact", "dct"))
        assert dct.shape == (side, side, 3) and not np.array_equal(exact, dct)
        assert 10 * np.log10(255**2 / np.mean((exact - dct) ** 2)) > 40
    for same in (data, saved(smooth(256, 256))):
        np.testing.assert_array_equal(decode_square(same, 256, 256, "dct"), decode_square(same, 256, 256))
