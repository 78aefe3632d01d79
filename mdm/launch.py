"""`mdm run`: Snakemake with one line of progress, a lock that a kill cannot leave behind, and a short ending."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mdm.config import StudyError
from mdm.external import check_files
from mdm.plan import training_gigaflops
from mdm.study import Study

FINISHED = re.compile(r"^Finished jobid: \d+ \(Rule: (\S+)\)|^(\d+) of (\d+) steps")
FOLDER = Path(".snakemake")
LOG = FOLDER / "mdm-run.log"
RECENT_SECONDS = 15  # a status file older than this belongs to a stage that is not running


@contextmanager
def only_one() -> Iterator[int]:
    """Snakemake's own lock survives kill -9 and then refuses to start; the kernel drops this one.

    Yields the descriptor: Snakemake holds it too, so an orphaned Snakemake still counts as a run.
    """
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / "mdm-run.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"another `mdm run` is working in {Path.cwd()}; wait for it or stop it") from None
        yield lock.fileno()


def run(study: Study, targets: list[str], cores: str) -> int:
    """Run targets of a study on this machine; the exit status is Snakemake's."""
    started = time.monotonic()
    check_files(study)  # one clear message before anything starts
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", cores, "--nolock"]
    command += ["--resources", "gpu=1"]  # here, whoever needs a GPU takes the first: one after the other
    command += ["--config", *study.call.snakemake, "--prioritize", *go_first(study)]
    print(f"study {study.name}: planning (details in {LOG})", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, like Ctrl-C
    with only_one() as lock, open(LOG, "wb") as log:
        # A session of its own: Ctrl-C reaches Snakemake and its jobs once, from here, and the jobs save.
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[lock]
        )  # fmt: skip
        status = _watch(child)
    _conclude(status, time.monotonic() - started)
    return status


def go_first(study: Study) -> list[str]:
    """The base run, whose chain is the longest and on which most results wait, and the longest single training."""
    base = [run.stages[-1].artifact for run in study.runs if run.name == study.runs[0].name]
    longest = max(study.of_kind("train"), key=lambda ref: training_gigaflops(study.recipe(ref)))
    return [f"results/{ref}/manifest.json" for ref in dict.fromkeys([*base, longest])]


def _watch(child: subprocess.Popen[bytes]) -> int:
    """Show finished rules, and on a terminal also what is training, until Snakemake ends."""
    screen = Screen(sys.stdout)
    with open(LOG, errors="replace") as log:
        while True:
            try:
                ended = child.poll()
                screen.show(log)
                if ended is not None:
                    return ended
                time.sleep(0.3)
            except KeyboardInterrupt:
                print("\nstopping: running jobs save their state; start again to continue", flush=True)
                os.killpg(child.pid, signal.SIGINT)


class Screen:
    """A line for every finished rule; below it, on a terminal, one line that is rewritten."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._live = out, out.isatty()
        self._rule = ""

    def show(self, log: IO[str]) -> None:
        for line in iter(log.readline, ""):
            found = FINISHED.match(line)
            if found and found[1]:
                self._rule = found[1]
            elif found:
                self._clear()
                print(f"[{found[2]:>3} of {found[3]}] {self._rule}", file=self._out, flush=True)
        if self._live:
            self._clear()
            width = shutil.get_terminal_size().columns - 1
            print(training_now(Path("results"))[:width], end="", file=self._out, flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\033[K", end="", file=self._out)


def training_now(results: Path) -> str:
    """What is training at this moment: image counts, speed and time left of every running stage."""
    parts = []
    for path in sorted(results.glob("train/*/progress/status.json")):
        if time.time() - path.stat().st_mtime < RECENT_SECONDS and not (path.parents[1] / "final.ckpt").exists():
            now = json.loads(path.read_text())
            left = int(now["eta_seconds"])
            parts.append(
                f"{path.parents[1].name.rpartition('-')[0]} {now['images']:,}/{now['num_images']:,} "
                f"{now['images_per_second']:.0f} images/s ETA {left // 60}:{left % 60:02d}"
            )
    return " | ".join(parts)


def _conclude(status: int, seconds: float) -> None:
    took = f"{int(seconds) // 60} min {int(seconds) % 60} s"
    if status == 0:
        print(f"done in {took}: open reports/index.html", flush=True)
        return
    text = LOG.read_text(errors="replace")
    start = text.find("Error in rule")
    print(text[start if start >= 0 else -3000 :][:6000], file=sys.stderr)
    print(f"stopped after {took}; what is finished is kept, the same command continues (log: {LOG})", file=sys.stderr)
