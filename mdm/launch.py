"""`mdm run`: Snakemake with one line of progress, a lock that a kill cannot leave behind, and a short ending."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mdm.config import StudyError
from mdm.external import check_files
from mdm.plan import training_gigaflops
from mdm.study import Study, group_members
from mdm.watch import Outlook, Screen, users

FOLDER = Path(".snakemake")
LOG = FOLDER / "mdm-run.log"


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
    command = snakemake_command(study, targets, cores)
    print(f"study {study.name}: planning (details in {LOG})", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, like Ctrl-C
    with only_one() as lock, open(LOG, "wb") as log:
        # A session of its own: Ctrl-C reaches Snakemake and its jobs once, from here, and the jobs save.
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[lock]
        )  # fmt: skip
        status = _watch(child, Screen(sys.stdout, users(study), Outlook(study, targets, Path("results"))))
    _conclude(status, time.monotonic() - started, pages(study, targets))
    return status


def snakemake_command(study: Study, targets: Sequence[str], cores: str) -> list[str]:
    """How Snakemake is started; its progress is read from what it says of each job, whatever a profile leaves out."""
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", cores, "--nolock", "--quiet", "host"]
    command += ["--resources", "gpu=1"]  # here, whoever needs a GPU takes the first: one after the other
    command += ["--config", *study.call.snakemake]
    # Snakemake makes what is to go first, wanted or not: only where everything is wanted.
    return [*command, "--prioritize", *go_first(study)] if list(targets) == ["all"] else command


def go_first(study: Study) -> list[str]:
    """The base run, whose chain is the longest and on which most results wait, and the longest single training."""
    base = [run.stages[-1].artifact for run in study.runs if run.name == study.runs[0].name]
    longest = max(study.of_kind("train"), key=lambda ref: training_gigaflops(study.recipe(ref)))
    return [f"results/{ref}/manifest.json" for ref in dict.fromkeys([*base, longest])]


def _watch(child: subprocess.Popen[bytes], screen: Screen) -> int:
    """Show what happens until Snakemake ends; its exit status."""
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


def pages(study: Study, targets: list[str]) -> list[str]:
    """The pages that targets make, as a person opens them."""
    if {"all", "report"} & set(targets):
        return ["reports/index.html"]
    groups = group_members(study)
    names = [name for target in targets for name in groups.get(target, [target])]
    return [f"reports/ablations/{name}.html" for name in names if name in study.ablations]


def _conclude(status: int, seconds: float, made: list[str]) -> None:
    took = f"{int(seconds) // 60} min {int(seconds) % 60} s"
    if status == 0:
        print(f"done in {took}" + (f": open {', '.join(made)}" if made else ""), flush=True)
        return
    text = LOG.read_text(errors="replace")
    start = text.find("Error in rule")
    print(text[start if start >= 0 else -3000 :][:6000], file=sys.stderr)
    print(f"stopped after {took}; what is finished is kept, the same command continues (log: {LOG})", file=sys.stderr)
