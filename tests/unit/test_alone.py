"""One run per folder: who lives is never disturbed, what a dead one left working is ended."""

import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mdm.config import StudyError
from mdm.files.lock import machine
from mdm.study.run.run_lock import MARK, Stop, alone

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(3600)"]
DEAF = [sys.executable, "-c", "import signal, sys; signal.signal(2, 1); print(flush=True); sys.stdin.read()"]
fork = multiprocessing.get_context("fork")


@pytest.fixture
def started():
    """Starts processes, and ends those that a test leaves."""
    found = []

    def start(mark, command=SLEEP, **settings):
        environment = {**os.environ, MARK: mark}
        found.append(subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, **settings))
        found[-1].stdout.readline()  # it is at work
        return found[-1]

    yield start
    for process in found:
        process.kill()
        process.communicate()


def hold(folder, pipe):
    with alone(folder) as turn:
        pipe.send(turn.environment[MARK])
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """A living run in the folder: its process and its mark."""
    here, there = fork.Pipe()
    process = fork.Process(target=hold, args=(tmp_path, there), daemon=True)
    process.start()
    yield process, here.recv()
    process.kill()
    process.join()


def note(folder, **changes):
    path = folder / "mdm-run.lock"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder):
    with pytest.raises(StudyError) as error, alone(folder):
        pass
    return str(error.value)


def test_a_living_run_is_named(tmp_path, holder):
    said = refused(tmp_path)
    assert f"process {holder[0].pid} on " in said and f"kill {holder[0].pid}" in said


def test_a_living_run_stays_alive_when_the_clock_is_set(tmp_path, holder, started, monkeypatch):
    """The time at which a process began is counted from the start of the machine, which moves with the clock."""
    worker = started(holder[1])
    before = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: before + 3600)
    assert "another `mdm run`" in refused(tmp_path)
    assert worker.poll() is None


def test_the_processes_of_a_container_are_not_ended_from_outside(tmp_path, holder, started):
    """There numbers of processes are others: what they say here means nothing."""
    worker = started(holder[1])
    note(tmp_path, process=2**22 + 1, machine="another")
    assert "another machine" in refused(tmp_path)
    assert worker.poll() is None


def test_what_a_killed_run_left_is_ended(tmp_path, holder, started):
    process, mark = holder
    worker = started(mark)
    process.kill()
    process.join()
    with alone(tmp_path) as turn:
        assert worker.wait() is not None
        assert turn.environment[MARK] != mark


def test_a_lock_that_a_dead_launcher_left_to_its_child_is_taken_over(tmp_path, started):
    with alone(tmp_path) as turn:
        child = started(turn.environment[MARK], pass_fds=[turn.descriptor])
    with open(tmp_path / "mdm-run.lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    note(tmp_path, process=2**22 + 1)  # the launcher is gone
    with alone(tmp_path):
        assert child.wait() is not None


def test_a_zombie_is_dead(tmp_path, started):
    """In a container nobody may ever look for the end of a launcher that was killed."""
    with alone(tmp_path) as turn:
        child = started(turn.environment[MARK], pass_fds=[turn.descriptor])
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    note(
        tmp_path, process=zombie.pid, began=Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[19]
    )
    with alone(tmp_path):
        assert child.wait() is not None
    zombie.wait()


UNREAPED = """
import os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, sys.argv[2]: sys.argv[3]})
print(worker.pid, flush=True)
sys.stdin.read()
"""


def state(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_worker_that_nobody_reaps_is_not_waited_for(tmp_path, holder):
    """The first process of a container often reaps nobody: what a killed run left ends, and stays a zombie."""
    process, mark = holder
    process.kill()
    process.join()
    command = [sys.executable, "-c", UNREAPED, SLEEP[-1], MARK, mark]
    parent = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    worker = int(parent.stdout.readline())
    parent.stdout.readline()  # the worker is at work
    with alone(tmp_path) as turn:
        assert turn.environment[MARK] != mark
        assert state(worker) == "Z"
    parent.communicate()


# Snakemake may be just starting a job when it is asked to stop, and then waits for the end of that job.
LATE = """
import subprocess, sys
try:
    print(flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(3600)"])
"""
# What hears it on its way to become another program forgets it.
BECOMING = """
import os, signal, sys
program = [sys.executable, "-c", "import time; time.sleep(3600)"]
signal.signal(signal.SIGINT, lambda *_: os.execv(program[0], program))
print(flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("program", [LATE, BECOMING], ids=["started late", "another program"])
def test_what_begins_while_a_run_is_stopped_is_stopped_as_well(tmp_path, holder, started, program):
    process, mark = holder
    worker = started(mark, [sys.executable, "-c", program])
    process.kill()
    process.join()
    with alone(tmp_path):
        assert Stop(mark).tell() == []
        assert worker.wait() is not None


def start_over(folder, pipe):
    try:
        with alone(folder):
            pipe.send("at work")
            pipe.recv()
    except StudyError as error:
        pipe.send(str(error))


def test_of_two_starts_after_a_kill_the_second_is_told_of_the_first(tmp_path, holder, started):
    process, mark = holder
    worker = started(mark, DEAF)
    process.kill()
    process.join()
    here, there = fork.Pipe()
    first = fork.Process(target=start_over, args=(tmp_path, there), daemon=True)
    first.start()
    while json.loads((tmp_path / "mdm-run.lock").read_text() or '{"process": 0}')["process"] != first.pid:
        assert first.is_alive()
    assert f"kill {first.pid}" in refused(tmp_path)  # it waits until what was left has ended
    worker.terminate()
    worker.wait()
    assert here.recv() == "at work"
    first.kill()
    first.join()


def test_a_start_that_is_stopped_while_it_ends_what_was_left_forgets_nothing(tmp_path, holder, started):
    process, mark = holder
    worker = started(mark, DEAF)
    process.kill()
    process.join()
    first = fork.Process(target=start_over, args=(tmp_path, fork.Pipe()[1]), daemon=True)
    first.start()
    while json.loads((tmp_path / "mdm-run.lock").read_text() or '{"process": 0}')["process"] != first.pid:
        assert first.is_alive()
    first.kill()
    first.join()
    assert json.loads((tmp_path / "mdm-run.lock").read_text())["mark"] == mark
    worker.terminate()
    worker.wait()
    with alone(tmp_path) as turn:
        assert turn.environment[MARK] != mark


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(tmp_path / "file")


def test_the_machine_is_noted(tmp_path):
    with alone(tmp_path):
        assert json.loads((tmp_path / "mdm-run.lock").read_text())["machine"] == machine()
