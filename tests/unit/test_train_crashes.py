"""Training is killed, and its disk is full: nothing of value is lost, and the weights come out the same."""

import errno
import os
import random
import resource
import signal
import subprocess
import time

import pytest
import torch
from repository import HANG_SECONDS
from training_world import NEVER, begin, copied, make_world, together, train_and_halt

from mdm.config import StudyError
from mdm.files.atomic import ArtifactError
from mdm.files.weights import state_hash
from mdm.train import loop
from mdm.train.checkpoint import Autosaves, MemoryCopy, only_trainer, read_checkpoint, write_checkpoint
from mdm.train.export import export
from mdm.train.journal import Journal
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
    while (more := kills < KILLS or torn < 3) or not out.exists():
        left = half_written(recipe)
        (process,) = begin(1, train, recipe, out, None, 0)
        if more:
            moment = time.monotonic() + luck.uniform(0, 1.5 * wanted[1]) if kills % 2 else None
            while process.is_alive() and (time.monotonic() < moment if moment else half_written(recipe) <= left):
                time.sleep(0.001)
            process.kill()
        process.join(HANG_SECONDS)
        kills += process.exitcode == -9
        torn += process.exitcode == -9 and not half_written(recipe) <= left
        assert process.exitcode in (0, -9)
        if out.exists():
            finished += 1
            assert state_of(out) == wanted[0]
            if more:
                out.unlink()
    assert kills >= KILLS and finished and torn >= 3
    assert not list(recipe.parent.rglob("*.tmp"))  # what kills left behind is gone


def test_a_finished_slice_that_snakemake_deletes_is_not_trained_again(recipe, wanted):
    """As it does with the output of a job whose end it did not hear of: it was killed, or the job right after."""
    out, second = recipe.parent / "slice-48.ckpt", recipe.parent / "final.ckpt"
    for file, before, begins in ((out, None, (0, 48, 48)), (second, out, (48, 96, 96))):
        for images in begins:
            file.unlink(missing_ok=True)
            train(recipe, file, before, NEVER)
            assert Journal(recipe.parent / "progress").lines()[-2]["begin"] == images
    assert state_of(second) == wanted[0]
    saves = list((recipe.parent / "progress").glob("autosave-*"))
    assert len(saves) == 1 and saves[0].samefile(second)
    export(recipe)
    assert not list((recipe.parent / "progress").glob("autosave-*"))


def test_a_second_training_leaves_no_word_about_the_first(recipe):
    folder = recipe.parent / "progress"
    with only_trainer(folder):
        ends = together(2, train, recipe, recipe.parent / "final.ckpt", None, NEVER, log=recipe.parent / "out")
    assert ends == [1, 1]
    assert "another process is training" in (recipe.parent / "out.0.log").read_text()
    assert Journal(folder).lines() == []


def no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(("links", "left"), [(True, 24), (False, 16)])
def test_one_save_is_left_of_a_finished_slice(tmp_path, monkeypatch, links, left):
    saves = Autosaves(tmp_path / "progress", 0)
    for images in (8, 16, 48):  # the last one is of a slice after this one, which is made anew
        saves.save(images, {"x": torch.tensor(images)}, {"images": images})
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    saves.finish(tmp_path / "slice-24.ckpt", {"x": torch.tensor(24)}, {"images": 24})
    assert saves.newest() == saves.at(left) and len(list((tmp_path / "progress").iterdir())) == 1
    assert saves.latest(0)[0]["x"] == left


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
    snapshot, x = MemoryCopy(), torch.ones(8)
    first = snapshot.take({"x": x})["x"]
    x.zero_()
    assert first.sum() == 8
    second = snapshot.take({"x": x})["x"]
    assert second.data_ptr() == first.data_ptr() and second.sum() == 0


def page_faults():
    """How often this thread has waited for the kernel to hand out a page."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def save_with_and_without_room(folder):
    tensors = {"x": torch.ones(64, 64, 64, 64).to(memory_format=torch.channels_last), "count": torch.tensor(1.0)}
    pages = tensors["x"].nbytes // resource.getpagesize()
    saves, unprepared = Autosaves(folder, 0), MemoryCopy()
    saves.make_room(tensors)
    saves.settle()
    before = page_faults()
    saves.save(8, tensors, {"images": 8})
    between = page_faults()
    unprepared.take(tensors)
    assert between - before < pages / 10 and page_faults() - between > pages / 2
    saves.settle()
    assert torch.equal(saves.latest(0)[0]["x"], tensors["x"])


def test_the_first_save_finds_its_memory_ready(tmp_path):
    """In a process of its own: memory that others gave back would be ready too."""
    assert together(1, save_with_and_without_room, tmp_path) == [0]


def test_only_the_process_that_writes_makes_room(tmp_path):
    saves = Autosaves(tmp_path, 0, writes=False)
    saves.make_room({"x": torch.ones(4)})
    assert saves._copy._copies == {}


def test_room_of_another_shape_is_made_again():
    snapshot = MemoryCopy()
    snapshot.make_room({"x": torch.ones(4), "gone": torch.ones(1)})
    found = snapshot.take({"x": torch.arange(8.0)})
    assert found.keys() == {"x"} and torch.equal(found["x"], torch.arange(8.0))


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


def train_and_be_warned_while_saving(recipe, out):
    sync = os.fsync

    def warned(file):
        if os.path.basename(os.readlink(f"/proc/self/fd/{file}")).startswith(".autosave"):
            os.kill(os.getpid(), signal.SIGTERM)
            (recipe.parent / "go").touch()
        return sync(file)

    os.fsync = warned
    train_and_halt(recipe, out, None, 0)


def test_a_warning_while_a_save_is_written(recipe, wanted):
    """The save that is being written and another one of the moment are on disk before the process leaves."""
    out = recipe.parent / "final.ckpt"
    assert together(1, train_and_be_warned_while_saving, recipe, out) == [128 + signal.SIGTERM]
    assert not half_written(recipe) and Journal(recipe.parent / "progress").lines()[-1]["why"].startswith("stopped by")
    train(recipe, out, None, NEVER)
    assert state_of(out) == wanted[0]


def train_and_be_warned_early(recipe, out, signals):
    ready = loop.Slice

    def warned(*words):
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        return ready(*words)

    loop.Slice = warned
    train(recipe, out, None, NEVER)


@pytest.mark.parametrize("signals", [1, 3])
def test_warnings_before_the_first_step(recipe, wanted, signals):
    """However many: one step is made and saved, so that a job that is warned again and again gets on."""
    out = recipe.parent / "final.ckpt"
    assert together(1, train_and_be_warned_early, recipe, out, signals) == [128 + signal.SIGTERM]
    (save,) = (recipe.parent / "progress").glob("autosave-*.ckpt")
    assert read_checkpoint(save)[1]["images"] == 8
    train(recipe, out, None, NEVER)
    assert state_of(out) == wanted[0]


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 4096], ids=["empty", "short", "zeros"])
def test_a_save_with_other_content_is_passed_over(tmp_path, capsys, content):
    saves, x = Autosaves(tmp_path, 0), torch.arange(4.0)
    for images in (8, 16):
        saves.save(images, {"x": x + images}, {"images": images})
    saves.settle()
    saves.at(16).write_bytes(content)
    tensors, meta = saves.latest(0)
    assert meta["images"] == 8 and torch.equal(tensors["x"], x + 8)
    assert f"warning: {saves.at(16)}" in capsys.readouterr().out


def test_files_that_are_no_saves_of_ours_are_left_alone(tmp_path, capsys):
    saves = Autosaves(tmp_path, 0)
    for images in (8, 16, 24):
        saves.save(images, {"x": torch.ones(1)}, {"images": images})
    saves.settle()
    saves.at(24).rename(tmp_path / "autosave-000000000024 (copy).ckpt")
    saves.at(16).rename(saves.at(32))  # a file that says another image count than its name
    saves.save(8, {"x": torch.ones(1)}, {"images": 8})
    saves.settle()
    assert saves.latest(0)[1]["images"] == 8
    assert "autosave-000000000032.ckpt is a save at 16 images" in capsys.readouterr().out
    assert (tmp_path / "autosave-000000000024 (copy).ckpt").exists()


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_an_interval_that_is_none_is_refused(tmp_path, seconds):
    with pytest.raises(StudyError, match=r"--autosave-seconds .* is no time: write 0 .* or more"):
        Autosaves(tmp_path, seconds)


def test_the_end_is_written_even_if_a_save_before_it_was_not(tmp_path, capsys):
    saves = Autosaves(tmp_path / "progress", 0)
    (tmp_path / "progress").write_text("in the way of a folder")
    saves.save(8, {"x": torch.zeros(1)}, {"images": 8})
    saves.finish(tmp_path / "final.ckpt", {"x": torch.ones(1)}, {"images": 16})
    assert read_checkpoint(tmp_path / "final.ckpt")[1]["images"] == 16
    assert "warning: cannot save" in capsys.readouterr().out


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
