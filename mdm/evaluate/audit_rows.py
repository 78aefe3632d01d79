"""The numbers of an audit: rows of metrics with their intervals over drawn pictures, and facts beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdm.evaluate import copies
from mdm.evaluate.intervals import groups_of, jackknife, metric, proportion
from mdm.evaluate.metric_names import AGREEMENT, at_level
from mdm.evaluate.neighbours import Neighbours
from mdm.evaluate.worst_pairs import Pair

Rows = Iterator[dict[str, Any]]
# How often training pictures stand, from and up to (none: and more).
MULTIPLICITIES: tuple[tuple[int, int | None], ...] = ((1, 1), (2, 3), (4, 9), (10, 99), (100, None))


@dataclass(frozen=True)
class Level:
    """What was found at one level, of Q drawn pictures."""

    side: int
    squared: np.ndarray  # to the nearest training pictures, however often these stand [Q,k]
    distinct: Neighbours  # the nearest distinct ones, by their number in the set
    times: np.ndarray  # how often each of those stands [Q,k]
    numbers: np.ndarray  # of all distinct training pictures
    copies: np.ndarray  # and how often each stands
    own: np.ndarray | None = None  # from the nearest training picture to its own nearest other one [Q]
    held_out: np.ndarray | None = None  # from held-out pictures to their nearest training picture [H]
    coarse: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # drawn, held-out and training pictures, tiny
    released: np.ndarray | None = None  # two distances in float32 [Q,2]


def share(name: str, true: np.ndarray) -> dict[str, Any]:
    """A share of pictures with Wilson's interval, and what it would be without each group of them."""
    every = np.arange(len(true))
    return proportion(name, true, [float(true[np.delete(every, group)].mean()) for group in groups_of(len(true))])


def _ratios(level: Level) -> Rows:
    """The ratio by three thresholds, and by the usual one among distinct pictures."""
    for name, one_in in copies.RULES.items():
        yield share(at_level(name, level.side), copies.copied(level.squared, one_in))
    if level.distinct.squared.shape[1] > 1:
        yield share(at_level("copied_distinct", level.side), copies.copied(level.distinct.squared))


def _calibrated(level: Level) -> Rows:
    """Nothing where there are fewer training pictures than its mean is over: it would be another measure."""
    if level.squared.shape[1] < copies.CALIBRATED:
        return
    yield share(at_level("calibrated", level.side), copies.calibrated(level.squared) < 1)


def agreements(drawn: Mapping[int, np.ndarray], twin: Mapping[int, np.ndarray]) -> Rows:
    """How alike two networks draw from the same noises, at each level: near 1 where neither copies its own pictures."""
    for side, pictures in drawn.items():
        cosines = copies.agreement(pictures, twin[side])
        found = jackknife(lambda places, cosines=cosines: float(cosines[places].mean()), len(cosines))
        low, high = found.value - found.half_width, found.value + found.half_width
        yield metric(at_level(AGREEMENT, side), found.value, low, high, len(cosines), found.without)


def _authentic(level: Level) -> Rows:
    if level.own is not None:
        yield share(at_level("authentic", level.side), copies.authentic(level.squared[:, 0], level.own))


def _released(level: Level) -> Rows:
    if level.released is not None:
        yield share(at_level("copied_released", level.side), copies.released_rule(level.released))


def _copying_score(level: Level) -> Rows:
    """The data-copying score; its interval is over drawn pictures, the held-out ones stay."""
    if level.held_out is None or level.coarse is None:
        return
    drawn, held, known = level.coarse
    middles = copies.centres(known)
    cells, first, real = copies.cell_of(drawn, middles), level.squared[:, 0], level.held_out
    real_cells = copies.cell_of(held, middles)
    estimate = jackknife(
        lambda kept: copies.copying_score(first[kept], real, (cells[kept], real_cells)), len(first)
    )  # fmt: skip
    if not math.isnan(estimate.value + estimate.without.sum()):  # every group left cells that both sides have
        low, high = (estimate.value + sign * estimate.half_width for sign in (-1, 1))
        name = at_level("copying_score", level.side)
        yield metric(name, estimate.value, low, high, len(first), estimate.without)


PARTS: dict[str, Callable[[Level], Rows]] = {
    "copied": _ratios, "calibrated": _calibrated, "authentic": _authentic, "released": _released,
    "copying_score": _copying_score,
}  # fmt: skip


def rows(level: Level, metrics: Sequence[str]) -> Rows:
    """The metrics of one level that were asked for."""
    for name, part in PARTS.items():
        if name in metrics:
            yield from part(level)


def facts(level: Level, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What stands beside the metrics: counts, distances, copies by how often a training picture stands, worst pairs."""
    ratio = copies.ratios(level.squared)
    return {
        "level": level.side, "drawn": len(ratio), "known": int(level.copies.sum()), "distinct": len(level.copies),
        "nearest": float(np.sqrt(level.squared[:, 0] / (3 * level.side**2)).mean()),
        "ratios": {f"{place}": float(np.quantile(ratio, place / 100)) for place in (1, 5, 25, 50)},
        "multiplicity": multiplicity(level), "worst": [pair.as_json() for pair in pairs],
    }  # fmt: skip


def multiplicity(level: Level) -> list[dict[str, Any]]:
    """Of training pictures by how often they stand: how many there are, and how many of them were copied.

    By the rule among distinct pictures, for by the other one what stands twice is never copied.
    """
    if level.distinct.squared.shape[1] < 2:
        return []
    taken = level.distinct.index[copies.copied(level.distinct.squared), 0]
    found = []
    for low, high in MULTIPLICITIES:
        inside = (level.copies >= low) & (level.copies <= (high or level.copies.max()))
        if inside.any():
            drawn = np.isin(taken, level.numbers[inside])
            found.append({
                "from": low, "to": high, "pictures": int(inside.sum()), "drawn": int(drawn.sum()),
                "copied": len(np.unique(taken[drawn])),
            })  # fmt: skip
    return found
