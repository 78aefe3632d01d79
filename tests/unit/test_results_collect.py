"""Numbers from folders: columns, cumulative cost, seeds, intervals, and what is missing."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import results_fixture as fixture

from mdm.config.units import decimals, duration, large, short
from mdm.evaluate.metric_names import DISTANCES, FACTORS, MEASURABLE, measurable
from mdm.files.atomic import ArtifactError
from mdm.report import collect
from mdm.report.evidence import Evidence, read_evidence
from mdm.report.metrics import describe, position
from mdm.report.quantity import Quantity


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory):
    study = fixture.make_study()
    return study, fixture.write_tree(study, tmp_path_factory.mktemp("tree"))


def test_columns_are_exactly_those_of_the_contract(tree) -> None:
    _, sources = tree
    with sources.metrics_csv.open() as stream:
        head = next(csv.reader(stream))
    wanted = "run, stage, seed, metric, value, low, high, protocol, images, seconds, digest"
    assert head == wanted.split(", ")


def test_groups_stand_beside_the_metrics(tree) -> None:
    study, sources = tree
    path = sources.metrics_csv.with_name("groups.csv")
    with path.open() as stream:
        assert next(csv.reader(stream)) == ["run", "seed", "metric", "protocol", "drawn", "without", "without_real"]
    groups = collect.read_rows(path, collect.Left)
    assert groups == list(collect.collect_groups(study, sources.results))
    assert {g.run for g in groups} == fixture.INVENTED.keys() - set(fixture.ABSENT)
    run = study.runs[1]
    scores = json.loads((sources.results / run.evaluations[0].scores / "scores.json").read_text())["metrics"]
    (found,) = [g for g in groups if (g.run, g.seed, g.metric) == (run.name, run.seed, "fd_judge")]
    written = next(row for row in scores if row["metric"] == "fd_judge")
    assert list(map(float, found.without.split())) == written["without"] and (found.protocol, found.drawn) == (
        "zero-shot",
        "zero-shot",
    )
    assert not [g for g in groups if g.metric == "alignment_chance"], "no group of pictures is behind it"


def test_evidence_is_read_with_its_groups(tree) -> None:
    study, sources = tree
    evidence = read_evidence(study, sources.metrics_csv)
    parts = evidence.parts("fd_judge", "base", "zero-shot")
    assert sorted(parts) == [0, 1, 2] and all(len(part.without) == 20 for part in parts.values())
    assert {part.drawn for part in parts.values()} == {"zero-shot"}
    assert evidence.parts("alignment_chance", "base", "zero-shot")[0].without == ()
    assert evidence.parts("train_images", "base", "zero-shot")[0].exact
    bare = Evidence(study, evidence.rows)
    paired, apart = (e.difference("fd_judge", "single-scale", "base", "zero-shot") for e in (evidence, bare))
    assert paired.value == apart.value and paired.above < apart.above


def test_damaged_groups_are_an_error_that_names_the_file(tree, tmp_path: Path) -> None:
    study, sources = tree
    for name in ("metrics.csv", "groups.csv"):
        (tmp_path / name).write_bytes(sources.metrics_csv.with_name(name).read_bytes())
    (tmp_path / "groups.csv").write_text("run,seed\nbase,0\n")
    with pytest.raises(ArtifactError, match=r"groups\.csv .* collect again"):
        read_evidence(study, tmp_path / "metrics.csv")


def test_reading_returns_what_was_written(tree) -> None:
    study, sources = tree
    rows, _ = collect.collect(study, sources.results)
    assert collect.read_rows(sources.metrics_csv, collect.Row) == rows


def test_a_row_survives_its_file_to_the_last_bit(tmp_path: Path) -> None:
    numbers = (0.1 + 0.2, 5e-324, -1.7976931348623157e308, 265_763)
    rows = [collect.Row("NA", "", k, "null", x, None, x, "", 10**15, x, "1e5") for k, x in enumerate(numbers)]
    rows.append(collect.Row('a "b", c', "é", 0, "x", 1.0, 0.5, None, "None", 0, 0.0, "000000000012"))
    path = tmp_path / "metrics.csv"
    path.write_text(collect.csv_text([asdict(row) for row in rows], collect.COLUMNS))
    assert collect.read_rows(path, collect.Row) == rows
    written = "NA,,0,null,0.30000000000000004,,0.30000000000000004,,1000000000000000,0.30000000000000004,1e5"
    assert path.read_text().splitlines()[1] == written


def test_cost_adds_up_over_stages_and_evaluations_carry_it(tree) -> None:
    study, sources = tree
    rows = [r for r in collect.read_rows(sources.metrics_csv, collect.Row) if r.run == "base" and r.seed == 0]
    seconds = [r.value for r in rows if r.metric == "train_seconds"]
    images = [r.value for r in rows if r.metric == "train_images"]
    assert images == [32_000, 64_000, 96_000] and seconds == sorted(seconds)
    scored = next(r for r in rows if r.metric == "fd_judge")
    assert (scored.images, scored.seconds, scored.stage) == (96_000, seconds[-1], "r256")
    assert scored.digest == study.runs[0].evaluations[0].scores.rpartition("-")[2]


def test_training_and_cost_metrics_are_there(tree) -> None:
    _, sources = tree
    names = {r.metric for r in collect.read_rows(sources.metrics_csv, collect.Row)}
    assert names >= {"parameters", "images_per_second", "train_loss", "validation_loss_256"}
    assert names >= {"sample_images_per_second", "network_evaluations_per_image"}
    assert names <= measurable([16, 64, 256])


def test_missing_artifacts_are_listed_and_skipped(tree) -> None:
    study, sources = tree
    missing = json.loads(sources.missing_json.read_text())["missing"]
    assert {m["run"] for m in missing} == {"shared-noise"}
    assert [m["what"] for m in missing] == ["training stage r256", "sampled pictures", "scores"]
    evidence = Evidence(study, collect.read_rows(sources.metrics_csv, collect.Row))
    assert evidence.quantity("fd_judge", "shared-noise", "zero-shot") is None


def test_nothing_at_all_is_a_partial_result_too(tmp_path: Path) -> None:
    study = fixture.make_study()
    rows, missing = collect.collect(study, tmp_path)
    assert rows == [] and len(missing) > len(study.runs)


def test_a_score_without_value_is_missing_not_zero(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    path = sources.results / study.runs[0].evaluations[0].scores / "scores.json"
    path.write_text(json.dumps({"metrics": [{"metric": "fd_judge", "value": None, "low": None, "high": None}]}))
    rows, missing = collect.collect(study, sources.results)
    assert not [r for r in rows if (r.run, r.seed, r.metric) == ("base", 0, "fd_judge")]
    assert "value of fd_judge" in [m["what"] for m in missing]


def test_damaged_files_are_errors_that_name_the_file(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    path = sources.results / study.runs[0].stages[0].artifact / "history.jsonl"
    path.write_text('{"images": 1\n')
    with pytest.raises(ArtifactError, match=r"history\.jsonl"):
        collect.collect(study, sources.results)
    sources.metrics_csv.write_text("run,value\n")
    with pytest.raises(ArtifactError, match="columns"):
        collect.read_rows(sources.metrics_csv, collect.Row)
    for damaged in ("", ",".join(collect.COLUMNS) + "\nbase,r8,0,fd,much,,,,1,1,a\n"):
        sources.metrics_csv.write_text(damaged)
        with pytest.raises(ArtifactError, match=r"metrics\.csv cannot be read .* collect again"):
            collect.read_rows(sources.metrics_csv, collect.Row)


def test_numbers_are_rounded_to_their_uncertainty() -> None:
    assert Quantity(27.412, 26.79, 28.03).text() == "27.41 [26.79, 28.03]"
    assert Quantity(27.412, 21, 33).text(signed=True) == "+27.4 [21.0, 33.0]"
    assert Quantity(-0.5, -2.5, 1.5).text() == "−0.5 [−2.5, 1.5]"
    assert Quantity(5, 5, 5).text() == "5" and Quantity(0.12345, 0.12345, 0.12345).text() == "0.1235"
    assert Quantity(6450000, 6450000, 6450000).text() == "6,450,000"
    assert decimals(0, 0) == 0 and decimals(1, 120) == 0
    assert (large(6_450_000), large(96_000), large(12)) == ("6.5 M", "96.0 k", "12")
    assert (short(20_000), short(250)) == ("20 k", "250")
    assert [duration(s) for s in (4.2, 41, 200, 18_720)] == ["4.2 s", "41 s", "3 min 20 s", "5 h 12 min"]


def test_metrics_know_their_direction_and_unknown_ones_have_none() -> None:
    assert describe("fd_judge").better == "lower" and describe("alignment_colour").percent
    assert describe("fd_judge_floor").kind == "frame" and not describe("fd_judge_floor").main
    assert describe("fid_unbiased").better == "lower" and describe("fid_unbiased_floor").kind == "frame"
    assert describe("validation_loss_64").kind == "training"
    assert describe("something_new").better == "" and describe("something_new").title == "something new"
    assert sorted(["alignment_relation", "fid", "alignment", "alignment_colour"], key=position) == [
        "fid", "alignment", "alignment_colour", "alignment_relation",
    ]  # fmt: skip


def test_the_names_a_claim_may_use_are_those_that_the_scores_write() -> None:
    written = {name for pair in DISTANCES.values() for name in pair} | {f"alignment_{factor}" for factor in FACTORS}
    written |= {f"{distance}_unbiased{end}" for distance, _ in DISTANCES.values() for end in ("", "_floor")}
    assert written <= set(MEASURABLE)
    assert {m for m in MEASURABLE if m.startswith("alignment_") and describe(m).kind == "evaluation"} <= written


def test_a_held_out_loss_has_an_interval_where_it_was_drawn_repeatedly():
    once = [{"validation": {"16": 0.2}}]
    assert collect.final_validation(once)["16"].exact
    again = [*once, {"validation": {"16": 0.1}, "validation_draws": {"16": [0.1, 0.12, 0.11, 0.13]}}]
    found = collect.final_validation(again)["16"]
    # Student with three degrees of freedom on the deviation 0.0129
    assert found.value == pytest.approx(0.115) and found.high == pytest.approx(0.115 + 3.1824 * 0.0129099 / 2, rel=1e-4)
