"""Every interval that the report prints covers its truth: simulated studies with known truth."""

from dataclasses import replace

import numpy as np
import pytest

from mdm.evaluate.frechet import GaussianStatistics, Reference, frechet_estimate
from mdm.evaluate.intervals import GROUPS, jackknife
from mdm.evaluate.kid import kernel_estimate
from mdm.report.quantity import Measurement, Term, combined, logarithm, over_seeds

STUDIES = 400
WANTED = 0.92
PICTURES = 100


def measurement(values: np.ndarray, drawn: str = "zero-shot") -> Measurement:
    """The mean of one training's values of single pictures [PICTURES], as scores write it."""
    found = jackknife(lambda rows: float(values[rows].mean()), len(values))
    half = found.half_width
    return Measurement(found.value, found.value - half, found.value + half, tuple(found.without), drawn)


def run_of(generator: np.random.Generator, captions: np.ndarray, k: int, truth: float, training: float) -> dict:
    """k trainings of one method; each caption is as hard for all of them, and has luck of its own in each."""
    found = {}
    for seed in range(k):
        level = truth + training * generator.normal()
        found[seed] = measurement(level + captions + 0.5 * generator.normal(size=len(captions)))
    return found


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("training", [0.0, 0.03, 0.3])
def test_the_mean_over_trainings_covers_the_truth(k: int, training: float) -> None:
    generator = np.random.default_rng(k)
    hits = 0
    for _ in range(STUDIES):
        found = over_seeds(run_of(generator, generator.normal(size=PICTURES), k, 1.0, training))
        hits += found.low <= 1.0 <= found.high
    assert hits / STUDIES >= WANTED


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("training", [0.0, 0.03, 0.4])
def test_the_ratio_of_what_spreads_in_proportion_to_its_size_covers_the_truth(k: int, training: float) -> None:
    """Distances of poor runs spread more than those of good ones: their logarithms spread alike."""
    generator = np.random.default_rng(30 + k)
    hits = 0
    for _ in range(STUDIES):
        captions = generator.normal(size=PICTURES)
        sides = []
        for truth in (0.5, 2.0):
            levels = truth * np.exp(training * generator.normal(size=k))
            luck = captions + 0.5 * generator.normal(size=(k, PICTURES))
            parts = [measurement(level * (1 + 0.3 * mine)) for level, mine in zip(levels, luck, strict=True)]
            sides.append({seed: logarithm(part) for seed, part in enumerate(parts)})
        value = over_seeds(sides[1]).value - over_seeds(sides[0]).value
        found = combined(value, [Term(1.0, sides[1]), Term(-1.0, sides[0])])
        hits += found.low <= np.log(4) <= found.high
    assert hits / STUDIES >= WANTED


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("training", [0.0, 0.03, 0.3])
def test_the_difference_of_two_methods_covers_the_truth(k: int, training: float) -> None:
    """The captions' difficulty, which both share, must neither be counted nor forgotten."""
    generator = np.random.default_rng(10 + k)
    hits, widths = 0, []
    for _ in range(STUDIES):
        captions = generator.normal(size=PICTURES)
        own, other = (run_of(generator, captions, k, truth, training) for truth in (1.5, 1.0))
        value = over_seeds(own).value - over_seeds(other).value
        found = combined(value, [Term(1.0, own), Term(-1.0, other)])
        hits += found.low <= 0.5 <= found.high
        widths.append(found.high - found.low)
    assert hits / STUDIES >= WANTED
    if not training:  # what is left is the luck of single pictures, and its spread over the trainings
        assert np.mean(widths) < 4 * 0.5 * (2 / PICTURES / k) ** 0.5 * (1.96 + 4.3)


@pytest.mark.parametrize("k", [3, 5])
def test_methods_with_other_captions_and_other_seeds_are_covered_too(k: int) -> None:
    generator = np.random.default_rng(20 + k)
    hits = 0
    for _ in range(STUDIES):
        own, other = (
            {
                seed + offset: measurement(
                    truth + 0.3 * generator.normal() + captions + generator.normal(size=PICTURES), drawn
                )
                for seed in range(k)
            }
            for truth, offset, drawn, captions in (
                (1.5, 0, "zero-shot", generator.normal(size=PICTURES)),
                (1.0, 100, "familiar", generator.normal(size=PICTURES)),
            )
        )
        found = combined(over_seeds(own).value - over_seeds(other).value, [Term(1.0, own), Term(-1.0, other)])
        hits += found.low <= 0.5 <= found.high
    assert hits / STUDIES >= WANTED


@pytest.mark.parametrize("share", [0.03, 0.4, 0.95])
def test_shares_over_trainings_are_covered(share: float) -> None:
    generator = np.random.default_rng(int(100 * share))
    hits = 0
    for _ in range(STUDIES):
        found = over_seeds({seed: measurement((generator.random(PICTURES) < share).astype(float)) for seed in range(3)})
        hits += found.low <= share <= found.high
    assert hits / STUDIES >= WANTED


WIDTH = 8


def reference_and_truth(generator: np.random.Generator) -> tuple[np.ndarray, Reference, np.ndarray, float]:
    """Real features, their statistics, what a generator's features are multiplied with, and its true distance."""
    real = generator.normal(size=(512, WIDTH))
    reference = Reference.of(GaussianStatistics.of(real))
    mix = np.diag(np.linspace(0.6, 1.3, WIDTH))
    population = GaussianStatistics(10**9, np.full(WIDTH, 0.2), mix @ mix.T * (10**9 - 1))
    return real, reference, mix, reference.distance(population)


def test_the_unbiased_frechet_distance_covers_that_of_endless_pictures() -> None:
    generator = np.random.default_rng(1)
    _, reference, mix, truth = reference_and_truth(generator)
    hits, plain, unbiased = 0, [], []
    for _ in range(STUDIES):
        found = frechet_estimate(generator.normal(size=(PICTURES, WIDTH)) @ mix + 0.2, reference)
        hits += abs(found.unbiased - truth) <= found.half_width
        plain.append(found.value)
        unbiased.append(found.unbiased)
    assert hits / STUDIES >= WANTED
    assert np.mean(plain) - truth > 5 * abs(np.mean(unbiased) - truth)


@pytest.mark.parametrize("k", [3, 5])
def test_a_difference_of_frechet_distances_over_trainings_covers_the_truth(k: int) -> None:
    generator = np.random.default_rng(30 + k)
    real = generator.normal(size=(512, WIDTH))
    reference = Reference.of(GaussianStatistics.of(real))

    def true_distance(shift: float) -> float:
        """Its mean over trainings, whose shifts vary."""
        shifts = shift + 0.05 * np.random.default_rng(0).normal(size=4000)
        centre = reference.mean
        spread = reference.distance(GaussianStatistics(10**9, centre, np.eye(WIDTH) * (10**9 - 1)))
        return spread + float(np.mean([np.square(s - centre).sum() for s in shifts]))

    def trainings(shift: float) -> dict[int, Measurement]:
        found = {}
        for seed in range(k):
            features = generator.normal(size=(PICTURES, WIDTH)) + shift + 0.05 * generator.normal()
            estimate = frechet_estimate(features, reference)
            value, half = estimate.unbiased, estimate.half_width
            found[seed] = Measurement(value, value - half, value + half, tuple(estimate.without), "zero-shot")
        return found

    truth, hits = true_distance(0.4) - true_distance(0.2), 0
    for _ in range(STUDIES):
        own, other = trainings(0.4), trainings(0.2)
        found = combined(over_seeds(own).value - over_seeds(other).value, [Term(1.0, own), Term(-1.0, other)])
        hits += found.low <= truth <= found.high
    assert hits / STUDIES >= WANTED


def test_the_kernel_distance_covers_its_truth() -> None:
    generator = np.random.default_rng(3)
    real = generator.normal(size=(256, WIDTH))
    many = kernel_estimate(generator.normal(size=(20000, WIDTH)) + 0.2, real).value
    hits = 0
    for _ in range(STUDIES):
        found = kernel_estimate(generator.normal(size=(PICTURES, WIDTH)) + 0.2, real)
        hits += abs(found.value - many) <= found.half_width
    assert hits / STUDIES >= WANTED


def endless(shift: float, spread: np.ndarray) -> GaussianStatistics:
    return GaussianStatistics(10**9, np.full(WIDTH, shift), np.diag(spread**2) * (10**9 - 1))


SPREAD = np.linspace(0.6, 1.3, WIDTH)


@pytest.mark.parametrize(("k", "count"), [(1, 256), (3, 256), (5, 256), (1, PICTURES), (3, 1000)])
def test_a_distance_covers_that_of_endless_real_pictures(k: int, count: int) -> None:
    """Other real pictures would have been another reference, which all trainings share."""
    generator, hits, alone = np.random.default_rng(50 + k), 0, 0
    truth = Reference.of(endless(0.0, np.ones(WIDTH))).distance(endless(0.2, SPREAD))
    for _ in range(STUDIES):
        real = generator.normal(size=(count, WIDTH))
        reference, parts = Reference.of_pictures(real), {}
        for seed in range(k):
            drawn = generator.normal(size=(PICTURES, WIDTH)) * SPREAD + 0.2
            found = frechet_estimate(drawn, reference)
            value, half = found.unbiased, found.half_width
            parts[seed] = Measurement(
                value, value - half, value + half, tuple(found.without), "p", without_real=tuple(found.without_real)
            )
        found = over_seeds(parts)
        hits += found.low <= truth <= found.high
        fixed = over_seeds({seed: replace(part, without_real=()) for seed, part in parts.items()})
        alone += found.value - fixed.above <= truth <= found.value + fixed.above
    assert hits / STUDIES >= WANTED
    if k == 5:  # the more trainings, the more of the error is the reference's: without it the interval falls short
        assert alone < hits


def test_a_ratio_of_distances_covers_that_of_endless_real_pictures() -> None:
    generator, hits = np.random.default_rng(60), 0

    def true_mean(shift: float) -> float:
        """Of the logarithm of plain distances of so many pictures: what the logarithms of a study average to."""
        luck = np.random.default_rng(61)
        found = [
            Reference.of(GaussianStatistics.of(luck.normal(size=(256, WIDTH)))).distance(
                GaussianStatistics.of(luck.normal(size=(PICTURES, WIDTH)) + shift)
            )
            for _ in range(2000)
        ]
        return float(np.mean(np.log(found)))

    truth = true_mean(0.8) - true_mean(0.4)
    for _ in range(STUDIES):
        real = generator.normal(size=(256, WIDTH))
        reference, sides = Reference.of_pictures(real), []
        for shift in (0.4, 0.8):
            sides.append({})
            for seed in range(3):
                found = frechet_estimate(generator.normal(size=(PICTURES, WIDTH)) + shift, reference)
                left = {"without": tuple(found.without), "without_real": tuple(found.without_real)}
                sides[-1][seed] = logarithm(Measurement(found.value, found.value, found.value, drawn="p", **left))
        value = over_seeds(sides[1]).value - over_seeds(sides[0]).value
        found = combined(value, [Term(1.0, sides[1]), Term(-1.0, sides[0])])
        hits += found.low <= truth <= found.high
    assert hits / STUDIES >= WANTED


def test_the_kernel_distance_covers_that_of_endless_real_pictures() -> None:
    generator, hits = np.random.default_rng(4), 0
    luck = np.random.default_rng(5)
    truth = kernel_estimate(luck.normal(size=(20000, WIDTH)) + 0.2, luck.normal(size=(20000, WIDTH))).value
    for _ in range(STUDIES):
        real = generator.normal(size=(150, WIDTH))
        found = kernel_estimate(generator.normal(size=(PICTURES, WIDTH)) + 0.2, real)
        hits += abs(found.value - truth) <= found.half_width
    assert hits / STUDIES >= WANTED


def test_nothing_is_drawn_at_random() -> None:
    features = np.random.default_rng(0).normal(size=(97, WIDTH))
    reference = Reference.of(GaussianStatistics.of(features + 1))
    first, second = (frechet_estimate(features, reference) for _ in range(2))
    assert len(first.without) == GROUPS
    assert (first.without == second.without).all()


@pytest.mark.parametrize("k", [3, 5])
def test_two_numbers_of_the_same_networks_beside_one_of_others_are_covered(k: int) -> None:
    """a and b share their trainings (one network, guided otherwise), x has more seeds: a and b are not independent."""
    generator, hits = np.random.default_rng(40 + k), 0
    for _ in range(STUDIES):
        network, others = generator.normal(size=k), 0.3 * generator.normal(size=k + 1)
        a, b, x = (
            {seed: Measurement(value, value, value) for seed, value in enumerate(map(float, found))}
            for found in (network, network + 0.01 * generator.normal(size=k), others)
        )
        found = combined(2 * (network.mean() - others.mean()), [Term(1.0, a), Term(1.0, b), Term(-2.0, x)])
        hits += abs(found.value) <= found.above
    assert hits / STUDIES >= WANTED
