"""Precision, recall, density, coverage and Inception Score against reference packages and brute force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdm.evaluate import balls
from mdm.evaluate.inception_score import inception_score
from mdm.evaluate.intervals import groups_of
from mdm.evaluate.manifold import _points, density_coverage, expected_coverage, precision_recall

CASES = ("plain", "singular", "modes", "ties", "offset")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(Path(__file__).parent / "golden" / "metrics.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays | {"values": json.loads(bytes(arrays.pop("meta")))["values"]}


def by_brute_force(drawn: np.ndarray, real: np.ndarray, nearest: int) -> dict[str, float]:
    """All four from whole matrices of differences."""
    drawn, real = drawn.astype(np.float64), real.astype(np.float64)
    cross, own, other = (((a[:, None] - b) ** 2).sum(2) for a, b in ((drawn, real), (real, real), (drawn, drawn)))
    edge, back = np.sort(own, axis=1)[:, nearest], np.sort(other, axis=1)[:, nearest]
    return {
        "precision": (cross <= edge).any(axis=1).mean(), "recall": (cross <= back[:, None]).any(axis=0).mean(),
        "density": (cross < edge).sum(axis=1).mean() / nearest, "coverage": (cross.min(axis=0) < edge).mean(),
    }  # fmt: skip


@pytest.mark.parametrize("nearest", (3, 5))
@pytest.mark.parametrize("case", CASES)
def test_precision_and_recall(golden: dict[str, Any], case: str, nearest: int) -> None:
    wanted = golden["values"][case][f"precision_recall_k{nearest}"]
    found = precision_recall(golden[f"{case}.fake"], golden[f"{case}.real"], nearest)
    assert [one.value for one in found] == pytest.approx([wanted["precision"], wanted["recall"]], abs=1e-12)


@pytest.mark.parametrize("nearest", (3, 5))
@pytest.mark.parametrize("case", CASES)
def test_density_and_coverage(golden: dict[str, Any], case: str, nearest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages take sets of unequal sizes; here that is refused, for what it says depends on the sizes."""
    drawn, real = golden[f"{case}.fake"], golden[f"{case}.real"]
    wanted = golden["values"][case][f"prdc_k{nearest}"]
    centre = real.mean(axis=0, dtype=np.float64)
    made, kept = balls.Points.of(drawn, centre), balls.Points.of(real, centre)
    found = balls.held(kept, balls.radii(kept, nearest), made, closed=False)
    assert found.inside[:, 0].mean() / nearest == pytest.approx(wanted["density"], abs=1e-12)
    assert found.reached[:, 0].mean() == pytest.approx(wanted["coverage"], abs=1e-12)
    same = min(len(drawn), len(real))
    equal = by_brute_force(drawn[:same], real[:same], nearest)
    both = density_coverage(drawn[:same], real[:same], nearest)
    assert [one.value for one in both] == pytest.approx([equal["density"], equal["coverage"]], abs=1e-12)


@pytest.mark.parametrize("case", ("plain", "ties"))
def test_what_is_left_without_a_group(golden: dict[str, Any], case: str) -> None:
    drawn, real = golden[f"{case}.fake"][:150], golden[f"{case}.real"][:150]
    found = dict(zip(("precision", "recall"), precision_recall(drawn, real, 3), strict=True))
    found |= dict(zip(("density", "coverage"), density_coverage(drawn, real, 3), strict=True))
    for place, group in enumerate(groups_of(150)):
        left = by_brute_force(np.delete(drawn, group, 0), real, 3), by_brute_force(drawn, np.delete(real, group, 0), 3)
        for name, one in found.items():
            assert one.without[place] == pytest.approx(left[0][name], abs=1e-12), name
            assert one.without_real[place] == pytest.approx(left[1][name], abs=1e-12), name


def test_neighbours_that_are_all_of_one_group_are_looked_for_further_away() -> None:
    """Twenty clusters, each of them one group: a ball without that group reaches to another cluster."""
    random = np.random.default_rng(0)
    real = (np.arange(800) % 20)[:, None] * 10.0 + random.normal(size=(800, 4))
    drawn = real + random.normal(size=real.shape)
    group = groups_of(800)[3]
    for one, name in zip(precision_recall(drawn, real, 3), ("precision", "recall"), strict=True):
        assert one.without_real[3] == pytest.approx(by_brute_force(drawn, np.delete(real, group, 0), 3)[name])


@pytest.mark.parametrize("case", ("ties", "offset"))
def test_neither_blocks_nor_the_order_of_rows_matter(
    golden: dict[str, Any], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, real = golden[f"{case}.fake"], golden[f"{case}.real"]
    whole = [one.value for one in precision_recall(drawn, real)]
    random = np.random.default_rng(1)
    mixed = random.permutation(drawn), random.permutation(real)
    assert [one.value for one in precision_recall(*mixed)] == whole
    monkeypatch.setattr(balls, "BLOCK_VALUES", 900)
    monkeypatch.setattr(balls, "PAIRS", 64)
    assert [one.value for one in precision_recall(drawn, real)] == whole


def test_copies_are_inside_a_ball_of_radius_nothing_only_with_its_edge() -> None:
    random = np.random.default_rng(2)
    one = random.normal(size=(1, 7)).astype(np.float32) * 1000
    real = np.concatenate([one.repeat(10, axis=0), random.normal(size=(30, 7)).astype(np.float32) + 50])
    drawn = one.repeat(40, axis=0)
    assert precision_recall(drawn, real)[0].value == 1
    density, coverage = density_coverage(drawn, real)
    assert density.value == 0 and coverage.value == 0


def test_one_distribution_covers_itself_as_expected() -> None:
    random = np.random.default_rng(3)
    drawn, real = random.normal(size=(2, 1500, 4))
    density, coverage = density_coverage(drawn, real)
    assert coverage.value == pytest.approx(expected_coverage(1500), abs=0.012)
    assert density.value == pytest.approx(1, abs=0.06)
    assert expected_coverage(2000) == pytest.approx(0.969, abs=0.001)


def test_unequal_numbers_and_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="not 30 with 40"):
        density_coverage(np.zeros((30, 2)), np.zeros((40, 2)))
    with pytest.raises(ValueError, match="one width"):
        precision_recall(np.zeros((30, 2)), np.zeros((30, 3)))


def test_inception_score(golden: dict[str, Any]) -> None:
    logits, wanted = golden["logits"], golden["values"]["inception_score"]
    assert inception_score(logits) == pytest.approx(wanted["splits_1_in_order"]["inception_score_mean"], rel=1e-10)
    in_order = wanted["splits_10_in_order"]["inception_score_mean"]
    assert inception_score(logits, 10) == pytest.approx(in_order, rel=1e-10)
    shuffled = logits[np.random.RandomState(2020).permutation(len(logits))]
    mixed = wanted["splits_10_shuffled_2020"]["inception_score_mean"]
    assert inception_score(shuffled, 10) == pytest.approx(mixed, rel=1e-10)
    assert inception_score(shuffled) == pytest.approx(inception_score(logits), rel=1e-12)


def test_blurred_pictures_cost_no_more_than_sharp_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in nearly all balls: looked at pair by pair, 1,500 took 8 s and 10,000 would six minutes."""
    random, looked = np.random.default_rng(0), []
    decided = balls._decided
    monkeypatch.setattr(balls, "_decided", lambda *given: looked.append(len(given[1])) or decided(*given))
    real, drawn = random.normal(size=(300, 64)), 0.2 * random.normal(size=(280, 64))
    drawn[:7] = real[:7]
    precision, recall = precision_recall(drawn, real)
    pairs = sum(looked)
    assert precision.value == 1 and pairs < 0.1 * 2 * 300 * 280
    apart = np.square(real[:, None] - real).sum(axis=2)
    reach = np.sort(apart, axis=1)[:, 3]
    inside = np.square(drawn[:, None] - real).sum(axis=2) <= reach
    made = _points(drawn, real)
    found = balls.held(made[1], balls.radii(made[1], 3), made[0], closed=True)
    np.testing.assert_array_equal(found.inside[:, 0], inside.sum(axis=1))
    left = made[1].group != 4
    without = np.sort(np.square(real[left][:, None] - real[left]).sum(axis=2), axis=1)[:, 3]
    inside = np.square(drawn[:, None] - real[left]).sum(axis=2) <= without
    np.testing.assert_array_equal(found.inside[:, 5], inside.sum(axis=1))
    np.testing.assert_array_equal(found.reached[left, 5], inside.any(axis=0))
    assert recall.value < 0.1
