"""One `mdm run` per folder: a lock that no kill leaves behind, and an end for what a killed run left working."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from mdm.config import StudyError
from mdm.train.journal import machine

MARK = "MDM_RUN"  # in the environment of all that a run starts: the numbers of processes are used again, this is not
SAVING_SECONDS = 60.0  # what a training that is asked to stop may take for its save


@dataclass(frozen=True)
class Turn:
    """The right to work in this folder, as its holder's children get it."""

    descriptor: int  # whoever holds it counts as the run, also when its launcher was killed
    environment: dict[str, str]


@contextmanager
def alone(folder: Path) -> Iterator[Turn]:
    """Refuse to work beside another run, but end what a dead one left working.

    Snakemake's own lock survives kill -9 and then refuses to start; the kernel drops this one.
    """
    with _opened(folder) as lock:
        free, before = _taken(lock), _holder(lock)
        if not free and (before["machine"] != machine() or _lives(before)):
            raise StudyError(_busy(before))
        if free:  # whoever starts now is told of us, and what was left can be found again if we are killed as well
            _write(lock, before["mark"])
        _end(_leftovers(before["mark"]))
        if not (free or _taken(lock)):
            raise StudyError(_busy(_holder(lock)))
        mark = uuid.uuid4().hex
        _write(lock, mark)
        yield Turn(lock.fileno(), {**os.environ, MARK: mark})


def _opened(folder: Path) -> IO[str]:
    try:
        folder.mkdir(exist_ok=True)
        return open(folder / "mdm-run.lock", "a+")
    except OSError as error:
        raise StudyError(f"{folder.absolute()} cannot be written: {error.strerror}; run in a folder of yours") from None


def _taken(lock: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _holder(lock: IO[str]) -> dict[str, Any]:
    """Who wrote into the lock last; nobody if it is new."""
    lock.seek(0)
    with suppress(json.JSONDecodeError):
        return json.loads(lock.read())
    return {"process": 0, "began": "", "host": "?", "machine": None, "mark": ""}


def _write(lock: IO[str], mark: str) -> None:
    me = os.getpid()
    lock.truncate(0)
    facts = {"process": me, "began": _began(me), "host": platform.node(), "machine": machine(), "mark": mark}
    json.dump(facts, lock)
    lock.flush()


def _lives(holder: dict[str, Any]) -> bool:
    """Whether the holder, a process of this machine, is still the one that wrote."""
    return bool(holder["began"]) and _began(holder["process"]) == holder["began"]


def _began(process: int) -> str:
    """Ticks from the start of this machine to that of a process, which no setting of its clock changes; "" if gone."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if facts[0] in "ZX" else facts[19]  # a zombie is dead; whoever started it has not looked yet


def _busy(holder: dict[str, Any]) -> str:
    if holder["machine"] == machine() and _lives(holder):
        advice = f"wait for it, or stop it: kill {holder['process']}"
    else:
        advice = "which is another machine or container, or another user's: stop it there"
    return f"another `mdm run` (process {holder['process']} on {holder['host']}) is working in {Path.cwd()}; {advice}"


def _leftovers(mark: str) -> list[psutil.Process]:
    """What a launcher that was killed had started, and what that had started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone, or of another user
            if mark and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _end(processes: list[psutil.Process]) -> None:
    """Ask them to stop, as Ctrl-C would: trainings save."""
    if not processes:
        return
    print(f"a run that was killed left {len(processes)} processes working here: stopping them, they save", flush=True)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(processes, SAVING_SECONDS)
    if alive:
        numbers = " ".join(str(process.pid) for process in alive)
        raise StudyError(f"they did not stop within {SAVING_SECONDS:.0f} s; end them yourself: kill -9 {numbers}")
