"""Clips are drawn and measured: what their frames show, how they move, and what real clips get without their motion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from evaluate_artifacts import put, ref
from safetensors.numpy import load_file
from test_clips import films
from test_train_clips import content, make

from mdm.config import StudyError
from mdm.config.instruments import ScoreSettings
from mdm.config.sizes import Clip
from mdm.evaluate import features as features_module
from mdm.evaluate.clip_frames import destroy, differences, of_clips
from mdm.evaluate.clip_scores import clip_distances
from mdm.evaluate.features import extract_features
from mdm.evaluate.generate import generate
from mdm.evaluate.kid import kernel_estimate
from mdm.evaluate.metric_names import DESTROYED, MEASURABLE
from mdm.evaluate.pictures import open_pictures
from mdm.files.atomic import read_json, write_json
from mdm.files.weights import save_weights
from mdm.model.networks import build
from mdm.report.metrics import describe
from mdm.report.tables.instruments import frame_rows
from mdm.study import study
from mdm.study.cost import plan

FRAMES, SIDE = 8, 16


def reader(pictures: np.ndarray, _captions: Sequence[str]) -> dict[str, np.ndarray]:
    """Features of pictures by a fixed random network."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(3))
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float() / 64 - 2
        return {"judge": network(pixels).flatten(1).numpy()}


def falling(count: int, seed: int) -> np.ndarray:
    """Bright squares that fall, faster and faster, on a dark ground: a world with a direction of time."""
    random, clips = np.random.default_rng(seed), np.full((count, FRAMES, SIDE, SIDE, 3), 40, np.uint8)
    clips = clips + random.integers(0, 12, clips.shape, dtype=np.uint8)
    for clip in clips:
        left, colour, pull = random.integers(0, 12), random.integers(150, 240, 3), random.uniform(0.4, 0.5)
        for time, frame in enumerate(clip):
            top = int(pull * time**2 / 2)
            frame[top : top + 4, left : left + 4] = colour
    return clips


def test_clips_without_their_motion_are_further_from_real_ones_than_other_real_clips() -> None:
    """Reversed, frozen at the first frame, and shuffled: each is beyond what two sets of real clips differ by."""
    read = of_clips("judge", reader, destroyed=True)
    real, others = read(falling(120, 0), [""] * 120), read(falling(120, 1), [""] * 120)
    motion = {way: kernel_estimate(others[f"motion.judge.{way}"], real["motion.judge"]) for way in DESTROYED}
    halves = kernel_estimate(others["motion.judge"], real["motion.judge"])
    for way, found in motion.items():
        assert found.value - found.half_width > halves.value + halves.half_width, way
    # The content of shuffled frames is the same, and only that of frozen ones is poorer.
    frames = {way: kernel_estimate(others[f"frames.judge.{way}"], real["frames.judge"]).value for way in DESTROYED}
    same = kernel_estimate(others["frames.judge"], real["frames.judge"])
    assert frames["shuffled"] == pytest.approx(same.value, rel=1e-6, abs=1e-9)
    assert frames["reversed"] == pytest.approx(same.value, rel=1e-6, abs=1e-9)
    assert frames["frozen"] > same.value + same.half_width


@pytest.mark.parametrize("name", ["judge", "clip"])
def test_no_more_frames_are_read_at_once_than_pictures(name: str) -> None:
    seen: list[int] = []

    def counted(pictures: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
        seen.append(len(pictures))
        assert len(captions) == len(pictures)
        values = pictures.mean(axis=(1, 2))
        return {name: values / np.linalg.norm(values, axis=1, keepdims=True), f"{name}.score": values[:, 0]}

    clips = falling(20, 0)
    whole = of_clips(name, counted)(clips, [""] * 20)
    assert max(seen) <= 64 and sum(seen) >= 20 * FRAMES
    halves = [of_clips(name, counted)(clips[k : k + 10], [""] * 10) for k in (0, 10)]
    for key, values in whole.items():
        np.testing.assert_allclose(values, np.concatenate([half[key] for half in halves]))


def test_the_kernel_of_two_clips_is_its_mean_over_their_frames() -> None:
    random = np.random.default_rng(0)
    drawn, real = random.normal(size=(24, 3, 5)), random.normal(size=(40, 3, 5))

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float(((one @ other.T / 5 + 1) ** 3).mean())

    def among(side: np.ndarray) -> float:
        return float(np.mean([kernel(a, b) for i, a in enumerate(side) for j, b in enumerate(side) if i != j]))

    cross = np.mean([kernel(a, b) for a in drawn for b in real])
    assert kernel_estimate(drawn, real).value == pytest.approx(among(drawn) + among(real) - 2 * cross)
    single = kernel_estimate(drawn[:, :1], real[:, :1])
    assert single.value == pytest.approx(kernel_estimate(drawn[:, 0], real[:, 0]).value)


def test_differences_and_ways_of_destroying_motion() -> None:
    clips = falling(3, 2)
    assert differences(clips).shape == (3, FRAMES - 1, SIDE, SIDE, 3)
    assert (differences(destroy(clips, "frozen")) == 128).all()
    np.testing.assert_array_equal(destroy(destroy(clips, "reversed"), "reversed"), clips)
    shuffled = destroy(np.arange(FRAMES)[None], "shuffled")[0]
    assert sorted(shuffled) == list(range(FRAMES)) and (np.diff(shuffled) == 1).sum() == 1


@pytest.fixture
def world(tmp_path: Path) -> tuple[study.Study, Path]:
    """A study of clips with a protocol; its data is made, and its network is there without training."""
    text = content(films(tmp_path / "films"))
    text["protocols"] = {
        "p": {"description": "d", "prompts": "films", "reference": "films", "num_images": 4, "num_reference": 6,
              "inception": {"path": "none.pt", "sha256": "0" * 64}},
    }  # fmt: skip
    text["base"]["sample"] = {"sampler": "ddim", "steps": 2, "guidance": 1.5}
    (tmp_path / "clips.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    loaded, root = study.load(str(tmp_path / "clips.yaml")), tmp_path / "results"
    stage = make(loaded, root)[-1]
    recipe = loaded.recipe(ref(stage))
    save_weights(stage.with_name("weights.safetensors"), build(recipe.model, 0).state_dict())
    return loaded, root


def test_a_study_draws_and_reads_clips(world: tuple[study.Study, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, root = world
    evaluation = loaded.runs[0].evaluations[0]
    assert loaded.recipe(evaluation.features).frames == loaded.recipe(evaluation.reference).frames == 4
    drawn = root / evaluation.samples / "recipe.json"
    write_json(drawn, loaded.recipe(evaluation.samples).plain())
    generate(drawn)
    manifest = read_json(drawn.with_name("manifest.json"))
    assert manifest["resolutions"] == ["4x8", 8]
    clips = open_pictures(drawn.parent).all()
    assert clips.shape == (4, 4, 8, 8, 3) and clips.dtype == np.uint8
    assert (drawn.parent / "grid_4x8.png").is_file()

    small = {"judge": lambda pictures, words: {"judge": reader(np.repeat(pictures, 2, axis=1), words)["judge"]}}
    monkeypatch.setattr(features_module, "load_extractors", lambda *_: small)
    sides = {}
    for name, source, count in (("own", ref(drawn), 4), ("real", loaded.recipe(evaluation.reference).images, 6)):
        sides[name] = put(
            root, "features", name, images=source, num_images=count, resolution=8, extractors={}, frames=4
        )
        extract_features(sides[name], batch_images=3)
        arrays = load_file(sides[name].with_name("features.safetensors"))
        assert arrays["frames.judge"].shape[:2] == (count, 4) and len(arrays["motion.judge"]) == count
    once = load_file(sides["own"].with_name("features.safetensors"))["motion.judge"]
    extract_features(sides["own"], batch_images=1)
    again = load_file(sides["own"].with_name("features.safetensors"))["motion.judge"]
    np.testing.assert_allclose(once, again, atol=1e-6)


def test_rows_of_clips_stand_in_their_frame(tmp_path: Path) -> None:
    read = of_clips("judge", reader, destroyed=True)

    class Made:
        def __init__(self, clips: np.ndarray) -> None:
            self.arrays = read(clips, [""] * len(clips))

    rows = [*clip_distances(Made(falling(30, 0)), Made(falling(40, 1)), Made(falling(30, 2)), ScoreSettings())]
    names = [row["metric"] for row in rows]
    assert set(names) <= set(MEASURABLE) and "kd_motion_judge_shuffled" in names
    assert describe("kd_motion_judge").better == "lower" and describe("kd_motion_judge_frozen").kind == "frame"
    assert all(len(row["without"]) == 15 for row in rows)


def test_clips_of_clip_models_have_a_mean_score_and_likeness() -> None:
    def clip(pictures: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
        found = reader(pictures, captions)["judge"]
        unit = found / np.linalg.norm(found, axis=1, keepdims=True)
        return {"clip": unit, "clip.score": np.array([float(len(words)) for words in captions])}

    clips = falling(4, 0)
    found = of_clips("clip", clip)(clips, ["a", "bb", "ccc", "dddd"])
    assert found["clip.score"].tolist() == [1, 2, 3, 4]
    still = of_clips("clip", clip)(destroy(clips, "frozen"), [""] * 4)
    assert still["clip.consistency"] == pytest.approx(1) and (found["clip.consistency"] < 0.9999).all()


def test_the_level_of_clips_is_the_one_that_is_measured(world: tuple[study.Study, Path]) -> None:
    loaded, _ = world
    assert loaded.runs[0].stages[-1].resolutions[-1] == Clip(4, 8)
    assert loaded.recipe(loaded.runs[0].evaluations[0].features).resolution == 8


def test_the_plan_counts_every_frame_of_drawn_clips(world: tuple[study.Study, Path], tmp_path: Path) -> None:
    loaded, _ = world
    line = plan.Estimate(loaded, tmp_path / "empty").line(loaded.runs[0].evaluations[0].samples)
    assert line.bytes == 4 * 3 * (4 * 8**2 + 8**2)


def test_tables_frame_distances_of_clips_by_real_ones_without_motion() -> None:
    seen = {"kd_motion_judge_floor": 0.0, "kd_motion_judge_frozen": 0.5, "kd_motion_judge_shuffled": 0.7}

    class Measured:
        run_names = ("base",)

        def rows_of(self, metric: str, _run: str, _protocol: str | None) -> list[SimpleNamespace]:
            return [SimpleNamespace(value=seen[metric], low=None, high=None)] if metric in seen else []

    rows = frame_rows(Measured(), ["kd_motion_judge"], "p")
    assert [row["run"].text for row in rows] == ["real pictures", "real clips, frozen", "real clips, shuffled"]
    assert rows[1]["kd_motion_judge"].quantity.value == 0.5


OTHER = {"description": "of its own", "named_only": True, "prompts": "scenes-new", "num_images": 8}


def test_a_protocol_may_be_of_the_ablations_that_name_it():
    changes = {"protocols.apart": OTHER, "ablations.guidance.protocols": ["apart"]}
    measured = {run.name: [one.protocol for one in run.evaluations] for run in study.load("quick", changes).runs}
    assert measured["guidance=4.0"] == ["apart"]
    assert all("apart" not in names for run, names in measured.items() if not run.startswith("guidance"))


def test_the_first_protocol_measures_every_run():
    changes = {"protocols": {"apart": OTHER}, "claims": {}, "along": None}
    with pytest.raises(StudyError, match="mean the first protocol"):
        study.load("quick", changes)
