"""Protocols without captions: pictures of classes drawn at random, and pictures that are compared with nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from test_classes import CLASSES, UNCONDITIONAL, World

from mdm.config import StudyError
from mdm.data.batches.reader import Pictures
from mdm.diffusion.karras import released_latents
from mdm.evaluate.features import describe
from mdm.evaluate.generate import generate
from mdm.evaluate.painter import Painter
from mdm.evaluate.unprompted import unprompted_rows
from mdm.report import collect
from mdm.study import study

SHAPES = 9
DRAWN_ONLY = {"description": "the first twelve", "num_images": 12}


def changed(base: dict, **protocol) -> dict:
    """A study whose only protocol has no reference."""
    settings = {key: value for key, value in base.items() if not key.startswith("protocols.")}
    return settings | {"protocols": {"drawn": DRAWN_ONLY | protocol}, "along": None, "excess": None}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("results"), changed(CLASSES | {"base.model.classes": SHAPES}))
    world.run()
    return world


def test_a_protocol_without_reference_asks_for_pictures_and_nothing_else() -> None:
    loaded = study.load("quick", changed(UNCONDITIONAL))
    evaluation = loaded.runs[0].evaluations[0]
    assert (evaluation.features, evaluation.reference, evaluation.scores) == (None, None, None)
    assert evaluation.samples in loaded.measured(), "they are a target all the same"
    assert not loaded.of_kind("features", "scores", "judge", "clip")
    recipe = loaded.recipe(evaluation.samples)
    assert recipe.prompts is recipe.text is None and "labels" not in recipe.plain()


def test_pictures_are_drawn_for_classes_that_only_seed_and_number_determine(world: World) -> None:
    generate(world.path(world.samples), batch_images=5)
    archive = np.load(world.path(world.samples).parent / "images.npz", allow_pickle=False)
    assert archive["images_8"].shape == (12, 8, 8, 3)
    assert archive["keys"].tolist() == [str(number) for number in range(12)]
    assert set(archive["captions"].tolist()) == {""}
    recipe, stage = world.study.recipe(world.samples), world.study.recipe(world.train)
    drawn = [json.loads(labels)["shapes"] for labels in archive["labels"]]
    rows = unprompted_rows(recipe.model_copy(update={"num_images": 2000}), stage, world.results)
    assert [row.labels["shapes"] for row in rows[:12]] == drawn, "more pictures do not change the first"
    counts = Counter(row.labels["shapes"] for row in rows)
    assert sorted(counts) == list(range(SHAPES)) and max(counts.values()) < 1.35 * 2000 / SHAPES
    other = unprompted_rows(recipe.model_copy(update={"seed": 1}), stage, world.results)
    assert [row.labels["shapes"] for row in other] != drawn


def test_labels_used_are_those_of_training_pictures(world: World) -> None:
    recipe, stage = world.study.recipe(world.samples), world.study.recipe(world.train)
    wide = stage.model_copy(update={"model": stage.model.model_copy(update={"classes": 30})})
    wanted = recipe.model_copy(update={"labels": "used", "num_images": 300})
    there = {row.labels["shapes"] for row in unprompted_rows(wanted, wide, world.results)}
    assert there == set(range(SHAPES - 1)), "the scenes of the study have eight shapes, whatever the network knows"
    everything = unprompted_rows(wanted.model_copy(update={"labels": "all"}), wide, world.results)
    assert max(row.labels["shapes"] for row in everything) > SHAPES


def test_labels_of_pictures_that_were_not_taken_are_not_used(world: World) -> None:
    recipe, stage = world.study.recipe(world.samples), world.study.recipe(world.train)
    wanted = recipe.model_copy(update={"labels": "used", "num_images": 100})
    few = stage.model_copy(update={"take": 2})
    known = {Pictures(world.data).labels(number)["shapes"][0] for number in range(2)}
    assert {row.labels["shapes"] for row in unprompted_rows(wanted, few, world.results)} == known


def test_features_of_such_pictures_follow_the_rule_of_no_data_set(world: World) -> None:
    from mdm.config.recipe_measured import FeaturesRecipe

    asked = FeaturesRecipe(images=world.samples, num_images=4, resolution=8, extractors={})
    said = describe(asked, world.results)
    assert said["prompts"] is said["rule"] is said["index_sha256"] is None


def test_the_report_expects_no_scores(world: World) -> None:
    rows, missing = collect.collect(world.study, world.results)
    assert {row.metric for row in rows} >= {"train_images"}
    assert not [entry for entry in missing if "scores" in entry["what"]]
    assert list(collect.collect_groups(world.study, world.results)) == []


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"judge": "judge"}, "reference, num_reference: missing"),
        ({"spectrum": True}, "reference, num_reference: missing"),
        ({"reference": "scenes-new"}, "num_reference: missing"),
        ({"num_images": None}, "num_images: missing"),
        ({"reference": "scenes-new", "num_reference": 8, "clip": "clip"}, "clip compares pictures with captions"),
        ({"labels": "used", "prompts": "scenes-new"}, "labels: used has no effect with prompts"),
    ],
)
def test_half_a_protocol_is_refused(protocol: dict, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        study.load("quick", changed(UNCONDITIONAL, **protocol))


def test_used_labels_need_a_run_with_classes() -> None:
    study.load("quick", changed(CLASSES | {"base.model.classes": SHAPES}, labels="used"))
    with pytest.raises(StudyError, match=r"protocols\.drawn\.labels: used has no effect, no run has model\.classes"):
        study.load("quick", changed(UNCONDITIONAL, labels="used"))


def test_networks_that_read_text_need_prompts() -> None:
    with pytest.raises(StudyError, match=r"protocols.drawn: no prompts, and runs read text \('tiny-t5'\)"):
        study.load("quick", {"protocols": {"drawn": DRAWN_ONLY}, "along": None, "excess": None, "claims": {}})


def test_claims_about_comparisons_are_refused_where_nothing_is_compared() -> None:
    claim = {"statement": "s", "source": "s", "expect": 'fd_judge["base"] < 1', "number_from": "own"}
    with pytest.raises(StudyError, match="protocol 'drawn' draws pictures and compares them with nothing"):
        study.load("quick", changed(UNCONDITIONAL) | {"claims": {"c": claim}})
    plain = claim | {"expect": 'train_loss["base"] < 1'}
    assert study.load("quick", changed(UNCONDITIONAL) | {"claims": {"c": plain}}).claims


KARRAS = CLASSES | {
    "base.diffusion": {"parameterisation": "vp"},
    "base.sample": {"sampler": "karras", "steps": 3, "threshold": "none"},
    "base.sample.guidance": 1.0,
}


def test_the_released_rule_gives_each_picture_its_latents_and_then_its_class(tmp_path: Path) -> None:
    made = World(tmp_path, changed(KARRAS, seed=2))
    made.run()
    starts = []
    recipe = made.study.recipe(made.samples)
    painter = Painter(recipe, made.results, torch.device("cpu"))
    painter._model.register_forward_pre_hook(lambda _, arguments: starts.append(arguments[0][0].clone()))
    rows = unprompted_rows(recipe, made.study.recipe(made.train), made.results)
    latents, labels = released_latents([2 * 2**20 + number for number in range(12)], 8, 8)
    assert [row.labels["shapes"] for row in rows] == labels.tolist()
    drawn = painter.paint(range(12), [""] * 12, painter.classes(rows))
    # What a VP network sees first is c_in sigma z, with sigma 80.
    torch.testing.assert_close(starts[0], latents * 80 / 6401**0.5)
    assert drawn[8].shape == (12, 8, 8, 3) and painter.rows_evaluated == 12 * 5
    assert np.array_equal(painter.paint([7], [""], painter.classes(rows[7:8]))[8][0], drawn[8][7])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base.diffusion": {}}, "karras needs continuous noise levels, not parameterisation: gamma"),
        (
            {"base.stages": {"r16": {"resolutions": [8, 16], "num_images": 64}}},
            "karras draws pictures of a single level, and the last stage has",
        ),
    ],
)
def test_the_released_sampler_is_refused_where_it_has_no_meaning(settings: dict, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        study.load("quick", changed(KARRAS | settings))
