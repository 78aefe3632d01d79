"""Kernel distance against its definition with explicit sums."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mdm.evaluate.kid import kernel_distance


def drawn(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)) + shift


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate of features [N, D] and [M, D] in float64 matrices."""
    own_x, own_y, cross = ((a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = [(own.sum() - np.trace(own)) / (len(own) * (len(own) - 1)) for own in (own_x, own_y)]
    return float(sum(within) - 2 * cross.mean())


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    within_x = np.mean([kernel(a, b) for a, b in itertools.permutations(x, 2)])
    within_y = np.mean([kernel(a, b) for a, b in itertools.permutations(y, 2)])
    between = np.mean([kernel(a, b) for a in x for b in y])
    return float(within_x + within_y - 2 * between)


def test_estimate_is_the_unbiased_definition() -> None:
    x, y = drawn(11, 0), drawn(10, 1, 0.4)
    assert kernel_distance(x, y, seed=0)[0] == pytest.approx(by_definition(x, y), rel=1e-12)
    assert squared_discrepancy(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)


def test_estimate_agrees_with_cleanfid_on_full_subsets() -> None:
    fid = pytest.importorskip("cleanfid.fid")
    x, y = drawn(60, 0), drawn(60, 1, 0.4)
    theirs = fid.kernel_distance(x, y, num_subsets=1, max_subset_size=60)
    assert kernel_distance(x, y, seed=0)[0] == pytest.approx(theirs, rel=1e-10)


def test_value_and_error_are_those_of_the_whole_estimate() -> None:
    x, y = drawn(203, 0, 0.2), drawn(150, 1)
    value, low, high = kernel_distance(x, y, seed=0)
    assert value == pytest.approx(squared_discrepancy(x, y), rel=1e-10)
    shuffled = x[np.random.default_rng([0, 203, 150]).permutation(203)]
    parts = np.array_split(np.arange(203), 20)
    without = np.array([squared_discrepancy(np.delete(shuffled, part, axis=0), y) for part in parts])
    error = np.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum())
    assert (high - low) / 2 == pytest.approx(2.093 * error, rel=1e-3)


def test_interval_holds_the_truth() -> None:
    reference, covered = drawn(3000, 999), 0
    truth = squared_discrepancy(drawn(4000, 998, 0.3), reference)
    for seed in range(40):
        _, low, high = kernel_distance(drawn(200, seed, 0.3), reference, seed=0)
        covered += low <= truth <= high
    assert covered >= 34


def test_equal_distributions_give_zero_within_the_interval() -> None:
    inside = 0
    for seed in range(40):
        _, low, high = kernel_distance(drawn(300, seed), drawn(300, 1000 + seed), seed=0)
        inside += low <= 0 <= high
    assert inside >= 34


def test_a_difference_is_found_and_repeatable() -> None:
    first = kernel_distance(drawn(300, 0, 0.7), drawn(400, 1), seed=5)
    assert first == kernel_distance(drawn(300, 0, 0.7), drawn(400, 1), seed=5)
    assert first[1] > 0
    np.random.seed(0)  # the global generator plays no part
    assert first == kernel_distance(drawn(300, 0, 0.7), drawn(400, 1), seed=5)


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 pictures on each side, but there are 9 and 300"):
        kernel_distance(drawn(9, 0), drawn(300, 1), seed=0)
