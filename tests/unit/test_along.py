"""Measuring along training: what is asked for, what follows from it, what it costs, and the curves."""

import json
import math

import pytest

from mdm.config import StudyError
from mdm.files.atomic import write_json
from mdm.report import collect, curves
from mdm.report.collect import Artifacts
from mdm.report.evidence import read_evidence
from mdm.report.figures import draw
from mdm.report.metrics import describe
from mdm.study import products, study
from mdm.study.cost import plan
from mdm.study.cost.speeds import Throughput
from mdm.study.stage_files import asked_too_late
from mdm.train.journal import snapshot_file

# The quick study without its own curve, and one over two stages, at a resolution that both draw.
PLAIN = {"along": None, "base.stages.r32.snapshots": []}
SMALL = {"description": "a part of it", "prompts": "scenes-new", "reference": "scenes-new", "num_images": 16,
         "num_reference": 32, "resolution": 16, "judge": "judge"}  # fmt: skip
CURVES = {"along": {"protocol": "way", "runs": ["base"]}, "protocols.way": SMALL, "seeds": [0, 1],
          "base.stages.r16.snapshots": [64, 256], "base.stages.r32.snapshots": [64, 128]}  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    return study.load("quick", PLAIN)


@pytest.fixture(scope="module")
def loaded():
    return study.load("quick", CURVES)


def test_nothing_else_has_another_name(plain):
    asked = study.load("quick")
    added = set(asked.artifacts) - set(plain.artifacts)
    assert set(plain.artifacts) < set(asked.artifacts)
    assert sorted(ref.partition("/")[0] for ref in added) == ["features", "samples", "scores", "snapshot"]
    assert asked.digest != plain.digest, "or the numbers would not be collected anew"
    assert [run.evaluations for run in asked.runs] == [run.evaluations for run in plain.runs]


def test_a_run_is_measured_at_its_snapshots_and_at_its_end(loaded):
    base, points = loaded.runs[0], loaded.runs[0].points
    assert [(p.stage, p.images) for p in points] == [
        ("r16", 64), ("r16", 256), ("r32", 64), ("r32", 128), ("r32", 256),
    ]  # fmt: skip
    ends = {p.stage: p.weights for p in points if p.images == 256}
    assert ends == {stage.name: stage.artifact for stage in base.stages[1:]}
    assert loaded.trained(points[0].weights) == base.stages[1].artifact != points[0].weights
    assert loaded.recipe(points[0].evaluation.samples).train == points[0].weights
    assert {p.evaluation.protocol for p in points} == {"way"}
    assert [run.points for run in loaded.runs if run.name != "base"] == [[]] * 6


def test_a_protocol_that_only_curves_need_measures_no_other_end(loaded, plain):
    assert {e.protocol for run in loaded.runs for e in run.evaluations} == {"zero-shot"}
    named = study.load("quick", {**CURVES, "ablations.no-progressive.protocols": ["way"]})
    assert {e.protocol for run in named.runs if run.name == "no-progressive" for e in run.evaluations} == {"way"}


def test_the_training_is_told_of_all_its_snapshots(loaded):
    stages = [stage.artifact for stage in loaded.runs[0].stages]
    assert [loaded.training_options(ref).partition("--snapshots ")[2] for ref in stages] == ["", "64", "64 128"]
    again = next(ref for ref in loaded.of_kind("snapshot") if loaded.trained(ref) == stages[2])
    assert loaded.training_options(again).endswith("--snapshots 64")


def test_a_repeated_training_asks_for_what_the_training_does_and_draws_no_previews():
    changes = {"base.stages.r32.resources": {"cpus": 2, "minutes": 9, "preview_images": 64}}
    loaded = study.load("quick", changes)
    (snapshot,) = loaded.of_kind("snapshot")
    own, whole = loaded.resources(snapshot), loaded.resources(loaded.trained(snapshot))
    assert (own.cpus, own.minutes, own.preview_images) == (2, 9, 0) and whole.preview_images == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base.stages.r32.snapshots": [100]},
         "base.stages.r32: snapshots 100 is not a multiple of batch_images 16; write 96"),
        ({"base.stages.r32.snapshots": [128, 64]}, r"snapshots \[128, 64\] do not ascend; write \[64, 128\]"),
        ({"base.stages.r32.snapshots": [64, 64]}, r"snapshots \[64, 64\] do not ascend; write \[64\]"),
        ({"base.stages.r32.snapshots": [64, 512]},
         r"snapshots \[64, 512\]: the stage ends at num_images 256; write \[64\], or train longer"),
        ({"base.stages.r32.snapshots": [0]}, "stages.r32.snapshots.0: Input should be greater than 0"),
        ({"base.stages.r8.snapshots": [256]},
         "stages.r8.snapshots: protocol 'zero-shot' measures at 32 px, which cannot be made from pictures of 8 px; "
         "write resolution: 8 there, or snapshots of later stages only"),
        ({"along.runs": ["no-progressive"]},
         r"along.runs \['no-progressive'\]: none of them has a stage with snapshots, and others have"),
        ({"along": None}, "snapshots have no effect without `along`.*; write along: {protocol: zero-shot}"),
        ({"along.protocol": "zero-shoot"}, "along.protocol: there is no 'zero-shoot'; did you mean 'zero-shot'?"),
        ({"along.runs": ["bse"]}, "along.runs: there is no 'bse'; did you mean 'base'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(StudyError, match=said):
        study.load("quick", changes)


def test_without_snapshots_there_is_no_curve():
    assert not products.has_curves(study.load("quick", {"base.stages.r32.snapshots": []}))


def test_an_ablation_stands_for_all_its_runs():
    loaded = study.load("quick", {"along.runs": ["guidance"]})
    assert {run.name for run in loaded.runs if run.points} == {"guidance=1.0", "guidance=4.0"}


def test_the_plan_has_what_is_added_and_no_more(plain, tmp_path):
    before, after = (plan.Plan(one, tmp_path, Throughput(0.01)) for one in (plain, study.load("quick")))
    added = after.lines.keys() - before.lines.keys()
    assert sorted(ref.partition("/")[0] for ref in added) == ["samples", "snapshot"]
    snapshot, drawn = after.lines[max(added)], after.lines[min(added)]
    assert (snapshot.seconds, snapshot.left_slices, snapshot.status) == (0.0, 1, "to do") and snapshot.bytes > 1e5
    assert drawn.seconds == before.lines[plain.runs[0].evaluations[0].samples].seconds > 0
    assert all(after.lines[ref] == line for ref, line in before.lines.items())


def test_what_was_asked_for_too_late_is_trained_again_and_planned_so(tmp_path):
    loaded = study.load("quick")
    (snapshot,), train = loaded.of_kind("snapshot"), loaded.runs[0].stages[2].artifact
    whole = plan.Estimate(loaded, tmp_path).line(train).seconds
    assert not asked_too_late(loaded, tmp_path, snapshot)
    save = tmp_path / train / "progress" / "autosave-000000000112.ckpt"
    save.parent.mkdir(parents=True)
    save.touch()
    assert not asked_too_late(loaded, tmp_path, snapshot), "it is still on its way there"
    save.rename(save.with_name("autosave-000000000128.ckpt"))
    assert asked_too_late(loaded, tmp_path, snapshot)
    line = plan.Estimate(loaded, tmp_path).line(snapshot)
    assert (line.seconds, line.status) == (pytest.approx(whole / 2), "train again")
    snapshot_file(tmp_path / train, 128).parent.mkdir()
    snapshot_file(tmp_path / train, 128).touch()
    assert not asked_too_late(loaded, tmp_path, snapshot)


SECONDS = {"r8": 4.0, "r16": 6.0, "r32": 10.0}


def write_results(loaded, results):
    """Manifests and scores of the base run, invented; of seed 1 one snapshot is not scored yet."""
    for run in [run for run in loaded.runs if run.name == "base"]:
        for stage in run.stages:
            cost = {"images": stage.num_images, "seconds": SECONDS[stage.name] + run.seed, "gigaflops": 100.0}
            write_json(results / stage.artifact / "manifest.json", cost)
        for number, point in enumerate(run.points):
            if point.images < 256:
                cost = {"images": point.images, "seconds": 1.0 + run.seed, "gigaflops": 100.0 * point.images / 256}
                write_json(results / point.weights / "manifest.json", cost)
            if (run.seed, point.stage, point.images) != (1, "r32", 64):
                value = {"value": 9.0 - number + run.seed, "low": 8.0 - number, "high": 11.0 - number, "n": 16}
                rows = [{"metric": name, **value} for name in ("fd_judge", "fd_judge_floor", "kid_judge")]
                write_json(results / point.evaluation.scores / "scores.json", {"metrics": rows})


@pytest.fixture(scope="module")
def scored(loaded, tmp_path_factory):
    """The results folder and the rows of curves.csv."""
    results = tmp_path_factory.mktemp("results")
    write_results(loaded, results)
    return results, list(curves.collect(loaded, Artifacts(results)))


def test_rows_count_what_all_stages_before_had_cost(scored):
    rows = [row for row in scored[1] if (row.metric, row.seed) == ("fd_judge", 0)]
    assert [(row.stage, row.images, row.gigaflops, row.seconds) for row in rows] == [
        ("r16", 512 + 64, 125.0, 5.0), ("r16", 768, 200.0, 10.0),
        ("r32", 768 + 64, 225.0, 11.0), ("r32", 896, 250.0, 11.0), ("r32", 1024, 300.0, 20.0),
    ]  # fmt: skip
    assert {row.protocol for row in rows} == {"way"} and rows[0].low == 8.0


def test_a_line_is_the_mean_over_trainings_with_students_interval(scored):
    line = curves.line(scored[1], "base", "fd_judge")
    assert [moment.trainings for moment in line] == [2, 2, 1, 2, 2]
    first, alone = line[0], line[2]
    assert (first.value, first.seconds, first.images) == (9.5, 6.0, 576)
    # Student with one degree of freedom: 12.7 standard errors, and that of 9 and 10 is a half.
    assert first.half == pytest.approx(12.706 * 0.5, rel=1e-4)
    assert alone.half is None and alone.value == 7.0
    assert curves.metrics(scored[1]) == ["fd_judge"]


def test_what_is_not_scored_yet_is_missing(loaded, scored):
    _, missing = collect.collect(loaded, scored[0])
    found = [m for m in missing if m["run"] == "base" and m["protocol"] == "way"]
    assert [(m["seed"], m["what"]) for m in found] == [(1, "scores of stage r32 at 64 images")]


def test_the_figure_is_there_only_where_there_are_curves(loaded, plain, scored, tmp_path):
    assert "along-training" in products.figure_names(loaded) and "curves.csv" in products.number_names(loaded)
    assert "along-training" not in products.figure_names(plain) and "curves.csv" not in products.number_names(plain)
    collect.write(loaded, scored[0], tmp_path / "metrics.csv", tmp_path / "missing.json")
    files = draw.write(loaded, "along-training", tmp_path / "metrics.csv", scored[0], tmp_path)
    svg = files[0].read_text()
    assert describe("fd_judge").title in svg and "training compute (GFLOP)" in svg and "fill-opacity: 0.18" in svg
    evidence = read_evidence(loaded, tmp_path / "metrics.csv")
    with draw.style.drawing("along-training"):
        axes = draw.draw("along-training", evidence, Artifacts(scored[0])).axes
        assert [len(axis.lines[0].get_xdata()) for axis in axes] == [5, 5, 5]
        assert list(axes[1].lines[0].get_xdata()) == [125.0, 200.0, 225.0, 250.0, 300.0]
        empty = draw.draw("along-training", evidence, Artifacts(tmp_path / "nothing"))
        assert "no snapshot of a training has been scored" in empty.texts[0].get_text()


def test_the_table_of_a_study_is_written_with_its_columns(loaded, scored, tmp_path):
    curves.write(loaded, scored[0], tmp_path / "curves.csv")
    head, *rows = (tmp_path / "curves.csv").read_text().splitlines()
    assert head == "run,stage,seed,metric,value,low,high,protocol,images,gigaflops,seconds,digest"
    assert len(rows) == len(scored[1]) == 27 and not any(map(math.isnan, (row.value for row in scored[1])))
    assert json.loads(json.dumps(rows[0])).startswith("base,r16,0,fd_judge,9.0,8.0,11.0,way,576,125.0,5.0,")
