"""`mdm run`: Snakemake with one line of progress, a lock that a kill cannot leave behind, and a short ending."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mdm.config import StudyError, nearest
from mdm.study.cost.plan import training_gigaflops
from mdm.study.outside_files import check_files
from mdm.study.products import home, table_names
from mdm.study.run.run_lock import MARK, Stop, alone
from mdm.study.study import Study, group_members

FOLDER = Path(".snakemake")
LOG = FOLDER / "mdm-run.log"
# Rules that make the same files whatever is asked for: their names are targets as well.
RULES = ("all", "data", "report", "collect_metrics", "make_tables", "judge_claims", "write_report")


def run(study: Study, targets: list[str], cores: str) -> int:
    """Run targets of a study on this machine; the exit status is Snakemake's, or 1 if it made less than was asked."""
    started = time.monotonic()
    check_targets(study, targets)
    check_files(study)  # one clear message before anything starts
    command = snakemake_command(study, targets, cores)
    if said := missing_gpus(study):
        print(said, file=sys.stderr, flush=True)
    print(f"study {study.name}: planning (details in {LOG})", flush=True)
    _stop_politely()
    with alone(FOLDER) as turn, open(LOG, "wb") as log:
        output = os.dup(1)  # Snakemake's logger plugin writes there, all else goes to the log
        # A session of its own: Ctrl-C reaches Snakemake and its jobs once, from here, and the jobs save.
        command += ["--logger", "mdm", "--logger-mdm-descriptor", str(output)]
        streams = {"stdout": log, "stderr": subprocess.STDOUT, "pass_fds": [turn.descriptor, output]}
        child = subprocess.Popen(command, start_new_session=True, env=turn.environment, **streams)
        status, asked = _wait(child, turn.environment[MARK])
    return _conclude(status, asked, time.monotonic() - started, study, targets)


def check_targets(study: Study, targets: Sequence[str]) -> None:
    """Refuse words that name nothing to make; of files only Snakemake knows whether some rule makes them."""
    known = [*RULES, *study.ablations, *group_members(study)]
    unknown = [target for target in targets if "/" not in target and target not in known]
    said = [f"there is no target '{word}' in the study {study.name}; {nearest(word, known)}" for word in unknown]
    if said:
        raise StudyError("\n".join(said))


def missing_gpus(study: Study, devices: Path = Path("/dev")) -> str:
    """Warn where a study asks for GPUs and this machine shows none; a job says so in its log alone."""
    asking = {ref: study.resources(ref).gpus for ref in study.of_kind("train")}
    if not any(asking.values()) or any(devices.glob("nvidia[0-9]*")):
        return ""
    return (
        f"warning: {sum(map(bool, asking.values()))} trainings of {study.name} ask for GPUs, up to "
        f"{max(asking.values())} each, and this machine has none: they run on its processors, many times slower and "
        "with as many processes (`mdm plan` says what they cost; Ctrl-C stops, and what is finished is kept)"
    )


def _stop_politely() -> None:
    """Treat what ends a terminal or a session as a Ctrl-C, unless somebody (nohup) wants it ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    # In the background of a script Ctrl-C is not for us, but what we start would ignore it as well, also from us.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)


def snakemake_command(study: Study, targets: Sequence[str], cores: str) -> list[str]:
    """Return how Snakemake is started; the log says of each job what it is, whatever a profile leaves out."""
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", cores, "--nolock", "--quiet", "host"]
    command += ["--resources", "device=1"]  # here, whoever needs a GPU takes the first: one after the other
    command += ["--config", *study.call.snakemake]
    # --prioritize also builds targets that nobody asked for, so it is passed for `all` only.
    return [*command, "--prioritize", *go_first(study)] if list(targets) == ["all"] else command


def go_first(study: Study) -> list[str]:
    """The base run, whose chain is the longest and on which most results wait, and the longest single training."""
    base = [run.stages[-1].artifact for run in study.runs if run.name == study.runs[0].name]
    longest = max(study.of_kind("train"), key=lambda ref: training_gigaflops(study.recipe(ref)))
    return [f"results/{ref}/manifest.json" for ref in dict.fromkeys([*base, longest])]


def _wait(child: subprocess.Popen[bytes], mark: str) -> tuple[int, bool]:
    """Wait until Snakemake ends; return its exit status, and whether it was asked to stop."""
    stop = None
    while True:
        try:
            return child.wait(0.3 if stop else None), stop is not None
        except subprocess.TimeoutExpired:
            stop.tell()  # again and again: Snakemake may be just starting a job, and then waits for its end
        except KeyboardInterrupt:
            stop = Stop(mark)
            over = "\r\033[K" if sys.stdout.isatty() else ""  # over the line that says what runs
            print(f"{over}stopping: running jobs save their state", flush=True)


def pages(study: Study, targets: list[str]) -> list[str]:
    """Return the pages that targets make, as a person opens them."""
    if {"all", "report"} & set(targets):
        return ["reports/index.html"]
    groups = group_members(study)
    names = [name for target in targets for name in groups.get(target, [target])]
    return [f"reports/ablations/{name}.html" for name in names if name in study.ablations]


def products(study: Study, target: str) -> list[str]:
    """Return the files that a target stands for: those of a rule, the pages of ablations, or a file itself."""
    own, tables = home("results", study), table_names(study)
    rules = {
        "all": ["reports/index.html", *pages(study, list(study.ablations))],
        "data": [f"results/{ref}/manifest.json" for ref in study.of_kind("data", "text")],
        "collect_metrics": [f"{own}/metrics.csv"],
        "make_tables": [f"{own}/tables/{table}.{kind}" for table in tables for kind in ("csv", "md", "tex")],
        "judge_claims": [f"{own}/claims.json"],
        "write_report": [f"{home('reports', study)}/index.html"],
    }
    return rules.get(target) or pages(study, [target]) or [target]


def _conclude(status: int, asked: bool, seconds: float, study: Study, targets: list[str]) -> int:
    """Say how it ended, and "done" only if all that was asked for is on disk; returns the exit status."""
    took = f"{int(seconds) // 60} min {int(seconds) % 60} s"
    lost = [file for target in targets for file in products(study, target) if not Path(file).exists()]
    if status == 0 and lost:
        print(
            f"Snakemake ended after {took} without an error, but what was asked for is not there: {', '.join(lost)}. "
            f"Run the same command again; if that changes nothing, {LOG} says what Snakemake planned",
            file=sys.stderr,
        )
        return 1
    if status == 0:
        made = pages(study, targets)
        print(f"done in {took}" + (f": open {', '.join(made)}" if made else ""), flush=True)
        return 0
    if not asked:  # or every job that was stopped would look like one that failed
        text = LOG.read_text(errors="replace")
        start = text.find("Error in rule")
        print(text[start if start >= 0 else -3000 :][:6000], file=sys.stderr)
    print(f"stopped after {took}; what is finished is kept, the same command continues (log: {LOG})", file=sys.stderr)
    return status
