"""Kernel distance: the unbiased squared maximum mean discrepancy with the cubic polynomial kernel."""

from __future__ import annotations

import numpy as np

from mdm.evaluate.intervals import mean_with_interval

MAX_BLOCK = 1000  # pictures; the block size of the published protocol
MIN_BLOCKS = 10  # fewer leave no idea of the spread


def polynomial_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 for features [N, D] and [M, D] -> [N, M]."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def squared_discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased estimate from features [N, D] and [M, D]; it may be negative when the two agree."""
    n, m = len(first), len(second)
    inside_first = polynomial_kernel(first, first)
    inside_second = polynomial_kernel(second, second)
    # A picture compared with itself says nothing about the distribution: the diagonals are left out.
    within = (inside_first.sum() - np.trace(inside_first)) / (n * (n - 1))
    within += (inside_second.sum() - np.trace(inside_second)) / (m * (m - 1))
    return float(within - 2 * polynomial_kernel(first, second).mean())


def kernel_distance(features: np.ndarray, reference: np.ndarray, seed: int) -> tuple[float, float, float]:
    """KID of features [N, D] against reference [M, D] with a Student interval.

    Both sets are shuffled by their own seeded generator and cut into disjoint blocks. Disjoint blocks are
    independent, so their spread is an honest error; the usual overlapping subsets understate it.
    """
    fewest = min(len(features), len(reference))
    block = min(MAX_BLOCK, fewest // MIN_BLOCKS)
    if block < 2:
        raise ValueError(f"KID needs at least {2 * MIN_BLOCKS} pictures on each side, but one has {fewest}")
    generator = np.random.default_rng([seed, len(features), len(reference)])
    first = np.asarray(features, dtype=np.float64)[generator.permutation(len(features))]
    second = np.asarray(reference, dtype=np.float64)[generator.permutation(len(reference))]
    starts = range(0, fewest - block + 1, block)
    estimates = [squared_discrepancy(first[at : at + block], second[at : at + block]) for at in starts]
    return mean_with_interval(np.array(estimates))
