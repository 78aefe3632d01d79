"""Where objects go: random guillotine cuts of the frame, so that nothing overlaps and every relation is true.

Coordinates are in units of the frame, y down. An object's cell holds its circumscribed circle and half a gap around it.
"""

import itertools
import math
import random
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Point = tuple[float, float]
Disc = tuple[Point, float]  # centre, radius
Region = tuple[tuple[float, float], tuple[float, float]]  # (x from, to), (y from, to)

RADII = {"small": 0.1, "medium": 0.138, "large": 0.19}
RADIUS_SPREAD = 0.06
CONTAINER_RADII = (0.39, 0.42)
MARGIN = 0.03
GAP = 0.025
GROUP_GAP = 0.06
CLOSE_ROOM = (0.08, 0.45)  # share of the objects' extent that a close-up shows around them
FRAME: Region = ((MARGIN - GAP / 2, 1 - MARGIN + GAP / 2),) * 2
# A side relation is shown only when the other direction is clearly the lesser one.
CLEAR_SLOPE = 0.55
AXES = {"left": 0, "right": 0, "above": 1, "below": 1}


class Draw:
    """Random choices from one stream. Only random() is used: its values are the same in every Python."""

    def __init__(self, key: int) -> None:
        self._random = random.Random(key).random

    def index(self, size: int) -> int:
        return int(self._random() * size)

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.index(len(items))]

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()


def _cell(radius: float) -> float:
    return 2 * radius + GAP


def _need(count: int, radius: float, across: float) -> float:
    """Return the length that `count` objects take where `across` is free in the other direction (inf: none fits)."""
    rows = int(across / _cell(radius) + 1e-9)
    return math.ceil(count / rows) * _cell(radius) if rows else math.inf


@cache
def largest_radius(size: str) -> float:
    return RADII[size] * (1 + RADIUS_SPREAD)


@cache
def fits(counts: tuple[int, ...], sizes: tuple[str, ...]) -> bool:
    """Return whether groups of these counts and sizes find room side by side in the frame."""
    side = FRAME[0][1] - FRAME[0][0]
    needs = [_need(n, largest_radius(s), side) for n, s in zip(counts, sizes, strict=True)]
    return sum(needs) + (len(counts) - 1) * (GROUP_GAP - GAP) <= side


def scatter(draw: Draw, count: int, radius: float, region: Region) -> list[Point]:
    """Place `count` objects in a region, by random cuts that leave room on both sides; return their centres."""
    if count == 1:
        half = _cell(radius) / 2
        return [tuple(draw.between(low + half, high - half) for low, high in region)]  # type: ignore[list-item]
    cuts = []
    for axis in (0, 1):
        (low, high), (other_low, other_high) = region[axis], region[1 - axis]
        for first in range(1, count):
            needs = [_need(n, radius, other_high - other_low) for n in (first, count - first)]
            if sum(needs) <= high - low + 1e-9:
                cuts.append((axis, first, low + needs[0], max(low + needs[0], high - needs[1])))
    axis, first, earliest, latest = draw.pick(cuts)
    at = draw.between(earliest, latest)
    before, after = _cut(region, axis, at, at)
    return scatter(draw, first, radius, before) + scatter(draw, count - first, radius, after)


def _cut(region: Region, axis: int, end: float, start: float) -> tuple[Region, Region]:
    parts = ((region[axis][0], end), (start, region[axis][1]))
    before, after = ((part, region[1]) if axis == 0 else (region[0], part) for part in parts)
    return before, after


def side_by_side(draw: Draw, relation: str, counts: Sequence[int], radii: Sequence[float]) -> list[list[Point]]:
    """Place two groups, the first `relation` of the second; drawn again until the direction is clear."""
    axis = AXES[relation]
    swap = relation in ("right", "below")
    order = (1, 0) if swap else (0, 1)
    for _ in range(500):
        groups = _split_frame(draw, axis, [counts[i] for i in order], [radii[i] for i in order])
        if _is_clear(groups, axis):
            return groups[::-1] if swap else groups
    raise RuntimeError(f"no clear layout for {counts} {relation} with radii {radii}: widen layout.CLEAR_SLOPE")


def _split_frame(draw: Draw, axis: int, counts: list[int], radii: list[float]) -> list[list[Point]]:
    (low, high), (other_low, other_high) = FRAME[axis], FRAME[1 - axis]
    spare = GROUP_GAP - GAP
    needs = [_need(n, r, other_high - other_low) for n, r in zip(counts, radii, strict=True)]
    at = draw.between(low + needs[0], high - needs[1] - spare)
    regions = _cut(FRAME, axis, at, at + spare)
    return [scatter(draw, n, r, region) for n, r, region in zip(counts, radii, regions, strict=True)]


def _is_clear(groups: list[list[Point]], axis: int) -> bool:
    means = [[sum(p[a] for p in group) / len(group) for a in (0, 1)] for group in groups]
    along, across = (abs(means[1][a] - means[0][a]) for a in (axis, 1 - axis))
    return across <= CLEAR_SLOPE * along


def room_needed(count: int, size: str) -> float:
    """Return the radius of the disc that holds one, two or three objects of a size, with a gap around."""
    return _cluster_radius(count, largest_radius(size)) + GAP


def _cluster_radius(count: int, radius: float) -> float:
    spacing = radius + GAP / 2
    return radius + {1: 0.0, 2: spacing, 3: spacing * 2 / math.sqrt(3)}[count]


def cluster(draw: Draw, count: int, radius: float, centre: Point, room: float) -> list[Point]:
    """Place one to three objects inside a disc of radius `room`, evenly around a random point."""
    slack = max(0.0, room - GAP - _cluster_radius(count, radius))
    drift, heading, turn = (draw.between(0, slack), draw.between(0, math.tau), draw.between(0, math.tau))
    x, y = centre[0] + drift * math.cos(heading), centre[1] + drift * math.sin(heading)
    arm = _cluster_radius(count, radius) - radius
    angles = [turn + math.tau * k / count for k in range(count)]
    return [(x + arm * math.cos(a), y + arm * math.sin(a)) for a in angles]


def close_up(draw: Draw, groups: Sequence[Sequence[Disc]], relation: str | None) -> list[list[Disc]]:
    """Pull the discs together until two nearly touch, then enlarge them to fill the frame but for CLOSE_ROOM."""
    pull = 1.0 if relation == "inside" else min(1.0, _tightest(groups, AXES.get(relation or "")))
    discs = [((x * pull, y * pull), radius) for group in groups for (x, y), radius in group]
    spans = [(min(c[a] - r for c, r in discs), max(c[a] + r for c, r in discs)) for a in (0, 1)]
    side = max(high - low for low, high in spans) * (1 + draw.between(*CLOSE_ROOM))
    left, top = (draw.between(high - side * (1 - MARGIN), low - side * MARGIN) for low, high in spans)
    seen = iter((((x - left) / side, (y - top) / side), radius / side) for (x, y), radius in discs)
    return [[next(seen) for _ in group] for group in groups]


def _tightest(groups: Sequence[Sequence[Disc]], axis: int | None) -> float:
    """Return the largest share of their distances that discs need; two groups stay apart along their own axis."""
    within = [(pair, math.dist(pair[0][0], pair[1][0])) for g in groups for pair in itertools.combinations(g, 2)]
    pairs = [] if axis is None else itertools.product(*groups)
    across = [(pair, abs(pair[0][0][axis] - pair[1][0][axis])) for pair in pairs]
    return max(((one[1] + other[1] + GAP) / apart for (one, other), apart in within + across), default=1.0)
