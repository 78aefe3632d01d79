"""Intervals against scipy's quantiles and published Wilson bounds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from mdm.evaluate.intervals import mean_with_interval, metric, proportion, student_quantile, wilson


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


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_student_quantile_of_other_levels_and_of_a_known_error(level: float) -> None:
    assert student_quantile(4, level) == pytest.approx(stats.t.ppf((1 + level) / 2, 4), rel=1e-9)
    assert student_quantile(1.7, level) == pytest.approx(stats.t.ppf((1 + level) / 2, 1.7), rel=1e-9)
    assert student_quantile(float("inf"), level) == pytest.approx(stats.norm.ppf((1 + level) / 2), rel=1e-9)


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
    assert "without" not in row
    parts = proportion("alignment", np.array([True, False]), [0.5, 0.25])
    assert parts["without"] == [0.5, 0.25] and parts["value"] == 0.5


def test_a_row_is_plain_and_in_order() -> None:
    row = metric("fid", np.float64(2), np.float32(1), 3, np.int64(9), np.array([1.5, 2.5]))
    assert list(row) == ["metric", "value", "low", "high", "n", "without"]
    assert json.loads(json.dumps(row)) == {
        "metric": "fid", "value": 2.0, "low": 1.0, "high": 3.0, "n": 9, "without": [1.5, 2.5],
    }  # fmt: skip
    assert list(metric("fid", 2, 1, 3, 9)) == ["metric", "value", "low", "high", "n"]
