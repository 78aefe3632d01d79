"""Effective model memorization (Gu et al. 2023, section 2): up to how many training pictures a network copies them.

The share of copies falls with the number of pictures. Between two sizes that were trained it is taken for a line, and
where it falls through the level (90 %) is the number. Shares need not fall steadily: the last such place counts, and
the first is told beside it. Nothing is guessed outside of the sizes that were trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from mdm.study.runs import Emm

BELOW, ABOVE = -math.inf, math.inf  # the grid has only smaller shares than the level, or ends with a larger one


class Number(Protocol):
    """A measured row: its run, seed and metric, and its value with an interval over pictures."""

    @property
    def run(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


@dataclass(frozen=True)
class Place:
    """A share of copies at a number of training pictures, with half of its interval over drawn pictures."""

    pictures: int
    share: float
    half: float = 0.0


@dataclass(frozen=True)
class Crossing:
    """Where a curve falls through the level, last (with its interval) and first; infinite outside of the grid.

    between: the two sizes through which the line of the last one was drawn. The interval knows nothing of how the curve
    runs between them.
    """

    last: float
    first: float
    low: float | None
    high: float | None
    between: tuple[int, int] | None = None


def crossing(places: Sequence[Place], level: float) -> Crossing:
    """Of places by rising number of pictures."""
    falls = [(a, b) for a, b in pairwise(places) if a.share >= level > b.share]
    found = [_between(a, b, level) for a, b in falls]
    first = found[0][0] if found else BELOW
    if places[-1].share >= level:  # it may have been below the level in between
        return Crossing(ABOVE, first if found else ABOVE, None, None)
    if not found:
        return Crossing(BELOW, BELOW, None, None)
    last, half = found[-1]
    return Crossing(last, first, last - half, last + half, (falls[-1][0].pictures, falls[-1][1].pictures))


def comparable(one: Iterable[Crossing], other: Iterable[Crossing]) -> bool:
    """Whether what tells two curves apart can be more than where their sizes lie.

    One steep curve measured at 4 and 8 pictures crosses at 4.4, measured at 2 and 8 at 2.6. So crossings compare where
    they lie between the same two sizes, or in stretches that have no part in common.
    """
    pairs = [(a.between, b.between) for a in one for b in other if a.between and b.between]
    return all(a == b or max(a[0], b[0]) >= min(a[1], b[1]) for a, b in pairs)


def _between(a: Place, b: Place, level: float) -> tuple[float, float]:
    """Where the line through two places meets the level, and half of the interval of that, to first order."""
    drop, step = a.share - b.share, b.pictures - a.pictures
    slopes = (level - b.share) / drop**2, (a.share - level) / drop**2
    half = step * math.hypot(slopes[0] * a.half, slopes[1] * b.half)
    return a.pictures + (a.share - level) / drop * step, half


def places(curve: Emm, rows: Iterable[Number]) -> dict[int, list[Place]]:
    """The places of a curve that are known, by seed, each by rising number of pictures."""
    found: dict[int, dict[int, Place]] = {}
    for row in rows:
        if row.metric == curve.metric and row.run in curve.sizes:
            half = 0.0 if row.low is None or row.high is None else (row.high - row.low) / 2
            size = curve.sizes[row.run]
            found.setdefault(row.seed, {})[size] = Place(size, row.value, half)
    return {seed: [own[size] for size in sorted(own)] for seed, own in sorted(found.items())}


def crossings(curve: Emm, rows: Iterable[Number]) -> Mapping[int, Crossing]:
    """The crossing of each seed with which every size of the curve was trained and measured."""
    known = places(curve, rows)
    return {seed: crossing(own, curve.level) for seed, own in known.items() if len(own) == len(curve.sizes)}


def first_reached(curve: Sequence[tuple[float, float]], level: float) -> float:
    """The cost at which a rising curve of (cost, score) first is at the level, by lines over the logarithm of the cost.

    Infinite where it never is, minus infinite where it is beyond it from the beginning.
    """
    if curve[0][1] >= level:
        return -math.inf if curve[0][1] > level else curve[0][0]
    for (a, low), (b, high) in pairwise(curve):
        if high >= level:
            share = (level - low) / (high - low)
            return math.exp(math.log(a) + share * (math.log(b) - math.log(a)))
    return math.inf
