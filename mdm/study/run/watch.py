"""A running Snakemake in few words: a line for every finished job, and never half a minute without one."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mdm.config.units import clock
from mdm.study.cost.plan import Estimate
from mdm.study.run.status import told, told_now
from mdm.study.study import Study, group_members

BEAT_SECONDS = 25
# Done in an instant and of no interest: counted, but not told in a log.
UNTOLD = ("write_recipe", "publish", "all", "data", "report")
STARTED = re.compile(r"^(?:local)?(?:rule|checkpoint) (\S+):$")
DETAIL = re.compile(r"^ {4}(jobid|log|wildcards): (.*)$")
FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\S+)\)$")
COUNTED = re.compile(r"^(\d+) of (\d+) steps")
COUNTER = re.compile(r"(\d+/\d+ pictures)")


@dataclass
class Job:
    """A job as Snakemake announced it."""

    rule: str
    log: str = ""
    wildcards: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The artifact it makes."""
        return Path(self.log).parents[1] if self.log.count("/") > 1 else Path()

    def text(self, runs: dict[str, str]) -> str:
        """`train_slice r16 to 4,000 images (base)`."""
        words = [self.rule, *(self.wildcards[k] for k in ("name", "figure", "run", "ablation") if k in self.wildcards)]
        if "images" in self.wildcards:
            words.append(f"to {int(self.wildcards['images']):,} images")
        elif "shards" in self.wildcards:
            words.append(self.wildcards["shards"])
        users = runs.get(f"{self.folder.parent.name}/{self.folder.name}")
        return " ".join(words) + (f" ({users})" if users else "")


class Jobs:
    """Reads Snakemake's output: which jobs run, which have ended, how many there are."""

    def __init__(self) -> None:
        self.running: dict[str, Job] = {}
        self._new: Job | None = None
        self._ended: Job | None = None

    def feed(self, line: str) -> tuple[Job, int, int] | None:
        """Take one line; (job, finished, total) when it says that a job has ended."""
        line = line.rstrip("\n")
        if found := STARTED.match(line):
            self._new = Job(found[1])
        elif (found := DETAIL.match(line)) and self._new:
            self._detail(found[1], found[2])
        elif found := FINISHED.match(line):
            self._ended = self.running.pop(found[1], Job(found[2]))
        elif (found := COUNTED.match(line)) and self._ended:
            return self._ended, int(found[1]), int(found[2])
        return None

    def _detail(self, key: str, value: str) -> None:
        if key == "jobid":
            self.running[value] = self._new
        elif key == "log":
            self._new.log = value.split(", ")[0]
        else:
            self._new.wildcards = dict(part.split("=", 1) for part in value.split(", ") if "=" in part)


class Outlook:
    """Time left, from how far trainings and drawings are: the plan's estimates, scaled by the pace up to now."""

    def __init__(self, study: Study, targets: list[str], results: Path) -> None:
        self._study, self._results = study, results
        estimate = Estimate(study, results)
        self._costs = {ref: estimate.seconds(ref) for ref in _wanted(study, targets)}
        self._before = {ref: self._share(ref) for ref in self._costs}

    def _share(self, ref: str) -> float:
        """How much of a training or a drawing is done, 0..1."""
        if (self._results / ref / "manifest.json").is_file():
            return 1.0
        status = told(self._results / ref)
        return status["images"] / status["num_images"] if status else 0.0

    def left(self, elapsed: float) -> float | None:
        """Seconds left; None while too little is done to tell, and when only small things are left."""
        todo = sum(cost * (1 - self._before[ref]) for ref, cost in self._costs.items())
        made = sum(cost * (self._share(ref) - self._before[ref]) for ref, cost in self._costs.items())
        if made <= 0.02 * todo or made >= todo:
            return None
        return elapsed * (todo - made) / made


def _wanted(study: Study, targets: list[str]) -> list[str]:
    """Trainings and drawings that targets need, whether done or not."""
    groups = group_members(study)
    members = [name for target in targets for name in groups.get(target, [target])]
    ablations = [study.ablations[name] for name in members if name in study.ablations]
    runs = {name for ablation in ablations for name in (ablation.against, *ablation.runs)}
    everything = bool({"all", "report"} & set(targets))
    chosen = [run for run in study.runs if everything or run.name in runs]
    refs = [[*(s.artifact for s in run.stages), *(e.samples for e in run.evaluations)] for run in chosen]
    return list(dict.fromkeys(ref for part in refs for ref in part))


def users(study: Study) -> dict[str, str]:
    """Artifact -> the runs it belongs to, shortened."""
    found: dict[str, list[str]] = {}
    for run in study.runs:
        refs = [s.artifact for s in run.stages]
        refs += [ref for e in run.evaluations for ref in (e.samples, e.features, e.scores)]
        for ref in refs:
            if run.name not in found.setdefault(ref, []):
                found[ref].append(run.name)
    rests = {ref: f" and {len(names) - 2} more" if len(names) > 2 else "" for ref, names in found.items()}
    return {ref: ", ".join(names[:2]) + rests[ref] for ref, names in found.items()}


class Screen:
    """What people see: on a terminal every job and a line that is rewritten, in a log fewer lines with the time."""

    def __init__(self, out: IO[str], runs: dict[str, str], outlook: Outlook) -> None:
        self._out, self._live = out, out.isatty()
        self._jobs, self._runs, self._outlook = Jobs(), runs, outlook
        self._start = self._told = time.monotonic()
        self._count, self._finished = "", False

    def show(self, log: IO[str]) -> None:
        """Tell what the log has new."""
        for line in iter(log.readline, ""):
            if ended := self._jobs.feed(line):
                self._tell(*ended)
        if self._live:
            self._clear()
            width = shutil.get_terminal_size().columns - 1
            print(" | ".join(self._trainings())[:width], end="", file=self._out, flush=True)
        elif time.monotonic() - self._told >= BEAT_SECONDS:
            self._line(f"{self._count} running: {' | '.join(self._running()) or self._between()}")

    def say(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        print(text, file=self._out, flush=True)

    def _tell(self, job: Job, finished: int, total: int) -> None:
        self._count, self._finished = f"[{finished:>3} of {total}]", finished == total
        if self._live:
            self.say(f"{self._count} {job.rule}")
        elif job.rule not in UNTOLD:
            self._line(f"{self._count} {job.text(self._runs)}")

    def _line(self, text: str) -> None:
        """One line of a log: time since the start, what happened, time left."""
        elapsed = time.monotonic() - self._start
        left = self._outlook.left(elapsed)
        ending = f", about {clock(left)} left" if left is not None else ""
        print(f"{clock(elapsed):>7} {text.strip()}{ending}", file=self._out, flush=True)
        self._told = time.monotonic()

    def _between(self) -> str:
        """What Snakemake does while no job runs."""
        return "Snakemake writes its own report" if self._finished else "Snakemake plans"

    def _running(self) -> Iterator[str]:
        trainings = list(self._trainings())
        yield from trainings
        for job in self._jobs.running.values():
            if job.rule not in UNTOLD and not _status_of(job):
                yield job.text(self._runs) + _counter(Path(job.log))

    def _trainings(self) -> Iterator[str]:
        """Image counts, speed and time left of every stage that is being trained."""
        for job in list(self._jobs.running.values()):
            if now := _status_of(job):
                pace = (
                    f"{now['images_per_second']:.0f} images/s ETA {clock(now['eta_seconds'])}"
                    if "images_per_second" in now else "starting"
                )  # fmt: skip
                yield f"{job.wildcards.get('name', '')} {now['images']:,}/{now['num_images']:,} {pace}"

    def _clear(self) -> None:
        if self._live:
            print("\r\033[K", end="", file=self._out)


def _status_of(job: Job) -> dict[str, Any]:
    """Where a training job is, once it has told; nothing of an attempt that has ended."""
    return told_now(job.folder) if job.rule in ("train_slice", "train_last_slice") else {}


def _counter(log: Path) -> str:
    """` 64/96 pictures` from the last line of a job's log."""
    try:
        found = COUNTER.findall(log.read_text(errors="replace")[-2000:])
    except OSError:  # a job that has not begun to write
        return ""
    return f" {found[-1]}" if found else ""
