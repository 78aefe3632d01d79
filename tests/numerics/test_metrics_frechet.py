"""Fréchet distance and its statistics against closed forms, clean-fid, and themselves in parts."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from safetensors import numpy as safetensors

from mdm.evaluate.frechet import GaussianStatistics, Reference, frechet_estimate
from mdm.evaluate.intervals import GROUPS, groups_of, jackknife, standard_error


def drawn(count: int, width: int, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    return generator.normal(size=(count, width)) @ mixing * scale + shift


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    return Reference.of(first).distance(second)


def given(mean: np.ndarray, covariance: np.ndarray) -> GaussianStatistics:
    return GaussianStatistics(101, mean, covariance * 100)


def test_distance_of_scaled_and_shifted_gaussians_is_the_closed_form() -> None:
    # Commuting covariances: |dm|^2 + sum (sqrt a - sqrt b)^2.
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    first = given(np.zeros(3), rotation @ np.diag(a) @ rotation.T)
    second = given(np.array([1.0, -2.0, 0.5]), rotation @ np.diag(b) @ rotation.T)
    expected = 5.25 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_distance_is_symmetric_and_zero_on_itself() -> None:
    first, second = GaussianStatistics.of(drawn(90, 12)), GaussianStatistics.of(drawn(70, 12, 1, 0.3))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-10)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [40, 500])
def test_distance_agrees_with_cleanfid(count: int) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    first, second = drawn(count, 64), drawn(count, 64, 1, 0.2, 1.4)
    theirs = fid.frechet_distance(
        first.mean(0), np.cov(first, rowvar=False), second.mean(0), np.cov(second, rowvar=False)
    )
    ours = frechet_distance(GaussianStatistics.of(first), GaussianStatistics.of(second))
    # 40 pictures leave the covariances singular, where a general matrix root loses about half its digits.
    assert ours == pytest.approx(theirs, rel=1e-9 if count > 64 else 1e-4)


def test_merged_statistics_equal_the_whole() -> None:
    features = drawn(1000, 16) * 1e-3 + 1e4  # a large mean is what naive sums of squares cannot bear
    whole = GaussianStatistics.of(features)
    parts = map(GaussianStatistics.of, np.array_split(features, [1, 7, 300, 301, 999]))
    merged = reduce(GaussianStatistics.merge, parts)
    assert merged.count == 1000
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-10)
    scale = np.abs(whole.covariance()).max()
    np.testing.assert_allclose(merged.covariance() / scale, whole.covariance() / scale, atol=1e-10)
    np.testing.assert_allclose(whole.covariance(), np.cov(features, rowvar=False), rtol=1e-6, atol=1e-12)


def test_statistics_survive_a_file(tmp_path) -> None:
    statistics = GaussianStatistics.of(drawn(20, 5))
    safetensors.save_file(statistics.tensors("judge"), tmp_path / "s.safetensors")
    back = GaussianStatistics.from_tensors(safetensors.load_file(tmp_path / "s.safetensors"), "judge")
    assert back.count == 20
    np.testing.assert_array_equal(back.mean, statistics.mean)
    np.testing.assert_array_equal(back.moment, statistics.moment)
    with pytest.raises(ValueError, match=r"no statistics called 'clip'.*judge.mean"):
        GaussianStatistics.from_tensors(statistics.tensors("judge"), "clip")


def test_the_estimate_is_the_distance_of_all_pictures_and_of_all_but_each_group() -> None:
    features, real = drawn(103, 8, 0, 0.5), GaussianStatistics.of(drawn(400, 8, 50))
    found = frechet_estimate(features, Reference.of(real))
    assert found.value == frechet_distance(real, GaussianStatistics.of(features))
    assert len(found.without) == GROUPS == 20
    for group, without in enumerate(found.without):
        left = np.array([k for k in range(103) if k % 20 != group])
        assert without == pytest.approx(frechet_distance(real, GaussianStatistics.of(features[left])), rel=1e-12)
    assert found.unbiased == pytest.approx(20 * found.value - 19 * found.without.mean())
    error = np.sqrt(19 / 20 * np.square(found.without - found.without.mean()).sum())
    assert standard_error(found.without) == pytest.approx(error)
    assert found.half_width == pytest.approx(2.0930 * error, rel=1e-4)


def test_the_estimate_is_repeatable_and_holds_the_truth() -> None:
    reference = Reference.of(GaussianStatistics.of(drawn(4000, 8, 50)))
    truth = reference.distance(GaussianStatistics.of(drawn(100_000, 8, 51, 0.5)))
    found = [frechet_estimate(drawn(800, 8, seed, 0.5), reference) for seed in range(40)]
    again = frechet_estimate(drawn(800, 8, 0, 0.5), reference)
    assert again.value == found[0].value and (again.without == found[0].without).all()
    assert sum(abs(f.unbiased - truth) <= f.half_width for f in found) >= 35  # 95 % of 40 is 38


def test_the_plain_distance_of_few_pictures_is_too_large_and_the_unbiased_is_not() -> None:
    """Of real pictures, which are no part of the reference, the distance is zero but for the bias."""
    reference = Reference.of(GaussianStatistics.of(drawn(100_000, 8, 50)))
    small, large = ([frechet_estimate(drawn(count, 8, k), reference) for k in range(20)] for count in (50, 600))
    plain = [np.mean([f.value for f in found]) for found in (small, large)]
    unbiased = [np.mean([f.unbiased for f in found]) for found in (small, large)]
    other = frechet_distance(GaussianStatistics.of(drawn(600, 8, 1, 0.5)), GaussianStatistics.of(drawn(1200, 8)))
    assert 0 < plain[1] < 0.2 * plain[0] < other
    assert abs(unbiased[0]) < 0.15 * plain[0] and abs(unbiased[1]) < 0.15 * plain[1]


@pytest.mark.parametrize("count", [4, 5, 39, 40, 41, 100, 257])
def test_groups_are_parts_of_equal_size_by_place(count: int) -> None:
    groups = groups_of(count)
    assert len(groups) == min(20, count // 2)
    assert sorted(np.concatenate(groups).tolist()) == list(range(count))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 2
    # Two runs with the same captions leave the same ones out, and neighbours are in different groups.
    assert all((np.diff(group) == len(groups)).all() for group in groups)


def test_too_few_pictures_have_no_interval() -> None:
    for count in range(4):
        with pytest.raises(ValueError, match=f"at least 4 pictures, but got {count}; evaluate more pictures"):
            groups_of(count)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Groups of equal size: the error of the mean of their means."""
    values = np.random.default_rng(0).normal(size=200)
    found = jackknife(lambda rows: float(values[rows].mean()), 200)
    means = values.reshape(10, 20).mean(axis=0)
    assert found.value == values.mean() and found.unbiased == pytest.approx(values.mean())
    assert standard_error(found.without) == pytest.approx(means.std(ddof=1) / 20**0.5)


def test_the_jackknife_takes_the_bias_out_of_a_variance() -> None:
    """The mean square deviation is too small by the square of the mean's error, which the groups' means tell."""
    values = np.random.default_rng(1).normal(size=200)
    found = jackknife(lambda rows: float(values[rows].var()), 200)
    means = values.reshape(10, 20).mean(axis=0)
    assert found.value == values.var() and found.unbiased == pytest.approx(values.var() + means.var(ddof=1) / 20)


def test_bad_features_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        GaussianStatistics.of(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="at least 2 pictures, but the statistics hold 1"):
        GaussianStatistics.of(np.zeros((1, 4))).covariance()
    with pytest.raises(ValueError, match="width 4 cannot be compared with width 5"):
        frechet_distance(GaussianStatistics.of(drawn(9, 4)), GaussianStatistics.of(drawn(9, 5)))
    with pytest.raises(ValueError, match="width 4 and 5"):
        GaussianStatistics.of(drawn(9, 4)).merge(GaussianStatistics.of(drawn(9, 5)))
