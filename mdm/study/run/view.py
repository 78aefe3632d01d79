"""What people see of a running Snakemake: a line for every finished job, and never half a minute without one."""

import io
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

from mdm.config.units import clock
from mdm.study.cost.plan import Estimate
from mdm.study.drawing_jobs import drawn_images
from mdm.study.stage_files import done_share, live_status
from mdm.study.study import Study, runs_of

BEAT_SECONDS = 25
JOBS_SHOWN = 8  # of those that run; a cluster runs hundreds
# These are done in an instant and of no interest: they are counted, but get no line.
UNTOLD = ("write_recipe", "publish", "all", "data", "report")
COUNTER = re.compile(r"(\d+/\d+ pictures)")


@dataclass(frozen=True)
class Job:
    """A job as Snakemake announced it."""

    rule: str
    log: str
    wildcards: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return Path(self.log).parents[1] if self.log.count("/") > 1 else Path()

    def text(self, runs: Mapping[str, str]) -> str:
        """Name the job: `train_slice r16 to 4,000 images (base)`."""
        words = [self.rule, *(self.wildcards[k] for k in ("name", "figure", "run", "ablation") if k in self.wildcards)]
        if "images" in self.wildcards:
            words.append(f"to {int(self.wildcards['images']):,} images")
        else:
            words += [self.wildcards[key] for key in ("shards", "part") if key in self.wildcards]
        users = runs.get(f"{self.folder.parent.name}/{self.folder.name}")
        return " ".join(words) + (f" ({users})" if users else "")

    def progress(self, runs: Mapping[str, str]) -> str:
        """Say how far it is: `r16 1,024/4,000 120 images/s ETA 0:25`, or its name and `64/96 pictures`."""
        if now := live_status(self.folder):
            pace = (
                f"{now['images_per_second']:.0f} images/s ETA {clock(now['eta_seconds'])}"
                if "images_per_second" in now else "starting"
            )  # fmt: skip
            return f"{self.wildcards.get('name', '')} {now['images']:,}/{now['num_images']:,} {pace}"
        counts = []
        with suppress(OSError):  # a job that has not begun to write
            counts = COUNTER.findall(Path(self.log).read_text(errors="replace")[-2000:])
        return " ".join([self.text(runs), *counts[-1:]])


class Outlook:
    """Estimates the time left from the progress of trainings and drawings: the plan's times, scaled by the pace."""

    def __init__(self, study: Study, refs: Iterable[str], results: Path) -> None:
        estimate, self._results = Estimate(study, results), results
        self._costs = {ref: estimate.seconds(ref) for ref in study.of_kind("train", "samples") if ref in set(refs)}
        self._images = {ref: study.recipe(ref).num_images for ref in self._costs}
        self._at_start = self._todo()

    def _todo(self) -> float:
        return sum(cost * (1 - self._share(ref)) for ref, cost in self._costs.items())

    def _share(self, ref: str) -> float:
        folder, total = self._results / ref, self._images[ref]
        share = done_share(folder)
        # A drawing writes nothing of itself but pictures, one job or many.
        return share or (drawn_images(folder, total) / total if ref.startswith("samples/") else 0.0)

    def left(self, elapsed: float) -> float | None:
        """Return the seconds left; None while too little is done to tell, and when only small things are left."""
        todo = self._todo()
        made = self._at_start - todo
        return elapsed * todo / made if todo > 0 and made > 0.02 * self._at_start else None


class RunView:
    """Shows the events of one Snakemake; on a terminal, a last line that is rewritten says what runs now.

    No error of writing ends it: readers may go at any time. (rich's live display would end Snakemake's own output when
    a pipe breaks, and leave a terminal without a cursor when Snakemake is killed.)
    """

    def __init__(self, descriptor: int) -> None:
        self._out = io.FileIO(descriptor, "w", closefd=descriptor > 2)
        self._terminal, self._below = self._out.isatty(), ""
        self._running: dict[int, Job] = {}
        self._ended: list[Job] = []
        self._users: dict[str, str] = {}
        self._outlook: Outlook | None = None
        self._start = self._spoke = time.monotonic()
        self._count, self._finished = "", False

    def show(self, record: LogRecord) -> None:
        """Take one record of Snakemake's log, or one that says what is run ("study") or that time goes by ("tick")."""
        match getattr(record, "event", None):
            case LogEvent.JOB_INFO:
                self._running[record.jobid] = Job(record.rule_name, next(iter(record.log), ""), record.wildcards)
            case LogEvent.JOB_ERROR:
                self._running.pop(record.jobid, None)
            case LogEvent.JOB_FINISHED:
                self._ended.append(self._running.pop(record.job_id))
            case LogEvent.PROGRESS:
                self._progress(record.done, record.total)
            case "study":
                refs = {"/".join(Path(output).parts[1:3]) for output in record.outputs}
                self._outlook = Outlook(record.study, refs, Path("results"))
                for ref, names in runs_of(record.study).items():
                    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
                    self._users[ref] = ", ".join(names[:2]) + more
            case "tick" if self._terminal or time.monotonic() - self._spoke >= BEAT_SECONDS:
                self._tell_running()

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self._write(f"{text}\n{self._below}")
        self._spoke = time.monotonic()

    def close(self) -> None:
        """Remove the line below, and write no more."""
        self._write("")
        self._out.close()

    def _progress(self, done: int, total: int) -> None:
        self._count, self._finished = f"[{done:>3} of {total}]", done == total
        for job in self._ended:
            if job.rule not in UNTOLD:
                self.say(self._line(f"{self._count} {job.text(self._users)}"))
        self._ended = []

    def _tell_running(self) -> None:
        jobs = [job for job in self._running.values() if job.rule not in UNTOLD]
        words = [job.progress(self._users) for job in jobs[:JOBS_SHOWN]]
        words += [f"{len(jobs) - JOBS_SHOWN} more"] if len(jobs) > JOBS_SHOWN else []
        between = "Snakemake writes its own report" if self._finished else "Snakemake plans"
        text = f"{self._count} running: {' | '.join(words) or between}"
        if self._terminal:
            with suppress(OSError, ValueError):
                self._below = self._line(text, os.get_terminal_size(self._out.fileno()).columns or 80)
            self._write(self._below)
        else:
            self.say(self._line(text))

    def _line(self, text: str, columns: int | None = None) -> str:
        """Return the time since the start, what happened, and the time left; what happened is cut to fit a terminal."""
        elapsed = time.monotonic() - self._start
        left = self._outlook.left(elapsed) if self._outlook else None
        before, after = f"{clock(elapsed):>7} ", f", about {clock(left)} left" if left is not None else ""
        room = columns and max(0, columns - 1 - len(before + after))
        return before + text.strip()[:room] + after

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more, or it is closed
            self._out.write((("\r\033[K" if self._terminal else "") + text).encode())
