"""Kernel distance against its definition with explicit sums."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mdm.evaluate.kid import CHUNK, MAX_REFERENCE, kernel_estimate, kernel_sum


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
    assert kernel_estimate(x, y).value == pytest.approx(by_definition(x, y), rel=1e-12)
    assert squared_discrepancy(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)


def test_estimate_agrees_with_cleanfid_on_full_subsets() -> None:
    fid = pytest.importorskip("cleanfid.fid")
    x, y = drawn(60, 0), drawn(60, 1, 0.4)
    theirs = fid.kernel_distance(x, y, num_subsets=1, max_subset_size=60)
    assert kernel_estimate(x, y).value == pytest.approx(theirs, rel=1e-10)


def test_value_and_error_are_those_of_the_whole_estimate() -> None:
    x, y = drawn(203, 0, 0.2), drawn(150, 1)
    found = kernel_estimate(x, y)
    assert found.value == pytest.approx(squared_discrepancy(x, y), rel=1e-10)
    drawn_parts, real_parts = ([np.arange(start, count, 20) for start in range(20)] for count in (203, 150))
    without = np.array([squared_discrepancy(np.delete(x, part, axis=0), y) for part in drawn_parts])
    without_real = np.array([squared_discrepancy(x, np.delete(y, part, axis=0)) for part in real_parts])
    assert found.without == pytest.approx(without, rel=1e-9)
    assert found.without_real == pytest.approx(without_real, rel=1e-9)
    errors = [np.sqrt(19 / 20 * ((side - side.mean()) ** 2).sum()) for side in (without, without_real)]
    assert found.half_width == pytest.approx(2.0930 * np.hypot(*errors), rel=1e-4)


def test_interval_holds_the_truth() -> None:
    reference, covered = drawn(3000, 999), 0
    truth = squared_discrepancy(drawn(4000, 998, 0.3), reference)
    for seed in range(40):
        found = kernel_estimate(drawn(200, seed, 0.3), reference)
        covered += abs(found.value - truth) <= found.half_width
    assert covered >= 34


def test_equal_distributions_give_zero_within_the_interval() -> None:
    """Half of the error is the reference's here, which the interval holds fixed: many real pictures take it away."""
    inside, real = 0, drawn(4000, 1000)
    for seed in range(40):
        found = kernel_estimate(drawn(300, seed), real)
        inside += abs(found.value) <= found.half_width
    assert inside >= 34


def test_a_difference_is_found_and_nothing_is_drawn() -> None:
    first = kernel_estimate(drawn(300, 0, 0.7), drawn(400, 1))
    assert first.value - first.half_width > 0
    np.random.seed(0)  # the global generator plays no part
    again = kernel_estimate(drawn(300, 0, 0.7), drawn(400, 1))
    assert again.value == first.value and (again.without == first.without).all()


def test_long_matrices_are_summed_in_parts() -> None:
    x, y = drawn(CHUNK + 7, 0), drawn(30, 1)
    assert kernel_sum(x, y) == pytest.approx(((x @ y.T / 6 + 1) ** 3).sum(), rel=1e-12)


def test_a_large_reference_is_thinned_evenly() -> None:
    x, y = drawn(20, 0), drawn(MAX_REFERENCE + 1000, 1)
    places = np.linspace(0, len(y) - 1, MAX_REFERENCE).astype(int)
    assert kernel_estimate(x, y).value == kernel_estimate(x, y[places]).value


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 pictures on each side, but there are 9 and 300"):
        kernel_estimate(drawn(9, 0), drawn(300, 1))
    with pytest.raises(ValueError, match="at least 10 pictures on each side, but there are 30 and 9"):
        kernel_estimate(drawn(30, 0), drawn(9, 1))
