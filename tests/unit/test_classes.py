"""Classes from a data set's labels through training, validation and sampling; and networks without any condition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdm import cli
from mdm.config import StudyError
from mdm.data.batches.classes import ClassLabel
from mdm.data.batches.loader import Loader
from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.sources.scenes.shapes import SHAPES
from mdm.evaluate.generate import generate
from mdm.evaluate.painter import Painter
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.weights import load_weights
from mdm.study import study
from mdm.study.run.generate_one import Wanted
from mdm.train.example import training_examples
from mdm.train.export import export
from mdm.train.loop import train
from mdm.train.ranks import Ranks

NEVER = 1e9
UNCONDITIONAL = {
    "base.text": None,
    "base.model.text_layers": 0,
    "base.stages": {"r8": {"resolutions": [8], "num_images": 64}},
    "base.sample": {"sampler": "ddim", "steps": 3},
    "ablations": {},
    "claims": {},
    "protocols.zero-shot.num_images": 12,
    "protocols.zero-shot.num_reference": 16,
    **{f"data.{name}.settings.num_images": 40 for name in ("scenes-train", "scenes-new")},
    **{f"data.{name}.settings.relations": [] for name in ("scenes-train", "scenes-new", "scenes-judge")},
}
# One group of objects per scene, so a scene has one shape: its class.
CLASSES = UNCONDITIONAL | {
    "base.class_label": "shapes",
    "base.model.classes": len(SHAPES),
    "base.train.condition_dropout": 0.3,
    "base.sample.guidance": 2.0,
}


class World:
    """A study whose one stage can be trained in a second."""

    def __init__(self, results: Path, settings: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self.results, self.settings = results, settings
        self.study = study.load("quick", settings)
        run = self.study.runs[0]
        self.train, self.samples = run.stages[-1].artifact, run.evaluations[0].samples
        for ref in (self.train, self.samples, *self.study.parents(self.train), *self.study.parents(self.samples)):
            write_json(self.path(ref), self.study.recipe(ref).plain())
            if ref.startswith("data/"):
                index_data(self.path(ref)), write_shard(self.path(ref), 0), write_manifest(self.path(ref))

    def path(self, ref: str) -> Path:
        return self.results / ref / "recipe.json"

    @property
    def data(self) -> Path:
        return self.results / self.study.recipe(self.train).data

    def run(self) -> None:
        out = self.path(self.train).parent / "final.ckpt"
        train(self.path(self.train), out, None, NEVER)
        export(self.path(self.train))

    def mdm(self, *arguments: str) -> int:
        return cli.main(
            ["generate", *arguments, "--study", "quick", "--set", json.dumps(self.settings),
             "--results", str(self.results), "--out", str(self.results / "picture.png")]
        )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("results"), CLASSES)
    world.run()
    return world


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"shapes": [9]}, r"picture 7: class 9 is not one of the network's 9 \(0 to 8\)"),
        ({"shapes": [-1]}, "class -1 is not one of"),
        ({"shapes": [1, 2]}, r"label 'shapes' is \[1, 2\], but a class is one whole number"),
        ({"shapes": "circle"}, "'circle', but a class is one whole number"),
        ({"shapes": True}, "True, but a class is one whole number"),
        ({"shape": 1}, "no label 'shapes' for class_label; did you mean 'shape'"),
        ({}, "no label 'shapes' for class_label"),
    ],
)
def test_labels_that_are_no_class_are_refused(labels: dict, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        ClassLabel("shapes", 9).of(labels, "picture 7")


def test_a_number_or_a_list_of_one_is_a_class() -> None:
    assert ClassLabel("class", 9).of({"class": 8}, "x") == 8
    assert ClassLabel("shapes", 9).of({"shapes": [0]}, "x") == 0
    assert ClassLabel("class", 9).none == 9


def test_batches_hold_the_classes_of_their_pictures(world: World) -> None:
    loader, pictures = Loader(world.data, None, 8, 0, 8, class_label=ClassLabel("shapes", 9)), Pictures(world.data)
    batch = loader.batch(16)
    assert batch.classes.tolist() == [pictures.labels(number)["shapes"][0] for number in batch.ids.tolist()]
    assert len(set(batch.classes.tolist())) > 1
    assert Loader(world.data, None, 8, 0, 8).batch(16).classes is None


def test_some_pictures_are_trained_without_their_class(world: World) -> None:
    recipe = world.study.recipe(world.train)
    examples = training_examples(world.path(world.train), recipe, Ranks())
    labels = torch.cat([examples.at(seen).labels for seen in range(0, 640, 16)])
    plain = Loader(world.data, None, 16, recipe.seed, 8, class_label=ClassLabel("shapes", len(SHAPES)))
    true = torch.cat([plain.batch(seen).classes for seen in range(0, 640, 16)])
    dropped = labels == len(SHAPES)
    assert torch.equal(labels[~dropped], true[~dropped])
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.06)


def test_training_moves_the_classes_it_saw_and_the_missing_class(world: World) -> None:
    folder = world.path(world.train).parent
    from mdm.model.nested import build

    recipe = world.study.recipe(world.train)
    fresh = build(recipe.model, recipe.seed).class_emb.weight
    moved = (load_weights(folder / "weights-raw.safetensors")["class_emb.weight"] - fresh).abs().sum(dim=1) > 1e-4
    seen = {Pictures(world.data).labels(number)["shapes"][0] for number in range(40)}
    assert len(moved) == len(SHAPES) + 1
    assert {number for number, there in enumerate(moved.tolist()) if there} == seen | {len(SHAPES)}
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert any("validation" in str(line) for line in history), "the held-out loss knows the classes as well"


def test_samples_are_drawn_with_the_classes_of_their_prompts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, paint = [], Painter.paint

    def watched(self: Painter, ids, captions, classes):
        asked.extend(classes)
        return paint(self, ids, captions, classes)

    monkeypatch.setattr(Painter, "paint", watched)
    generate(world.path(world.samples), batch_images=5)
    archive = np.load(world.path(world.samples).parent / "images.npz", allow_pickle=False)
    assert asked == [json.loads(labels)["shapes"][0] for labels in archive["labels"]]
    assert archive["images_8"].shape == (12, 8, 8, 3)


def test_guidance_leads_away_from_no_class(world: World) -> None:
    painter = Painter(world.study.recipe(world.samples), world.results, torch.device("cpu"))
    seen = []
    painter._model.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(keywords["labels"].tolist()), with_kwargs=True
    )
    painter.paint([0, 1], ["", ""], [3, 5])
    assert seen == [[len(SHAPES), len(SHAPES), 3, 5]] * 3


def test_generate_draws_a_class(world: World, capsys: pytest.CaptureFixture) -> None:
    assert world.mdm("--class", "2", "--count", "2") == 0
    assert (world.results / "picture.png").is_file()
    for arguments, words in (
        ((), "needs --class, a number from 0 to 7; none was given"),
        (("--class", "8"), "needs --class, a number from 0 to 7; not 8"),
        (("a red circle", "--class", "1"), "reads no text; leave the prompt 'a red circle' out"),
    ):
        assert world.mdm(*arguments) == 2
        assert words in capsys.readouterr().err


def test_generate_asks_networks_that_read_text_for_a_prompt() -> None:
    quick = study.load("quick")
    recipe = quick.recipe(quick.of_kind("train")[0])
    with pytest.raises(StudyError, match="reads text; give a prompt"):
        Wanted(None, None, 1, 0).check(recipe, "base")
    with pytest.raises(StudyError, match="knows no classes; leave --class 3 out"):
        Wanted("a circle", 3, 1, 0).check(recipe, "base")


def test_a_class_too_many_stops_training_with_a_clear_message(tmp_path: Path) -> None:
    few = World(tmp_path, CLASSES | {"base.model.classes": 2})
    with pytest.raises(ArtifactError, match=r"picture \d+ of .*: class \d is not one of the network's 2 \(0 to 1\)"):
        few.run()


def test_a_label_that_is_not_there_stops_training(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no label 'shade' for class_label; did you mean 'shapes'"):
        World(tmp_path, CLASSES | {"base.class_label": "shade"}).run()


def test_a_network_without_text_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plain = World(tmp_path, UNCONDITIONAL)
    assert plain.study.recipe(plain.train).train.condition_dropout == 0
    plain.run()
    generate(plain.path(plain.samples))
    assert np.load(plain.path(plain.samples).parent / "images.npz")["images_8"].shape == (12, 8, 8, 3)
    assert plain.mdm() == 0
    assert plain.mdm("--guidance", "2") == 2
    for option, value in (("--guidance", "-1"), ("--guidance", "nan"), ("--steps", "0"), ("--count", "0")):
        capsys.readouterr()
        assert plain.mdm(option, value) == 2
        assert option.removeprefix("--") in capsys.readouterr().err
    with pytest.raises(StudyError, match=r"guidance 2\.0 needs a condition to guide towards"):
        study.load("quick", UNCONDITIONAL | {"base.sample.guidance": 2.0})


def test_edm_trains_and_draws_like_any_other(tmp_path: Path) -> None:
    edm = {
        "base.diffusion": {"parameterisation": "edm"},
        "base.sample": {"sampler": "heun", "steps": 4, "guidance": 1.5},
        "base.stages": {"r16": {"resolutions": [8, 16], "num_images": 64}},
    }
    other = World(tmp_path, CLASSES | edm)
    other.run()
    generate(other.path(other.samples))
    found = np.load(other.path(other.samples).parent / "images.npz")
    assert found["images_16"].shape == (12, 16, 16, 3)
    history = [json.loads(line) for line in (other.path(other.train).parent / "history.jsonl").read_text().splitlines()]
    # EDM's weights make every level begin at one.
    assert all(0.2 < value < 2 for value in history[0]["losses"].values()), history[0]
