"""One `mdm run` per folder: a lock that no kill leaves behind, and an end for all that a run has started."""

import json
import os
import platform
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from mdm.config import StudyError
from mdm.files.lock import began, machine, take

MARK = "MDM_RUN"  # in the environment of all that a run starts: the numbers of processes are used again, this is not
PATIENCE_MINUTES = 15  # for trainings that save before they end, on a machine that may be busy with something else
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Turn:
    """The right to work in this folder, as its holder's children get it."""

    descriptor: int  # whoever holds it counts as the run, also when its launcher was killed
    environment: dict[str, str]


class Stop:
    """Interrupts every process that bears a run's mark, as Ctrl-C would: trainings save."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._told: dict[psutil.Process, list[str]] = {}  # and what program each was then

    def tell(self) -> list[int]:
        """Tell every process once, also those that came since the last call; the numbers of all that still work."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or is another user's
                marked, program = process.environ().get(MARK) == self._mark, process.cmdline()
                # What a process hears while it becomes another program (exec) is lost: that one is told again.
                if marked and self._told.get(process) != program:
                    process.send_signal(signal.SIGINT)
                    self._told[process] = program
        return [process.pid for process in self._told if _works(process)]


def _works(process: psutil.Process) -> bool:
    """Return whether a process has not ended: a zombie has, and stays one where nobody asks for its end."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def alone(folder: Path) -> Iterator[Turn]:
    """Refuse to work beside another run, but end what a dead one left. Snakemake's own lock would survive kill -9."""
    with _opened(folder) as lock:
        taken, before = take(lock), _holder(lock)  # not taken: held by others, or the file system knows no locks
        others = taken is False
        if (not taken and _lives(before)) or (others and before["machine"] != machine()):
            raise StudyError(_busy(before))
        if not others:  # whoever starts now is told of us, and what was left can be found again if we are killed too
            _write(lock, before["mark"])
        _end(lock, before["mark"], others)
        mark = uuid.uuid4().hex
        _write(lock, mark)
        yield Turn(lock.fileno(), {**os.environ, MARK: mark})


def _opened(folder: Path) -> IO[str]:
    try:
        folder.mkdir(exist_ok=True)
        return open(folder / "mdm-run.lock", "a+")
    except OSError as error:
        raise StudyError(f"{folder.absolute()} cannot be written: {error.strerror}; run in a folder of yours") from None


def _holder(lock: IO[str]) -> dict[str, Any]:
    """Return who wrote into the lock last; nobody if it is new."""
    lock.seek(0)
    with suppress(json.JSONDecodeError):
        return json.loads(lock.read())
    return {"process": 0, "began": "", "host": "?", "machine": None, "mark": ""}


def _write(lock: IO[str], mark: str) -> None:
    me = os.getpid()
    lock.truncate(0)
    facts = {"process": me, "began": began(me), "host": platform.node(), "machine": machine(), "mark": mark}
    json.dump(facts, lock)
    lock.flush()


def _lives(holder: dict[str, Any]) -> bool:
    """Return whether the holder is a process of this machine, and still the one that wrote."""
    return holder["machine"] == machine() and "" != holder["began"] == began(holder["process"])


def _busy(holder: dict[str, Any]) -> str:
    if _lives(holder):
        advice = f"wait for it, or stop it: kill {holder['process']}"
    else:
        advice = "which is another machine or container, or another user's: stop it there"
    return f"another `mdm run` (process {holder['process']} on {holder['host']}) is working in {Path.cwd()}; {advice}"


def _end(lock: IO[str], mark: str, others: bool) -> None:
    """Stop what a killed run left working, and return when it has ended; if `others` held the lock, it is ours then."""
    stop, end, said = Stop(mark), time.monotonic() + 60 * PATIENCE_MINUTES, ""
    while (working := stop.tell()) or (others and not take(lock)):
        if others and _lives(faster := _holder(lock)):
            raise StudyError(_busy(faster))
        if working and not said:
            said = f"a run that was killed left {len(working)} processes working here: stopping them, they save"
            print(said, flush=True)
        if time.monotonic() > end:
            numbers = " ".join(map(str, working)) or f"$(fuser {lock.name})"
            raise StudyError(f"they did not stop within {PATIENCE_MINUTES} min; end them yourself: kill -9 {numbers}")
        time.sleep(LOOK_SECONDS)
