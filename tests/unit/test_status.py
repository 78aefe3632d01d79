"""`mdm status`: what it says while a training runs, after kill -9, and from another machine."""

import os
import subprocess
import sys
import time

import pytest

from mdm import cli
from mdm.files.atomic import ArtifactError, write_json
from mdm.study import stage_files, study
from mdm.study.run import status
from mdm.study.run.view import Job
from mdm.train.journal import FILE, FINISHED, Journal

QUICK = study.load("quick")
RECIPE = QUICK.recipe(QUICK.of_kind("train")[0]).model_copy(update={"num_images": 100}).plain()
TRAINER = """
import sys, time
from pathlib import Path
import torch
from mdm.train.attempts import Attempts
from mdm.train.checkpoint import only_trainer
from mdm.train.progress import Progress
out = Path(sys.argv[1])
attempts = Attempts(out.parent / "progress")
with only_trainer(out.parent / "progress"), attempts.errors(1):
    attempts.begin(0, 100)
    progress = Progress(out.parent / "progress", (64,), 100, 10, torch.device("cpu"))
    progress.restore({}, int(sys.argv[4]))
    time.sleep(0.1)
    if sys.argv[3] == "starting":
        print("no images/s yet", flush=True)
    else:
        progress.add(10, 10, torch.tensor(0.5), torch.tensor([0.5]))
        progress.tick(10, 0.0, 1.0, None)
    time.sleep(float(sys.argv[2]))
    if sys.argv[3] == "failed":
        raise ValueError("loss is NaN")
    attempts.stop(15, 10)
"""


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "train" / "r64-0123456789ab"
    write_json(folder / "recipe.json", RECIPE)
    return folder


def trainer(folder, seconds, end="stopped", at=0):
    """A process that trains nothing but says so as a training does; it has told of its first tick."""
    command = [sys.executable, "-c", TRAINER, folder / "final.ckpt", str(seconds), end, str(at)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "images/s" in child.stdout.readline(), child.stderr.read()
    return child


def told(folder):
    (found,) = status.of_folder(folder.parents[1], {})
    return found


def test_a_running_stage_and_then_kill_9(stage):
    assert told(stage).state == "waiting"
    child = trainer(stage, 600)
    try:
        now = told(stage)
        assert (now.state, now.images, now.loss, now.note) == ("running", 10, 0.5, "until 100")
        assert now.left_seconds == pytest.approx(90 / now.images_per_second - now.silent_seconds)
        assert told(stage).state == "running"  # looking takes no lock from the trainer
    finally:
        child.kill()
        child.communicate()
    assert (told(stage).images, told(stage).note) == (0, "killed before its first save; starts anew")
    (stage / "progress" / "autosave-000000000008.ckpt").write_bytes(b"")
    now = told(stage)
    assert (now.state, now.images, now.note) == ("stopped", 8, "killed; goes on from its save")
    assert now.left_seconds == pytest.approx(92 / now.images_per_second)


def test_a_new_attempt_does_not_boast_of_the_speed_of_the_dead_one(stage):
    """Neither in `mdm status` nor in the lines of `mdm run`."""
    job = Job("train_slice", f"{stage}/logs/slice-100.log", {"name": "r64"})
    child = trainer(stage, 600)
    assert "images/s ETA" in job.progress({})
    child.kill(), child.communicate()
    assert job.progress({}) == "train_slice r64"
    (stage / "progress" / "autosave-000000000008.ckpt").write_bytes(b"")
    child = trainer(stage, 600, "starting", at=8)
    try:
        now = told(stage)
        assert (now.state, now.images, now.images_per_second, now.left_seconds) == ("running", 8, None, None)
        assert "starting (until 100)" in status.table([now], time.time())
        assert job.progress({}) == "r64 8/100 starting"
    finally:
        child.kill(), child.communicate()


def test_stages_of_several_studies_are_told_apart(tmp_path, capsys):
    refs = {name: study.load(name).runs[0].stages[0].artifact for name in ("quick", "laptop")}
    for ref in (*refs.values(), "train/r64-0123456789ab"):
        write_json(tmp_path / ref / "recipe.json", RECIPE)
    assert cli.main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name, ref in refs.items():
        assert f"{ref.removeprefix('train/')} ({name}: base" in out
    assert "r64-0123456789ab (of no study as it stands)" in out


def test_a_broken_study_hides_no_training(stage, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.yaml").write_text("title: [")
    monkeypatch.setattr(status, "STUDIES", tmp_path)
    monkeypatch.setattr("mdm.study.study_file.STUDIES", tmp_path)
    assert cli.main(["status", str(tmp_path)]) == 0
    seen = capsys.readouterr()
    assert "r64-0123456789ab" in seen.out and "warning: stages of the study broken" in seen.err


def test_of_several_processes_the_error_of_the_one_that_failed_is_told(stage):
    journal = Journal(stage / "progress")
    journal.begin(0, 100, processes=2)
    journal.error(ValueError("loss is NaN"), comes_again=True)
    journal.error(RuntimeError("Connection closed by peer"), comes_again=False)
    assert (told(stage).state, told(stage).note) == ("failed", "ValueError: loss is NaN")


@pytest.mark.parametrize(
    ("end", "state", "note"),
    [("stopped", "stopped", "stopped by signal 15"), ("failed", "failed", "ValueError: loss is NaN")],
)
def test_how_an_attempt_ended(stage, end, state, note):
    trainer(stage, 0, end).communicate()
    assert (told(stage).state, told(stage).note) == (state, note)


def test_a_slice_that_is_done_waits_for_the_next(stage):
    Journal(stage / "progress").end(50, FINISHED)
    (stage / "slice-50.ckpt").write_bytes(b"")
    assert (told(stage).state, told(stage).images, told(stage).note) == ("waiting", 50, "between two slices")
    (stage / "final.ckpt").write_bytes(b"")
    assert (told(stage).images, told(stage).note) == (100, "weights not exported yet")
    write_json(stage / "manifest.json", {"seconds": 75.0})
    assert (told(stage).state, told(stage).note) == ("finished", "took 75 s")


def test_another_machine_is_believed_while_it_tells(stage):
    progress = stage / "progress"
    Journal(progress).write({"begin": 0, "until": 100, "machine": "another", "processes": 1, "pid": 1})
    assert (progress / FILE).is_file()
    write_json(progress / "status.json", {"images": 10, "images_per_second": 2.0, "loss": 0.5})
    assert told(stage).state == "running"
    for path in progress.iterdir():
        os.utime(path, (0, time.time() - stage_files.SILENT_SECONDS - 1))
    assert told(stage).state == "stopped"


def test_a_study_lists_its_stages_with_slices_and_runs(tmp_path, capsys):
    loaded = study.load("quick")
    first, second = (stage.artifact for stage in loaded.runs[0].stages[:2])
    Journal(tmp_path / first / "progress").end(256, FINISHED)
    (tmp_path / first / "slice-256.ckpt").write_bytes(b"")
    found = {s.ref: s for s in status.of_study(loaded, tmp_path)}
    assert list(found) == loaded.of_kind("train")
    assert (found[first].slices, found[first].runs, found[first].images) == ("1/2", "base +2", 256)
    assert (found[second].slices, found[second].state) == ("0/1", "waiting")
    assert cli.main(["status", str(tmp_path), "--study", "quick"]) == 0
    out = capsys.readouterr().out
    assert "256/512    50%     1/2" in out and "4 stages: 4 waiting" in out


def test_a_folder_without_training_says_what_to_write(tmp_path, capsys):
    with pytest.raises(ArtifactError, match="mdm status results"):
        list(status.of_folder(tmp_path, {}))
    assert cli.main(["status", str(tmp_path / "nothing")]) == 2


def test_the_end_is_a_time_of_day_or_a_date():
    running = status.StageStatus("train/x", "", "running", 1, 2, "", 1.0, 0.5, 3.0, 7200.0, "final")
    now = time.mktime((2026, 1, 5, 10, 0, 0, 0, 0, 0))
    assert "in 2 h, at 12:00 (final)" in status.table([running], now)
    days = status.StageStatus("train/x", "", "running", 1, 2, "", 1.0, 0.5, 3.0, 2 * 86400.0, "final")
    assert "in 2 d, at Wed 07 Jan 10:00" in status.table([days], now)


def test_names_are_whole_in_a_log_and_broken_on_a_terminal_that_is_too_narrow():
    name = "r64-0123456789ab"
    stage = status.StageStatus(
        f"train/{name}", "quick: " + "a-long-name " * 20, "waiting", 1, 2, "", None, None, None, None
    )
    whole, broken = (status.table([stage], 0.0, *columns).splitlines() for columns in ([], [120]))
    assert len(whole) == 4 and "a-long-name " * 20 in whole[1] + " "
    assert len(broken) > 4 and max(map(len, broken)) <= 120 and broken[1].startswith(name)
    assert " ".join(line[:80].split("waiting")[0] for line in broken[1:-2]).count("a-long-name") == 20


def test_status_is_quick_because_it_needs_no_torch(tmp_path):
    write_json(tmp_path / "train" / "r64-0123456789ab" / "recipe.json", RECIPE)
    code = f"import sys; from mdm import cli; cli.main(['status', {str(tmp_path)!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
