"""GenEval's tasks read by the judge, several pictures for each prompt, and networks of clips by path and hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from evaluate_artifacts import put, ref, scenes
from safetensors.torch import save_file
from test_clips import films
from test_train_clips import content

import mdm  # noqa: F401  before torchvision
from mdm import study
from mdm.config import StudyError, WeightsConfig
from mdm.config.instruments import ScoreSettings
from mdm.config.recipe import SamplesRecipe
from mdm.evaluate.alignment import chance
from mdm.evaluate.composition import composition
from mdm.evaluate.generate import rows_of
from mdm.evaluate.intervals import groups_of, standard_error, wilson
from mdm.evaluate.labels import encode
from mdm.evaluate.metric_names import COMPOSITIONS, MEASURABLE
from mdm.evaluate.scores import answers as answers_of
from mdm.evaluate.scores import captions
from mdm.evaluate.scores_besides import Side
from mdm.evaluate.video import load_video
from mdm.files.artifact import read_recipe
from mdm.report.metrics import describe

PER_PROMPT = 4


def described(shapes: list[int], colours: list[int], count: int, relation: int) -> dict[str, Any]:
    return {
        "colours": colours, "shapes": shapes, "pairs": list(zip(colours, shapes, strict=True)), "count": count,
        "relation": relation,
    }  # fmt: skip


@pytest.fixture
def world() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """80 prompts, half of one object and half of two, each four times; and answers that are sometimes wrong."""
    prompts = [described([k % 3], [k % 4], 1 + k % 2, 0) if k % 2 else described([0, 1], [2, 3], 2, 1 + k % 3)
               for k in range(80)]  # fmt: skip
    labels = encode(prompts * PER_PROMPT)
    answers = {key: array.copy() for key, array in labels.items()}
    random = np.random.default_rng(0)
    answers["count"][random.random(320) < 0.3] += 1
    answers["shapes"][random.random(320) < 0.1] = 0
    return answers, labels


def test_every_task_is_the_share_of_its_prompts_pictures(world: tuple[dict[str, np.ndarray], ...]) -> None:
    answers, labels = world
    found = {row["metric"]: row for row in composition(answers, labels, PER_PROMPT)}
    assert set(found) == set(COMPOSITIONS) <= set(MEASURABLE)
    right = (answers["shapes"] == labels["shapes"]).all(axis=1)
    single = labels["shapes"].sum(axis=1) == 1
    assert found["composition_single_object"]["value"] == pytest.approx(right[single].mean())
    assert found["composition_two_objects"]["value"] == pytest.approx(right[~single].mean())
    assert found["composition_counting"]["value"] == pytest.approx((answers["count"] == labels["count"]).mean())
    assert found["composition_position"]["n"] == 160 and found["composition_position"]["value"] == 1
    # Forty prompts that all succeed leave room for some that would not.
    assert found["composition_position"]["low"] == pytest.approx(wilson(40, 40)[0])
    tasks = [row["value"] for name, row in found.items() if name != "composition"]
    assert found["composition"]["value"] == pytest.approx(np.mean(tasks))
    assert describe("composition").better == "higher" and describe("composition_real").kind == "frame"


def test_intervals_leave_out_prompts_not_pictures(world: tuple[dict[str, np.ndarray], ...]) -> None:
    """Where the pictures of a prompt all succeed or all fail, four of them say no more than one."""
    answers, labels = world
    alike = np.tile(np.random.default_rng(1).random(80) < 0.5, PER_PROMPT)
    answers["count"] = np.where(alike, labels["count"], labels["count"] + 1).astype(np.int8)
    four = {row["metric"]: row for row in composition(answers, labels, PER_PROMPT)}["composition_counting"]
    first = slice(80)
    one = {key: array[first] for key, array in answers.items()}, {key: array[first] for key, array in labels.items()}
    single = {row["metric"]: row for row in composition(*one, 1)}["composition_counting"]
    assert four["without"] == pytest.approx(single["without"]) and standard_error(np.array(four["without"])) > 0.03
    group = groups_of(80)[2]
    assert single["without"][2] == pytest.approx(np.delete(alike[first], group).mean())


def test_pictures_of_a_prompt_stand_together(tmp_path: Path) -> None:
    data = scenes(tmp_path, 6)
    recipe = put(tmp_path, "samples", "x", train="train/x", prompts=ref(data), num_images=12, per_prompt=3)
    rows = rows_of(read_recipe(recipe, SamplesRecipe), tmp_path)
    assert [row.key for row in rows] == [f"{n:08d}" for n in range(4) for _ in range(3)]
    plain = put(tmp_path, "samples", "y", train="train/x", prompts=ref(data), num_images=12)
    assert "per_prompt" not in plain.read_text()


def test_pictures_of_a_prompt_are_left_out_together() -> None:
    found = object.__new__(Side)
    found.manifest = {"num_images": 120}
    found.arrays = {"a": np.repeat(np.arange(40), 3), "statistics": np.zeros(7)}
    found.prompt_after_prompt(3)
    held = [set(found.arrays["a"][group]) for group in groups_of(120)]
    assert sum(map(len, held)) == 40 and len(found.arrays["statistics"]) == 7
    for group in held:
        assert np.isin(found.arrays["a"], list(group)).sum() == 3 * len(group)


def test_four_pictures_alike_for_each_caption_say_no_more_than_one(world: tuple[dict[str, np.ndarray], ...]) -> None:
    """Alignment and CLIP score of 80 captions, drawn once or four times the same, have one interval."""
    answers, labels = world
    random = np.random.default_rng(2)
    answers = {key: np.concatenate([array[:80]] * 4) for key, array in answers.items()}
    answers["count"] = np.where(np.tile(random.random(80) < 0.5, 4), labels["count"], -2).astype(np.int8)
    scores, rows = random.random(80), {}
    for times in (1, 4):
        part = slice(80 * times)
        found = object.__new__(Side)
        found.manifest = {"num_images": 80 * times, "judge_on_real": []}
        found.arrays = {f"{kind}.{key}": array[part] for kind, arrays in (("judge", answers), ("labels", labels))
                        for key, array in arrays.items()} | {"clip.score": np.repeat(scores, times)}  # fmt: skip
        if times > 1:  # as they are drawn: all pictures of a caption, then those of the next
            order = np.arange(80 * times).reshape(times, -1).T.ravel()
            found.arrays = {key: a if key == "clip.score" else a[order] for key, a in found.arrays.items()}
        found.prompt_after_prompt(times)
        none = SimpleNamespace(arrays={}, per_prompt=1)
        made = [*answers_of(found, none, None, ScoreSettings()), *captions(found, none, None, ScoreSettings())]
        rows[times] = {row["metric"]: row for row in made}
    for name in ("alignment_count", "alignment", "clip_score"):
        one, four = rows[1][name], rows[4][name]
        assert one["value"] == pytest.approx(four["value"])
        assert four["high"] - four["low"] == pytest.approx(one["high"] - one["low"], rel=0.35), name


def test_no_guess_is_another_picture_of_the_same_caption() -> None:
    labels = encode([described([k % 3], [k % 4], 1, 0) for k in range(21)] * 3)
    answers = {key: array.copy() for key, array in labels.items()}
    answers["count"] = np.arange(63, dtype=np.int8) % 21
    labels["count"] = answers["count"].copy()  # every caption has an answer of its own, and gets it
    assert chance(answers, labels, "count", 62)[0] > 0  # shifted by 21 pictures all would seem guessed
    assert chance(answers, labels, "count", 62, per_prompt=3)[0] == 0


def test_a_study_asks_for_composition() -> None:
    asked = {"protocols.zero-shot.metrics": ["composition"], "protocols.zero-shot.per_prompt": 2,
             "protocols.zero-shot.num_images": 40}  # fmt: skip
    loaded = study.load("quick", asked)
    evaluation = loaded.runs[0].evaluations[0]
    assert loaded.recipe(evaluation.samples).per_prompt == 2
    assert loaded.recipe(evaluation.scores).metrics == ("composition",)
    with pytest.raises(StudyError, match="per_prompt 5: num_images 40 must be a multiple of 100"):
        study.load("quick", {**asked, "protocols.zero-shot.per_prompt": 5})
    with pytest.raises(StudyError, match="name a judge and prompts"):
        study.load("quick", {**asked, "protocols.zero-shot.judge": None})
    claim = {"claims.it": {"statement": "s", "source": "p", "expect": 'composition["base"] > 0.5'}}
    with pytest.raises(StudyError, match="does not ask for it; write metrics: \\[composition\\]"):
        study.load("quick", claim)
    assert study.load("quick", {**asked, **claim}).claims["it"]


# --- networks of clips -------------------------------------------------------------------------------------


def stored(path: Path, tensors: dict[str, torch.Tensor], model: str = "s3d") -> WeightsConfig:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return WeightsConfig(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), model=model)


def test_a_network_of_clips_reads_sixteen_frames(tmp_path: Path) -> None:
    from torchvision.models.video import s3d

    torch.manual_seed(0)
    weights = s3d().state_dict()
    extract = load_video(stored(tmp_path / "s3d.safetensors", weights))
    clips = np.random.default_rng(0).integers(0, 256, (1, 32, 8, 8, 3), dtype=np.uint8).repeat(2, axis=0)
    clips[1, 1::2] = 0  # frames that are not among the sixteen
    found = extract(clips)
    assert found.shape == (2, 400) and np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    with pytest.raises(StudyError, match="does not fit torchvision's s3d"):
        load_video(stored(tmp_path / "less.safetensors", {"features.0.0.0.weight": weights["features.0.0.0.weight"]}))


def test_networks_of_clips_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"there is no loader for 'i3d'; .*s3d"):
        load_video(stored(tmp_path / "i3d.safetensors", {"a": torch.zeros(1)}, "i3d"))
    pickle = tmp_path / "i3d.pt"
    pickle.write_bytes(b"x")
    with pytest.raises(StudyError, match="pickles are not opened"):
        load_video(WeightsConfig(path=str(pickle), sha256=hashlib.sha256(b"x").hexdigest(), model="s3d"))


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"model": "i3d"}, r"protocols\.p\.video\.model: there is no loader for 'i3d'"),
        ({"model": "s3d"}, r"protocols\.p\.video sees 16 frames, and a run draws clips of 4x8"),
    ],
)
def test_studies_that_cannot_read_their_clips_are_refused(tmp_path: Path, video: dict[str, str], message: str) -> None:
    text = content(films(tmp_path / "films"))
    weights = {"path": "w.safetensors", "sha256": "0" * 64, **video}
    text["protocols"] = {"p": {"description": "d", "prompts": "films", "reference": "films", "num_images": 2,
                               "num_reference": 2, "video": weights}}  # fmt: skip
    (tmp_path / "clips.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    with pytest.raises(StudyError, match=message):
        study.load(str(tmp_path / "clips.yaml"))
