"""Is a drawn picture a copy of a training picture? Rules and scores, from distances to the nearest ones.

The ratio calls a picture memorised that is nearer to one training picture than a third of its distance to any other
(Yoon et al. 2023; Gu et al. 2023, section 2). Squared distances of bytes are whole numbers, so 9 a < b is decided
without rounding, and a tie is no copy. A training picture that stands twice can never count by that rule, for then both
distances are equal; `mdm/evaluate/audit.py` therefore also asks each distinct picture once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdm.config import StudyError
from mdm.config.audit import CALIBRATED

RULES = {"copied": 3, "copied_quarter": 4, "copied_half": 2}  # one in how many of the second distance
CELLS, ROUNDS = 3, 20  # of the data-copying score: cells of the training set, and rounds of k-means that make them


def copied(squared: np.ndarray, one_in: int = 3) -> np.ndarray:
    """Whether each picture is a copy, [Q]: `squared` int64 [Q,2 or more], rising, of all training pictures."""
    if squared.shape[1] < 2:
        raise StudyError(
            f"the ratio compares the two nearest training pictures, and there are {squared.shape[1]}; it is not "
            "defined for one picture: train on two or more"
        )
    return one_in**2 * squared[:, 0] < squared[:, 1]


def ratios(squared: np.ndarray) -> np.ndarray:
    """First over second distance of each picture [Q]; 1 where both are zero, for then neither is the nearest."""
    first, second = np.sqrt(squared[:, :2].astype(np.float64)).T
    return np.divide(first, second, out=np.ones(len(first)), where=second > 0)


def released_distances(drawn: np.ndarray, known: np.ndarray, count: int = 2) -> np.ndarray:
    """The smallest distances [Q,2] as the released code of Gu et al. (2023) has them, in float32.

    More than 25 pictures on a side are compared by a matrix product of uncentred bytes, whose rounding makes
    squared distances of 32 px wrong by some units; exact copies then have a distance near zero that is not zero.
    """
    import torch

    a, b = (torch.from_numpy(np.array(side.reshape(len(side), -1))).float() for side in (drawn, known))
    return (torch.cdist(a, b) / math.sqrt(a.shape[1])).topk(count, largest=False).values.numpy()


def released_rule(distances: np.ndarray) -> np.ndarray:
    """The released decision [Q] from its two distances [Q,2], in float32; 0 / 0 is no copy."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return distances[:, 0] / distances[:, 1] < np.float32(1 / 3)


def calibrated(squared: np.ndarray) -> np.ndarray:
    """First distance over half the mean of the nearest 50 (or of all, if fewer), [Q]; below 1 is a copy.

    2, the value of a picture that is as far from all of them, where all these distances are zero.
    """
    distances = np.sqrt(squared[:, :CALIBRATED].astype(np.float64))
    half = distances.mean(axis=1) / 2
    return np.divide(distances[:, 0], half, out=np.full(len(half), 2.0), where=half > 0)


def authentic(first: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Whether the nearest training picture has one of its own kind that is nearer than the drawn one (Alaa 2022), [Q].

    `first`: squared distance to the nearest training picture; `own`: of that one to the nearest other one.
    """
    return own < first


def copying_score(drawn: np.ndarray, held_out: np.ndarray, cells: Sequence[np.ndarray]) -> float:
    """Data-copying score (Meehan et al. 2020): far below 0, drawn pictures are nearer to training than real ones are.

    Distances to the nearest training picture [Q] and [H], and the cells of both: in each cell the z-score of a
    Mann-Whitney test, then their mean weighted by how many held-out pictures a cell has. nan where no cell has both.
    """
    total = weight = 0.0
    for cell in np.unique(cells[1]):
        own, real = drawn[cells[0] == cell], held_out[cells[1] == cell]
        if len(own) and len(real):
            total += len(real) * mann_whitney(own, real)
            weight += len(real)
    return total / weight if weight else math.nan


def mann_whitney(left: np.ndarray, right: np.ndarray) -> float:
    """Z-score of how often a value of `left` is above one of `right`, ties half; without correction for ties."""
    ordered = np.sort(right)
    below, upto = (np.searchsorted(ordered, left, side) for side in ("left", "right"))
    n, m = len(left), len(right)
    return float(((below + upto).sum() / 2 - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def centres(points: np.ndarray, count: int = CELLS) -> np.ndarray:
    """K-means of points [N,D], from those that are evenly spread along their mean value; no chance is in it."""
    order = np.argsort(points.mean(axis=1), kind="stable")
    found = points[order[[(2 * k + 1) * len(points) // (2 * count) for k in range(count)]]].astype(np.float64)
    for _ in range(ROUNDS):
        cells = cell_of(points, found)
        found = np.stack([points[cells == k].mean(axis=0) if (cells == k).any() else found[k] for k in range(count)])
    return found


def cell_of(points: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """The nearest of some middles, for each point [N]."""
    return np.argmin(np.square(middles).sum(axis=1) - 2 * points @ middles.T, axis=1)


@dataclass(frozen=True)
class Similarity:
    """Cosines of features: of each drawn picture to the training picture most like it, and among training pictures."""

    drawn: np.ndarray
    baseline: np.ndarray


def similarity(drawn: np.ndarray, known: np.ndarray) -> Similarity:
    """Highest cosine of drawn pictures to training ones, and of as many of these to another (Somepalli et al. 2023)."""
    drawn, known = (_unit(side) for side in (drawn, known))
    some = np.arange(min(len(drawn), len(known))) * len(known) // min(len(drawn), len(known))
    return Similarity(_highest(drawn, known), _highest(known[some], known, some))


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(norms > 0, norms, 1)).astype(np.float32)


def _highest(features: np.ndarray, known: np.ndarray, leave_out: np.ndarray | None = None) -> np.ndarray:
    """The highest cosine of each row to any of `known`, [Q]; row q is not compared with known[leave_out[q]]."""
    found = np.full(len(features), -1.0, np.float32)
    for first in range(0, len(known), 8192):
        cosines = features @ known[first : first + 8192].T
        if leave_out is not None:
            inside = (leave_out >= first) & (leave_out < first + cosines.shape[1])
            cosines[inside.nonzero()[0], leave_out[inside] - first] = -1
        found = np.maximum(found, cosines.max(axis=1))
    return found


def agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of each pair of pictures [Q] that two networks drew from the same noise (Kadkhodaie et al. 2024).

    Pictures are moved by their common mean, because all pictures are alike in being bright.
    """
    if one.shape != other.shape:
        raise StudyError(f"pictures {one.shape} and {other.shape} are no pairs; draw both under one protocol")
    a, b = (side.reshape(len(side), -1).astype(np.float64) for side in (one, other))
    middle = (a.mean(axis=0) + b.mean(axis=0)) / 2
    a, b = a - middle, b - middle
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)


def area_under_curve(signal: np.ndarray, truth: np.ndarray) -> float:
    """How often a true one of two has the larger signal, ties half: the area under the ROC curve; nan without both."""
    yes, no = signal[truth.astype(bool)], np.sort(signal[~truth.astype(bool)])
    if not len(yes) or not len(no):
        return math.nan
    below, upto = (np.searchsorted(no, yes, side) for side in ("left", "right"))
    return float((below + upto).sum() / 2 / (len(yes) * len(no)))
