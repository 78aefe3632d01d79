"""The audit finds copies, at every level, whatever the order of training pictures, and a study asks for it by a key."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluate_artifacts import put, random_pictures, ref, scenes

from mdm.config import DiffusionConfig, SampleConfig, StudyError
from mdm.data.batches.loader import signal
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.decode import shrink
from mdm.data.rows import to_bytes
from mdm.diffusion import schedule
from mdm.diffusion.loss import pyramid
from mdm.diffusion.optimal import OptimalNetwork
from mdm.diffusion.sampler import sample
from mdm.evaluate import known as known_module
from mdm.evaluate.archive import ArrayStream, read_array, write_archive
from mdm.evaluate.audit import look, measure_audit
from mdm.evaluate.audit_rows import multiplicity, rows
from mdm.evaluate.known import Known, OfArray, OfData
from mdm.evaluate.worst_pairs import worst
from mdm.files.atomic import ArtifactError, read_json, write_json
from mdm.report import audited, collect, curves
from mdm.report.evidence import read_evidence
from mdm.report.page import html
from mdm.report.tables import tables
from mdm.report.verdicts import judge_all
from mdm.study import study

USUAL = ("copied", "calibrated", "authentic")


def levels(pictures, *sides):
    return {side: np.stack([shrink(one, side) for one in pictures]) for side in sides}


def found(drawn, training, metrics=USUAL, nearest=50, held_out=None):
    """Values of an audit by metric, its levels, and the training pictures."""
    known = Known(OfArray(training), list(drawn))
    seen = look(drawn, known, metrics, nearest, held_out)
    return {row["metric"]: row["value"] for level in seen for row in rows(level, metrics)}, seen, known


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Results with 96 training scenes, and pictures "drawn": eight copies of them, sixteen of noise."""
    results = tmp_path_factory.mktemp("results")
    data = scenes(results, 96)
    training = Pictures(data.parent)
    drawn = np.concatenate([[training.image(number) for number in range(3, 11)], random_pictures(16, 16)])
    samples = put(results, "samples", "drawn", num_images=24)
    arrays = {f"images_{side}": part for side, part in levels(drawn, 16, 8).items()}
    write_archive(samples.with_name("images.npz"), {name: ArrayStream.of(part) for name, part in arrays.items()})
    return results, data, samples


def recipe(world, **changes):
    results, data, samples = world
    given = {"samples": ref(samples), "data": ref(data), "num_images": 24, "neighbours": 50, "metrics": USUAL}
    return put(results, "audit", "drawn", **given | changes)


def test_an_audit_of_drawn_copies(world):
    path = recipe(world)
    measure_audit(path)
    audit = read_json(path.with_name("audit.json"))
    values = {row["metric"]: row for row in audit["metrics"]}
    assert values["copied_16"]["value"] == values["copied_distinct_16"]["value"] == 8 / 24
    assert values["copied_16"]["low"] < 8 / 24 < values["copied_16"]["high"]
    assert values["copied_16"]["n"] == 24 and len(values["copied_16"]["without"]) == 12
    assert values["authentic_16"]["value"] == 16 / 24, "noise is far from everything"
    assert values["copied_8"]["value"] >= 8 / 24
    top = audit["levels"][0]
    assert (top["level"], top["known"], top["drawn"]) == (16, 96, 24)
    assert [(pair["drawn"], pair["number"], pair["distance"]) for pair in top["worst"]] == [
        (k, k + 3, 0) for k in range(8)
    ]
    squared, index = (read_array(path.with_name("neighbours.npz"), f"{name}_16") for name in ("squared", "index"))
    assert squared.dtype == np.int64 and squared.shape == (24, 50) and index[:8, 0].tolist() == list(range(3, 11))
    assert path.with_name("worst.png").read_bytes().startswith(b"\x89PNG")
    assert read_json(path.with_name("manifest.json"))["known"] == 96


def test_only_the_first_pictures_count_where_training_took_no_more(world):
    path = recipe(world, take=6, metrics=("copied",))
    measure_audit(path)
    audit = read_json(path.with_name("audit.json"))
    assert audit["levels"][0]["known"] == 6 and audit["metrics"][0]["value"] == 3 / 24


def test_the_released_arithmetic_beside_it(world):
    path = recipe(world, metrics=("copied", "released"))
    measure_audit(path)
    values = {row["metric"]: row["value"] for row in read_json(path.with_name("audit.json"))["metrics"]}
    assert values["copied_released_16"] == values["copied_16"]


def test_held_out_pictures_for_the_data_copying_score(world):
    held = scenes(world[0], 48, seed=5)
    path = recipe(world, metrics=("copied", "copying_score"), held_out=ref(held))
    measure_audit(path)
    assert "copying_score_16" in {row["metric"] for row in read_json(path.with_name("audit.json"))["metrics"]}
    real = levels([Pictures(held.parent).image(k) for k in range(48)], 16)
    training = [Pictures(world[1].parent).image(k) for k in range(96)]
    same = found(levels(training[:48], 16), np.stack(training), ("copying_score",), held_out=real)[0]
    assert same["copying_score_16"] < -4, "copies are nearer to training pictures than real ones are"


def test_the_order_of_training_pictures_changes_nothing():
    training, drawn = random_pictures(80, 16, 1), random_pictures(20, 16, 2)
    drawn[:5] = training[40:45] + np.uint8(1)
    plain = found(levels(drawn, 16, 8), training)[0]
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(80)
        assert found(levels(drawn, 16, 8), training[order])[0] == plain
    assert plain["copied_16"] == 0.25


def test_a_picture_that_stands_a_hundred_times_is_found_first():
    training = np.concatenate([random_pictures(60, 16, 1), np.repeat(random_pictures(1, 16, 9), 100, axis=0)])
    order = np.random.default_rng(0).permutation(160)
    training, drawn = training[order], random_pictures(20, 16, 2)
    drawn[3], drawn[11] = random_pictures(60, 16, 1)[7], random_pictures(1, 16, 9)[0]
    values, (level,), known = found({16: drawn}, training)
    pairs = worst(level.distinct, level.times, 16, known)
    assert [(pair.drawn, pair.copies, pair.distance) for pair in pairs[:2]] == [(11, 100, 0.0), (3, 1, 0.0)]
    # By the paper's rule what stands twice is never copied; among distinct pictures it is.
    assert (values["copied_16"], values["copied_distinct_16"]) == (1 / 20, 2 / 20)
    assert multiplicity(level) == [
        {"from": 1, "to": 1, "pictures": 60, "drawn": 1, "copied": 1},
        {"from": 100, "to": None, "pictures": 1, "drawn": 1, "copied": 1},
    ]
    assert level.squared.shape == (20, 50) and (level.squared[11] == 0).all(), "its copies are its neighbours"
    assert values["authentic_16"] <= 18 / 20


def test_blocks_and_memory_change_nothing(monkeypatch):
    training, drawn = random_pictures(70, 16, 3), random_pictures(12, 16, 4)
    plain = found(levels(drawn, 16, 8), training)[0]
    monkeypatch.setattr(known_module, "BLOCK", 9)
    monkeypatch.setattr(known_module, "KEPT_BYTES", 0)
    assert found(levels(drawn, 16, 8), training)[0] == plain


def test_the_best_denoiser_copies_every_picture(world):
    """Sampler, rounding, levels and rule in one: a network without weights that is known to copy."""
    torch.set_num_threads(1)
    training = np.stack([Pictures(world[1].parent).image(number) for number in range(12)])
    clean = pyramid(signal(torch.from_numpy(training).movedim(-1, -3)), (16, 8))
    diffusion = DiffusionConfig(steps=250, prediction="x0")
    gammas = schedule.levels(diffusion, (16, 8))
    network = OptimalNetwork(clean, gammas)
    settings = SampleConfig(sampler="ddim", steps=50, guidance=1.0)
    drawn = sample(network, gammas, settings, diffusion, (16, 8), None, None, None, None, range(16), seed=0)
    values, seen, _ = found({16: to_bytes(drawn[0]), 8: to_bytes(drawn[1])}, training)
    assert values["copied_16"] == values["copied_8"] == values["copied_quarter_16"] == 1
    assert seen[0].squared[:, 0].max() <= 3 * 16**2, "to a grey level"


def test_training_pictures_are_seen_as_their_level_shows_them(world):
    source = OfData(world[1].parent, 16)
    block = next(Known(source, (16, 8)).blocks())[1]
    pooled = pyramid(signal(torch.from_numpy(block[16]).movedim(-1, -3)), (16, 8))[1]
    # Halves go to even here, and as floats fall there.
    assert np.abs(block[8].astype(float) - to_bytes(pooled)).max() <= 1
    assert np.abs((pooled.movedim(1, -1).numpy() + 1) * 127.5 - block[8]).max() < 0.5001


def test_one_training_picture_is_an_error():
    with pytest.raises(StudyError, match="there is 1 at 16 px; audit a run that was trained on two or more"):
        found({16: random_pictures(4, 16)}, random_pictures(1, 16, 1))


ASKED = {"audit": {}}


def test_a_study_asks_for_it_by_one_key():
    plain, loaded = study.load("quick", {}), study.load("quick", ASKED)
    added = set(loaded.artifacts) - set(plain.artifacts)
    assert {ref.partition("/")[0] for ref in added} == {"audit"} and set(plain.artifacts) < set(loaded.artifacts)
    base = next(run for run in loaded.runs if run.name == "base")
    assert [(audit.stage, audit.images) for audit in base.audits] == [("r32", 128), ("r32", 256)]
    made = loaded.recipe(base.audit.artifact)
    assert made.data == loaded.recipe(base.stages[-1].artifact).data and base.audit.artifact in loaded.measured()
    assert set(loaded.parents(base.audit.artifact)) == {made.samples, made.data}
    guided = next(run for run in loaded.runs if run.name == "guidance=4.0")
    assert len(guided.audits) == 1 and guided.audit.artifact != base.audit.artifact, "other pictures are drawn"


def test_a_run_that_took_the_first_pictures_is_audited_against_these():
    loaded = study.load("quick", {**ASKED, "base.take": 128})
    run = loaded.runs[0]
    assert {loaded.recipe(audit.artifact).take for audit in run.audits} == {128}
    with pytest.raises(StudyError, match="a run has one; train on two or more"):
        study.load("quick", {**ASKED, "base.take": 1})
    other = study.load("quick", {"audit": {"data": "scenes-judge"}, "base.take": 128})
    assert loaded.recipe(run.audit.artifact).data != other.recipe(other.runs[0].audit.artifact).data
    assert other.recipe(other.runs[0].audit.artifact).take is None


def test_claims_name_what_is_audited():
    claim = lambda text: {**ASKED, "claims.progressive.expect": text}  # noqa: E731
    assert study.load("quick", claim('copied_32["base"] < 0.01 and copied_max_8["base"] < 0.5')).claims
    for text, message in (
        ('copied_64["base"] < 0.1', "unknown metric 'copied_64'"),
        ('copied_max_32["guidance=4.0"] < 0.1', "'guidance=4.0' has no snapshots that would tell"),
        ('copying_score_32["base"] < 0.1', "unknown metric 'copying_score_32'"),
    ):
        with pytest.raises(StudyError, match=message):
            study.load("quick", claim(text))


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        ({"protocol": "zero"}, "audit.protocol: there is no 'zero'; .*did you mean|audit.protocol: there is no 'zero'"),
        ({"num_images": 49}, "audit.num_images 49: protocol 'zero-shot' draws 48"),
        ({"num_images": 3}, "greater than or equal to 4"),
        ({"neighbours": 1}, "greater than or equal to 2"),
        ({"neighbours": 10}, "neighbours 10: calibrated takes the mean distance to the 50 nearest"),
        ({"metrics": ["copied", "copied"]}, "one stands twice"),
        ({"metrics": ["loss_gap"]}, "name such a data set in held_out"),
        ({"held_out": "scenes-new"}, "held_out scenes-new has no effect"),
        (
            {"metrics": ["copied", "loss_gap"], "held_out": "scenes-new", "data": "scenes-judge"},
            "data scenes-judge: loss_gap compares held_out with the pictures that a run was trained on",
        ),
        ({"metrics": ["copying_score"], "held_out": "scenes-train"}, "runs are trained on data.scenes-train"),
        ({"data": "scenes-old"}, "audit.data: no 'scenes-old'"),
        ({"metrics": ["copies"]}, "copied"),
    ],
)
def test_bad_settings_are_refused(audit, message):
    with pytest.raises(StudyError, match=message):
        study.load("quick", {"audit": audit})


def test_one_training_picture_is_refused_before_anything_runs():
    with pytest.raises(StudyError, match="a run has one; train on two or more"):
        study.load("quick", {**ASKED, "data.scenes-train.settings.num_images": 1})


def test_clips_have_no_audit(monkeypatch):
    monkeypatch.setattr(known_module, "Pictures", lambda _folder: SimpleNamespace(frames=4))
    with pytest.raises(ArtifactError, match="data/clips holds clips"):
        OfData("data/clips", 8)


def test_the_largest_share_over_snapshots():
    row = lambda name, value: {"metric": name, "value": value, "low": 0.0, "high": 1.0}  # noqa: E731
    audits = [[row("copied_8", 0.1)], [row("copied_8", 0.4), row("copied_16", 0.2)], [row("copied_8", 0.3)]]
    assert [(one["metric"], one["value"]) for one in audited.largest(audits)] == [
        ("copied_max_8", 0.4), ("copied_max_16", 0.2)
    ]  # fmt: skip
    assert audited.largest([[row("copied_half_8", 0.9)]]) == []


def test_pictures_that_are_compared_with_nothing_else_are_audited(tmp_path):
    """A protocol may only draw: then copies stand where other studies have distances."""
    only = {"description": "drawn for the audit alone", "prompts": "scenes-new", "num_images": 40}
    changes = {
        **ASKED, "protocols": {"drawn": only}, "judges": {}, "clips": {}, "along.protocol": "drawn",
        "claims": {"few": {"statement": "It copies less.", "source": "none",
                           "expect": 'copied_32["no-progressive"] < copied_32["base"]'}},
    }  # fmt: skip
    loaded = study.load("quick", changes)
    assert {name.partition("/")[0] for name in loaded.artifacts} == {
        "data", "text", "train", "snapshot", "samples", "audit"
    }  # fmt: skip
    for run in loaded.runs:
        for stage in run.stages:
            write_json(tmp_path / stage.artifact / "manifest.json", {"seconds": 1.0, "gigaflops": 1.0, "images": 1})
        for audit in run.audits:
            row = {"metric": "copied_32", "value": 0.5, "low": 0.4, "high": 0.6, "n": 40, "without": [0.5] * 20}
            write_json(tmp_path / audit.artifact / "audit.json", {"metrics": [row], "levels": []})
    rows, missing = collect.write(loaded, tmp_path, tmp_path / "metrics.csv", tmp_path / "missing.json")
    assert {"copied_32", "copied_max_32"} <= {row.metric for row in rows}
    assert not [one for one in missing if "audit" in one["what"]]
    evidence = read_evidence(loaded, tmp_path / "metrics.csv")
    assert evidence.metrics("drawn", main=True) == ["copied_32"]
    table = tables.build(loaded, "ablation-training", evidence, tmp_path, tmp_path / "literature.csv")
    assert "copied_32" in {column.key for column in table.columns}
    (verdict,) = judge_all(loaded, evidence)
    assert verdict.verdict == "one training each: undecided"
    assert tables.build(loaded, "audit", evidence, tmp_path, tmp_path).rows[0]["level"].text == "32 px"
    html.write(loaded, tmp_path, tmp_path / "index.html")
    assert "Copies of training pictures" in (tmp_path / "index.html").read_text()


def test_curves_along_training_show_copies(tmp_path):
    loaded = study.load("quick", ASKED)
    base = next(run for run in loaded.runs if run.name == "base")
    for place, audit in enumerate(base.audits):
        row = {"metric": "copied_32", "value": 0.1 * place, "low": 0.0, "high": 1.0, "n": 48}
        write_json(tmp_path / audit.artifact / "audit.json", {"metrics": [row], "levels": []})
    for made in [stage.artifact for stage in base.stages] + [point.weights for point in base.points]:
        write_json(tmp_path / made / "manifest.json", {"images": 128, "seconds": 1.0, "gigaflops": 1.0})
    rows = list(curves.collect(loaded, collect.Artifacts(tmp_path)))
    assert [(row.metric, row.value) for row in rows] == [("copied_32", 0.0), ("copied_32", 0.1)]
    assert curves.metrics(rows) == ["copied_32"]


def test_the_page_shows_the_worst_pairs_and_how_often_a_copied_picture_stands(tmp_path, world):
    path = recipe(world)
    measure_audit(path)
    loaded = study.load("quick", ASKED)
    run = loaded.runs[-1]
    folder = tmp_path / run.audit.artifact
    folder.mkdir(parents=True)
    (folder / "worst.png").write_bytes(path.with_name("worst.png").read_bytes())
    content = read_json(path.with_name("audit.json"))
    content["levels"][0] |= {
        "known": 105,
        "multiplicity": [
            {"from": 1, "to": 1, "pictures": 95, "drawn": 2, "copied": 2},
            {"from": 10, "to": 99, "pictures": 1, "drawn": 6, "copied": 1},
        ],
    }
    write_json(folder / "audit.json", content)
    write_json(folder / "manifest.json", {"git": {"commit": "0123456789abcdef", "dirty": True}})
    html.write(loaded, tmp_path, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text().replace("\u00a0", " ")
    assert "measured at commit 0123456789 + uncommitted changes" in page
    assert f'id="copies-{run.name}"' in page and "Drawn pictures of" in page
    assert "16 px: 24 drawn pictures against 105 training pictures, 9 of them repeated" in page
    assert "Training pictures that stand 10 to 99 times: 1 distinct, 1 of them copied, in 6 drawn pictures." in page
