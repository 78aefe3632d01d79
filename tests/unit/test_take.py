"""Training on the first pictures of a data set, and ablations whose points change several settings."""

import numpy as np
import pytest
import torch
from test_shards import make_data
from training_world import NEVER, SMALL, make_world

from mdm.config import StudyError
from mdm.data.batches.loader import Loader
from mdm.data.batches.reader import Pictures
from mdm.files.atomic import ArtifactError
from mdm.files.weights import state_hash
from mdm.study import study
from mdm.train.checkpoint import read_checkpoint
from mdm.train.loop import train


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same scenes: 20 of them, and 11, in shards of 8."""
    return [make_data(tmp_path_factory.mktemp("results"), num_images=count).parent for count in (20, 11)]


@pytest.mark.parametrize("take", [8, 11])
def test_the_first_pictures_are_a_set_of_their_own(folders, take):
    large, small = Pictures(folders[0], take), Pictures(folders[1], take)
    assert len(large) == take and large.shard_samples == small.shard_samples == [8, 3][: -(-take // 8)]
    assert list(large.others(take - 1)) == list(small.others(take - 1))
    with pytest.raises(IndexError, match=f"samples 0 to {take - 1}"):
        large.image(take)


def test_batches_are_those_of_a_data_set_of_exactly_these_pictures(folders):
    large, small = Loader(folders[0], None, 6, 3, 16, take=11), Loader(folders[1], None, 6, 3, 16)
    for seen in range(0, 60, 6):
        one, other = large.batch(seen), small.batch(seen)
        assert torch.equal(one.ids, other.ids) and torch.equal(one.images, other.images)
        assert one.captions == other.captions


def test_more_than_there_are_cannot_be_taken(folders):
    with pytest.raises(ArtifactError, match="has 11 pictures that can be used; write take: 11 or less"):
        Pictures(folders[1], 12)
    assert len(Pictures(folders[1], 11)) == 11


def test_training_on_them_is_training_on_a_set_of_their_own(tmp_path):
    weights = []
    for count, take in ((48, 32), (32, None)):
        changes = SMALL | {"data.scenes-train.settings.num_images": count, "base.take": take}
        recipe = make_world(tmp_path / str(count), changes, ("r8",))["r8"]
        train(recipe, recipe.parent / "final.ckpt", None, NEVER)
        tensors, _ = read_checkpoint(recipe.parent / "final.ckpt")
        weights.append(state_hash({name: x for name, x in tensors.items() if name != "progress.seconds"}))
    assert weights[0] == weights[1]


def test_taking_all_is_taking_what_is_there():
    plain, all_of_it = study.load("quick"), study.load("quick", {"base.take": 512})
    assert plain.digest == all_of_it.digest
    some = study.load("quick", {"base.take": 100})
    assert not {s.artifact for r in some.runs for s in r.stages} & {s.artifact for r in plain.runs for s in r.stages}
    assert some.of_kind("data") == plain.of_kind("data")


CIFAR = {"data.scenes-train.source": "cifar10", "base.take": 10}


@pytest.mark.parametrize(("change", "message"), [
    ({"base.take": 513}, "take 513: data.scenes-train has 512 pictures; write that or less"),
    ({"base.take": 0}, "greater than 0"),
    ({"base.take": 9, "data.scenes-train.settings.copies": {"count": 2, "of": 1}}, "plants copies behind all others"),
    (CIFAR | {"data.scenes-train.settings": {"num_images": 50, "balanced": True, "order": "class"}}, "order: turns"),
    (CIFAR | {"data.scenes-train.settings": {"num_images": 50, "balanced": True}}, "first pictures are not; .* turns"),
    ({"base.take": 9, "data.scenes-train": {"source": "mixture", "settings": {
        "num_images": 50, "share": 0.5, "resolution": 32, "parts": [{"source": "scenes"}] * 2}}}, "first part alone"),
])  # fmt: skip
def test_sets_without_smaller_ones_in_them_are_refused(change, message):
    with pytest.raises(StudyError, match=message):
        study.load("quick", change)


def test_the_optimum_asks_no_more_pictures_than_are_trained_on():
    with pytest.raises(StudyError, match=r"excess.num_images 200: the training set has 100"):
        study.load("quick", {"base.take": 100, "excess": {"num_images": 200}})


def test_labels_are_counted_among_the_pictures_taken():
    unique = {"data.scenes-train.settings.label": "unique", "data.scenes-new.settings.label": "class",
              "base.model.classes": 64, "base.take": 64}  # fmt: skip
    study.load("quick", unique)
    with pytest.raises(StudyError, match=r"go from 0 to 511; write model\.classes: 512"):
        study.load("quick", unique | {"base.take": None})


def test_labels_of_held_out_pictures_are_counted_in_the_whole_set():
    """The held-out loss takes its pictures from all of the set, also where training takes the first."""
    unique = {"data.scenes-train.settings.label": "unique", "data.scenes-new.settings.label": "class",
              "base.model.classes": 64, "base.take": 64, "base.validation": "scenes-train"}  # fmt: skip
    with pytest.raises(StudyError, match=r"go from 0 to 511; write model\.classes: 512"):
        study.load("quick", unique)


def test_a_protocol_needs_the_labels_of_the_pictures_it_draws_alone():
    """The quick study's protocol draws 48: a network of 64 unique labels knows these, one of 40 does not."""
    labels = {"data.scenes-train.settings.label": "unique", "base.validation": None, "base.train.validate_images": 0,
              "protocols.zero-shot.prompts": "scenes-train", "ablations": {}, "claims": {}}  # fmt: skip
    study.load("quick", labels | {"base.take": 64, "base.model.classes": 64})
    with pytest.raises(StudyError, match=r"prompts: model\.classes 40, .* go from 0 to 47"):
        study.load("quick", labels | {"base.take": 40, "base.model.classes": 40})


SIZE = {
    "title": "Size", "question": "How many?", "group": "training",
    "set": {"sample.steps": 4},
    "cases": {
        "n64": {"take": 64, "stages.r8.num_images": 128},
        "n128": {"take": 128, "stages.r8.num_images": 256},
    },
}  # fmt: skip


def sized(**more):
    return study.load("quick", {"ablations": {"size": SIZE | more}, "claims": {}})


def test_a_case_changes_several_settings_at_once():
    loaded = sized()
    assert loaded.ablations["size"].runs == ["size=n64", "size=n128"]
    run = loaded.runs_named("size=n64")[0]
    assert (run.value, run.label) == ("n64", "Size = n64")
    stage = loaded.recipe(run.stages[0].artifact)
    assert (stage.take, stage.num_images) == (64, 128)
    assert run.settings_diff.keys() == {"sample.steps", "take", "stages.r8.num_images"}


def test_cases_meet_every_value_of_a_sweep_and_claims_name_them():
    claim = {"statement": "s", "source": "p", "expect": 'fd_judge["size=n64,0.001"] < fd_judge["size=n128,0.001"]'}
    changes = {"ablations": {"size": SIZE | {"sweep": {"train.learning_rate": [0.001, 0.002]}}}, "claims": {"c": claim}}
    loaded = study.load("quick", changes)
    names = [f"size={case},{rate}" for case in ("n64", "n128") for rate in ("0.001", "0.002")]
    assert loaded.ablations["size"].runs == names
    assert [loaded.runs_named(name)[0].value for name in names[:2]] == [("n64", 0.001), ("n64", 0.002)]


@pytest.mark.parametrize(("change", "message"), [
    ({"cases": {"n64": {"take": 64}}, "sweep": {"take": [1, 2]}}, "case n64 and sweep both change take"),
    ({"cases": {"N 64": {"take": 64}}}, "N 64"),
    ({"cases": {"n64": {"takes": 64}}}, "takes"),
    ({"cases": {}, "set": {}}, "needs `set`, `cases` or `sweep`"),
])  # fmt: skip
def test_impossible_cases_are_refused(change, message):
    with pytest.raises(StudyError, match=message):
        sized(**change)


def test_smaller_sets_lie_in_larger_ones(folders):
    large, small = (Pictures(folder) for folder in folders)
    for number in range(len(small)):
        np.testing.assert_array_equal(large.image(number), small.image(number))
        assert large.labels(number) == small.labels(number)
