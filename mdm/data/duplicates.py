"""Which pictures of a set are there twice: equal files, or pictures that look alike.

Two pictures look alike if their difference hashes (64 bits: is each spot of a 9 x 8 thumbnail darker than the one to
its right?) differ in at most `distance` bits. The first in the given order is kept; a later one is left out if it
looks like one that was kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np

HASH_BITS = 64


def repeated(values: Iterable[Hashable]) -> list[bool]:
    """Whether each value was there before."""
    seen: set[Hashable] = set()
    return [value in seen or seen.add(value) is not None for value in values]


def look(pixels: np.ndarray) -> int:
    """The difference hash of uint8 [H, W, 3]."""
    from PIL import Image

    thumbnail = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(thumbnail, dtype=np.int16)
    return int.from_bytes(np.packbits(values[:, :-1] < values[:, 1:]).tobytes(), "big")


def look_alikes(looks: Sequence[int], distance: int) -> list[bool]:
    """Whether each hash differs in at most `distance` bits from an earlier one that was kept.

    Hashes are filed under each of distance + 1 bands of their bits: two that differ in at most `distance` bits agree
    in at least one band, so only those filed together are compared, and none is missed.
    """
    edges = [band * HASH_BITS // (distance + 1) for band in range(distance + 2)]
    filed: dict[tuple[int, int], list[int]] = {}
    found = []
    for value in looks:
        places = [(a, value >> a & ((1 << b - a) - 1)) for a, b in pairwise(edges)]
        near = any((value ^ other).bit_count() <= distance for place in places for other in filed.get(place, ()))
        found.append(near)
        if not near:
            for place in places:
                filed.setdefault(place, []).append(value)
    return found
