"""What `mdm run` starts can be stopped, however it was started itself."""

import os
import subprocess
import sys
import uuid

import pytest
from repository import HANG_SECONDS

from mdm import cli
from mdm.study import study
from mdm.study.run import launch
from mdm.study.run.run_lock import MARK
from mdm.study.study_file import ROOT

PROGRAM = """
import signal, subprocess, sys
from mdm.study.run.launch import _stop_politely
if sys.argv[1] == "ignored":  # as a shell does for what it starts in the background of a script
    signal.signal(signal.SIGINT, signal.SIG_IGN)
_stop_politely()
signal.raise_signal(signal.SIGINT)
print("works on", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(3600)"], stdout=-1)
child.stdout.readline()
child.send_signal(signal.SIGINT)
sys.exit(child.wait() != -signal.SIGINT)
"""


@pytest.mark.parametrize("interrupt", ["ignored", "heard"])
def test_jobs_hear_an_interrupt_that_the_launcher_has_to_ignore(interrupt):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, interrupt], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    if interrupt == "heard":
        assert "KeyboardInterrupt" in done.stderr and not done.stdout
    else:
        assert done.stdout == "works on\n" and done.returncode == 0, done.stderr


# Snakemake that starts a job just when it is asked to stop, and waits for the end of that job.
LATE = """
import subprocess, sys
try:
    print(flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    sys.exit(subprocess.run([sys.executable, "-c", "import time; time.sleep(3600)"]).returncode == 0)
"""


def test_a_job_that_starts_while_the_run_is_stopped_hears_of_it(monkeypatch, capsys):
    environment = {**os.environ, MARK: uuid.uuid4().hex}
    child = subprocess.Popen([sys.executable, "-c", LATE], stdin=-1, stdout=-1, env=environment)
    child.stdout.readline()
    waited, wait = [], child.wait

    def interrupted(timeout=None):  # somebody presses Ctrl-C once
        waited.append(timeout)
        if len(waited) == 1:
            raise KeyboardInterrupt
        return wait(timeout)

    monkeypatch.setattr(child, "wait", interrupted)
    assert launch._wait(child, environment[MARK]) == (0, True)
    assert capsys.readouterr().out == "stopping: running jobs save their state\n"
    monkeypatch.undo()
    child.communicate()


def test_a_mistyped_target_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "no-progresive", "guidance", "al", "--study", "quick"]) == 2
    said = capsys.readouterr().err
    assert "there is no target 'no-progresive' in the study quick; did you mean 'no-progressive'?" in said
    assert "there is no target 'al' in the study quick; did you mean 'all'?" in said and "'guidance' in" not in said
    assert not list(tmp_path.iterdir())


def test_every_target_that_snakemake_knows_is_one_and_files_are_left_to_it():
    command = [sys.executable, "-m", "snakemake", "--list-target-rules", "--config", "study=quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG_SECONDS, check=True)
    quick, known = study.load("quick"), set(done.stdout.split())
    assert known == {*launch.RULES, *quick.ablations, *study.group_members(quick)}
    launch.check_targets(quick, [*known, "results/studies/quick/metrics.csv"])


@pytest.mark.parametrize("target", ["all", "data", "report", "judge_claims", "guidance", "training", "results/b.json"])
def test_done_is_said_only_when_all_that_was_asked_for_is_there(tmp_path, monkeypatch, capsys, target):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "_stop_politely", lambda: None)  # the handlers of signals here are pytest's
    monkeypatch.setattr(launch, "snakemake_command", lambda *_: [sys.executable, "-c", ""])  # ends well, makes nothing
    *others, last = launch.products(study.load("quick"), target)
    for file in others:
        _write(tmp_path / file)
    assert cli.main(["run", target, "--study", "quick"]) == 1
    said = capsys.readouterr()
    assert f"what was asked for is not there: {last}. Run the same command again" in said.err and "done" not in said.out
    _write(tmp_path / last)
    assert cli.main(["run", target, "--study", "quick"]) == 0
    assert "done in 0 min" in capsys.readouterr().out


def _write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_study_for_gpus_is_started_without_any_only_with_a_word(tmp_path):
    wanted = study.load("memorization", {"seeds": [0], "ablations": {}, "emm": {}, "claims": {}})
    assert "1 trainings of memorization ask for GPUs, up to 8 each, and this machine has none" in launch.missing_gpus(
        wanted, tmp_path
    )
    assert launch.missing_gpus(study.load("quick"), tmp_path) == ""
    (tmp_path / "nvidia0").touch()
    assert launch.missing_gpus(wanted, tmp_path) == ""
