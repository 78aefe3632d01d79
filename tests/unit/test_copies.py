"""What is called a copy, and how like drawn pictures are to training pictures, against closed forms and definitions."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from mdm.config import StudyError
from mdm.evaluate import copies


def squares(*rows):
    return np.array(rows, dtype=np.int64)


def test_a_copy_is_nearer_than_a_third_and_a_tie_is_none():
    found = squares([1, 10], [1, 9], [0, 1], [0, 0], [2**36, 9 * 2**36 + 1])
    assert copies.copied(found).tolist() == [True, False, True, False, True]
    assert copies.copied(squares([1, 17], [1, 16]), 4).tolist() == [True, False]
    assert copies.copied(squares([1, 5], [1, 4]), 2).tolist() == [True, False]


def test_one_training_picture_has_no_ratio():
    with pytest.raises(StudyError, match="there are 1; it is not defined for one picture"):
        copies.copied(squares([4]))


def test_ratios_of_distances():
    assert copies.ratios(squares([1, 4], [0, 9], [0, 0])).tolist() == [0.5, 0.0, 1.0]


def test_the_released_rule_calls_nothing_over_nothing_no_copy():
    distances = np.array([[0, 0], [0, 1], [1, 2.9], [1, 3.1]], np.float32)
    assert copies.released_rule(distances).tolist() == [False, True, False, True]


def test_calibrated_distances_use_fifty_neighbours_or_all():
    far = squares([1] + [100] * 60)
    assert copies.calibrated(far)[0] == pytest.approx(1 / (0.5 * (1 + 49 * 10) / 50))
    assert copies.calibrated(squares([4, 16, 36]))[0] == pytest.approx(2 / (0.5 * 4))
    assert copies.calibrated(squares([0, 0, 0]))[0] == copies.calibrated(squares([7, 7, 7]))[0] == 2


def test_authentic_pictures_are_farther_than_the_neighbour_of_their_neighbour():
    assert copies.authentic(squares([5, 5, 5])[0], squares([4, 5, 6])[0]).tolist() == [True, False, False]


def test_the_data_copying_score_is_a_mean_of_rank_tests():
    random = np.random.default_rng(0)
    drawn, real = random.integers(0, 50, 80), random.integers(5, 55, 60)
    statistic = mannwhitneyu(drawn, real).statistic
    wanted = (statistic - 80 * 60 / 2) / math.sqrt(80 * 60 * 141 / 12)
    assert copies.mann_whitney(drawn, real) == pytest.approx(wanted)
    one = np.zeros(80), np.zeros(60)
    assert copies.copying_score(drawn, real, one) == pytest.approx(wanted)
    assert copies.copying_score(real[:60] * 0, real, (np.zeros(60), np.zeros(60))) < -8, "copies"
    assert copies.copying_score(real, real, (np.zeros(60), np.zeros(60))) == 0
    cells = np.arange(80) % 2, np.arange(60) % 3
    parts = [copies.mann_whitney(drawn[cells[0] == k], real[cells[1] == k]) for k in (0, 1)]
    assert copies.copying_score(drawn, real, cells) == pytest.approx(np.mean(parts)), "the third has nothing drawn"
    assert math.isnan(copies.copying_score(drawn, real, (np.zeros(80), np.ones(60))))


def test_k_means_finds_clusters_whatever_their_order():
    random = np.random.default_rng(1)
    points = np.concatenate([random.normal(middle, 0.1, (40, 2)) for middle in (0.0, 3.0, 9.0)])
    middles = copies.centres(points)
    assert np.sort(middles.mean(axis=1)) == pytest.approx([0, 3, 9], abs=0.1)
    assert [len(np.unique(copies.cell_of(part, middles))) for part in np.split(points, 3)] == [1, 1, 1]
    shuffled = copies.centres(points[random.permutation(120)])
    assert np.sort(shuffled, axis=0) == pytest.approx(np.sort(middles, axis=0))


def test_similarity_is_the_highest_cosine_and_training_pictures_are_not_compared_with_themselves():
    random = np.random.default_rng(2)
    drawn, known = random.normal(size=(12, 6)), random.normal(size=(30, 6))
    known[4] = 3 * drawn[0]
    found = copies.similarity(drawn, known)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (drawn, known)]
    assert found.drawn == pytest.approx((unit[0] @ unit[1].T).max(axis=1), abs=1e-6) and found.drawn[0] > 0.9999
    among = unit[1] @ unit[1].T
    np.fill_diagonal(among, -1)
    some = np.arange(12) * 30 // 12
    assert found.baseline == pytest.approx(among.max(axis=1)[some], abs=1e-6)


def test_agreement_of_pairs():
    random = np.random.default_rng(3)
    one = random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    assert copies.agreement(one, one) == pytest.approx(np.ones(20))
    assert abs(copies.agreement(one, one[::-1]).mean()) < 0.2
    with pytest.raises(StudyError, match="are no pairs; draw both under one protocol"):
        copies.agreement(one, one[:5])


def test_area_under_the_curve_counts_pairs_in_order():
    assert copies.area_under_curve(np.array([3, 2, 1, 0]), np.array([1, 1, 0, 0])) == 1
    assert copies.area_under_curve(np.array([1.0, 1.0]), np.array([1, 0])) == 0.5
    signal, truth = np.array([5, 1, 4, 2, 3]), np.array([1, 0, 0, 1, 0])
    assert copies.area_under_curve(signal, truth) == pytest.approx(4 / 6)
    assert math.isnan(copies.area_under_curve(signal, np.zeros(5)))
