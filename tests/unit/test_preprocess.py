"""Pictures of every odd kind become plain sRGB squares, or a reason; the same bytes always give the same result."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from mdm.data.pictures.preprocess import PictureSettings, clean_caption, pixels, prepare

RED = (220, 30, 20)


def saved(picture, format="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, format=format, **options)
    return stream.getvalue()


def prepared(data, resolution=16, **settings):
    return pixels(data, PictureSettings(resolution=resolution, **settings))


def smooth(width, height, seed=0):
    """A picture without fine detail, so that lossy files stay near it."""
    coarse = np.random.default_rng(seed).integers(30, 225, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def off(a, b):
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def corner():
    """20 x 30 px, black but for a white square top left: shows every turn and mirror."""
    picture = np.zeros((30, 20, 3), dtype=np.uint8)
    picture[:10, :8] = 255
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation(orientation, format):
    upright = corner()
    # How a camera that notes this orientation stores the upright picture.
    stores = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p), 7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    data = saved(Image.fromarray(np.ascontiguousarray(stores[orientation](upright))), format, exif=exif, **options)
    assert off(prepared(data, 20, crop="none"), upright) < 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_is_ignored():
    data = saved(smooth(24, 24), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    np.testing.assert_array_equal(prepared(data, 24), smooth(24, 24))


def test_cmyk():
    cmyk = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    for format in ("JPEG", "TIFF"):
        assert off(prepared(saved(cmyk, format)), np.full((16, 16, 3), (255, 0, 0))) < 6


def test_sixteen_bit_grey_is_rounded_not_clipped():
    values = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 77
    for format in ("PNG", "TIFF"):
        found = prepared(saved(Image.fromarray(values), format))
        np.testing.assert_array_equal(found, np.repeat(np.rint(values / 257)[..., None], 3, axis=2))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, depth, colour, rows):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colour():
    row = b"\x00" + struct.pack(">HHH", 0x8000, 0x4000, 0xFFFF) * 16
    assert off(prepared(raw_png(16, 16, 16, 2, row * 16)), np.full((16, 16, 3), (128, 64, 255))) <= 1


def test_more_bits_are_a_reason():
    deep = Image.fromarray(np.full((16, 16), 70000, dtype=np.int32))
    floating = Image.fromarray(np.full((16, 16), 0.5, dtype=np.float32))
    for picture in (deep, floating):
        assert prepared(saved(picture, "TIFF")) == "unknown colours"
    assert prepared(saved(Image.new("LAB", (16, 16)), "TIFF")) == "unknown colours"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(mode):
    picture = Image.new(mode, (16, 16), (*RED, 255) if mode == "RGBA" else (40, 255))
    picture.paste((0,) * len(mode), (0, 0, 16, 8))  # black, fully transparent
    found = prepared(saved(picture))
    assert (found[:8] == 255).all() and tuple(found[12, 5]) == (RED if mode == "RGBA" else (40, 40, 40))
    half = saved(Image.new("RGBA", (16, 16), (0, 0, 0, 128)))
    assert off(prepared(half), np.full((16, 16, 3), 127)) <= 1


def test_palette_grey_and_black_and_white():
    colours = Image.new("P", (16, 16), 1)
    colours.putpalette([0, 0, 0, *RED])
    assert (prepared(saved(colours)) == RED).all() and (prepared(saved(colours, "GIF")) == RED).all()
    assert (prepared(saved(colours, transparency=1)) == 255).all()
    assert (prepared(saved(Image.new("L", (16, 16), 90))) == 90).all()
    assert (prepared(saved(Image.new("L", (16, 16), 90), transparency=90)) == 255).all()
    assert (prepared(saved(Image.new("1", (16, 16), 1))) == 255).all()


def test_colour_profiles_are_converted():
    swapped = swap_red_and_green(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red = Image.new("RGB", (16, 16), (200, 20, 20))
    assert off(prepared(saved(red, icc_profile=swapped)), np.full((16, 16, 3), (20, 200, 20))) < 12
    broken = saved(red, icc_profile=b"not a profile")
    np.testing.assert_array_equal(prepared(broken), red.resize((16, 16)))
    see_through = Image.new("RGBA", (16, 16), (200, 20, 20, 255))
    assert off(prepared(saved(see_through, icc_profile=swapped)), np.full((16, 16, 3), (20, 200, 20))) < 12


def swap_red_and_green(profile):
    """The sRGB profile with its red and green primaries exchanged, under another name."""
    content = bytearray(profile)
    for at in range(132, 132 + 12 * struct.unpack(">I", content[128:132])[0], 12):
        tag = bytes(content[at : at + 4])
        if tag in (b"rXYZ", b"gXYZ"):
            content[at : at + 4] = b"gXYZ" if tag == b"rXYZ" else b"rXYZ"
    return bytes(content).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")


def test_bytes_that_are_no_picture_are_reasons():
    good = saved(smooth(64, 64), "JPEG", quality=95)
    whole_png = saved(smooth(64, 64))
    assert prepared(b"") == "not a picture"
    assert prepared(b"<html>not found</html>") == "not a picture"
    assert prepared(b"\x00" * 1000) == "not a picture"
    assert prepared(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n") == "not a picture"
    for whole in (good, whole_png):
        for share in (0.3, 0.6, 0.9):
            assert prepared(whole[: int(len(whole) * share)]) == "broken picture"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_never_raises():
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = np.frombuffer(saved(smooth(40, 32), format), dtype=np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
            found = prepared(broken.tobytes())
            assert isinstance(found, str) or found.shape == (16, 16, 3)


def test_bombs_are_refused_before_decoding():
    assert prepared(raw_png(60_000, 60_000, 8, 2, b"")) == "too many pixels"
    assert prepared(raw_png(9_000, 9_000, 8, 2, b"")) == "too many pixels"
    assert prepared(saved(smooth(64, 64)), max_pixels=4000) == "too many pixels"


def test_filters_by_size_and_aspect():
    assert prepared(saved(smooth(64, 15))) == "too small"
    assert prepared(saved(smooth(64, 20)), max_aspect=3) == "too elongated"
    assert prepared(saved(smooth(60, 20)), max_aspect=3).shape == (16, 16, 3)


@pytest.mark.parametrize("size", [(48, 32), (32, 48), (33, 47), (32, 32)])
def test_the_square_in_the_middle(size):
    picture = smooth(*size)
    found, short = prepared(saved(picture), 16, resize="area"), min(size)
    left, top = (size[0] - short) / 2, (size[1] - short) / 2
    box = (left, top, left + short, top + short)
    np.testing.assert_array_equal(found, picture.resize((16, 16), Image.Resampling.BOX, box=box))
    if short == 32 and not (size[0] - short) % 2:
        square = np.asarray(picture.crop(box)).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        assert np.abs(found - square).max() <= 1  # means of the covered pixels; Pillow rounds once per direction


def test_all_of_a_picture_can_be_kept():
    assert prepared(saved(smooth(96, 48)), crop="none").shape == (16, 32, 3)
    assert prepared(saved(smooth(48, 100)), crop="none").shape == (33, 16, 3)


def test_scaling_filters_against_their_definitions():
    """One bright pixel through each filter: the kernels written out."""
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[:, 30] = 240
    row = {name: prepared(saved(Image.fromarray(picture)), 16, resize=name)[8, :, 0] for name in KERNELS}
    for name, (kernel, support) in KERNELS.items():
        centres = (np.arange(16) + 0.5) * 4
        weights = np.array([[kernel((x + 0.5 - c) / 4) for x in range(64)] for c in centres])
        expected = 240 * weights[:, 30] / weights.sum(axis=1)
        assert np.abs(row[name] - np.clip(np.rint(expected), 0, 255)).max() <= 1, name
        assert (row[name] > 0).sum() <= 2 * support


KERNELS = {
    "area": (lambda x: float(-0.5 < x <= 0.5), 0.5),
    "bicubic": (
        lambda x: (
            1.5 * abs(x) ** 3 - 2.5 * x * x + 1 if abs(x) < 1
            else -0.5 * abs(x) ** 3 + 2.5 * x * x - 4 * abs(x) + 2 if abs(x) < 2 else 0.0
        ),
        2,
    ),
    "lanczos": (lambda x: float(np.sinc(x) * np.sinc(x / 3)) if abs(x) < 3 else 0.0, 3),
}  # fmt: skip


def test_dct_scaled_decoding_stays_close():
    rng = np.random.default_rng(1)
    detail = np.asarray(smooth(1024, 768)).astype(float) + rng.normal(0, 12, (768, 1024, 3))
    data = saved(Image.fromarray(np.clip(detail, 0, 255).astype(np.uint8)), "JPEG", quality=90)
    full, fast = (prepared(data, 64, decode=policy).astype(float) for policy in ("full", "dct"))
    assert not np.array_equal(full, fast)  # the policy has an effect
    assert 10 * np.log10(255**2 / np.mean((full - fast) ** 2)) > 45
    small = saved(smooth(100, 100), "JPEG")
    np.testing.assert_array_equal(prepared(small, 64, decode="full"), prepared(small, 64, decode="dct"))


@pytest.mark.parametrize("stored", ["png", "jpg"])
def test_same_bytes_same_file(stored):
    data, settings = saved(smooth(50, 40), "WEBP"), PictureSettings(resolution=32, stored=stored)
    first, second = prepare(data, settings), prepare(data, settings)
    assert first == second and first.extension == stored
    with Image.open(io.BytesIO(first.data)) as picture:
        assert picture.size == (32, 32) and picture.mode == "RGB" and not picture.getexif()
        assert off(picture, pixels(data, settings)) <= (0 if stored == "png" else 12)


def test_jpg_quality_has_an_effect():
    data = saved(smooth(64, 64))
    sizes = [len(prepare(data, PictureSettings(resolution=64, stored="jpg", jpg_quality=q)).data) for q in (40, 95)]
    assert sizes[0] < sizes[1]
    with pytest.raises(ValueError, match="jpg_quality 90 has no effect on stored: png"):
        PictureSettings(resolution=64, jpg_quality=90)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (prepared(data) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a  cat\n\ton a mat ", "a cat on a mat"),
        ("fish &amp; chips &quot;to go&quot;", 'fish & chips "to go"'),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff and\x00 control", "zerowidth and control"),
        ("family 👩\u200d👧", "family 👩\u200d👧"),
        ("", ""),
    ],
)
def test_captions_are_cleaned(raw, clean):
    assert clean_caption(raw) == clean and clean_caption(clean) == clean
