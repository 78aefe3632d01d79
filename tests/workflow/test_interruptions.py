"""A study that is killed, politely or not, continues and ends with the weights of one that was left alone."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import HANG_SECONDS

from mdm.files.weights import load_weights, state_hash

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "mdm", "run", "--study", "quick"]


def start(folder):
    """Begin a run that hears every signal, also where nohup or a script in the background started the tests."""
    return subprocess.Popen(
        COMMAND, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)],
    )  # fmt: skip


def finish(folder):
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(process, found):
    """Until something true is found, as long as the run goes on."""
    deadline = time.monotonic() + HANG_SECONDS
    while not found():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def training(folder):
    """Whether the first stage has begun to train: whoever is asked to stop before has nothing to save."""
    return list(folder.glob("results/train/r8-*/progress/attempts.jsonl"))


def children(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from children(int(child))


def kill_all(process):
    """kill -9 of the launcher and of everything it started."""
    family = [*children(process.pid), process.pid]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def untrained(finished, tmp_path):
    """The finished study with data and instruments, but without training and what follows."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder, symlinks=True)
    for kind in ("train", "samples", "scores"):
        shutil.rmtree(folder / "results" / kind)
    return folder


def weights(folder):
    return {p.parent.name: state_hash(load_weights(p)) for p in folder.glob("results/train/*/weights.safetensors")}


STOPS = {
    "all killed": kill_all,
    "launcher killed": subprocess.Popen.kill,  # Snakemake and its jobs work on, until the next start ends them
    "Ctrl-C": lambda process: process.send_signal(signal.SIGINT),
}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS.keys())
def test_a_stopped_study_continues_to_the_same_weights(untrained, finished, stop):
    process = start(untrained)
    wait_for(process, lambda: training(untrained))
    stop(process)
    said, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode != 0
    assert "Error in rule" not in (said or "")  # it did not fail: somebody wanted it to stop
    assert not list(untrained.glob("results/samples/*/images.npz"))
    kept = {p: p.stat().st_mtime_ns for p in untrained.glob("results/data/*/manifest.json")}
    finish(untrained)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # nothing finished was made again
    assert weights(untrained) == weights(finished)


def test_a_closed_terminal_stops_it_like_ctrl_c(untrained):
    process = start(untrained)
    wait_for(process, lambda: training(untrained))
    process.send_signal(signal.SIGHUP)
    said, _ = process.communicate(timeout=HANG_SECONDS)
    assert "running jobs save" in said and "the same command continues" in said and "Error in rule" not in said
    assert list(untrained.glob("results/train/r8-*/progress/*.ckpt"))


def test_two_runs_in_one_folder_do_not_mix(untrained):
    first = start(untrained)
    lock = untrained / ".snakemake" / "mdm-run.lock"
    wait_for(first, lambda: lock.exists() and f'"process": {first.pid},' in lock.read_text())
    second = subprocess.run(COMMAND, cwd=untrained, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    kill_all(first)
    assert second.returncode == 2 and f"another `mdm run` (process {first.pid} on " in second.stderr
