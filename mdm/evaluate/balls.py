"""Which points lie within reach of which others: what precision, recall, density and coverage are counted from.

The ball of a point reaches to its k-th other point of the same set. Distances come from matrix products in float64 of
features moved by their mean, in blocks; where such a product cannot tell on which side of a ball's edge a point lies,
the distance is taken once more from the difference of the two, so that copies and ties are decided exactly, and neither
blocks nor the order of rows change a decision. Only radii and counts are kept, never a whole matrix of distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mdm.evaluate.intervals import groups_of

BLOCK_VALUES = 2**23  # distances held at once: 64 MB in float64
PAIRS = 2**22  # values of differences held at once
# A product of float64 is off by less than this share of the squared lengths, for any width of features in use.
ROUNDING = 1e-11
SPARE = 4  # times as many neighbours as a ball needs are looked up, so that most are left without any group


@dataclass(frozen=True)
class Points:
    """Features [N, D], the same in float64 around a common centre, their squared lengths, and the group of each row."""

    features: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, centre: np.ndarray) -> Points:
        """Moved by `centre` [D], so that what all have in common costs no digits."""
        rows, group = np.asarray(features, dtype=np.float64) - centre, np.empty(len(features), int)
        for number, places in enumerate(groups_of(len(features))):
            group[places] = number
        return cls(features, rows, np.einsum("nd,nd->n", rows, rows), group)

    @property
    def groups(self) -> int:
        """How many groups its rows fall into."""
        return int(self.group.max()) + 1


@dataclass(frozen=True)
class Held:
    """What balls around N centres hold of M points, also without each group of the G groups of centres.

    `inside` [M, 1 + G]: balls that hold a point, with all centres and without each group of them. `reached` [N, 1 + G]:
    whether a ball holds any point, likewise. `by_group` [N, H]: points of each of their H groups that a
    ball holds, with all centres.
    """

    inside: np.ndarray
    reached: np.ndarray
    by_group: np.ndarray


def radii(points: Points, nearest: int) -> np.ndarray:
    """Squared distance of every point to its k-th other one, [N, 1 + G]: of all, and without each group.

    A point of the group that is left out has no ball there: -1.
    """
    found = np.full((len(points.rows), 1 + points.groups), -1.0)
    for first, squared in _blocks(points, points):
        own = np.arange(len(squared))
        squared[own, first + own] = -1  # itself comes first, before its copies
        found[first : first + len(squared)] = _reach(points, first, squared, nearest)
    return found


def _reach(points: Points, first: int, squared: np.ndarray, nearest: int) -> np.ndarray:
    """Radii of a block of rows whose approximate squared distances to all points are given."""
    count = len(points.rows)
    if count <= nearest + 1:
        raise ValueError(f"the {nearest}th other point needs more than {nearest + 1} points, not {count}")
    close = np.argpartition(squared, min(SPARE * (nearest + 1), count - 1), axis=1)[:, : SPARE * (nearest + 1) + 1]
    mine = np.repeat(np.arange(len(squared)), close.shape[1])
    exact = _exact(points, points, mine + first, close.ravel()).reshape(close.shape)
    exact[close == first + np.arange(len(squared))[:, None]] = -1
    order = np.argsort(exact, axis=1)
    exact, group = np.take_along_axis(exact, order, axis=1), points.group[np.take_along_axis(close, order, axis=1)]
    found = np.empty((len(squared), 1 + points.groups))
    found[:, 0], own = exact[:, nearest], points.group[first : first + len(squared)]
    for left in range(points.groups):
        kept = (group != left).cumsum(axis=1)
        place = (kept < nearest + 1).sum(axis=1)
        inside = place < exact.shape[1]
        column = exact[np.arange(len(exact)), np.minimum(place, exact.shape[1] - 1)]
        if len(far := np.flatnonzero(~inside & (own != left))):  # nearly all neighbours are of one group
            others = squared[far][:, points.group != left]
            column[far] = np.partition(others, min(nearest, others.shape[1] - 1), axis=1)[:, nearest]
        found[:, 1 + left] = np.where(own == left, -1, column)
    return found


def held(centres: Points, reach: np.ndarray, points: Points, closed: bool) -> Held:
    """Count what balls of squared radii `reach` [N, 1 + G] hold; `closed`: their edges belong to them."""
    inside = np.zeros((len(points.rows), reach.shape[1]), np.int32)
    reached = np.zeros(reach.shape, bool)
    by_group = np.zeros((len(centres.rows), points.groups), np.int32)
    largest, members = reach.max(axis=1), np.eye(centres.groups, dtype=np.float32)[centres.group]
    smallest = np.where(reach >= 0, reach, np.inf).min(axis=1)
    for first, squared in _blocks(points, centres):
        own = slice(first, first + len(squared))
        unsure = ROUNDING * (points.lengths[own, None] + centres.lengths)
        clear = squared + 2 * unsure < smallest  # inside, whichever group is left out but the ball's own
        total = clear.sum(axis=1)
        inside[own, 0] += total
        inside[own, 1:] += total[:, None] - (clear.astype(np.float32) @ members).astype(np.int32)
        reached |= clear.any(axis=0)[:, None] & (reach >= 0)
        for group in range(points.groups):
            by_group[:, group] += clear[points.group[own] == group].sum(axis=0)
        _add_close(centres, reach, points, closed, first, squared, (squared - unsure <= largest) & ~clear,
                   inside, reached, by_group)  # fmt: skip
    return Held(inside, reached, by_group)


def _add_close(
    centres: Points, reach: np.ndarray, points: Points, closed: bool, first: int, squared: np.ndarray,
    close: np.ndarray, inside: np.ndarray, reached: np.ndarray, by_group: np.ndarray,
) -> None:  # fmt: skip
    """Count the pairs of a block for which it matters which group is left out, or that lie near an edge."""
    rows, columns = np.nonzero(close)
    for part in range(0, len(rows), PAIRS // reach.shape[1]):
        own = slice(part, part + PAIRS // reach.shape[1])
        row, ball = rows[own], columns[own]
        within = _decided(points, first + row, centres, ball, reach, squared[row, ball], closed)
        np.add.at(inside, first + row, within)
        np.logical_or.at(reached, ball, within)
        np.add.at(by_group, (ball, points.group[first + row]), within[:, 0])


def _decided(
    points: Points, row: np.ndarray, centres: Points, ball: np.ndarray, reach: np.ndarray, squared: np.ndarray,
    closed: bool,
) -> np.ndarray:  # fmt: skip
    """Whether each pair of point and ball is one of inside, bool [pairs, 1 + G]; close calls are looked at again."""
    edge = reach[ball]
    unsure = ROUNDING * (points.lengths[row] + centres.lengths[ball])
    doubtful = np.flatnonzero((np.abs(edge - squared[:, None]) <= 2 * unsure[:, None]).any(axis=1))
    squared = squared.copy()
    squared[doubtful] = _exact(points, centres, row[doubtful], ball[doubtful])
    return (squared[:, None] <= edge) & (edge >= 0) if closed else squared[:, None] < edge


def _blocks(points: Points, others: Points) -> Iterator[tuple[int, np.ndarray]]:
    """The number of the first row of each block of points, and its squared distances to all others, up to rounding."""
    size = max(1, BLOCK_VALUES // len(others.rows))
    for first in range(0, len(points.rows), size):
        own = slice(first, first + size)
        squared = points.rows[own] @ others.rows.T
        squared *= -2
        squared += points.lengths[own, None]
        squared += others.lengths
        yield first, np.maximum(squared, 0, out=squared)


def _exact(points: Points, others: Points, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Squared distances of pairs from their differences: 0 for copies, and equal for pairs that differ equally."""
    # From the features themselves: moving them rounds, and ties would part.
    found, size = np.empty(len(rows)), max(1, PAIRS // points.rows.shape[1])
    for first in range(0, len(rows), size):
        own = slice(first, first + size)
        difference = np.subtract(points.features[rows[own]], others.features[columns[own]], dtype=np.float64)
        found[own] = np.square(difference, out=difference).sum(axis=1)
    return found
