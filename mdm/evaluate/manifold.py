"""Improved precision and recall, density and coverage: how far drawn and real pictures lie among each other.

Precision and recall (Kynkaanniemi et al. 2019) count points inside any ball of the other set, edges included; density
and coverage (Naeem et al. 2020) count how many balls, edges left out. They are order statistics, for which a bootstrap
is wrong (a row drawn twice makes balls of radius 0): their intervals leave out groups of either set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mdm.evaluate.balls import Held, Points, held, radii
from mdm.evaluate.intervals import Estimate

Pair = tuple[Estimate, Estimate]


def precision_recall(drawn: np.ndarray, real: np.ndarray, nearest: int = 3) -> Pair:
    """Share of drawn [N, D] inside some real ball, and share of real [M, D] inside some drawn ball."""
    made, kept = _points(drawn, real)
    balls = radii(kept, nearest), radii(made, nearest)
    precision = _share_held(made, held(kept, balls[0], made, closed=True))
    recall = _share_held(kept, held(made, balls[1], kept, closed=True))
    return precision, Estimate(recall.value, recall.without_real, recall.without)


def density_coverage(drawn: np.ndarray, real: np.ndarray, nearest: int = 5) -> Pair:
    """Mean number of real balls around a drawn point over k, and share of real balls that hold a drawn point."""
    if len(drawn) != len(real):
        raise ValueError(
            f"coverage depends on how many pictures there are of either kind; compare as many as there are real ones, "
            f"not {len(drawn)} with {len(real)}"
        )
    made, kept = _points(drawn, real)
    found = held(kept, radii(kept, nearest), made, closed=False)
    density = _of_points(made, found, lambda counts: counts / nearest)
    some = found.by_group.sum(axis=1)
    left = [float((some > found.by_group[:, group]).mean()) for group in range(made.groups)]
    others = [float(found.reached[kept.group != group, 1 + group].mean()) for group in range(kept.groups)]
    return density, Estimate(float((some > 0).mean()), np.array(left), np.array(others))


def expected_coverage(count: int, nearest: int = 5) -> float:
    """Coverage of real pictures by as many others of the same kind: the best that can be expected."""
    missed = np.prod([(count - place) / (2 * count - place) for place in range(1, nearest + 1)])
    return float(1 - missed)


def _points(drawn: np.ndarray, real: np.ndarray) -> tuple[Points, Points]:
    if drawn.ndim != 2 or real.ndim != 2 or drawn.shape[1] != real.shape[1]:
        raise ValueError(f"features must be two tables of one width, but have shapes {drawn.shape} and {real.shape}")
    centre = real.mean(axis=0, dtype=np.float64)
    return Points.of(drawn, centre), Points.of(real, centre)


def _share_held(points: Points, found: Held) -> Estimate:
    return _of_points(points, found, lambda counts: counts > 0)


def _of_points(points: Points, found: Held, worth: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """The mean over points of what their numbers of balls are worth, without each group of points and of centres."""
    values = worth(found.inside)
    left = [float(values[points.group != group, 0].mean()) for group in range(points.groups)]
    return Estimate(float(values[:, 0].mean()), np.array(left), values[:, 1:].mean(axis=0))
