"""From facts to pixels: antialiased drawing by signed distances, the same picture at every resolution.

Layers are integrals over a pixel's area. Below 64 px, where textures are finer, a scene is drawn larger and averaged.
"""

import math
from functools import lru_cache

import numpy as np

from mdm.data.sources.scenes.records import Background, Group, Scene
from mdm.data.sources.scenes.shapes import COLOURS, DARK_INK, LIGHT_INK, SHAPES, TONES

SMALLEST, FINEST, LARGEST = 8, 64, 1024
TEXTURE_PERIOD = 0.078  # of the frame: five pixels at 64
INK_SHARE = 0.40
TEXTURE_RIM = 0.016
DOT_RADIUS = 0.022
OUTLINE = 0.24  # of the object's radius
GRID_PERIOD, GRID_LINE = 1 / 8, 1 / 64
SPECKLES = 64  # cells along each side


def render(scene: Scene, resolution: int) -> np.ndarray:
    """Draw a scene as uint8 [resolution, resolution, 3]."""
    if not SMALLEST <= resolution <= LARGEST:
        raise ValueError(f"a scene cannot be drawn at {resolution} px; choose {SMALLEST} to {LARGEST}")
    enlarge = math.ceil(FINEST / resolution)
    canvas = _background(scene.background, resolution * enlarge)
    # Containers come second in a scene but lie below what they contain.
    for group in reversed(scene.groups):
        for centre, tilt in zip(group.centres, group.tilts, strict=True):
            _draw(canvas, group, centre, tilt)
    if enlarge > 1:
        canvas = canvas.reshape(resolution, enlarge, resolution, enlarge, 3).mean(axis=(1, 3))
    return np.rint(canvas).astype(np.uint8)


@lru_cache(maxsize=16)
def _centres(resolution: int) -> np.ndarray:
    return ((np.arange(resolution) + 0.5) / resolution).astype(np.float32)


def _draw(canvas: np.ndarray, group: Group, centre: tuple[float, float], tilt: float) -> None:
    """Blend one object into the canvas; only its bounding box is touched."""
    size = canvas.shape[0]
    (x0, x1), (y0, y1) = (_box(c, group.radius, size) for c in centre)
    middles = _centres(size)
    x, y = (middles[x0:x1] - centre[0]) / group.radius, (centre[1] - middles[y0:y1, None]) / group.radius
    cosine, sine = math.cos(tilt), math.sin(tilt)
    u, v = cosine * x + sine * y, cosine * y - sine * x
    scale = group.radius * size  # pixels per unit of u
    distance = SHAPES[group.shape](u, v)
    if group.fill == "outlined":
        distance = np.maximum(distance, -(distance + OUTLINE))
    colour = _colour(group, u, v, distance, scale)
    patch = canvas[y0:y1, x0:x1]
    patch += _coverage(distance, scale)[..., None] * (colour - patch)


def _box(centre: float, radius: float, size: int) -> tuple[int, int]:
    return max(0, int((centre - radius) * size - 1)), min(size, int((centre + radius) * size + 2))


def _coverage(distance: np.ndarray, scale: float) -> np.ndarray:
    """Return the share of each pixel inside an edge; `scale` is pixels per unit of distance."""
    return np.clip(0.5 - distance * np.float32(scale), 0.0, 1.0)


def _colour(group: Group, u: np.ndarray, v: np.ndarray, distance: np.ndarray, scale: float) -> np.ndarray:
    """Return the colour of each pixel of an object: [3] for plain fills, [h, w, 3] for textures."""
    colour = np.array(COLOURS[group.colour], dtype=np.float32)
    if group.fill not in ("striped", "dotted"):
        return colour
    period = TEXTURE_PERIOD / group.radius
    if group.fill == "striped":
        # A diagonal stripe meets a pixel over about 1.2 of its sides.
        share = _stripes((u + v) * np.float32(math.sqrt(0.5)), period, INK_SHARE, 1.2 / scale)
    else:
        a, b = ((w - np.rint(w / period) * period) for w in (u, v))
        share = _coverage(np.sqrt(a * a + b * b) - DOT_RADIUS / group.radius, scale)
    # A rim of plain colour keeps the outline whole where the ink is like the background.
    share = share * _coverage(distance + np.float32(TEXTURE_RIM / group.radius), scale)
    luminance = colour @ np.array((0.299, 0.587, 0.114), dtype=np.float32)
    ink = DARK_INK if luminance > 120 else LIGHT_INK
    return colour + share[..., None] * (ink - colour)


def _stripes(at: np.ndarray, period: float, share: float, width: float) -> np.ndarray:
    """Average over a window a wave that is 1 for `share` of each period, around the multiples of it."""

    def integral(position: np.ndarray) -> np.ndarray:
        phase = position / period + share / 2
        whole = np.floor(phase)
        return (whole * share + np.minimum(phase - whole, share)) * period

    return np.clip((integral(at + width / 2) - integral(at - width / 2)) / width, 0.0, 1.0)


def _background(background: Background, size: int) -> np.ndarray:
    """Draw a background, float32 [size, size, 3]."""
    tone = np.array(TONES[background.tone], dtype=np.float32)
    if background.kind == "plain":
        return np.broadcast_to(tone, (size, size, 3)).copy()
    # Second tones stay near the first: never the colour of an object, never another tone's name.
    other = tone * 0.86 if tone.mean() > 128 else tone + 0.13 * (255 - tone)
    share = _pattern(background, size)
    return tone + share[..., None] * (other - tone)


def _pattern(background: Background, size: int) -> np.ndarray:
    """Return the share of the second tone, float32 [size, size]."""
    if background.kind == "grid":
        return _grid(size)
    if background.kind == "speckle":
        cells = np.random.Generator(np.random.PCG64(background.noise)).random((SPECKLES, SPECKLES), dtype=np.float32)
        shares = _cell_shares(size)
        return shares @ (cells > 0.8).astype(np.float32) @ shares.T
    x, y = math.cos(background.angle), math.sin(background.angle)
    ramp = _centres(size) - np.float32(0.5)
    return np.float32(0.5) + (np.float32(x) * ramp + np.float32(y) * ramp[:, None]) / np.float32(abs(x) + abs(y))


@lru_cache(maxsize=16)
def _grid(size: int) -> np.ndarray:
    line = _stripes(_centres(size) - np.float32(GRID_PERIOD / 2), GRID_PERIOD, GRID_LINE / GRID_PERIOD, 1 / size)
    return (1 - (1 - line) * (1 - line[:, None])).astype(np.float32)


@lru_cache(maxsize=16)
def _cell_shares(size: int) -> np.ndarray:
    """Return how much of each pixel lies in each speckle cell, float32 [size, SPECKLES]; rows sum to 1."""
    edges = np.arange(size + 1) / size * SPECKLES
    cells = np.arange(SPECKLES)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (np.clip(overlap, 0, None) * size / SPECKLES).astype(np.float32)
