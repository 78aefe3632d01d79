"""Training is killed, and its disk is full: nothing of value is lost, and the weights come out the same."""

import errno
import os
import random
import resource
import subprocess
import time

import pytest
import torch
from training_world import NEVER, PATIENCE, begin, copied, make_world, together

from mdm.manifest import ArtifactError
from mdm.model.checkpoints import state_hash
from mdm.train.checkpoint import Autosaves, Snapshot, only_trainer, read_checkpoint, write_checkpoint
from mdm.train.loop import train

# One stage of 12 steps whose state is written after nearly every step.
TINY = {
    "data.scenes-train.settings.num_images": 48,
    "data.scenes-new.settings.num_images": 16,
    "base.stages": {"r8": {"resolutions": [8], "num_images": 96}},
    "base.train.batch_images": 8,
    "base.train.validate_images": 0,
    "protocols.zero-shot.num_images": 16,
    "protocols.zero-shot.num_reference": 16,
    "ablations": {},
    "claims": {},
}
KILLS = 30


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("results"), TINY, ("r8",))


@pytest.fixture
def recipe(recipes, tmp_path):
    return copied(recipes, tmp_path)["r8"]


@pytest.fixture(scope="module")
def wanted(recipes, tmp_path_factory):
    """The hash of all state after an unbroken run, and its seconds."""
    recipe = copied(recipes, tmp_path_factory.mktemp("unbroken"))["r8"]
    began = time.monotonic()
    train(recipe, recipe.parent / "final.ckpt", None, NEVER)
    return state_of(recipe.parent / "final.ckpt"), time.monotonic() - began


def state_of(path):
    return state_hash({name: value for name, value in read_checkpoint(path)[0].items() if name != "progress.seconds"})


@pytest.mark.slow
def test_kill_9_at_thirty_moments_changes_nothing(recipe, wanted):
    """Half of the kills come at a random time, half as soon as a file is being written."""
    out, luck, kills, torn, finished = recipe.parent / "final.ckpt", random.Random(0), 0, 0, 0
    while kills < KILLS or not out.exists():
        left = half_written(recipe)
        (process,) = begin(1, train, recipe, out, None, 0)
        if kills < KILLS:
            moment = time.monotonic() + luck.uniform(0, 1.5 * wanted[1]) if kills % 2 else None
            while process.is_alive() and (time.monotonic() < moment if moment else half_written(recipe) <= left):
                time.sleep(0.001)
            process.kill()
        process.join(PATIENCE)
        kills += process.exitcode == -9
        torn += process.exitcode == -9 and not half_written(recipe) <= left
        assert process.exitcode in (0, -9)
        if out.exists():
            finished += 1
            assert state_of(out) == wanted[0]
            if kills < KILLS:
                out.unlink()
    assert kills == KILLS and finished and torn >= 3
    assert not list(recipe.parent.rglob("*.tmp"))  # what kills left behind is gone


def half_written(recipe):
    """Names of checkpoints that a trainer is writing, or was when it was killed."""
    folders = [folder for folder in (recipe.parent, recipe.parent / "progress") if folder.is_dir()]
    return {name for folder in folders for name in os.listdir(folder) if ".ckpt." in name}


def test_a_save_is_a_copy_and_is_written_while_training_goes_on(tmp_path):
    saves, x = Autosaves(tmp_path, 0), torch.arange(2**20, dtype=torch.float32).view(4, 64, 64, 64)
    x = x.to(memory_format=torch.channels_last)
    for images in (8, 16, 24):
        wanted = x.clone()
        saves.save(images, {"x": x, "count": torch.tensor(images)}, {"images": images})
        x += 1
        saves.settle()
        found, meta = saves.latest(0)
        assert torch.equal(found["x"], wanted) and found["count"] == images == meta["images"]
    assert len(list(tmp_path.iterdir())) == 2  # the newest and the one before


def test_a_snapshot_uses_its_memory_again():
    snapshot, x = Snapshot(), torch.ones(8)
    first = snapshot.take({"x": x})["x"]
    x.zero_()
    assert first.sum() == 8
    second = snapshot.take({"x": x})["x"]
    assert second.data_ptr() == first.data_ptr() and second.sum() == 0


def train_with_files_of_at_most(size, recipe, out):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with pytest.raises(ArtifactError, match=r"cannot save .*autosave-\d+\.ckpt .*File too large.* is kept"):
        train(recipe, out, None, 0)


def test_a_save_that_cannot_be_written_ends_training_clearly(recipe, wanted):
    out = recipe.parent / "final.ckpt"
    assert together(1, train_with_files_of_at_most, 100_000, recipe, out) == [0]
    assert not out.exists() and not half_written(recipe)
    train(recipe, out, None, NEVER)
    assert state_of(out) == wanted[0]


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_keeps_the_save_before(small_disk):
    saves, x = Autosaves(small_disk, 0), torch.arange(100_000.0)
    for images in (8, 16):
        saves.save(images, {"x": x + images}, {"images": images})
    saves.save(24, {"x": x + 24}, {"images": 24})  # two of 400 kB are there, and the third does not fit
    with pytest.raises(ArtifactError, match=r"autosave-000000000024\.ckpt .*No space left"):
        while not saves.due():
            time.sleep(0.001)
    with pytest.raises(ArtifactError, match=r"final\.ckpt .*No space left") as error:
        saves.finish(small_disk / "final.ckpt", {"x": x}, {})
    assert error.value.__cause__.errno == errno.ENOSPC
    tensors, meta = saves.latest(0)
    assert meta["images"] == 16 and torch.equal(tensors["x"], x + 16)
    assert sorted(path.name for path in small_disk.iterdir()) == [
        "autosave-000000000008.ckpt",
        "autosave-000000000016.ckpt",
    ]


def test_only_files_torn_by_a_kill_are_removed(tmp_path):
    folder = tmp_path / "progress"
    folder.mkdir()
    write_checkpoint(folder / "autosave-000000000008.ckpt", {"x": torch.zeros(1)}, {})
    for torn in (
        folder / ".autosave-000000000016.ckpt.77.tmp",
        folder / ".status.json.77.tmp",
        tmp_path / ".final.ckpt.77.tmp",
    ):
        torn.write_bytes(b"half")
    (folder / "notes.tmp").write_text("of somebody")
    with only_trainer(folder):
        assert sorted(p.name for p in folder.iterdir()) == ["autosave-000000000008.ckpt", "lock", "notes.tmp"]
        with pytest.raises(ArtifactError, match="another process is training"), only_trainer(folder):
            pass
