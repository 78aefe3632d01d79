"""Intervals against scipy's quantiles and published Wilson bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mdm.evaluate.intervals import mean_with_interval, proportion, student_quantile, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (7, 12), (10, 10), (251, 256)])
def test_wilson_is_the_textbook_interval(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 20, 1000])
def test_student_quantile(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


@pytest.mark.parametrize(("freedom", "printed"), [(1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042)])
def test_student_quantile_is_that_of_printed_tables(freedom: int, printed: float) -> None:
    assert student_quantile(freedom) == pytest.approx(printed, abs=5e-4)


def test_an_interval_of_two_values_is_wide_enough() -> None:
    mean, low, high = mean_with_interval(np.array([0.0, 2.0]))  # standard error 1
    assert (mean, low, high) == pytest.approx((1.0, 1 - 12.7062, 1 + 12.7062), abs=1e-4)


def test_mean_with_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(size=30)
    expected = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert mean_with_interval(values)[1:] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="at least 2 values, but got 1"):
        mean_with_interval(values[:1])


def test_proportion_is_a_metric() -> None:
    row = proportion("alignment_colour", np.array([True, True, False, True]))
    assert (row["metric"], row["value"], row["n"]) == ("alignment_colour", 0.75, 4)
    assert row["low"] < 0.75 < row["high"]
