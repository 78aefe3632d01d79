"""When copying begins along a training and when its pictures are as good as they get, from trainings to verdicts."""

import math

import numpy as np
import pytest

from mdm.config import StudyError
from mdm.evaluate.intervals import groups_of
from mdm.files.atomic import write_json
from mdm.report import collect
from mdm.report.crossing import first_reached
from mdm.report.evidence import read_evidence
from mdm.report.onset import copying, quality
from mdm.report.verdicts import judge_all
from mdm.study import study

IMAGES = (1000, 2000, 4000, 8000)


def test_between_snapshots_a_curve_is_a_line_over_the_logarithm():
    assert copying(IMAGES, (0.0, 0.25, 0.75, 1.0)) == pytest.approx(2000 * math.sqrt(2))
    assert copying(IMAGES, (0.0, 0.5, 0.75, 1.0)) == pytest.approx(2000)
    assert copying(IMAGES, (0.1, 0.6, 0.2, 0.9)) < 2000, "the first time counts"


def test_nothing_is_guessed_outside_of_the_snapshots():
    assert copying(IMAGES, (0.0, 0.1, 0.2, 0.4)) == math.inf
    assert copying(IMAGES, (0.7, 0.8, 0.9, 1.0)) == -math.inf
    assert first_reached(list(zip(IMAGES, (0.5, 0.8, 0.9, 1.0), strict=True)), 0.5) == 1000


def test_quality_is_there_within_a_tenth_of_the_best():
    assert quality(IMAGES, (9.0, 4.4, 4.0, 8.0)) == pytest.approx(2000)
    assert quality(IMAGES, (4.3, 4.1, 4.0, 4.0)) == -math.inf
    falling = quality(IMAGES, (8.0, 6.0, 4.5, 2.0))
    assert 4000 < falling < 8000


def test_the_interval_of_a_run_covers_its_onset():
    """Shares rise with the logarithm of the pictures, each from 200 drawn ones, as audits count them."""
    generator, hits = np.random.default_rng(3), 0
    for _ in range(200):
        drawn = [generator.random(200) < share for share in (0.05, 0.3, 0.7, 0.95)]
        curves = [[part.mean() for part in drawn]]
        curves += [[np.delete(part, group).mean() for part in drawn] for group in groups_of(200)]
        value, *without = (copying(IMAGES, curve) for curve in curves)
        spread = np.array(without)
        half = 2.093 * math.sqrt(19 / 20 * np.square(spread - spread.mean()).sum())
        hits += abs(value - 2000 * math.sqrt(2)) <= half
    assert hits / 200 >= 0.92


DRAWN = {"description": "a part", "prompts": "scenes-new", "reference": "scenes-new", "num_images": 40,
         "num_reference": 48, "resolution": 16, "judge": "judge"}  # fmt: skip
CLAIM = 'log(copied_onset_32["base"]) > log(quality_onset_judge["base"])'
ASKED = {
    "protocols": {"way": DRAWN}, "clips": {}, "along": {"protocol": "way"}, "seeds": [0, 1, 2], "theory": False,
    "base.stages.r16.snapshots": [], "base.stages.r32.snapshots": [64, 128], "ablations": {},
    "audit": {"metrics": ["copied"], "neighbours": 2},
    "claims": {"later": {"statement": "It copies later.", "source": "none", "expect": CLAIM}},
}  # fmt: skip


def told(loaded, results, shares, distances):
    """Audits and scores of every moment of every training."""
    for run in loaded.runs:
        for stage in run.stages:
            write_json(results / stage.artifact / "manifest.json", {"seconds": 1.0, "gigaflops": 1.0, "images": 1})
        for place, (point, audit) in enumerate(zip(run.points, run.audits, strict=True)):
            share, distance = shares[place] + 0.01 * run.seed, distances[place] * (1 + 0.01 * run.seed)
            copied = {"metric": "copied_32", "value": share, "low": 0.0, "high": 1.0, "n": 40, "without": [share] * 20}
            far = {"metric": "fd_judge", "value": distance, "low": 0.0, "high": 9.0, "n": 40}
            write_json(results / audit.artifact / "audit.json", {"metrics": [copied], "levels": []})
            write_json(results / point.evaluation.scores / "scores.json", {"metrics": [far]})
    collect.write(loaded, results, results / "metrics.csv", results / "missing.json")
    return read_evidence(loaded, results / "metrics.csv")


@pytest.mark.parametrize(
    ("shares", "distances", "verdict"),
    [
        ((0.0, 0.2, 0.9), (9.0, 4.0, 4.0), "reproduced"),
        ((0.0, 0.8, 0.9), (9.0, 8.0, 4.0), "not reproduced"),
        ((0.0, 0.1, 0.2), (9.0, 4.0, 4.0), "inconclusive"),
    ],
)
def test_claims_compare_the_two_clocks(tmp_path, shares, distances, verdict):
    loaded = study.load("quick", ASKED)
    evidence = told(loaded, tmp_path, shares, distances)
    found = judge_all(loaded, evidence)[0]
    assert found.verdict == verdict, found.sentence
    if verdict == "inconclusive":
        assert "after the end of the training for seed 0, 1, 2" in found.sentence and "train longer" in found.sentence


def test_onsets_count_pictures_of_earlier_stages(tmp_path):
    loaded = study.load("quick", ASKED)
    evidence = told(loaded, tmp_path, (0.0, 0.49, 0.9), (9.0, 4.0, 4.0))
    before = loaded.runs[0].stages[0].num_images
    assert evidence.quantity("copied_onset_32", "base").value > before + 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base.stages.r32.snapshots": [], "along": None}, "quality_onset_judge"),
        ({"claims.later.expect": 'copied_onset_8["base"] > 0 and quality_onset_inception["base"] > 0'}, "inception"),
        ({"claims.later.expect": 'copied_onset_99["base"] > 10'}, "copied_onset_99"),
    ],
)
def test_what_nothing_measures_is_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        study.load("quick", {**ASKED, **changes})
