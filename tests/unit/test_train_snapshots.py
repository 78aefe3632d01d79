"""Averaged weights on the way of a training: those of a training that stopped there, whatever came between."""

import pytest
from training_world import NEVER, copied, make_world, together

from mdm.config.recipe import SnapshotRecipe
from mdm.files.artifact import digest
from mdm.files.atomic import ArtifactError, read_json, write_json
from mdm.files.weights import load_weights, save_weights, state_hash
from mdm.train import loop
from mdm.train.checkpoint import read_checkpoint
from mdm.train.export import export
from mdm.train.journal import snapshot_file
from mdm.train.snapshots import take
from mdm.train.state import under

AT = (48, 96)  # of 128 images, in batches of 16


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("results"))


@pytest.fixture
def fresh(recipes, tmp_path):
    """A results folder of its own."""
    return copied(recipes, tmp_path)


@pytest.fixture(scope="module")
def stopped(recipes, tmp_path_factory):
    """{images: hash of the averaged weights} of trainings that stop there, and the state of a whole one."""
    own = copied(recipes, tmp_path_factory.mktemp("stopped"))
    folder, found, before = own["r8"].parent, {}, None
    for images in AT:
        out = folder / f"slice-{images}.ckpt"
        loop.train(own["r8"], out, before, NEVER)
        found[images], before = state_hash(under("ema.", read_checkpoint(out)[0])), out
    loop.train(own["r8"], folder / "final.ckpt", before, NEVER)
    return found, whole(folder)


def whole(folder):
    """The last state but for its time."""
    tensors = read_checkpoint(folder / "final.ckpt")[0]
    return state_hash({name: value for name, value in tensors.items() if name != "progress.seconds"})


def recipe_of(train, images):
    """The recipe of a snapshot, in its folder."""
    recipe = SnapshotRecipe(train=f"train/{train.parent.name}", images=images).plain()
    path = train.parents[2] / "snapshot" / f"r8-{images}-{digest(recipe)}" / "recipe.json"
    write_json(path, recipe)
    return path


def left(folder):
    return {images: state_hash(load_weights(snapshot_file(folder, images))) for images in AT}


def test_weights_on_the_way_are_those_of_a_training_that_stopped_there(fresh, stopped):
    folder = fresh["r8"].parent
    loop.train(fresh["r8"], folder / "final.ckpt", None, NEVER, snapshots=AT)
    assert (left(folder), whole(folder)) == stopped


class Killed(BaseException):
    """Ends a training where it is, like a kill."""


@pytest.mark.parametrize(("steps", "autosave"), [(3, 0.0), (4, NEVER), (7, 0.0)])
def test_a_killed_training_goes_on_through_a_snapshot(fresh, stopped, monkeypatch, steps, autosave):
    """Killed as soon as a snapshot is left; without any save, so that it is left again; behind both."""
    folder, step, done = fresh["r8"].parent, loop.training_step, []

    def dying(*words):
        if len(done) == steps:
            raise Killed
        done.append(None)
        return step(*words)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "training_step", dying)
        with pytest.raises(Killed):
            loop.train(fresh["r8"], folder / "final.ckpt", None, autosave, snapshots=AT)
    assert snapshot_file(folder, 48).is_file()
    loop.train(fresh["r8"], folder / "final.ckpt", None, NEVER, snapshots=AT)
    assert (left(folder), whole(folder)) == stopped


def test_of_several_processes_one_leaves_the_weights_that_all_have(fresh):
    folder = fresh["r8"].parent
    final = folder / "final.ckpt"
    assert together(2, loop.train, fresh["r8"], final, None, NEVER, snapshots=(128,)) == [0, 0]
    found = load_weights(snapshot_file(folder, 128))
    assert state_hash(found) == state_hash(under("ema.", read_checkpoint(final)[0]))
    assert [path.name for path in (folder / "snapshots").iterdir()] == ["000000000128.safetensors"]


def test_a_snapshot_knows_what_it_cost(fresh, stopped):
    folder, recipe = fresh["r8"].parent, recipe_of(fresh["r8"], 48)
    loop.train(fresh["r8"], folder / "final.ckpt", None, NEVER, snapshots=(48,))
    export(fresh["r8"])
    take(recipe)
    made, end = (read_json(path / "manifest.json") for path in (recipe.parent, folder))
    assert made["train"] == f"train/{folder.name}" and not made["repeated"]
    assert made["images"] == 48 and made["gigaflops"] == pytest.approx(end["gigaflops"] * 48 / 128, rel=1e-3)
    assert 0 < made["seconds"] < end["seconds"]
    hashed = state_hash(load_weights(recipe.with_name("weights.safetensors")))
    assert hashed == made["weights"]["weights.safetensors"] == stopped[0][48]


def test_one_that_is_asked_for_too_late_is_trained_again_and_is_the_same(fresh, stopped):
    folder = fresh["r8"].parent
    loop.train(fresh["r8"], folder / "final.ckpt", None, NEVER)
    export(fresh["r8"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    recipe = recipe_of(fresh["r8"], 96)
    with pytest.raises(ArtifactError, match="went past 96 images without leaving its weights; start Snakemake again"):
        take(recipe)
    loop.train(fresh["r8"], recipe.parent / "slice-96.ckpt", None, NEVER, snapshots=(96,))
    take(recipe)
    made = read_json(recipe.parent / "manifest.json")
    assert made["repeated"] and made["weights"]["weights.safetensors"] == stopped[0][96]
    assert {path: path.read_bytes() for path in before} == before, "the finished training is left as it was"
    there = {path.name for path in recipe.parent.iterdir()}
    assert there == {"recipe.json", "manifest.json", "weights.safetensors", "slice-96.ckpt"}


def test_weights_of_other_data_are_refused(fresh):
    folder = fresh["r8"].parent
    loop.train(fresh["r8"], folder / "final.ckpt", None, NEVER, snapshots=(48,))
    path = snapshot_file(folder, 48)
    save_weights(path, load_weights(path), {"recipe": folder.name, "data": "0" * 64, "images": 48})
    with pytest.raises(ArtifactError, match=f"belongs to data {'0' * 64}, the stage now has"):
        take(recipe_of(fresh["r8"], 48))
