"""Differences of two runs over the same captions: narrower than two independent measurements, and never too sure."""

import json
import math

import numpy as np
import pytest
from results_fixture import make_study, write_tree
from safetensors.numpy import save_file

from mdm.evaluate import pairs as evaluate_pairs
from mdm.evaluate.frechet import Reference
from mdm.evaluate.labels import encode
from mdm.evaluate.pairs import frechet_difference, paired, share_difference
from mdm.evaluate.statistics import GaussianStatistics
from mdm.files.atomic import write_json
from mdm.report import verdicts
from mdm.report.comparisons import decide
from mdm.report.evidence import read_evidence
from mdm.report.pairs import wanted
from mdm.report.quantity import Quantity
from mdm.report.tables import tables
from mdm.study.claims import Reference as Asked

NUMBER, WIDTH = 96, 8
SCENE = {"colours": [0], "shapes": [0], "pairs": [[0, 0]], "count": 1, "relation": 0}


def test_shares_over_the_same_pictures_as_in_agresti_and_min():
    """Approval of a prime minister in two surveys of the same 1600 people (Agresti, Categorical Data Analysis)."""
    first = np.repeat([True, True, False, False], [794, 150, 86, 570])
    second = np.repeat([True, False, True, False], [794, 150, 86, 570])
    value, low, high = share_difference(first, second)
    assert (value, round(low, 2), round(high, 2)) == (64 / 1600, 0.02, 0.06)


@pytest.mark.parametrize("first, second", [(0, 0), (1, 1), (1, 0), (0, 1)])
def test_shares_that_never_differ_are_not_certain(first, second):
    value, low, high = share_difference(np.full(50, bool(first)), np.full(50, bool(second)))
    assert -1 <= low <= value <= high <= 1 and high - low > 0.02


def test_the_interval_of_a_difference_holds_the_truth_about_as_often_as_it_says():
    luck, inside = np.random.default_rng(0), 0
    for _ in range(400):
        hard = luck.random(NUMBER)  # captions that are hard for both
        first, second = (luck.random((2, NUMBER)) * 0.2 + 0.8 * hard) < np.array([[0.5], [0.4]])
        _, low, high = share_difference(first, second)
        inside += low <= _share(0.5) - _share(0.4) <= high
    assert 0.92 <= inside / 400 <= 0.99


def _share(limit):
    """P(0.2 u + 0.8 h < limit) of two uniform numbers, limit in 0.2..0.8."""
    return (limit - 0.1) / 0.8


def test_a_paired_frechet_distance_is_surer_than_two_single_ones():
    luck = np.random.default_rng(1)
    common = luck.normal(size=(NUMBER, WIDTH))
    reference = Reference.of(GaussianStatistics.of(luck.normal(size=(512, WIDTH))))
    own, other = common + 0.3, common + 0.1 * luck.normal(size=common.shape)
    value, low, high = frechet_difference(own, other, reference, 0)
    single = [reference.distance(GaussianStatistics.of(side)) for side in (own, other)]
    assert value == pytest.approx(single[0] - single[1]) and low < value < high
    alone = evaluate_pairs.frechet_difference(own, luck.permutation(other), reference, 0)
    assert high - low < 0.8 * (alone[2] - alone[1])
    assert frechet_difference(own, own, reference, 0) == (0.0, 0.0, 0.0)
    mirrored = frechet_difference(other, own, reference, 0)
    assert mirrored[0] == pytest.approx(-value) and mirrored[1] == pytest.approx(-high)


def write_features(root, ref, shift, prompts="data/new-1"):
    """A features artifact: features moved by `shift`, CLIP scores raised by it."""
    luck = np.random.default_rng(7)
    seen, labels = luck.normal(size=(NUMBER, WIDTH)) + shift, encode([SCENE] * NUMBER)
    arrays = {"judge": seen, "clip.score": luck.normal(70, 9, NUMBER) + shift * luck.random(NUMBER)}
    arrays |= {f"labels.{key}": values for key, values in labels.items()}
    arrays |= {f"judge.{key}": values.copy() for key, values in labels.items()}
    arrays["judge.shapes"][: round(10 + 20 * shift)] = 0
    folder = root / ref
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "features.safetensors")
    save_file(GaussianStatistics.of(seen).tensors("judge"), folder / "statistics.safetensors")
    write_json(folder / "manifest.json", {"prompts": prompts, "num_images": NUMBER, "judge_on_real": []})


def test_pairs_are_kept_and_need_the_same_captions(tmp_path):
    for ref, shift, prompts in (("features/a", 1.0, "data/new-1"), ("features/b", 0.0, "data/new-1"),
                                ("features/c", 0.0, "data/old-2"), ("features/real", 0.0, None)):  # fmt: skip
        write_features(tmp_path, ref, shift, prompts)
    found = {row["metric"]: row for row in paired(tmp_path, "features/a", "features/b", "features/real")}
    assert found.keys() == {"fd_judge", "clip_score", "alignment", *(f"alignment_{f}" for f in
                            ("colour", "shape", "binding", "count"))}  # fmt: skip
    assert found["fd_judge"]["low"] > 0 and found["clip_score"]["low"] > 0
    assert found["alignment_shape"]["value"] == pytest.approx(-20 / NUMBER) and found["alignment_shape"]["high"] < 0
    assert found["clip_score"]["high"] - found["clip_score"]["low"] < 9 / math.sqrt(NUMBER)
    assert paired(tmp_path, "features/a", "features/c", "features/real") is None
    assert paired(tmp_path, "features/a", "features/none", "features/real") is None
    kept = list(tmp_path.glob("pairs/*.json"))
    assert len(kept) == 1
    (tmp_path / "features/a/features.safetensors").unlink()
    assert paired(tmp_path, "features/a", "features/b", "features/real") == json.loads(kept[0].read_text())["metrics"]


@pytest.fixture
def evidence(tmp_path):
    """The invented study; base and single-scale have pictures that can be paired, for both seeds."""
    study = make_study()
    write_features(tmp_path / "results", "features/zero-shot-real", 0.0, None)
    for run in study.runs:
        if run.name in ("base", "single-scale"):
            write_features(tmp_path / "results", run.evaluations[0].features, 1.0 if run.name == "base" else 0.0)
    sources = write_tree(study, tmp_path)
    return read_evidence(study, sources.metrics_csv)


def test_ablations_and_claims_are_what_is_paired():
    study = make_study()
    found = wanted(study)
    assert {("no-progressive", "base"), ("two-levels", "base"), ("guidance=6", "guidance=2")} <= set(found)
    assert not {(b, a) for a, b in found} & set(found), "each pair once, whichever way round it is asked for"


def test_a_difference_is_paired_where_it_can_be(evidence):
    delta, is_paired = evidence.difference("clip_score", "single-scale", "base", "zero-shot")
    back, _ = evidence.difference("clip_score", "base", "single-scale", "zero-shot")
    assert is_paired and len(delta.seeds) == 2 and (back.low, back.high) == (-delta.high, -delta.low)
    assert evidence.difference("clip_score", "two-levels", "base", "zero-shot")[1] is False
    table = tables.ablation_table(evidence, "nesting")
    notes = {row["run"].text: row["clip_score_change"].note for row in table.rows if "clip_score_change" in row}
    assert notes == {"single-scale": "", "two-levels": tables.UNPAIRED}


def test_a_claim_uses_the_paired_interval():
    quantities = {"a": Quantity(5.0, 1.0, 9.0), "b": Quantity(4.0, 0.0, 8.0)}
    pairing = {("a", "b"): Quantity(1.0, 0.5, 1.5), ("b", "a"): Quantity(-1.0, -1.5, -0.5)}

    def truth(text, pair):
        found = decide(text, lambda r: quantities[r.run], pair)
        return found[0], found[1][0].paired

    def pair(own: Asked, other: Asked):
        return pairing[own.run, other.run]

    assert truth('fd["a"] > fd["b"]', pair) == (True, True)
    assert truth('fd["a"] < fd["b"]', pair) == (False, True)
    assert truth('fd["a"] - fd["b"] > 0.75', pair) == (None, True)
    assert truth('fd["a"] - fd["b"] > 0.4', pair) == (True, True)
    assert truth('fd["a"] > 2 * fd["b"]', pair) == (None, False), "not a plain difference"
    assert truth('fd["a"] > fd["b"]', lambda own, other: None) == (None, False)


def test_the_verdict_says_that_it_is_paired(evidence):
    claim = evidence.study.claims["nesting"]
    assert "picture by picture" in verdicts.judge("nesting", claim, evidence).sentence
