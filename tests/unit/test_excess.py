"""Excess loss: nothing for the best denoiser, much for an untrained network, and a row that claims can name."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, ref, scenes, text

from mdm.config import DiffusionConfig, StudyError
from mdm.config.recipe_measured import ExcessRecipe
from mdm.data.batches.reader import Pictures
from mdm.diffusion import schedule
from mdm.diffusion.loss import pyramid
from mdm.diffusion.optimal import OptimalNetwork
from mdm.evaluate import excess
from mdm.evaluate.metric_names import measurable
from mdm.evaluate.painter import stage_of
from mdm.files.atomic import read_json, write_json
from mdm.report import collect
from mdm.report import excess as report
from mdm.report.collect import Artifacts
from mdm.report.evidence import read_evidence
from mdm.report.figures import draw
from mdm.report.metrics import EVALUATION, TRAINING, describe
from mdm.report.verdicts import judge_all
from mdm.study import products, study

BINS = len(excess.LOG_SNRS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Results folder with an untrained network, training pictures and their captions."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    data = scenes(results, 96)
    return results, network(results), data, text(results, data)


def recipe(world, **changes):
    results, train, data, captions = world
    given = {"train": ref(train), "data": ref(data), "text": ref(captions), "num_images": 24, "seed": 0}
    return put(results, "excess", "r16", **given | changes)


@pytest.fixture(scope="module")
def parts(world):
    """Stage, pictures and queries of the world."""
    stage, pictures = stage_of(world[1].parent), Pictures(world[2].parent)
    return stage, pictures, excess.asked(stage, pictures, excess.spread(96, 24), 0, torch.device("cpu"))


def test_an_untrained_network_loses_much_beyond_the_optimum(world):
    path = recipe(world)
    excess.measure_excess(path, batch_images=32)
    found = read_json(path.with_name("excess.json"))
    names = [f"excess_loss_{level}{end}" for level in (16, 8) for end in ("", *(f"_b{k}" for k in range(BINS)))]
    assert [row["metric"] for row in found["metrics"]] == names
    for row in found["metrics"]:
        assert 1e-4 < row["low"] < row["value"] < row["high"] and row["n"] == 24 and len(row["without"]) == 12
    assert [(bin_["level"], bin_["log_snr"]) for bin_ in found["bins"][:2]] == [(16, -7.0), (16, -5.0)]
    for level in (16, 8):
        own = [bin_ for bin_ in found["bins"] if bin_["level"] == level]
        optima = [bin_["optimum"] for bin_ in own]
        assert all(a > b - 1e-6 for a, b in pairwise(optima)) and optima[0] > 0.05 and optima[-1] < 1e-6
        mean = np.exp(np.mean([np.log(bin_["excess"]) for bin_ in own]))
        assert mean == pytest.approx(next(r["value"] for r in found["metrics"] if r["metric"].endswith(f"_{level}")))
        single = [r["value"] for r in found["metrics"] if r["metric"].startswith(f"excess_loss_{level}_b")]
        assert single == pytest.approx([bin_["excess"] for bin_ in own])
        assert all(bin_["loss"] == bin_["optimum"] + bin_["excess"] for bin_ in own)
    manifest = read_json(path.with_name("manifest.json"))
    assert ExcessRecipe.of(manifest["recipe"], path).num_images == manifest["num_images"] == 24


def test_batches_and_order_do_not_matter(world):
    path = recipe(world)
    excess.measure_excess(path, batch_images=7)
    first = read_json(path.with_name("excess.json"))["metrics"]
    excess.measure_excess(path, batch_images=64)
    second = read_json(path.with_name("excess.json"))["metrics"]
    assert [row["value"] for row in first] == pytest.approx([row["value"] for row in second], rel=1e-4)


def test_the_best_denoiser_has_none(parts):
    stage, pictures, queries = parts
    config = stage.diffusion.model_copy(update={"prediction": "x0"})
    clean = pyramid(excess.read_signal(pictures, stage, range(96))[1], stage.sizes)
    best = excess.optimum(config, queries, excess.blocks(pictures, stage, torch.device("cpu")))
    ideal = OptimalNetwork(clean, schedule.levels(config, stage.sizes))
    said = excess.answers(ideal, config, queries, excess.Prompt(), 32)
    for own, wanted in zip(said, best.clean, strict=True):
        values = excess.beyond(own, wanted)
        assert values.shape == (BINS, 24) and values.max() < 1e-8
        assert excess.geometric_mean(np.zeros(BINS)) == 0.0


def test_it_is_the_plain_loss_minus_the_optimum_on_average(world, parts):
    """Of an answer that is off by a known amount, over many noises: what was measured is E|x0 - f|^2 - J*."""
    stage, pictures, _ = parts
    clean = pyramid(excess.read_signal(pictures, stage, excess.spread(96, 24))[1], stage.sizes)[0]
    plain, claimed = [], []
    for seed in range(12):
        queries = excess.asked(stage, pictures, excess.spread(96, 24), seed, torch.device("cpu"))
        best = excess.optimum(stage.diffusion, queries, excess.blocks(pictures, stage, torch.device("cpu")))
        shrunk = 0.8 * best.clean[0]
        plain.append((shrunk - clean.repeat(BINS, 1, 1, 1)).square().mean() - best.unknown[0].mean())
        claimed.append(excess.beyond(shrunk, best.clean[0]).mean())
    assert float(torch.stack(plain).mean()) == pytest.approx(np.mean(claimed), rel=0.05)


def test_residual_levels_are_completed_before_they_are_compared(parts):
    _, _, queries = parts
    config = DiffusionConfig(steps=50, prediction="x0", residual_levels=True)
    inner = torch.rand(len(queries.times), 3, 8, 8)
    silent = lambda seen, *_, **__: [torch.zeros_like(seen[0]), inner[: len(seen[0])]]  # noqa: E731
    outer, own = excess.answers(silent, config, queries, excess.Prompt(), len(queries.times))
    torch.testing.assert_close(own, inner)
    torch.testing.assert_close(outer, torch.nn.functional.interpolate(inner, size=16, mode="bilinear"))


@pytest.mark.parametrize("settings", [{}, {"parameterisation": "edm"}, {"schedule": "cosine"}, {"lead": 0.1}])
def test_every_way_to_write_noise_is_asked_at_the_same_bins(parts, settings):
    stage, pictures, _ = parts
    config = DiffusionConfig(**settings)
    queries = excess.asked(stage.model_copy(update={"diffusion": config}), pictures, [0, 1], 0, torch.device("cpu"))
    outer, inner = (-2 * excess.parameterisation(config).log_sigma(row)[::2] for row in queries.levels)
    assert len(inner) == BINS and all(x.isfinite().all() for x in queries.noisy)
    if "lead" in settings:  # the outer level waits for the inner one
        assert (outer < inner - 0.7).all()
        return
    inside = slice(1, 7)  # the cosine schedule ends at 5
    assert inner[inside].tolist() == pytest.approx(excess.LOG_SNRS[inside], abs=0.05)
    torch.testing.assert_close(outer, inner - torch.tensor(2.0).log(), atol=1e-3, rtol=0)


def test_the_same_picture_has_the_same_noise_in_every_subset(parts):
    stage, pictures, _ = parts
    few = excess.asked(stage, pictures, [5], 0, torch.device("cpu"))
    more = excess.asked(stage, pictures, [3, 5], 0, torch.device("cpu"))
    assert torch.equal(few.noisy[0], more.noisy[0][1::2])
    other = excess.asked(stage, pictures, [5], 1, torch.device("cpu"))
    assert not torch.equal(few.noisy[0], other.noisy[0])


ASKED = {"excess": {"num_images": 32}}


def test_a_study_asks_for_it_by_one_key():
    plain, loaded = study.load("quick", {}), study.load("quick", ASKED)
    added = set(loaded.artifacts) - set(plain.artifacts)
    assert {ref.partition("/")[0] for ref in added} == {"excess"} and set(plain.artifacts) < set(loaded.artifacts)
    assert plain.digest != loaded.digest
    base = next(run for run in loaded.runs if run.name == "base")
    found = loaded.recipe(base.excess)
    assert found.train == base.stages[-1].artifact and base.excess in loaded.measured()
    assert set(loaded.parents(base.excess)) == {found.train, found.data, found.text}
    guided = next(run for run in loaded.runs if run.name.startswith("guidance"))
    assert guided.excess == base.excess, "sampling changes no network"
    assert "excess-loss" in products.figure_names(loaded) and "excess.csv" in products.number_names(loaded)
    assert "excess-loss" not in products.figure_names(plain) and "excess.csv" not in products.number_names(plain)


def test_claims_name_it_where_a_study_measures_it():
    assert {"excess_loss_64", "excess_loss_64_b7"} < measurable([64], excess=True)
    assert describe("excess_loss_64").kind == EVALUATION and describe("excess_loss_64_b7").kind == TRAINING
    assert "excess_loss_64" not in measurable([64])
    claim = {"claims.progressive.expect": 'log(excess_loss_32["base"]) < log(excess_loss_32["no-progressive"])'}
    assert study.load("quick", {**ASKED, **claim}).claims
    with pytest.raises(StudyError, match="unknown metric 'excess_loss_32'"):
        study.load("quick", claim)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"excess.num_images": 513}, "the training set has 512"),
        ({"base.diffusion": {"shared_noise": True}}, "leave out shared_noise"),
        ({"excess.num_images": 3}, "greater than or equal to 4"),
    ],
)
def test_what_has_no_closed_form_is_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        study.load("quick", {**ASKED, **changes})


def test_the_recipe_is_all_that_it_depends_on(world):
    assert json.loads(recipe(world).read_text()).keys() == {
        "kind", "version", "train", "data", "text", "num_images", "seed"
    }  # fmt: skip


EXPECT = 'log(excess_loss_32["base"]) < log(excess_loss_32["no-progressive"])'
REPORTED = {**ASKED, "seeds": [0, 1, 2], "claims.progressive.expect": EXPECT}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A study of three seeds whose excess losses are invented, and its results."""
    loaded, results = study.load("quick", REPORTED), tmp_path_factory.mktemp("results")
    for run in loaded.runs:
        for stage in run.stages:
            write_json(results / stage.artifact / "manifest.json", {"seconds": 1.0, "gigaflops": 1.0})
        factor = (2.0 if run.name == "no-progressive" else 1.0) * (1 + 0.01 * run.seed)
        numbers = [
            {"level": level, "log_snr": x, "optimum": 0.1 * math.exp(-x), "excess": factor, "loss": factor + 0.1}
            for level in (32, 16, 8)
            for x in (-1.0, 1.0)
        ]
        without = [factor * (1 + 0.001 * place) for place in range(20)]
        row = {"value": factor, "low": 0.9 * factor, "high": 1.1 * factor, "n": 32, "without": without}
        metrics = [{"metric": f"excess_loss_{level}", **row} for level in (32, 16, 8)]
        write_json(results / run.excess / "excess.json", {"metrics": metrics, "bins": numbers})
    collect.write(loaded, results, results / "metrics.csv", results / "missing.json")
    return loaded, results


def test_its_rows_stand_among_the_metrics_and_decide_claims(told):
    loaded, results = told
    rows = collect.read_rows(results / "metrics.csv", collect.Row)
    rows = [row for row in rows if row.metric.startswith("excess_loss")]
    assert len(rows) == 3 * len(loaded.runs) and {row.protocol for row in rows} == {""}
    groups = collect.read_rows(results / "groups.csv", collect.Left)
    groups = [left for left in groups if left.metric == "excess_loss_32"]
    assert len(groups) == len(loaded.runs) and {left.drawn for left in groups} == {"excess"}
    evidence = read_evidence(loaded, results / "metrics.csv")
    assert "excess_loss_32" in evidence.metrics("zero-shot")
    (verdict,) = judge_all(loaded, evidence)
    assert verdict.verdict == "reproduced" and "factor of 2.00" in verdict.sentence


def test_bins_are_written_and_drawn(told, tmp_path):
    loaded, results = told
    report.write(loaded, results, tmp_path / "excess.csv")
    head, *lines = (tmp_path / "excess.csv").read_text().splitlines()
    assert head == "run,seed,level,log_snr,optimum,excess,loss,digest" and len(lines) == 6 * len(loaded.runs)
    rows = list(report.collect(loaded, Artifacts(results)))
    points = report.line(rows, "base", 32)
    assert [(p.log_snr, p.value) for p in points] == [(-1.0, pytest.approx(1.01)), (1.0, pytest.approx(1.01))]
    # Student with two degrees of freedom on a standard deviation of 0.01 over three trainings.
    assert points[0].half == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert len(report.optima(rows, 32)) == 1, "all runs see the same noises"
    files = draw.write(loaded, "excess-loss", results / "metrics.csv", results, tmp_path)
    assert "32 px" in files[0].read_text()
    evidence = read_evidence(loaded, results / "metrics.csv")
    with draw.style.drawing("excess-loss"):
        assert [axis.get_title() for axis in draw.draw("excess-loss", evidence, Artifacts(results)).axes] == [
            "32 px", "16 px", "8 px"
        ]  # fmt: skip
        empty = draw.draw("excess-loss", evidence, Artifacts(tmp_path / "nothing"))
        assert "Nothing to draw yet" in empty.texts[0].get_text()


def test_what_is_not_measured_yet_is_missing(told, tmp_path):
    _, missing = collect.collect(told[0], tmp_path)
    assert "loss beyond the optimum" in {one["what"] for one in missing}
