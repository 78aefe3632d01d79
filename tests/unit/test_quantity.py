"""Intervals of numbers and of what is computed from them, against cases worked out by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mdm.evaluate.frechet import GaussianStatistics, Reference, frechet_estimate
from mdm.evaluate.intervals import Estimate, jackknife
from mdm.report.collect import Left, Row
from mdm.report.evidence import Evidence
from mdm.report.quantity import (
    PICTURES,
    TRAININGS,
    Measurement,
    Quantity,
    Term,
    alone,
    by_seed,
    combined,
    half_width,
    measured,
    over_seeds,
)

NUMBER, WIDTH = 96, 8
NORMAL_QUANTILE = 1.959963984540054
STUDENT_2, STUDENT_19 = 4.302652729749462, 2.093024054408263


def exact(*values: float) -> dict[int, Measurement]:
    """Trainings by seed, whose numbers came without an interval."""
    return {seed: measured(value, None, None) for seed, value in enumerate(values)}


def found(estimate: Estimate, drawn: str = "zero-shot") -> Measurement:
    """A score as it is collected."""
    half = estimate.half_width
    return measured(estimate.value, estimate.value - half, estimate.value + half, estimate.without, drawn)


def mean_of(values: np.ndarray, drawn: str = "zero-shot") -> Measurement:
    return found(jackknife(lambda rows: float(values[rows].mean()), len(values)), drawn)


def difference(own: dict[int, Measurement], other: dict[int, Measurement]) -> Quantity:
    value = over_seeds(own).value - over_seeds(other).value
    return combined(value, [Term(1.0, own), Term(-1.0, other)])


def in_quadrature(*quantities: Quantity) -> float:
    return math.hypot(*(quantity.above for quantity in quantities))


def test_a_number_without_bounds_is_exact() -> None:
    assert measured(5, None, None).exact and measured(5, math.nan, 6).exact and measured(5, 4, None).exact
    assert not measured(5, 4, 7).exact
    number = alone(measured(5, None, None))
    assert number.exact and (number.over, number.spread, number.seeds) == ("", None, (5,))


def test_one_training_keeps_the_interval_of_its_pictures() -> None:
    """Wilson's of a share is not symmetric, and stays so."""
    once = over_seeds({3: measured(5, 4, 7)})
    assert (once.value, once.low, once.high, once.seeds) == (5, 4, 7, (5,))
    assert once == alone(measured(5, 4, 7)) and once.over == PICTURES and once.spread is None
    assert (once.below, once.above) == (1, 2)


def test_three_trainings_without_an_error_of_pictures_are_students() -> None:
    """8, 10 and 12 have the deviation 2: the half-width is 4.303 * 2 / sqrt(3), with two degrees of freedom."""
    mean = over_seeds(exact(8, 12, 10))
    assert (mean.value, mean.seeds, mean.over, mean.spread) == (10, (8, 12, 10), TRAININGS, 2)
    assert mean.above == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-4)
    assert mean.below == pytest.approx(mean.above)
    assert mean.errors[0] == (pytest.approx(2 / 3**0.5), 2)


@pytest.mark.parametrize(("count", "printed"), [(2, 12.706), (3, 4.303), (5, 2.776), (31, 2.042)])
def test_degrees_of_freedom_are_one_less_than_the_trainings(count: int, printed: float) -> None:
    values = np.random.default_rng(count).normal(size=count)
    mean = over_seeds(exact(*values))
    assert mean.above == pytest.approx(printed * values.std(ddof=1) / count**0.5, rel=2e-4)


def test_trainings_and_pictures_add_in_quadrature() -> None:
    """The pictures' error does not fall with the trainings: all drew the same captions."""
    parts = {seed: measured(value, value - 3, value + 3) for seed, value in enumerate((8, 12, 10))}
    assert over_seeds(parts).above == pytest.approx(math.hypot(STUDENT_2 * 2 / 3**0.5, 3))
    same = {seed: measured(10, 7, 13) for seed in range(3)}
    assert over_seeds(same).above == pytest.approx(3) and over_seeds(same).spread == 0


def test_the_jackknife_over_captions_leaves_a_group_out_of_all_seeds_at_once() -> None:
    """Without a group: 1, 2, 3 and 3, 2, 1. What one training gains by it the other loses: no error is left."""
    parts = {0: Measurement(2, 1, 3, (1, 2, 3), "p"), 1: Measurement(2, 1, 3, (3, 2, 1), "p")}
    assert over_seeds({0: parts[0]}).errors[-1] == (pytest.approx((2 / 3 * 2) ** 0.5), 2)
    half = parts[0], replace(parts[1], without=(2, 2, 2))
    mean = over_seeds(dict(enumerate(half)))  # means without a group: 1.5, 2, 2.5
    assert mean.above == pytest.approx(STUDENT_2 * (2 / 3 * 0.5) ** 0.5)
    # No group changes the mean: the jackknife knows nothing, and the intervals of the pictures stand in.
    assert over_seeds(parts).above == pytest.approx(1)


def test_numbers_of_one_seed_are_compared_with_each_other() -> None:
    """Seeds that are lucky for both differ a lot; their differences 2, 2.1 and 1.9 do not."""
    own, other = exact(12, 22.1, 31.9), exact(10, 20, 30)
    delta = difference(own, other)
    assert delta.value == pytest.approx(2) and delta.seeds == pytest.approx((2, 2.1, 1.9))
    assert delta.above == pytest.approx(STUDENT_2 * 0.1 / 3**0.5)
    assert delta.above < 0.01 * in_quadrature(over_seeds(own), over_seeds(other))


def test_other_seeds_on_each_side_are_compared_by_welch() -> None:
    """1, 2, 3 against 0, 2: variances of the means 1/3 and 1, (4/3)^2 / (1/9/2 + 1/1) = 1.684 degrees of freedom."""
    own = dict(zip((1, 2, 3), exact(1, 2, 3).values(), strict=True))
    other = dict(zip((10, 11), exact(0, 2).values(), strict=True))
    delta = difference(own, other)
    assert delta.value == 1 and delta.seeds == ()
    assert delta.errors[0] == (pytest.approx((4 / 3) ** 0.5), pytest.approx(1.6842, abs=1e-4))
    assert delta.above == pytest.approx((4 / 3) ** 0.5 * half_width([(1.0, 1.6842)]), rel=1e-4)
    assert difference({0: own[1], 1: own[2]}, {0: own[1], 2: own[3]}).errors[0][1] == pytest.approx(
        (0.25 + 1) ** 2 / (0.25**2 + 1)
    )


def test_an_interval_by_welch_is_over_trainings() -> None:
    own, other = exact(1, 2, 3), dict(zip((10, 11, 12), exact(0, 2, 1).values(), strict=True))
    assert difference(own, other).over == TRAININGS


def test_a_side_that_was_trained_once_says_nothing_about_trainings() -> None:
    parts = {seed: measured(10.0 + seed, 9.0 + seed, 11.0 + seed) for seed in range(3)}
    delta = difference(parts, {0: measured(5, 3, 7)})
    assert delta.above == pytest.approx(math.hypot(1, 2)) and delta.over == PICTURES


def test_the_order_of_seeds_does_not_matter() -> None:
    parts = dict(enumerate(mean_of(np.random.default_rng(k).normal(size=NUMBER)) for k in range(3)))
    other = dict(enumerate(mean_of(np.random.default_rng(10 + k).normal(size=NUMBER)) for k in range(3)))
    wanted = over_seeds(parts), difference(parts, other)
    for order in itertools.permutations(range(3)):
        turned = {seed: parts[seed] for seed in order}
        assert (over_seeds(turned), difference(turned, other)) == wanted
    assert by_seed([Term(1.0, {2: parts[2], 0: parts[0]})]) == (parts[0].value, parts[2].value)


def test_a_quantity_against_itself_has_no_uncertainty() -> None:
    parts = {0: Measurement(3, 1, 5, (2.5, 3.5), "p")}
    assert combined(0.0, [Term(0.0, parts)]) == Quantity(0.0, 0.0, 0.0)
    assert combined(0.0, []).exact and combined(4.0, []).chance == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("trainings", [1, 3])
def test_a_difference_over_the_same_captions_is_narrower_than_the_intervals_say(trainings: int) -> None:
    luck = np.random.default_rng(0)
    hard = luck.normal(size=NUMBER)  # captions are as hard for both runs
    own, other = (
        {seed: mean_of(level + hard + 0.2 * luck.normal(size=NUMBER)) for seed in range(trainings)} for level in (1, 0)
    )
    delta, apart = difference(own, other), in_quadrature(over_seeds(own), over_seeds(other))
    assert delta.above < 0.6 * apart
    unlike = {seed: replace(part, drawn="other captions") for seed, part in other.items()}
    assert difference(own, unlike).above > 1.4 * delta.above
    back = difference(other, own)
    assert (back.low, back.high) == pytest.approx((-delta.high, -delta.low))


def test_a_paired_difference_of_means_is_the_error_of_the_differences() -> None:
    luck = np.random.default_rng(1)
    first, second = luck.normal(size=(2, 100))
    delta = difference({0: mean_of(first)}, {0: mean_of(second)})
    groups = (first - second).reshape(5, 20).mean(axis=0)  # place k is in group k mod 20
    assert delta.above == pytest.approx(STUDENT_19 * groups.std(ddof=1) / 20**0.5)


def test_a_paired_frechet_distance_is_surer_than_two_single_ones() -> None:
    luck = np.random.default_rng(1)
    common = luck.normal(size=(NUMBER, WIDTH))
    reference = Reference.of(GaussianStatistics.of(luck.normal(size=(512, WIDTH))))
    own, other = 1.1 * common + 0.4, common + 0.3 + 0.1 * luck.normal(size=common.shape)
    first, second, shuffled = (
        {0: found(frechet_estimate(features, reference))} for features in (own, other, luck.permutation(other))
    )
    delta = difference(first, second)
    single = [reference.distance(GaussianStatistics.of(side)) for side in (own, other)]
    assert delta.value == pytest.approx(single[0] - single[1]) and delta.low < delta.value < delta.high
    assert delta.above < 0.8 * difference(first, shuffled).above
    assert delta.above < 0.8 * in_quadrature(over_seeds(first), over_seeds(second))
    mirrored = difference(second, first)
    assert (mirrored.low, mirrored.high) == pytest.approx((-delta.high, -delta.low))


@pytest.mark.parametrize("right", [0, 50])
def test_shares_that_never_differ_are_not_certain(right: int) -> None:
    """The jackknife sees no error there; Wilson's interval does."""
    low, high = (0.0, 0.07) if not right else (0.93, 1.0)
    part = Measurement(right / 50, low, high, (right / 50,) * 20, "p")
    assert over_seeds({0: part}).high - over_seeds({0: part}).low == pytest.approx(0.07)
    assert over_seeds(dict.fromkeys(range(3), part)).above > 0.05
    delta = difference({0: part}, {0: part})
    assert delta.value == 0 and delta.above == pytest.approx(0.07 * 2**0.5)


def test_an_unpaired_error_is_added_to_paired_ones() -> None:
    """A number that came with an interval, but without groups, is taken to be independent."""
    groups = tuple(1 + 0.1 * math.sin(k) for k in range(20))
    own, other = {0: Measurement(1, 0.5, 1.5, groups, "p")}, {0: measured(0.2, 0.1, 0.4)}
    first = combined(1, [Term(1.0, own)])
    assert difference(own, other).above == pytest.approx(math.hypot(first.above, 0.2))


def test_a_slope_scales_its_errors() -> None:
    parts = {seed: measured(value, value - 1, value + 1) for seed, value in enumerate((8, 12, 10))}
    once = combined(10, [Term(1.0, parts)])
    assert combined(-30, [Term(-3.0, parts)]).above == pytest.approx(3 * once.above)
    assert combined(-30, [Term(-3.0, parts)]).seeds == (-24, -36, -30)


def test_scaling_keeps_all_its_parts() -> None:
    quantity = over_seeds({0: measured(0.5, 0.4, 0.6), 1: measured(0.7, 0.6, 0.8)})
    shown = quantity.scaled(100)
    assert (shown.value, shown.low, shown.high) == pytest.approx((60, 100 * quantity.low, 100 * quantity.high))
    assert shown.seeds == pytest.approx((50, 70)) and shown.chance == pytest.approx(quantity.chance)
    assert half_width(shown.errors) == pytest.approx(shown.above)


def test_half_widths_of_student_and_of_the_normal_in_quadrature() -> None:
    assert half_width([]) == 0.0 and half_width([(0.0, 2)]) == 0.0
    assert half_width([(1.0, math.inf)]) == pytest.approx(NORMAL_QUANTILE)
    assert half_width([(1.0, 2), (2.0, 19)]) == pytest.approx(math.hypot(STUDENT_2, 2 * STUDENT_19))
    assert half_width([(1.0, math.inf)], 0.99) == pytest.approx(2.5758, abs=1e-4)


def test_the_p_value_is_the_level_at_which_the_interval_reaches_zero() -> None:
    """Of one Student error it is that of the t-test: t = 2 / (1 / sqrt 3) with 2 degrees of freedom."""
    test = over_seeds(exact(1, 2, 3))
    t = 2 * 3**0.5
    assert test.chance == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert over_seeds(exact(-1, -2, -3)).chance == pytest.approx(test.chance)


@pytest.mark.parametrize("errors", [((1.0, 2),), ((0.3, 2), (0.5, 19)), ((0.1, 1.7), (1.0, math.inf))])
def test_the_p_value_agrees_with_the_interval(errors: tuple[tuple[float, float], ...]) -> None:
    edge = half_width(errors)
    assert Quantity(edge, 0.0, 2 * edge, errors=errors).chance == pytest.approx(0.05)
    for share in (0.0, 0.5, 0.999, 1.001, 2, 50):
        for value in (share * edge, -share * edge):
            quantity = Quantity(value, value - edge, value + edge, errors=errors)
            assert (quantity.chance < 0.05) == (quantity.low > 0 or quantity.high < 0), share
    assert Quantity(0.0, -edge, edge, errors=errors).chance == 1.0


def test_evidence_pairs_by_seed_and_by_groups() -> None:
    """Rows of metrics.csv and groups.csv, looked up together."""
    luck = np.random.default_rng(4)
    hard, rows, groups = luck.normal(size=NUMBER), [], []
    for run, level in (("base", 0.0), ("other", 1.0)):
        for seed in range(3):
            part = mean_of(level + 0.2 * seed + hard + 0.05 * luck.normal(size=NUMBER))
            rows.append(Row(run, "r64", seed, "clip_score", part.value, part.low, part.high, "p", 1, 1.0, "d"))
            groups.append(Left(run, seed, "clip_score", "p", "p", " ".join(repr(float(x)) for x in part.without)))
    study = SimpleNamespace(runs=[], protocols={"p": None})
    paired, bare = (Evidence(study, rows, left).difference("clip_score", "other", "base", "p") for left in (groups, []))
    assert paired.value == bare.value == pytest.approx(1, abs=0.02) and paired.over == TRAININGS
    assert paired.above < 0.15 * bare.above
    evidence = Evidence(study, rows, groups)
    assert evidence.parts("clip_score", "base", "p")[1].without == tuple(map(float, groups[1].without.split()))
    assert evidence.difference("clip_score", "other", "nobody", "p") is None
    assert evidence.quantity("clip_score", "nobody", "p") is None
