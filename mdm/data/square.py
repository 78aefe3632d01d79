"""Fetched bytes -> the centred square that is stored. The same bytes give the same JPEG (of one Pillow version)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mdm.data.failures import Failure
from mdm.data.sources import Picture

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
QUALITY = 95


def square_jpeg(data: bytes, side: int, max_pixels: int) -> Picture | Failure:
    """Centre crop and Lanczos to [side, side], as JPEG; the size is judged before a pixel is decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if (refused := _judge_size(opened.size, side, max_pixels)) is not None:
                return refused
            # Lanczos is left to the end: turning and cropping first costs nothing and changes no pixel.
            pixels = _rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        return Failure.NOT_A_PICTURE
    except Image.DecompressionBombError:
        return Failure.TOO_MANY_PIXELS
    except MemoryError:
        raise
    except Exception:  # decoders of damaged files raise whatever comes: struct.error, IndexError, SyntaxError, ...
        return Failure.BROKEN_PICTURE
    stream = io.BytesIO()
    ImageOps.fit(pixels, (side, side), Image.Resampling.LANCZOS).save(stream, format="JPEG", quality=QUALITY)
    return Picture("jpg", stream.getvalue())


def _judge_size(size: tuple[int, int], side: int, max_pixels: int) -> Failure | None:
    if size[0] * size[1] > max_pixels:
        return Failure.TOO_MANY_PIXELS
    return Failure.TOO_SMALL if min(size) < side else None


def _rgb(picture: Image.Image) -> Image.Image:
    """What is transparent becomes white; 16 bits of grey become 8."""
    from PIL import Image

    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    if picture.mode.startswith("I;16"):
        picture = picture.point(lambda value: value / 256).convert("L")
    return picture.convert("RGB")
