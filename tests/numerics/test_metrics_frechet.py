"""Fréchet distance and its statistics against closed forms, clean-fid, and themselves in parts."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import numpy as safetensors

from mdm.evaluate.frechet import Reference, frechet_distance, frechet_floor, frechet_with_interval
from mdm.evaluate.statistics import GaussianStatistics


def drawn(count: int, width: int, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    return generator.normal(size=(count, width)) @ mixing * scale + shift


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
    merged = GaussianStatistics.empty(16)
    for piece in np.array_split(features, [1, 7, 300, 301, 999]):
        merged = merged.merge(GaussianStatistics.of(piece))
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


def test_interval_is_repeatable_and_holds_the_truth() -> None:
    reference = GaussianStatistics.of(drawn(4000, 8, 50))
    truth = Reference.of(reference).distance(GaussianStatistics.of(drawn(100_000, 8, 51, 0.5)))
    intervals = [frechet_with_interval(drawn(800, 8, seed, 0.5), reference, seed=3) for seed in range(40)]
    assert intervals[0] == frechet_with_interval(drawn(800, 8, 0, 0.5), reference, seed=3)
    assert all(low <= value <= high for value, low, high in intervals)
    covered = sum(low <= truth <= high for _, low, high in intervals)
    assert covered >= 33  # 95 % of 40 is 38; the small upward bias of finite samples is part of the value


def test_floor_falls_with_more_pictures_and_is_below_a_real_difference() -> None:
    real = drawn(1200, 8)
    small = frechet_floor(real, 50, seed=0, splits=10)[0]
    large = frechet_floor(real, 600, seed=0, splits=10)[0]
    other = frechet_distance(GaussianStatistics.of(drawn(600, 8, 1, 0.5)), GaussianStatistics.of(real))
    assert 0 < large < small < other


def test_bad_features_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        GaussianStatistics.of(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="at least 2 pictures, but the statistics hold 1"):
        GaussianStatistics.of(np.zeros((1, 4))).covariance()
    with pytest.raises(ValueError, match="width 4 cannot be compared with width 5"):
        frechet_distance(GaussianStatistics.of(drawn(9, 4)), GaussianStatistics.of(drawn(9, 5)))
    with pytest.raises(ValueError, match="width 4 and 5"):
        GaussianStatistics.of(drawn(9, 4)).merge(GaussianStatistics.of(drawn(9, 5)))
