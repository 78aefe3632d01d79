"""Sampled pictures with their captions: a row per prompt, all levels side by side, never a choice."""

import base64
import io
import math
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mdm.files.atomic import ArtifactError
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.study.runs import Run

SHEET_ROWS = 8
CELL_PIXELS, GAP_PIXELS, TEXT_PIXELS, FONT_PIXELS = 128, 8, 300, 14
GREY = (122, 122, 122, 255)  # readable on white and on black
LOSSLESS_UP_TO = 64  # pixels; larger pictures are JPEG, or the page would be tens of megabytes
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Pictures:
    """What one run drew: captions and uint8 arrays [N, H, W, 3] by resolution, lowest first."""

    captions: list[str]
    ids: list[str]
    levels: dict[int, np.ndarray]


@dataclass(frozen=True)
class Shown:
    """One picture of the page."""

    resolution: int
    uri: str


@dataclass(frozen=True)
class Prompt:
    """One row of the page: a caption and its picture at every level."""

    id: str
    caption: str
    pictures: list[Shown]


def samples_of(run: Run, protocol: str | None) -> str | None:
    """The artifact with a run's pictures, under the protocol or else the first it has."""
    found = {e.protocol: e.samples for e in reversed(run.evaluations)}
    return found.get(protocol) or next(iter(found.values()), None)


def load(artifacts: Artifacts, samples: str | None, count: int) -> Pictures | None:
    """The first pictures of an images.npz, None when they are not drawn yet."""
    path = artifacts.path(samples, "images.npz") if samples else None
    if path is None:
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        captions, ids = ([str(x) for x in _first(archive, name, count)] for name in ("captions", "ids"))
        arrays = [_first(archive, name, count) for name in names if name not in ("captions", "ids")]
    return Pictures(captions, ids, dict(sorted(_levels(arrays, path))))


def _first(archive: zipfile.ZipFile, name: str, count: int) -> np.ndarray:
    """The first rows of an array without reading the others: a protocol may hold 30,000 pictures."""
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if dtype.hasobject:
            raise ArtifactError(f"{archive.filename} holds Python objects in {name!r}; pictures and text only are read")
        shape = (min(count, shape[0]), *shape[1:])
        content = member.read(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape)


def _levels(arrays: list[np.ndarray], path: Path) -> Iterator[tuple[int, np.ndarray]]:
    pictures = [array for array in arrays if array.ndim == 4]
    if not pictures:
        raise ArtifactError(f"{path} holds no array of pictures [N, H, W, 3]; delete its folder and sample again")
    for array in pictures:
        if array.dtype != np.uint8 or array.shape[-1] != 3:
            raise ArtifactError(f"{path} holds pictures of {array.dtype} {array.shape}, expected uint8 [N, H, W, 3]")
        yield array.shape[1], array


def data_uri(array: np.ndarray) -> str:
    """A picture [H, W, 3] as a data URI: PNG when small, JPEG when large."""
    stream, small = io.BytesIO(), array.shape[0] <= LOSSLESS_UP_TO
    options = {"optimize": True} if small else {"quality": JPEG_QUALITY, "optimize": True}
    Image.fromarray(array).save(stream, "PNG" if small else "JPEG", **options)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def prompts(artifacts: Artifacts, run: Run, protocol: str | None, count: int, top_only: bool = False) -> list[Prompt]:
    """The first `count` prompts of a run for the page, [] when it has no pictures yet."""
    pictures = load(artifacts, samples_of(run, protocol), count)
    if pictures is None:
        return []
    levels = list(pictures.levels)[-1:] if top_only else list(pictures.levels)
    return [
        Prompt(name, caption, [Shown(r, data_uri(pictures.levels[r][index])) for r in levels])
        for index, (name, caption) in enumerate(zip(pictures.ids, pictures.captions, strict=True))
    ]


def sheet(evidence: Evidence, artifacts: Artifacts, run: str) -> bytes:
    """One PNG: a row per prompt, every level scaled to one size, the caption beside them."""
    pictures = load(artifacts, samples_of(evidence.runs[run], evidence.protocol()), SHEET_ROWS)
    if pictures is None:
        return _png(_message(f"Nothing to show yet: {run} has drawn no pictures."))
    step = CELL_PIXELS + GAP_PIXELS
    width = step * len(pictures.levels) + TEXT_PIXELS
    canvas = Image.new("RGBA", (width, step * len(pictures.captions) + FONT_PIXELS + GAP_PIXELS), (0, 0, 0, 0))
    pen = ImageDraw.Draw(canvas)
    for column, resolution in enumerate(pictures.levels):
        pen.text((column * step, 0), f"{resolution} px", fill=GREY, font=_font())
    for row, caption in enumerate(pictures.captions):
        top = row * step + FONT_PIXELS + GAP_PIXELS
        for column, array in enumerate(pictures.levels.values()):
            canvas.paste(_cell(array[row]), (column * step, top))
        lines = textwrap.wrap(caption, 36)[:6]
        pen.text((step * len(pictures.levels) + GAP_PIXELS, top), "\n".join(lines), fill=GREY, font=_font(), spacing=5)
    return _png(canvas)


def _cell(array: np.ndarray) -> Image.Image:
    """Small pictures keep their pixels visible, large ones are averaged down."""
    method = Image.Resampling.NEAREST if array.shape[0] <= CELL_PIXELS else Image.Resampling.LANCZOS
    return Image.fromarray(array).resize((CELL_PIXELS, CELL_PIXELS), method)


def _message(text: str) -> Image.Image:
    canvas = Image.new("RGBA", (640, 40), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 10), text, fill=GREY, font=_font())
    return canvas


def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own DejaVu Sans: the same letters on every machine."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", FONT_PIXELS)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
