"""The alphabet of the scenes: shapes as signed distances, colours, background tones.

A shape is a function (u, v) -> d in units of its circumscribed radius, v up, d < 0 inside, exact near the outline only.
"""

import math
from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Chosen for distance in CIELAB: every pair of colours is at least 30 apart, every colour is at least 35 from
# every background tone (tested), so a colour word never becomes a matter of taste.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 34, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 218, 40),
    "green": (36, 150, 62),
    "cyan": (50, 200, 214),
    "blue": (36, 78, 214),
    "purple": (150, 60, 190),
    "pink": (246, 128, 190),
}
TONES: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 244),
    "cream": (244, 232, 206),
    "grey": (178, 180, 184),
    "charcoal": (58, 60, 66),
    "black": (14, 14, 18),
}
LIGHT_INK = np.array((250, 250, 248), dtype=np.float32)
DARK_INK = np.array((34, 34, 44), dtype=np.float32)


def circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A disc, a little smaller than the unit circle so that its area is like the others'."""
    return np.sqrt(u * u + v * v) - 0.88


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """An axis-parallel square with its corners on the unit circle."""
    return np.maximum(np.abs(u), np.abs(v)) - 0.70


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """An equilateral triangle, point up."""
    return np.maximum(-v, 0.8660254 * np.abs(u) + 0.5 * v) - 0.5


def diamond(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A rhombus, taller than wide: never mistaken for a turned square."""
    return (np.abs(u) / 0.62 + np.abs(v) - 1.0) / math.hypot(1 / 0.62, 1.0)


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A five-pointed star: one edge, folded ten times around the centre."""
    sector = 2 * math.pi / 5
    angle = np.abs((np.arctan2(u, v) + sector / 2) % sector - sector / 2)
    radius = np.sqrt(u * u + v * v)
    inner_x, inner_y = 0.45 * math.cos(sector / 2), 0.45 * math.sin(sector / 2)
    length = math.hypot(1 - inner_x, inner_y)
    normal_x, normal_y = inner_y / length, (1 - inner_x) / length
    return (radius * np.cos(angle) - 1) * normal_x + radius * np.sin(angle) * normal_y


def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A plus sign: two bars."""
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - 0.93, b - 0.33), np.maximum(a - 0.33, b - 0.93))


def heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A square on its corner with a half disc on each upper edge."""
    half, a, b = 0.56, np.abs(u), v + 0.208
    lobe = half * math.sqrt(0.5)
    body = (np.maximum(np.abs(a + b), np.abs(b - a))) * math.sqrt(0.5) - half
    return np.minimum(body, np.hypot(a - lobe, b - lobe) - half)


def crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A moon, open to the right: a disc minus a disc."""
    return np.maximum(np.sqrt(u * u + v * v) - 0.92, 0.66 - np.hypot(u - 0.48, v))


NAMED: tuple[Distance, ...] = (circle, square, triangle, diamond, star, cross, heart, crescent)
SHAPES = {shape.__name__: shape for shape in NAMED}
# Shapes that can hold others: (height of the centre, radius) of a disc inside them, in circumscribed radii.
ROOMS: dict[str, tuple[float, float]] = {
    "circle": (0.0, 0.88),
    "square": (0.0, 0.70),
    "triangle": (0.0, 0.50),
    "diamond": (0.0, 0.527),
    "heart": (0.05, 0.43),
}


def is_held_out(colour: str, shape: str) -> bool:
    """A fixed Latin pattern: one colour in eight for every shape, one shape in eight for every colour."""
    return (list(COLOURS).index(colour) + 3 * list(SHAPES).index(shape)) % 8 == 5
