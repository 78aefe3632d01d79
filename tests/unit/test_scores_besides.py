"""Metrics that a protocol asks for by name: their rows, what is left out and why, and claims about them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mdm import study
from mdm.config import StudyError
from mdm.config.instruments import ScoreSettings
from mdm.config.recipe_measured import FeaturesRecipe, ScoresRecipe
from mdm.evaluate import scores_besides, smallest
from mdm.evaluate.inception_score import inception_score
from mdm.evaluate.intervals import groups_of
from mdm.evaluate.metric_names import AMONG_EACH_OTHER, MEASURABLE
from mdm.evaluate.scores_besides import measured_besides
from mdm.evaluate.smallest import Smallest
from mdm.report.metrics import describe

BOTH = ("precision_recall", "density_coverage")


def side(count: int, seed: int, **arrays: np.ndarray) -> Any:
    features = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return SimpleNamespace(arrays={"judge": features, **arrays}, per_prompt=1)


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("precision", "recall", "density", "coverage", "inception_score"):
        monkeypatch.setitem(smallest.SMALLEST, family, Smallest(50, "none here", True))


@pytest.mark.usefixtures("few_are_enough")
def test_rows_of_neighbours_have_their_frame_and_both_jackknives() -> None:
    rows, left_out = measured_besides(BOTH, side(120, 0), side(200, 1), side(120, 2), ScoreSettings())
    found = {row["metric"]: row for row in rows}
    assert not left_out and set(found) <= set(MEASURABLE)
    assert set(found) >= {f"{name}{end}" for name in AMONG_EACH_OTHER if "judge" in name for end in ("", "_floor")}
    for name in ("precision_judge", "recall_judge", "density_judge", "coverage_judge"):
        assert len(found[name]["without"]) == len(found[name]["without_real"]) == 20
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert describe(name).better == "higher" and describe(name).kind == "evaluation"
    # Sets of two sizes are compared as equally many, and as many real ones are expected to reach this.
    assert found["coverage_judge"]["n"] == 120
    assert found["coverage_judge_real"]["value"] == pytest.approx(0.97, abs=0.005)
    assert found["density_judge_real"]["value"] == 1
    assert describe("coverage_judge_real").kind == "frame"


@pytest.mark.usefixtures("few_are_enough")
def test_the_neighbour_that_balls_reach_to_is_a_setting() -> None:
    wide = ScoreSettings(precision_nearest=8)
    values = [
        measured_besides(BOTH[:1], side(90, 0), side(90, 1), None, settings)[0][0]["value"]
        for settings in (ScoreSettings(), wide)
    ]
    assert values[0] < values[1]


@pytest.mark.usefixtures("few_are_enough")
def test_at_most_so_many_pictures_are_compared_taken_from_everywhere() -> None:
    settings = ScoreSettings(most_drawn=60, most_real=80)
    rows, _ = measured_besides(BOTH, side(150, 0), side(150, 1), None, settings)
    assert {row["metric"]: row["n"] for row in rows}["precision_judge"] == 60
    assert {row["metric"]: row["n"] for row in rows}["coverage_judge"] == 60


@pytest.mark.usefixtures("few_are_enough")
def test_pictures_of_a_prompt_stay_together_where_not_all_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of intervals take every twentieth row; 40 prompts stand three times."""
    seen: list[np.ndarray] = []
    for name in ("precision_recall", "density_coverage"):
        measure = getattr(scores_besides, name)
        monkeypatch.setattr(scores_besides, name, lambda drawn, *a, m=measure: seen.append(drawn) or m(drawn, *a))
    generated = side(120, 0)
    generated.per_prompt, generated.arrays["judge"][:, 0] = 3, np.tile(np.arange(40), 3)
    measured_besides(BOTH, generated, side(200, 1), None, ScoreSettings(most_drawn=90))
    for drawn in seen:
        held = [set(drawn[group, 0]) for group in groups_of(len(drawn))]
        assert len(drawn) == 90 and sum(map(len, held)) == 40


def test_too_few_pictures_have_no_number_but_a_reason() -> None:
    rows, left_out = measured_besides(BOTH, side(96, 0), side(512, 1), None, ScoreSettings())
    assert rows == []
    assert [row["metric"] for row in left_out] == [
        f"{name}_judge" for name in ("precision", "recall", "density", "coverage")
    ]
    assert left_out[0]["why"] == "too few pictures: 96 and 512, and at least 2000 of either kind are needed"


@pytest.mark.usefixtures("few_are_enough")
def test_the_inception_score_needs_a_classifier() -> None:
    logits = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32) * 3
    sides = side(100, 0, **{"inception.logits": logits}), side(100, 1)
    rows, left_out = measured_besides(["inception_score"], *sides, None, ScoreSettings())
    assert rows[0]["value"] == pytest.approx(inception_score(logits))
    assert left_out[0]["metric"] == "inception_score_real" and "no classifier" in left_out[0]["why"]


def test_every_family_says_from_how_many_pictures_it_is_sensible() -> None:
    for name in (*AMONG_EACH_OTHER, "fid", "fd_judge", "fd_dino", "kid_dino", "clip_score", "inception_score"):
        assert smallest.smallest(name).bias
    assert smallest.smallest("fid").fewest != smallest.smallest("fd_judge").fewest
    assert smallest.smallest("train_loss") is None


def test_recipes_that_ask_for_nothing_new_are_what_they_were() -> None:
    scores = ScoresRecipe(features="features/a", reference="features/b", settings={})
    assert set(scores.plain()) == {"kind", "version", "features", "reference", "floor", "settings"}
    assert scores.plain()["settings"] == {"chance_shifts": 16}
    features = FeaturesRecipe(images="data/a", num_images=4, resolution=8, extractors={})
    assert set(features.plain()) == {"kind", "version", "images", "num_images", "resolution", "extractors"}


def loaded(**changes: Any) -> study.study.Study:
    return study.load("quick", changes)


def test_asking_for_more_changes_scores_alone() -> None:
    before, after = loaded(), loaded(**{"protocols.zero-shot.metrics": ["precision_recall"]})
    changed = set(after.artifacts) - set(before.artifacts)
    assert changed and {ref.partition("/")[0] for ref in changed} == {"scores"}


def claim(metric: str) -> dict[str, Any]:
    return {"claims.it": {"statement": "s", "source": "p", "expect": f'{metric}["base"] > 0.5'}}


@pytest.mark.parametrize(
    ("metric", "asked", "why"),
    [
        ("precision_judge", [], "does not ask for it; write metrics: \\[precision_recall\\]"),
        ("precision_dino", ["precision_recall"], "reads no such features"),
        ("precision_judge", ["precision_recall"], "left out of tables and verdicts: too few pictures"),
    ],
)
def test_claims_about_what_has_no_number_are_refused(metric: str, asked: list[str], why: str) -> None:
    with pytest.raises(StudyError, match=why):
        loaded(**{"protocols.zero-shot.metrics": asked, **claim(metric)})


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("fd_dino", "has no dino, which measures fd_dino"),
        ("kid_inception", "has no inception"),
        ("fid_published", "has no published"),
        ("fvd_s3d", "not of pictures, which 'base' draws"),
        ("kd_motion_judge", "not of pictures"),
        ("frame_consistency", "not of pictures"),
    ],
)
def test_claims_about_networks_that_nobody_asks_are_refused(metric: str, why: str) -> None:
    """They would stay "not run" for ever."""
    with pytest.raises(StudyError, match=why):
        loaded(**claim(metric))


PROTOCOL = {"protocols.zero-shot.num_images": 3000, "protocols.zero-shot.num_reference": 3000,
            "data.scenes-new.settings.num_images": 6000}  # fmt: skip


@pytest.mark.parametrize(
    "fewer", [{"keep_rows": 100}, {"settings": {"most_real": 100}}, {"settings": {"most_drawn": 9}}]
)
def test_settings_that_leave_too_few_pictures_are_seen_before_anything_runs(fewer: dict[str, Any]) -> None:
    asked = {**PROTOCOL, "protocols.zero-shot.metrics": ["precision_recall"], **claim("precision_judge")}
    assert loaded(**asked).claims
    with pytest.raises(StudyError, match="left out of tables and verdicts: too few pictures"):
        loaded(**asked, **{f"protocols.zero-shot.{key}": value for key, value in fewer.items()})


def test_metrics_of_features_that_nothing_reads_are_refused() -> None:
    with pytest.raises(StudyError, match="inception_score is of a classifier; name inception weights"):
        loaded(**{"protocols.zero-shot.metrics": ["inception_score"]})


def test_the_order_of_metrics_asks_for_the_same() -> None:
    both = [loaded(**{"protocols.zero-shot.metrics": list(order)}) for order in (BOTH, BOTH[::-1])]
    assert set(both[0].artifacts) == set(both[1].artifacts)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metrics": [BOTH[0], BOTH[0]]}, "one is named twice"),
        ({"settings": {"precision_nearest": 9}}, "precision_nearest has no effect without metrics"),
        ({"settings": {"coverage_nearest": 9}, "metrics": [BOTH[0]]}, "coverage_nearest has no effect"),
        ({"settings": {"most_real": 9}, "metrics": ["composition"]}, "most_real has no effect"),
    ],
)
def test_settings_of_metrics_that_nobody_asks_for_are_refused(changes: dict[str, Any], why: str) -> None:
    """They made new scores of the same numbers."""
    with pytest.raises(StudyError, match=why):
        loaded(**{f"protocols.zero-shot.{key}": value for key, value in changes.items()})


def test_rows_of_no_real_pictures_cannot_be_kept() -> None:
    with pytest.raises(StudyError, match="keep_rows has no effect without real pictures"):
        loaded(**{"protocols.drawn": {"description": "d", "num_images": 4, "keep_rows": 2}})
