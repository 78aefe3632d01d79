"""Training is exact: slices, kills and damaged saves change nothing of the weights that come out."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image
from training_world import NEVER, copied, make_world

from mdm.config import TrainConfig
from mdm.config.recipe import StageRecipe
from mdm.files.artifact import digest, read_recipe
from mdm.files.atomic import ArtifactError, read_json, write_json
from mdm.files.weights import load_weights, save_weights, state_hash
from mdm.model.ema import Ema
from mdm.model.execution import Execution
from mdm.study.run.status import of_folder
from mdm.train import loop, progress
from mdm.train.attempts import Attempts
from mdm.train.checkpoint import Autosaves, read_checkpoint, write_checkpoint
from mdm.train.export import export
from mdm.train.journal import FINISHED, Journal
from mdm.train.loop import train
from mdm.train.optim import make_optimizers, rate_share, set_rates
from mdm.train.progress import MACHINE_FACTS
from mdm.train.ranks import Ranks
from mdm.train.start import SliceOrder, refuse_other_identity
from mdm.train.start import start as start_stage
from mdm.train.state import TrainingState


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A results folder with data and text; (folder, {stage: recipe path})."""
    results = tmp_path_factory.mktemp("results")
    return results, make_world(results)


@pytest.fixture
def fresh(world, tmp_path):
    """The same in a folder of its own."""
    return copied(world[1], tmp_path)


@pytest.fixture(scope="module")
def unbroken(world):
    """The state after the first stage, trained in one go."""
    _, recipes = world
    out = recipes["r8"].parent / "final.ckpt"
    train(recipes["r8"], out, None, NEVER)
    tensors, _ = read_checkpoint(out)
    history = (out.parent / "progress" / "history.jsonl").read_text()
    export(recipes["r8"])
    out.unlink()
    return without_time(tensors), without_seconds(history)


def without_time(tensors):
    return {name: value for name, value in tensors.items() if name != "progress.seconds"}


def without_seconds(history):
    lines = [json.loads(line) for line in history.splitlines()]
    return [{k: v for k, v in line.items() if k not in MACHINE_FACTS} for line in lines]


def assert_same(out, unbroken):
    tensors, history = unbroken
    found, _ = read_checkpoint(out)
    assert state_hash(without_time(found)) == state_hash(tensors)
    assert without_seconds((out.parent / "progress" / "history.jsonl").read_text()) == history


def test_two_slices_equal_one(fresh, unbroken):
    folder = fresh["r8"].parent
    train(fresh["r8"], folder / "slice-64.ckpt", None, NEVER)
    train(fresh["r8"], folder / "final.ckpt", folder / "slice-64.ckpt", NEVER)
    assert_same(folder / "final.ckpt", unbroken)


def test_a_slice_made_shorter_than_its_saves_loses_nothing(fresh, unbroken):
    folder = fresh["r8"].parent
    train(fresh["r8"], folder / "slice-64.ckpt", None, NEVER)
    (folder / "slice-64.ckpt").rename(folder / "progress" / "autosave-000000000064.ckpt")
    train(fresh["r8"], folder / "slice-32.ckpt", None, NEVER)
    train(fresh["r8"], folder / "final.ckpt", folder / "slice-32.ckpt", NEVER)
    assert_same(folder / "final.ckpt", unbroken)
    images = [line.get("begin", line.get("end")) for line in Attempts(folder / "progress").lines()]
    assert images[-6:] == [0, 64, 64, 64, 64, 128]


def test_recomputing_activations_trains_the_same_weights(fresh, unbroken):
    out = fresh["r8"].parent / "final.ckpt"
    train(fresh["r8"], out, None, NEVER, Execution(recompute=(8,)))
    assert_same(out, unbroken)


def test_pictures_that_could_not_be_used_are_in_the_manifest(fresh):
    recipe = json.loads(fresh["r8"].read_text())
    root = fresh["r8"].parents[2]
    for name, number in (("data", 5), ("validation", 2)):
        record = json.loads((root / recipe[name] / "shards/00000.json").read_text())
        offset, size = record["files"][number]["png"]
        with (root / recipe[name] / "shards/00000.tar").open("r+b") as tar:
            tar.seek(offset)
            tar.write(bytes(size))
    train(fresh["r8"], fresh["r8"].parent / "final.ckpt", None, NEVER)
    export(fresh["r8"])
    found = json.loads((fresh["r8"].parent / "manifest.json").read_text())["skipped"]
    assert found["training"] == {"samples": 1, "reasons": {"not a picture": 1}, "keys": ["00000005"]}
    assert found["validation"]["keys"] == ["00000002"]


# Training that gets a signal as soon as it has told of a step: whoever watched it might be too slow.
SIGNALLED = """
import os, sys
from mdm import cli
from mdm.train.progress import Progress
tick = Progress.tick
def signalling(*words):
    tick(*words)
    os.kill(os.getpid(), int(sys.argv[1]))
Progress.tick = signalling
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_the_next_start_continues(fresh, unbroken, number):
    words = ["train", fresh["r8"], "--out", fresh["r8"].parent / "final.ckpt"]
    command = [sys.executable, "-c", SIGNALLED, str(int(number)), *words, "--autosave-seconds", str(NEVER)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # an environment: torch is there before the command line is read
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number, done.stdout + done.stderr
    assert "images/s" in done.stdout and "saved at" in done.stdout
    train(fresh["r8"], fresh["r8"].parent / "final.ckpt", None, NEVER)
    assert_same(fresh["r8"].parent / "final.ckpt", unbroken)


def test_ctrl_c_before_the_first_step_ends_at_once(fresh, unbroken, monkeypatch):
    """Getting ready may take long, and leaves nothing that is worth saving."""

    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)

    out = fresh["r8"].parent / "final.ckpt"
    before = Journal(out.parent / "progress").lines()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "Slice", interrupted)
        train(fresh["r8"], out, None, NEVER)
    assert not list(out.parent.glob("progress/autosave-*"))
    assert Journal(out.parent / "progress").lines() == before
    train(fresh["r8"], out, None, NEVER)
    assert_same(out, unbroken)


def test_a_damaged_save_is_passed_over_for_the_one_before(tmp_path, capsys):
    saves = Autosaves(tmp_path, 0)
    for images in (8, 16):
        saves.save(images, {"x": torch.full((4,), float(images))}, {"images": images})
    saves.settle()
    newest = tmp_path / "autosave-000000000016.ckpt"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    tensors, meta = saves.latest(0)
    assert meta["images"] == 8 and tensors["x"][0] == 8
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_half_written_checkpoint_is_refused(tmp_path, cut):
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, {"x": torch.arange(100)}, {"images": 1})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"x\.ckpt"):
        read_checkpoint(path)


def test_a_save_of_another_slice_is_not_used(tmp_path):
    saves = Autosaves(tmp_path, 0)
    saves.save(64, {"x": torch.zeros(1)}, {"images": 64})
    saves.settle()
    assert saves.latest(64) is None  # it belongs to the slice that ended at 64


def test_a_checkpoint_of_another_stage_is_refused(fresh, unbroken):
    foreign = fresh["r8"].parent / "slice-64.ckpt"
    tensors, _ = unbroken
    write_checkpoint(foreign, tensors, {"recipe": "r8-000000000000", "images": 64})
    with pytest.raises(ArtifactError, match="r8-000000000000"):
        train(fresh["r8"], fresh["r8"].parent / "final.ckpt", foreign, NEVER)


def test_the_next_stage_begins_with_the_weights_of_the_one_before(fresh, unbroken, world):
    _, recipes = world
    parent = recipes["r8"].parent
    shutil.copytree(parent, fresh["r8"].parent, dirs_exist_ok=True)
    from mdm.train.start import first_weights

    model, inherited = first_weights(fresh["r16"], read_recipe(fresh["r16"], StageRecipe))
    inner = {k.removeprefix("inner_unet."): v for k, v in model.state_dict().items() if k in inherited}
    assert state_hash(inner) == state_hash(load_weights(parent / "weights.safetensors"))


def test_two_slices_equal_one_with_a_frozen_inside_and_orthogonal_momentum(fresh, unbroken, world):
    parent, folder = world[1]["r8"].parent, fresh["r16"].parent
    shutil.copytree(parent, fresh["r8"].parent, dirs_exist_ok=True)
    train(fresh["r16"], folder / "final.ckpt", None, NEVER)
    once, _ = read_checkpoint(folder / "final.ckpt")
    history = without_seconds((folder / "progress" / "history.jsonl").read_text())
    assert any(name.startswith("optimizer.momentum.") for name in once)
    assert not any(name.startswith("optimizer.") and "inner_unet." in name for name in once)
    inner = {n.removeprefix("model.inner_unet."): v for n, v in once.items() if n.startswith("model.inner_unet.")}
    assert state_hash(inner) == state_hash(load_weights(parent / "weights.safetensors"))

    (folder / "final.ckpt").unlink()
    train(fresh["r16"], folder / "slice-32.ckpt", None, NEVER)
    train(fresh["r16"], folder / "final.ckpt", folder / "slice-32.ckpt", NEVER)
    assert_same(folder / "final.ckpt", (without_time(once), history))


def carrying(fresh, world):
    """The second stage as a recipe that carries the moments, beside a finished first stage."""
    parent = world[1]["r8"].parent
    shutil.copytree(parent, fresh["r8"].parent, dirs_exist_ok=True)
    recipe = json.loads(fresh["r16"].read_text()) | {"moments": "carried"}
    recipe["train"]["inner_rate"] = 0.5
    path = fresh["r16"].parent.with_name(f"r16-{digest(recipe)}") / "recipe.json"
    write_json(path, recipe)
    return path


def test_the_next_stage_may_begin_with_the_moments_of_the_one_before(fresh, unbroken, world):
    path, wanted = carrying(fresh, world), unbroken[0]
    write_checkpoint(fresh["r8"].parent / "final.ckpt", wanted, {"images": 128})
    seen = begun(path).tensors()
    for name in (name for name in wanted if name.startswith("optimizer.")):
        kind, _, weight = name.removeprefix("optimizer.").partition(".")
        assert torch.equal(seen.pop(f"optimizer.{kind}.inner_unet.{weight}"), wanted[name])
    assert not any(name.startswith("optimizer.") for name in seen)  # fresh levels know nothing yet
    train(path, path.parent / "final.ckpt", None, NEVER)
    steps = read_checkpoint(path.parent / "final.ckpt")[0]
    assert steps["optimizer.step.conv_in.bias"] == 4 and steps["optimizer.step.inner_unet.conv_in.bias"] == 8 + 4


def begun(path):
    recipe = read_recipe(path, StageRecipe)
    autosaves = Autosaves(path.parent / "progress", NEVER)
    return start_stage(SliceOrder(path, path.parent / "final.ckpt", None, NEVER), recipe, autosaves, Ranks())[0]


def test_a_refusal_names_all_that_differs_and_nothing_else(tmp_path):
    here = {"recipe": "r8-aa", "data": "d1", "text": "t1", "parent": "p1"}
    path = tmp_path / "r8-aa" / "recipe.json"
    refuse_other_identity({**here, "images": 8}, here, path)
    for wrong in ({"recipe": "r8-bb"}, {"data": "d2"}, {"text": "t2", "parent": "p2"}):
        with pytest.raises(ArtifactError) as error:
            refuse_other_identity({**here, **wrong}, here, path)
        for key, value in wrong.items():
            assert f"{key} {value}, the stage now has {here[key]}" in str(error.value)
        assert all(f"{key} {value}" not in str(error.value) for key, value in here.items() if key not in wrong)
        assert str(path.parent) in str(error.value) and "train anew" in str(error.value)
    with pytest.raises(ArtifactError, match="belongs to parent none, the stage now has p1"):
        refuse_other_identity({key: value for key, value in here.items() if key != "parent"}, here, path)


def test_moments_of_other_weights_are_refused(fresh, unbroken, world):
    path, tensors = carrying(fresh, world), dict(unbroken[0])
    with pytest.raises(ArtifactError, match=r"final\.ckpt does not exist"):
        begun(path)
    tensors["model.conv_in.bias"] = tensors["model.conv_in.bias"] + 1
    write_checkpoint(fresh["r8"].parent / "final.ckpt", tensors, {"images": 128})
    with pytest.raises(ArtifactError, match=r"final\.ckpt does not belong to .*manifest\.json"):
        begun(path)


def test_a_checkpoint_from_another_parent_is_refused(fresh, unbroken, world):
    folder, parent = fresh["r16"].parent, fresh["r8"].parent
    shutil.copytree(world[1]["r8"].parent, parent, dirs_exist_ok=True)
    train(fresh["r16"], folder / "slice-32.ckpt", None, NEVER)
    weights = {name: value + 1 for name, value in load_weights(parent / "weights.safetensors").items()}
    made_anew = save_weights(parent / "weights.safetensors", weights)
    manifest = read_json(parent / "manifest.json")
    write_json(
        parent / "manifest.json", manifest | {"weights": manifest["weights"] | {"weights.safetensors": made_anew}}
    )
    with pytest.raises(ArtifactError, match=f"belongs to parent {manifest['weights']['weights.safetensors']}, .* now"):
        train(fresh["r16"], folder / "final.ckpt", folder / "slice-32.ckpt", NEVER)


def test_a_corrupt_parent_is_an_error(fresh, unbroken, world):
    _, recipes = world
    shutil.copytree(recipes["r8"].parent, fresh["r8"].parent, dirs_exist_ok=True)
    path = fresh["r8"].parent / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        train(fresh["r16"], fresh["r16"].parent / "final.ckpt", None, NEVER)


def test_a_checkpoint_of_another_optimiser_is_refused():
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 2)

    def state(matrix_rate=None):
        config = TrainConfig(batch_images=1, learning_rate=1.0, matrix_rate=matrix_rate, ema_halflife_images=1)
        return TrainingState(network, Ema(network, 1), make_optimizers(network, config, set()))

    trained = state()
    set_rates(trained.optimizers, 0.1)
    network(torch.ones(1, 2)).sum().backward()
    for optimizer in trained.optimizers:
        optimizer.step()
    tensors = trained.tensors()
    state().restore(tensors, 1)
    for moment in ("optimizer.exp_avg.weight", "optimizer.step.bias"):
        with pytest.raises(ArtifactError, match=f"1 of its tensors differ, e.g. .*{moment.removeprefix('optimizer.')}"):
            state().restore({name: value for name, value in tensors.items() if name != moment}, 1)
    with pytest.raises(ArtifactError, match=r"4 of its tensors differ, e\.g\. .*exp_avg\.weight"):
        state(matrix_rate=1.0).restore(tensors, 1)


def test_an_edited_recipe_is_refused(fresh):
    recipe = json.loads(fresh["r8"].read_text())
    recipe["train"]["learning_rate"] = 1.0
    write_json(fresh["r8"], recipe)
    assert digest(recipe) not in fresh["r8"].parent.name
    with pytest.raises(ArtifactError, match="was changed"):
        train(fresh["r8"], fresh["r8"].parent / "final.ckpt", None, NEVER)


def test_a_diverged_training_stops_and_keeps_the_save_before(fresh, monkeypatch):
    folder = fresh["r8"].parent
    monkeypatch.setattr("mdm.train.loop.rate_share", lambda config, images, total: 1.0 if images < 64 else 1e33)
    with pytest.raises(ArtifactError, match=r"not finite: loss of the level 8 px, in step \d \(images .*checkpoint is"):
        train(fresh["r8"], folder / "final.ckpt", None, 0)
    assert not (folder / "final.ckpt").exists()
    tensors, meta = Autosaves(folder / "progress", 0).latest(0)
    assert meta["images"] >= 64 and all(value.isfinite().all() for value in tensors.values())


def test_the_learning_rate_warms_up_and_cools_down():
    config = TrainConfig(
        batch_images=10, learning_rate=1.0, ema_halflife_images=1, warmup_images=100, cooldown_images=200
    )
    rates = [rate_share(config, images, 1000) for images in range(0, 1000, 10)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[80] == 1.0
    assert rates[-1] == pytest.approx(0.05)
    assert all(rate > 0 for rate in rates)


@pytest.mark.parametrize("inner_rate", [0.0, 0.5])
def test_inherited_weights_learn_at_their_own_rate_and_zero_freezes_them(inner_rate):
    moved = moved_weights(inner_rate)
    # The first step of Adam is the learning rate, whatever the gradient.
    assert moved == {name: pytest.approx(0.1 * (inner_rate if name[:3] == "old" else 1), rel=1e-3) for name in moved}


def moved_weights(inner_rate, matrix_rate=None):
    """How far a tenth of the peak rates moves an inherited and a fresh layer, by the largest entry."""
    torch.manual_seed(0)
    network = torch.nn.ModuleDict({"old": torch.nn.Linear(2, 2), "new": torch.nn.Linear(2, 2)})
    config = TrainConfig(
        batch_images=1, learning_rate=1.0, matrix_rate=matrix_rate, ema_halflife_images=1, inner_rate=inner_rate
    )
    optimizers = make_optimizers(network, config, {"old.weight", "old.bias"})
    set_rates(optimizers, 0.1)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network["new"](network["old"](torch.ones(1, 2))).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert network["old"].weight.requires_grad == (inner_rate > 0)
    return {name: (p - before[name]).abs().max().item() for name, p in network.named_parameters()}


def test_matrices_may_have_a_rate_of_their_own():
    full, half, frozen = (moved_weights(inner_rate, matrix_rate=2.0) for inner_rate in (1.0, 0.5, 0.0))
    for name in ("old.bias", "new.bias"):
        assert full[name] == pytest.approx(0.1, rel=1e-3)
    assert half["old.weight"] == pytest.approx(full["old.weight"] / 2) and frozen["old.weight"] == 0
    # An orthogonal 2 x 2 matrix times the rate 0.2, whatever the gradient.
    assert 0.05 < full["new.weight"] < 0.25 and full["new.weight"] == pytest.approx(half["new.weight"])


def test_the_end_of_a_stage_is_measured_with_other_noises_too(fresh):
    folder = fresh["r8"].parent
    train(fresh["r8"], folder / "final.ckpt", None, NEVER)
    lines = [json.loads(line) for line in (folder / "progress" / "history.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "validation" in line]
    assert [line["images"] for line in measured] == [64, 128]
    assert "validation_draws" not in measured[0]
    draws = measured[1]["validation_draws"]["8"]
    assert len(draws) == len(set(draws)) == 8 and draws[0] == measured[1]["validation"]["8"]


def test_long_training_speaks_between_ticks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "BEAT_SECONDS", -1.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    told = progress.Progress(tmp_path, (8,), 1000, 500, torch.device("cpu"))
    assert not told.add(4, 4, torch.tensor(1.0), torch.tensor([1.0]))
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["images"] == 4 and status["num_images"] == 1000
    assert {"eta_seconds", "images_per_second"} <= set(status)
    assert "4/1,000 images" in capsys.readouterr().out and not (tmp_path / "history.jsonl").exists()


def test_grids_from_fixed_noise_change_no_weight_and_are_the_same_after_a_restart(fresh, unbroken, tmp_path):
    folder = fresh["r8"].parent
    train(fresh["r8"], folder / "final.ckpt", None, NEVER, preview_images=48)
    assert_same(folder / "final.ckpt", unbroken)
    samples = folder / "progress" / "samples"
    whole = {path.name: path.read_bytes() for path in samples.glob("*.png")}
    assert sorted(whole) == ["000000000048.png", "000000000096.png", "000000000128.png"]
    with Image.open(samples / "000000000128.png") as grid:
        assert grid.size == (8 * 8, 8)  # eight captions, one level of 8 px
    assert len(set(whole.values())) == 3 and len(json.loads((samples / "captions.json").read_text())) == 8
    costs = [json.loads(line) for line in (samples / "samples.jsonl").read_text().splitlines()]
    assert [(cost["images"], cost["file"]) for cost in costs] == [(int(name[:12]), name) for name in sorted(whole)]
    assert all(cost["seconds"] > 0 for cost in costs)

    shutil.rmtree(folder / "progress")
    (folder / "final.ckpt").unlink()
    train(fresh["r8"], folder / "slice-64.ckpt", None, NEVER)
    train(fresh["r8"], folder / "final.ckpt", folder / "slice-64.ckpt", NEVER, preview_images=48)
    assert {path.name: path.read_bytes() for path in samples.glob("*.png")} == {
        name: content for name, content in whole.items() if name > "000000000064"
    }


def test_an_attempt_is_noted_with_its_end(fresh):
    folder = fresh["r8"].parent
    (folder / "manifest.json").unlink(missing_ok=True)
    train(fresh["r8"], folder / "final.ckpt", None, NEVER)
    assert Journal(folder / "progress").lines()[-1]["why"] == FINISHED
    (found,) = [s for s in of_folder(folder.parents[1], {}) if s.ref.startswith("train/r8")]
    assert (found.state, found.images, found.note) == ("waiting", 128, "weights not exported yet")
