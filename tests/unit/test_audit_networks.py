"""What an audit asks of features and of networks: similarity, loss gap, and how much an answer depends on a caption."""

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, ref, samples, scenes, text
from safetensors.numpy import save_file

from mdm.config import DiffusionConfig, StudyError, WeightsConfig
from mdm.diffusion.guidance import Prompt
from mdm.evaluate import feature_copies
from mdm.evaluate.audit import measure_audit
from mdm.evaluate.audit_rows import agreements
from mdm.evaluate.copies import area_under_curve
from mdm.evaluate.generate import generate
from mdm.evaluate.loss_gap import gap_row
from mdm.evaluate.sscd import DEVIATION, MEAN, load_sscd
from mdm.evaluate.text_signal import auc_row, text_signal
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.hashes import sha256_file
from mdm.study import study
from mdm.study.outside_files import external_files


def test_similarity_beside_its_baseline(tmp_path):
    random = np.random.default_rng(0)
    known = random.normal(size=(200, 12)).astype(np.float32)
    drawn = random.normal(size=(40, 12)).astype(np.float32)
    drawn[:10] = 2 * known[50:60]
    for name, features in (("drawn", drawn), ("known", known)):
        (tmp_path / name).mkdir()
        save_file({"judge": features, "judge.count": features}, tmp_path / name / "features.safetensors")
    rows = {r["metric"]: r for r in feature_copies.similarities(tmp_path / "drawn", tmp_path / "known", 40)}
    assert list(rows) == [f"similarity_judge{kind}" for kind in ("", "_share", "_p75", "_p90", "_p95", "_train")]
    assert rows["similarity_judge_p90"]["value"] == pytest.approx(1) and rows["similarity_judge_train"]["n"] == 40
    assert rows["similarity_judge_train"]["value"] < rows["similarity_judge"]["value"] < 1
    assert rows["similarity_judge_share"]["low"] <= rows["similarity_judge_share"]["value"] <= 1


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    data = scenes(results, 40)
    captions, train = text(results, data), network(results)
    drawn = samples(results, train, data, captions, 8)
    generate(drawn)
    return results, data, captions, drawn


def audited(world, group):
    """The rows of an audit by copies and one more group, beside thirty other scenes."""
    results, data, captions, drawn = world
    held = scenes(results, 30, seed=3)
    more = {"held_out_text": ref(text(results, held))} if group == "text_signal" else {}
    path = put(
        results, "audit", group.replace("_", "-"), samples=ref(drawn), data=ref(data), num_images=8, neighbours=5,
        metrics=("copied", group), held_out=ref(held), text=ref(captions), **more,
    )  # fmt: skip
    measure_audit(path)
    return {row["metric"]: row for row in read_json(path.with_name("audit.json"))["metrics"]}


def test_a_fresh_network_has_no_loss_gap(world):
    rows = audited(world, "loss_gap")
    for name in ("loss_gap_16", "loss_gap_8"):
        assert rows[name]["low"] < 0 < rows[name]["high"] and abs(rows[name]["value"]) < 0.5
    assert rows["copied_16"]["value"] == 0


def test_captions_of_training_pictures_move_a_fresh_network_like_others(world):
    row = audited(world, "text_signal")["text_signal"]
    assert row["low"] <= 0.5 <= row["high"] and row["n"] == 8


def test_twins_draw_from_the_same_noises():
    other = {"title": "Other", "question": "?", "group": "training", "set": {"data": "others"}}
    asked = {
        "data.others": {"source": "scenes", "settings": {**WORLD, "seed": 9, "num_images": 512}},
        "ablations.other": other, "audit": {"metrics": ["copied"], "twins": {"base": "other"}},
        "claims.progressive.expect": 'agreement_32["base"] < 0.9',
    }  # fmt: skip
    loaded = study.load("quick", asked)
    base, twin = (loaded.runs_named(name)[0] for name in ("base", "other"))
    recipe = loaded.recipe(base.audit.artifact)
    assert recipe.twin == next(e.samples for e in twin.evaluations if e.protocol == base.audit.protocol)
    assert loaded.recipe(recipe.twin).seed == loaded.recipe(recipe.samples).seed
    assert loaded.recipe(twin.audit.artifact).twin is None
    for changes, message in (
        ({"audit": {"twins": {"base": "otter"}}}, "there is no 'otter'"),
        ({"audit": {"twins": {"bass": "other"}}}, "there is no 'bass'"),
        ({"audit": {"twins": {"base": "base"}}}, "of the same levels that was trained otherwise"),
        ({"claims.progressive.expect": 'agreement_32["other"] < 0.9'}, "'other' has no twin"),
    ):
        with pytest.raises(StudyError, match=message):
            study.load("quick", asked | changes)


def test_agreement_has_a_row_for_each_level():
    random = np.random.default_rng(0)
    drawn = {side: random.integers(0, 256, (40, side, side, 3), dtype=np.uint8) for side in (16, 8)}
    moved = {side: np.roll(pictures, 7, axis=0) for side, pictures in drawn.items()}
    same, other = list(agreements(drawn, drawn)), list(agreements(drawn, moved))
    assert [row["metric"] for row in same] == ["agreement_16", "agreement_8"]
    assert all(row["value"] == pytest.approx(1) and len(row["without"]) == 20 for row in same)
    assert all(abs(row["value"]) < 0.15 and row["low"] < row["value"] < row["high"] for row in other)


def test_signals_that_lie_apart_are_told_apart():
    row = auc_row(np.arange(20.0) + 15, np.arange(20.0))
    wanted = np.mean([[a > b or (a == b) / 2 for b in range(20)] for a in range(15, 35)])
    assert row["value"] == pytest.approx(wanted) and row["low"] < wanted < row["high"]


def test_a_text_signal_needs_captions_of_both_sets():
    asked = {"metrics": ["text_signal"], "held_out": "scenes-new"}
    claim = {"claims.progressive.expect": 'text_signal["base"] < 0.9'}
    loaded = study.load("quick", {"audit": asked, **claim})
    recipe = loaded.recipe(loaded.runs[0].audit.artifact)
    assert recipe.text and loaded.recipe(recipe.held_out_text).data == (recipe.held_out,)
    with pytest.raises(StudyError, match="text_signal compares held_out with the pictures that a run was trained on"):
        study.load("quick", {"audit": {**asked, "data": "scenes-train"}})
    with pytest.raises(StudyError, match="text_signal compares training with other pictures"):
        study.load("quick", {"audit": {"metrics": ["text_signal"]}})


def test_the_gap_is_that_of_mean_losses():
    known, held = np.full(30, 2.0), np.random.default_rng(0).uniform(2, 4, 50)
    row = gap_row("loss_gap_8", known, held)
    assert row["value"] == pytest.approx(held.mean() / 2 - 1)
    assert row["low"] < row["value"] < row["high"] and row["n"] == 30


WORLD = {"split": "train", "resolution": 32, "max_objects": 2}


class Heard:
    """A network that answers with the picture of its caption where it knows one: the first number of the caption."""

    def __call__(self, seen, times, text=None, mask=None, labels=None):
        return [torch.zeros_like(x) + text[:, 0, 0].view(-1, 1, 1, 1) for x in seen]


def test_captions_that_change_the_answer_most_are_told_from_others():
    config = DiffusionConfig(steps=100, prediction="x0")
    captions = torch.tensor([0.0, 3.0, 0.1, 2.0, 0.2]).view(5, 1, 1)
    prompts, empty = Prompt(captions, torch.ones(5, 1)), Prompt(torch.zeros(1, 1, 1), torch.ones(1, 1))
    signal = text_signal(Heard(), config, (16, 8), prompts, empty)
    assert signal[0] == 0 and signal[1] / signal[3] == pytest.approx(1.5)
    assert area_under_curve(signal, np.array([0, 1, 0, 1, 0])) == 1.0
    assert text_signal(Heard(), config, (16, 8), prompts, empty) == pytest.approx(signal), "the same noises"


def test_a_study_asks_for_features_of_training_pictures_once():
    loaded = study.load("quick", {"audit": {"metrics": ["copied", "similarity"]}})
    known = [ref for ref in loaded.of_kind("features") if "known" in ref]
    assert len(known) == 1 and loaded.recipe(known[0]).num_images == 512
    audits = [loaded.recipe(audit.artifact) for run in loaded.runs for audit in run.audits]
    assert {recipe.known_features for recipe in audits} == set(known)
    claim = {"audit": {"metrics": ["similarity"]}, "claims.progressive.expect": 'similarity_judge["base"] < 0.9'}
    assert study.load("quick", claim).claims
    with pytest.raises(StudyError, match="unknown metric 'similarity_inception'"):
        study.load("quick", claim | {"claims.progressive.expect": 'similarity_inception["base"] < 0.9'})


def test_similarity_needs_the_number_of_training_pictures():
    asked = {"audit": {"metrics": ["copied", "similarity"]}, "data.scenes-train.settings.duplicates": "files"}
    with pytest.raises(StudyError, match="without duplicates is not known before it is made; write take"):
        study.load("quick", asked)
    loaded = study.load("quick", asked | {"base.take": 100})
    assert {loaded.recipe(ref).num_images for ref in loaded.of_kind("features") if "known" in ref} == {100}


def test_a_loss_gap_needs_the_empty_caption_and_held_out_pictures():
    asked = {"metrics": ["copied", "loss_gap"], "held_out": "scenes-new"}
    loaded = study.load("quick", {"audit": asked})
    recipe = loaded.recipe(loaded.runs[0].audit.artifact)
    assert recipe.text == loaded.recipe(loaded.runs[0].stages[-1].artifact).text and recipe.held_out


class Colours(torch.nn.Module):
    """In the place of SSCD: the mean colours of quarters."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, 144).flatten(1)


def test_weights_of_sscd_by_path_and_hash(tmp_path):
    path = tmp_path / "sscd.torchscript.pt"
    torch.jit.script(Colours()).save(str(path))
    weights = {"path": str(path), "sha256": sha256_file(path)}
    network = load_sscd(WeightsConfig(**weights))
    pictures = np.full((2, 16, 16, 3), 255, np.uint8)
    wanted = np.repeat([(1 - m) / d for m, d in zip(MEAN, DEVIATION, strict=True)], 4)
    assert network(pictures) == pytest.approx(np.stack([wanted, wanted]), rel=1e-3)
    with pytest.raises((StudyError, ArtifactError), match="sscd"):
        load_sscd(WeightsConfig(path=str(path), sha256="0" * 64))
    only = {"description": "drawn for the audit alone", "prompts": "scenes-new", "num_images": 40}
    claim = {"few": {"statement": "x", "source": "x", "expect": 'similarity_sscd_share["base"] < 0.1'}}
    loaded = study.load("quick", {
        "audit": {"metrics": ["copied", "similarity"], "sscd": weights}, "claims": claim,
        "protocols": {"drawn": only}, "judges": {}, "clips": {}, "along": {"protocol": "drawn"},
    })  # fmt: skip
    recipe = loaded.recipe(loaded.runs[0].audit.artifact)
    assert recipe.features is None and recipe.sscd.startswith("features/") and recipe.known_sscd.startswith("features/")
    assert loaded.recipe(recipe.known_sscd).num_images == 512
    assert next(file.path for file in external_files(loaded)) == path
    with pytest.raises(StudyError, match="sscd has no effect without similarity"):
        study.load("quick", {"audit": {"sscd": weights}})
