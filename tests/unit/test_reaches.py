"""How early a run is as good as another at its best: crossings, pairs that have none, claims, table and bad input."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mdm.config import StudyError
from mdm.evaluate.intervals import jackknife
from mdm.evaluate.metric_names import FRAME_ENDS, measurable
from mdm.files.atomic import write_json
from mdm.report import collect, reaches
from mdm.report.collect import Artifacts
from mdm.report.evidence import read_evidence
from mdm.report.figures import draw, style
from mdm.report.metrics import describe
from mdm.report.page import html
from mdm.report.reaches import BARELY, EARLIER, NOT_REACHED, REACHED, Moment, over_pairs, pair, parts, score
from mdm.report.tables.reaches import reaches_table
from mdm.report.verdicts import judge_all
from mdm.study import claims, products, study
from mdm.study.claims import ExpressionError, Reference, check_expression
from mdm.study.reaches import NOT_REACHED_BY_TRAINING

FD = Reference("fd_judge", "base", best_of="plain", cost="images")


def curve(costs, distances, without=()):
    """Moments of a plain distance, which is better the smaller it is."""
    by = lambda value: score("fd_judge", value)  # noqa: E731
    return [Moment(c, by(d), tuple(by(d * w) for w in without)) for c, d in zip(costs, distances, strict=True)]


def test_a_crossing_lies_on_a_line_over_the_logarithm_of_the_cost():
    own, other = curve([100, 400, 1600], [12, 9, 1]), curve([100, 400, 800], [9, 6, 3])
    found = pair(FD, 0, own, other)
    # 3 is half of the way from 9 to 1 for logarithms, and the middle of 400 and 1600 is 800.
    assert (found.state, found.at, found.best, found.best_at) == (REACHED, pytest.approx(800), pytest.approx(3), 800)
    assert found.ratio == pytest.approx(1)
    assert pair(FD, 0, curve([100, 400], [9, 3]), other).ratio == pytest.approx(0.5)


@pytest.mark.parametrize("metric", ["fid", "fd_dino", "fid_published", "fvd_s3d"])
def test_every_plain_distance_is_taken_by_its_logarithm(metric):
    """They fall alike, so that the same curve is as early by any of them."""
    assert score(metric, 8.0) == pytest.approx(-math.log(8.0))
    assert score(f"{metric}_unbiased", 8.0) == -8.0, "it may be zero or less"
    assert check_expression(f'log({metric}["base"]) < 1', None, None)


def test_the_best_need_not_be_the_end_and_the_first_time_counts():
    other = curve([100, 200, 400], [8, 4, 6])
    found = pair(FD, 0, curve([100, 300, 900], [9, 4, 5]), other)
    assert (found.best, found.best_at, found.at) == (4, 200, pytest.approx(300))
    up = pair(Reference("clip_score", "base", best_of="plain", cost="images"), 0,
              [Moment(100, 10.0), Moment(400, 30.0)], [Moment(100, 5.0), Moment(200, 20.0)])  # fmt: skip
    assert (up.at, up.best) == (pytest.approx(200), 20)


@pytest.mark.parametrize(
    ("distances", "state", "value"),
    [((9, 8, 7), NOT_REACHED, math.inf), ((2, 1, 1), EARLIER, -math.inf), ((9, 8, 3), REACHED, 2.0)],
)
def test_nothing_is_guessed_outside_of_a_curve(distances, state, value):
    found = pair(FD, 0, curve([100, 400, 1600], distances), curve([100, 800], [9, 3]))
    assert found.state == state and parts(FD, [found])[0].value == pytest.approx(value)
    assert (found.first, found.last) == (100, 1600)


def test_a_level_that_some_pictures_alone_decide_is_no_number():
    groups = (1.0, 1.0, 0.9, 1.1)
    clear = pair(FD, 0, curve([100, 400], [9, 1], groups), curve([100, 400], [9, 3], groups))
    assert clear.state == REACHED and len(clear.without.split()) == 4
    kid = replace(FD, metric="kid_judge")
    other = [Moment(100, -9.0, (-9.0, -9.0)), Moment(400, -3.0, (-3.0, -2.0))]
    assert pair(kid, 0, [Moment(100, -9.0, (-9.0, -9.0)), Moment(400, -2.9, (-2.9, -2.9))], other).state == BARELY


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("training", [0.03, 0.2])
def test_the_interval_over_pairs_covers_the_truth(k, training):
    """Distances fall as a power of the cost, one method three times as fast; trainings spread in both."""
    generator, costs, hits = np.random.default_rng(k), [200, 400, 800, 1600, 3200, 6400], 0
    for _ in range(400):
        rows = []
        for seed in range(k):
            speeds = np.exp(training * generator.normal(size=2)) * (3, 1)
            luck = np.exp(0.01 * generator.normal(size=(2, len(costs))))
            own, other = (
                curve(costs, 8 * (1 + speed * np.array(costs) / 1000) ** -0.7 * noise)
                for speed, noise in zip(speeds, luck, strict=True)
            )
            rows.append(pair(FD, seed, own, other))
        found = over_pairs(parts(FD, rows))
        hits += found.low <= 1 / 3 <= found.high
    assert hits / 400 >= 0.92, hits


@pytest.mark.parametrize("luck", [0.02, 0.1])
def test_of_equal_methods_neither_is_often_called_sooner(luck):
    """A number stands only where every pair has one, which of equals is one study in 2^k, and is too low there.

    So an interval that is shown covers less than it says for equals; but over all studies "sooner" stays rare.
    """
    generator, costs, shown, sooner, later = np.random.default_rng(1), np.array([200, 400, 800, 1600, 3200]), 0, 0, 0
    for _ in range(500):
        own, other = np.exp(luck * generator.normal(size=(2, 3, 5))) * 20 * costs**-0.5
        rows = [pair(FD, k, curve(costs, own[k]), curve(costs, other[k])) for k in range(3)]
        if found := over_pairs(parts(FD, rows)):
            shown, sooner, later = shown + 1, sooner + (found.high < 1), later + (found.low > 1)
    assert 0.08 < shown / 500 < 0.18 and sooner / 500 < 0.05 and later / 500 < 0.02


CLIP = replace(FD, metric="clip_score")


def rising(costs, speed, captions, luck):
    """A score that rises with the cost; captions are as hard for all curves, and each moment has luck of its own."""
    found = []
    for place, cost in enumerate(costs):
        pictures = 30 - 20 / (1 + speed * cost / 1000) + captions + luck[place]
        left = jackknife(lambda rows, pictures=pictures: float(pictures[rows].mean()), len(pictures))
        found.append(Moment(cost, left.value, tuple(left.without)))
    return found


@pytest.mark.parametrize("training", [0.0, 0.1])
def test_the_interval_covers_the_truth_with_the_captions_that_all_share(training):
    generator, costs, hits, told_by = np.random.default_rng(7), [200, 400, 800, 1600, 3200, 6400], 0, 0
    for _ in range(150):
        captions, rows = 3 * generator.normal(size=60), []
        for seed in range(3):
            speeds = np.exp(training * generator.normal(size=2)) * (3, 1)
            luck = generator.normal(size=(2, len(costs), 60))
            rows.append(pair(CLIP, seed, *(rising(costs, speeds[k], captions, luck[k]) for k in (0, 1))))
        found = over_pairs(parts(CLIP, rows))
        told_by += bool(rows[0].without)
        hits += found is not None and found.low <= 1 / 3 <= found.high
    assert hits / 150 >= 0.92, (hits, told_by)


SMALL = {"description": "a part of it", "prompts": "scenes-new", "reference": "scenes-new", "num_images": 16,
         "num_reference": 32, "resolution": 16, "judge": "judge"}  # fmt: skip
PLAIN = {"resolutions": [8, 16, 32], "num_images": 1024, "snapshots": [128, 512]}
CLAIM = 'log(reaches(fd_judge["base"], fd_judge["no-progressive"], "{}")) < 0'
CURVES = {
    "along": {"protocol": "way"}, "protocols.way": SMALL, "seeds": [0, 1, 2], "base.stages.r16.snapshots": [64, 256],
    "base.stages.r32.snapshots": [128], "ablations.no-progressive.set.stages": {"r32": PLAIN},
    "claims.progressive.expect": CLAIM.format("images"),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded():
    return study.load("quick", CURVES)


def told(loaded, results, values):
    """Manifests and scores whose distances are a function of run, seed and place in the curve."""
    for run in loaded.runs:
        for stage in run.stages:
            cost = {"images": stage.num_images, "seconds": 10.0, "gigaflops": 100.0}
            write_json(results / stage.artifact / "manifest.json", cost)
        for place, point in enumerate(run.points):
            if point.weights.startswith("snapshot/"):
                cost = {"images": point.images, "seconds": 1.0, "gigaflops": 10.0}
                write_json(results / point.weights / "manifest.json", cost)
            value = values(run.name, run.seed, place)
            if value is not None:
                row = {"metric": "fd_judge", "value": value, "low": value - 1, "high": value + 1, "n": 16}
                write_json(results / point.evaluation.scores / "scores.json", {"metrics": [row]})
    collect.write(loaded, results, results / "metrics.csv", results / "missing.json")
    reaches.write(loaded, results, results / "reaches.csv")
    return read_evidence(loaded, results / "metrics.csv")


# Of base after 576, 768, 896 and 1024 pictures; of the other after 128, 512 and 1024.
FALLING = {"base": (9, 8, 3, 2), "no-progressive": (9, 7, 4)}


def falling(run, seed, place):
    return FALLING.get(run, FALLING["base"])[place] * (1 + 0.01 * seed)


def test_a_claim_is_decided_by_pairs_of_trainings(loaded, tmp_path):
    evidence = told(loaded, tmp_path, falling)
    (verdict,) = judge_all(loaded, evidence)
    share = math.log(8 / 4) / math.log(8 / 3)
    ratio = math.exp(math.log(768) + share * math.log(896 / 768)) / 1024
    assert verdict.verdict == "reproduced", verdict.sentence
    (number,) = verdict.numbers.values()
    assert number.value == pytest.approx(ratio) and len(number.seeds) == 3
    assert "'base' reaches the best Fréchet distance (judge) of 'no-progressive' after 0.8" in verdict.sentence
    assert verdict.as_json()["numbers"][0]["best_of"] == "no-progressive"
    with_number = study.load("quick", CURVES | {"claims.progressive.expect": CLAIM.format("images")[4:-5] + " < 1"})
    assert judge_all(with_number, evidence)[0].verdict == "reproduced", "1 is no paper's number"
    far = study.load("quick", CURVES | {"claims.progressive.expect": CLAIM.format("images")[4:-5] + " < 0.5"})
    assert judge_all(far, evidence)[0].verdict == "not comparable"


def test_costs_are_counted_as_asked(tmp_path):
    loaded = study.load("quick", CURVES | {"claims.progressive.expect": CLAIM.format("gigaflops")})
    evidence = told(loaded, tmp_path, falling)
    share = math.log(8 / 4) / math.log(8 / 3)
    # After r8 and r16: 200, and 10 until the snapshot; the other has 100 in all.
    assert evidence.reached[0].at == pytest.approx(math.exp(share * math.log(210) + (1 - share) * math.log(200)))
    assert judge_all(loaded, evidence)[0].verdict == "not reproduced"


@pytest.mark.parametrize(
    ("distances", "verdict", "said"),
    [
        ((9, 8, 7, 6), "not reached", "with seed 1 it is not reached in all of its training, which is 1 times as much"),
        ((3, 3, 3, 3), "inconclusive", "with seed 1 it is better at its first snapshot already, after 0.56 times"),
        (None, "reproduced", "after"),
    ],
)
def test_a_training_without_a_crossing_is_said_and_never_dropped(loaded, tmp_path, distances, verdict, said):
    values = lambda run, seed, place: (  # noqa: E731
        distances[place] if distances and (run, seed) == ("base", 1) else falling(run, seed, place)
    )
    evidence = told(loaded, tmp_path, values)
    (found,) = judge_all(loaded, evidence)
    assert (found.verdict, said in found.sentence) == (verdict, True), found.sentence
    shown = reaches_table(evidence).rows[0]
    assert shown["ratio"].shown.startswith({"not reached": "above 1", "inconclusive": "below 0.56"}.get(verdict, "0.8"))


def test_half_a_curve_is_not_measured_yet(loaded, tmp_path):
    values = lambda run, seed, place: None if (run, place) == ("base", 1) else falling(run, seed, place)  # noqa: E731
    (found,) = judge_all(loaded, told(loaded, tmp_path, values))
    assert found.verdict == "not run" and found.missing == [f"log({FD_TEXT})"]


FD_TEXT = 'reaches(fd_judge["base"], fd_judge["no-progressive"], "images")'


def test_what_is_made_and_shown(loaded, tmp_path):
    assert "reaches.csv" in products.number_names(loaded) and "reaches" in products.table_names(loaded)
    bare = study.load("quick")
    assert "reaches.csv" not in products.number_names(bare) and "reaches" not in products.table_names(bare)
    assert [str(pair) for pair in loaded.reaches] == [FD_TEXT]
    told(loaded, tmp_path, falling)
    html.write(loaded, tmp_path, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert 'id="table-reaches"' in page and "How early as good" in page


def test_every_score_that_can_be_reached_has_a_direction():
    for name in measurable([64]):
        refused = name.startswith(NOT_REACHED_BY_TRAINING) or name.endswith(FRAME_ENDS)
        assert refused or describe(name).better, name


def test_logarithms_and_costs_are_read():
    text = 'log(reaches(fd["a"], fd["b"])) < 0 and reaches(fd["a"], fd["b"], "seconds") <= 2 * fd["a"]'
    found = check_expression(text, ["fd"], ["a", "b"])
    assert [str(reference) for reference in found] == [
        'log(reaches(fd["a"], fd["b"], "images"))', 'reaches(fd["a"], fd["b"], "seconds")', 'fd["a"]'
    ]  # fmt: skip
    assert claims.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('reaches(fd["a"], kid["b"]) < 1', "reaches takes one metric of two runs"),
        ('reaches(fd["a"], fd["b", "p"]) < 1', "under the protocol of `along`"),
        ('reaches(fd["a"], fd["b"], "steps") < 1', r"\(images, gigaflops, seconds\)"),
        ('reaches(fd["a"]) < 1', "write reaches"),
        ('log(log(fd["a"])) < 1', "not allowed"),
        ('reaches(fd["a"], fd["x"]) < 1', "unknown run 'x'"),
    ],
)
def test_what_is_no_comparison_of_curves_is_refused(text, said):
    with pytest.raises(ExpressionError, match=said):
        check_expression(text, ["fd", "kid"], ["a", "b"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claims.progressive.expect": 'reaches(fd_judge["base"], fd_judge["guidance=4.0"]) < 1',
          "along.runs": ["base"]}, "'guidance=4.0' has no curve along its training; give its stages snapshots"),
        ({"claims.progressive.expect": 'reaches(train_seconds["base"], train_seconds["no-progressive"]) < 1'},
         "train_seconds is not measured along training"),
        ({"claims.progressive.expect": 'reaches(fd_judge["base"], fd_judge["base"]) < 1'}, "name two runs"),
        ({"claims.progressive.expect": 'reaches(clip_score["base"], clip_score["no-progressive"]) < 1'},
         "protocol 'way' has no clip"),
        ({"ablations.no-progressive.seeds": [7]}, "no seed in common"),
        ({"along": None, "base.stages.r16.snapshots": [], "base.stages.r32.snapshots": [],
          "ablations.no-progressive.set.stages": {"r32": {**PLAIN, "snapshots": []}}},
         "compares curves along training, and the study has none"),
    ],
)  # fmt: skip
def test_curves_that_will_never_be_are_refused_before_anything_runs(changes, said):
    with pytest.raises(StudyError, match=said):
        study.load("quick", CURVES | changes)


def test_five_arms_are_told_apart_and_framed_by_real_pictures(tmp_path):
    """The figure of the paper's form: distances and CLIP score over three costs, seconds with their machine."""

    more = {
        "title": "Arms", "question": "Which?", "group": "training",
        "set": {"stages": {"r32": PLAIN}},
        "cases": {f"a{k}": {"train.weight_decay": 0.01 * (k + 1)} for k in range(4)},
    }  # fmt: skip
    loaded = study.load("quick", CURVES | {"ablations.arms": more, "claims": {}})
    followed = {run.name for run in loaded.runs if run.points and not run.name.startswith("guidance")}
    assert len(followed) == 6
    told(loaded, tmp_path, falling)
    for run in loaded.runs:
        for stage in run.stages:
            cost = {"images": stage.num_images, "seconds": 10.0, "gigaflops": 100.0, "device": "a GPU"}
            write_json(tmp_path / stage.artifact / "manifest.json", cost)
        for place, point in enumerate(run.points):
            values = {"fd_judge": 20.0 / (place + 1) ** 2, "fd_judge_floor": 0.4, "alignment": 0.1 * place,
                      "alignment_real": 0.9}  # fmt: skip
            rows = [{"metric": name, "value": value} for name, value in values.items()]
            write_json(tmp_path / point.evaluation.scores / "scores.json", {"metrics": rows})
    with style.drawing("along-training"):
        drawn = draw.draw("along-training", read_evidence(loaded, tmp_path / "metrics.csv"), Artifacts(tmp_path))
        names = {line.get_label() for line in drawn.axes[0].lines}
        looks = {(line.get_color(), line.get_marker()) for line in drawn.axes[0].lines}
        assert followed < names and "real pictures" in names and len(looks) == len(names)
        assert [drawn.axes[k].get_yscale() for k in (0, 3)] == ["log", "linear"]
        levels = [
            line.get_ydata()[0] for k in (0, 3) for line in drawn.axes[k].lines if line.get_label() == "real pictures"
        ]
        assert levels == pytest.approx([0.4, 90.0])
        assert "curves-training" in products.figure_names(loaded), "more than six runs have curves"
        evidence = read_evidence(loaded, tmp_path / "metrics.csv")
        part = draw.draw("curves-training", evidence, Artifacts(tmp_path))
        assert {line.get_label() for line in part.axes[0].lines} == {*followed, "real pictures"} < names
        assert drawn.axes[5].get_xlabel() == "training seconds (wall clock)\non a GPU"
