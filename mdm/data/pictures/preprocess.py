"""From the bytes of any picture file to the picture that a shard stores, or the reason why there is none.

Equal bytes and settings give the same result, byte for byte (with the Pillow of the lock file):

- The first frame of an animation, turned as its EXIF orientation says.
- sRGB: an embedded profile is converted (perceptual intent); one that cannot be read is ignored.
- Sixteen bits are rounded to eight, transparency shows white, grey becomes three equal channels.
- Scaled by `resize` until the shorter side is `resolution`, never up (unless a source says so), and cut by `crop`.

Bytes are hostile until proved otherwise: only FORMATS are tried, and sizes are checked before pixels are decoded.
"""

import html
import io
import struct
import unicodedata
import zlib
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.Image import Resampling, Transpose
from pydantic import Field, model_validator

from mdm.config import Positive, Strict
from mdm.data.pictures.failures import Failure
from mdm.data.rows import Picture, png

# No format that starts another program (EPS) or reads other files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
#: what Pillow raises for bytes that are damaged in one way or another
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
ORIENTATION = 0x0112
# How much larger than its final size a JPEG must come out of a DCT-scaled decoding: what is left to the resampling.
DCT_MARGIN = 2
JPG_QUALITY = 95
MOST_PIXELS = 178_956_970  # beyond these Pillow decodes nothing
JOINER = "\u200d"  # holds emoji together


Stored = Annotated[Literal["png", "jpg"], Field(description="file format of the pictures in the shards")]
CleanCaptions = Annotated[
    bool, Field(description="resolve HTML entities, drop control characters, compose Unicode (NFC)")
]
Duplicates = Annotated[
    Literal["none", "files", "looks"],
    Field(description="which to leave out: equal pictures, or also those that look alike"),
]


class PictureSettings(Strict):
    """What becomes of each picture before it is stored; part of the data set's recipe."""

    enlarges: ClassVar[bool] = False  # whether a source's small pictures are enlarged; otherwise they fail

    resolution: Positive = Field(description="length of the stored picture's shorter side; smaller pictures fail")
    resize: Literal["area", "bicubic", "lanczos", "adm"] = Field(
        default="lanczos",
        description="area: mean of the covered pixels; bicubic, lanczos: antialiased filters; adm: as the reference "
        "pictures of ImageNet FIDs are made, halved by means, then bicubic, then cut at whole pixels",
    )
    crop: Literal["centre", "none"] = Field(
        default="centre", description="centre: the square in the middle; none: all of it, for random squares later"
    )
    decode: Literal["full", "dct"] = Field(
        default="full", description="dct: large JPEGs are decoded at 1/2, 1/4 or 1/8, at least twice the final size"
    )
    stored: Stored = "png"
    jpg_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="of stored: jpg (chroma 4:2:0); default 95"
    )
    max_pixels: Annotated[int, Field(gt=0, le=MOST_PIXELS)] = Field(
        default=64_000_000, description="larger pictures fail before they are decoded"
    )
    max_aspect: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="longer side over shorter side; more elongated pictures fail"
    )

    @model_validator(mode="after")
    def _refuse_what_has_no_effect(self) -> Self:
        if self.stored != "jpg" and self.jpg_quality is not None:
            raise ValueError(f"jpg_quality {self.jpg_quality} has no effect on stored: {self.stored}; remove it")
        if self.resize == "adm" and self.crop != "centre":
            raise ValueError(f"resize: adm cuts the square in the middle, and crop is {self.crop}; write crop: centre")
        if self.resize == "adm" and (self.decode == "dct" or self.stored == "jpg"):
            given = f"decode: {self.decode}" if self.decode == "dct" else f"stored: {self.stored}"
            raise ValueError(f"resize: adm is a rule of every pixel, which {given} would change; leave that out")
        return self


def prepare(data: bytes, settings: PictureSettings) -> Picture | Failure:
    found = pixels(data, settings)
    return found if isinstance(found, Failure) else encode(found, settings)


def pixels(data: bytes, settings: PictureSettings) -> np.ndarray | Failure:
    """Return the prepared picture as uint8 [H, W, 3], or the reason why this file gives none."""
    loaded = _loaded(data, settings)
    return loaded if isinstance(loaded, Failure) else finished(loaded, settings)


def finished(picture: Image.Image, settings: PictureSettings) -> np.ndarray | Failure:
    """Turn, convert, cut and scale a decoded picture: uint8 [H, W, 3]."""
    turn = _orientation(picture)  # after loading: TIFFs then are turned already, and say so
    coloured = _srgb(picture, picture.info.get("icc_profile"))
    return coloured if isinstance(coloured, Failure) else np.asarray(_scaled(_turned(coloured, turn), settings))


def _loaded(data: bytes, settings: PictureSettings) -> Image.Image | Failure:
    """Decode the file; its size is judged before a pixel is decoded."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
        if (refused := refusal(opened.size, settings)) is not None:
            return refused
        if settings.decode == "dct":
            wanted, short = DCT_MARGIN * settings.resolution, min(opened.size)
            opened.draft(None, tuple(wanted * side // short for side in opened.size))  # does nothing but to JPEGs
        opened.load()
    except UnidentifiedImageError:
        return Failure.NOT_A_PICTURE
    except Image.DecompressionBombError:
        return Failure.TOO_MANY_PIXELS
    except MemoryError:
        raise
    except Exception:  # decoders of damaged files raise whatever comes: struct.error, IndexError, SyntaxError, ...
        return Failure.BROKEN_PICTURE
    return opened


def encode(picture: np.ndarray, settings: PictureSettings) -> Picture:
    """Encode uint8 [H, W, 3] as the file that `stored` asks for."""
    if settings.stored == "png":
        return png(picture)
    stream, quality = io.BytesIO(), settings.jpg_quality or JPG_QUALITY
    Image.fromarray(picture).save(stream, format="JPEG", quality=quality, subsampling="4:2:0")
    return Picture("jpg", stream.getvalue())


def clean_caption(text: str) -> str:
    """Remove HTML entities, control characters and stray white space; compose as Unicode's NFC."""
    text = unicodedata.normalize("NFC", html.unescape(text))
    visible = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join("".join(c for c in visible if unicodedata.category(c) != "Cf" or c == JOINER).split())


def refusal(size: tuple[int, int], settings: PictureSettings) -> Failure | None:
    """Return why a picture of this size is not wanted."""
    short, long = sorted(size)
    if short * long > settings.max_pixels:
        return Failure.TOO_MANY_PIXELS
    if short < settings.resolution and not settings.enlarges:
        return Failure.TOO_SMALL
    elongated = settings.max_aspect is not None and long > settings.max_aspect * short
    return Failure.TOO_ELONGATED if elongated else None


def _orientation(opened: Image.Image) -> int:
    """Return the EXIF orientation 1 to 8; a block that cannot be read says nothing."""
    try:
        return opened.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def _srgb(picture: Image.Image, profile: bytes | None) -> Image.Image | Failure:
    """Convert to mode RGB in sRGB, transparent parts on white."""
    low, high = picture.getextrema() if picture.mode == "I" else (0, 0)
    if picture.mode in ("F", "LAB") or low < 0 or high > 65535:
        return Failure.UNKNOWN_COLOURS
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    try:
        if not picture.has_transparency_data:
            return _converted(picture, profile)
        layers = picture.convert("RGBA")
        shown = Image.new("RGB", picture.size, "white")
        shown.paste(_converted(layers.convert("RGB"), profile), mask=layers.getchannel("A"))
        return shown
    except ValueError:  # Pillow knows no way from this mode to RGB
        return Failure.UNKNOWN_COLOURS


def _converted(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if picture.mode in ("P", "1", "LA", "PA"):
        picture = picture.convert("RGB")
    if not profile:
        return picture.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return picture.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # damaged, or for other channels than the picture has
        return picture.convert("RGB")


def _adm(picture: Image.Image, side: int) -> Image.Image:
    """Cut as ADM's, DiT's and EDM2's data are: the rule behind the published statistics of ImageNet.

    Other rules shift by up to half a pixel: on photographs of 500 x 375 by 4.6 grey levels of 255 in the mean.
    """
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Resampling.BOX)
    scale = side / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _scaled(picture: Image.Image, settings: PictureSettings) -> Image.Image:
    if settings.resize == "adm":
        return _adm(picture, settings.resolution)
    method = {"area": Resampling.BOX, "bicubic": Resampling.BICUBIC, "lanczos": Resampling.LANCZOS}[settings.resize]
    (width, height), side = picture.size, settings.resolution
    short = min(width, height)
    if settings.crop == "centre":  # the square in the middle
        left, top = (width - short) / 2, (height - short) / 2
        return picture.resize((side, side), method, box=(left, top, left + short, top + short))
    return picture.resize((round(width * side / short), round(height * side / short)), method)
