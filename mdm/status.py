"""`mdm status`: where every stage of training is. Reads small files only: no torch, and no lock is touched."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.config import StudyError
from mdm.files.lock import holder, machine
from mdm.manifest import ArtifactError, read_json
from mdm.study import Study, load
from mdm.study_file import STUDIES
from mdm.train.journal import FINISHED, LOCK, Journal, last_error
from mdm.units import clock, duration, percent

SILENT_SECONDS = 600  # another machine that told nothing for so long is taken for dead; compiling takes minutes
WATCH_SECONDS = 2
STATUS = "status.json"
NO_STUDY = "of no study as it stands"  # an edited one, another version's, or one changed by --set
CHECKPOINT = re.compile(r"(?:autosave|slice)-(\d+)\.ckpt$")


def saved_images(folder: Path, total: int) -> int:
    """Training images of a stage that a kill -9 at this moment would leave."""
    if (folder / "manifest.json").is_file() or (folder / "final.ckpt").is_file():
        return total
    files = [*folder.glob("slice-*.ckpt"), *folder.glob("progress/autosave-*.ckpt")]
    return max((int(found[1]) for f in files if (found := CHECKPOINT.match(f.name))), default=0)


def told(folder: Path) -> dict[str, Any]:
    """What the training of a stage last said of itself; nothing if it has not begun."""
    path = folder / "progress" / STATUS
    return read_json(path) if path.is_file() else {}


def told_now(folder: Path) -> dict[str, Any]:
    """What the attempt that trains a stage at this moment said of itself; nothing if none is alive, or said a word."""
    return told(folder) if Attempt(folder).alive() else {}


class Attempt:
    """The last start of a stage's training, and whether it is still at work."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "progress"
        self.journal = Journal(self._folder)
        lines = self.journal.lines()
        self.note = last_error(lines) or (lines or [{}])[-1]

    def alive(self) -> bool:
        """On this machine the kernel knows; of others only what they wrote last."""
        if "begin" not in self.note:
            return False
        here = machine()
        if here is not None and self.note["machine"] == here:
            return holder(self._folder / LOCK) == self.note["pid"]
        return self.silent() < SILENT_SECONDS

    def silent(self) -> float:
        """Seconds since the training last wrote something about itself."""
        files = [self._folder / STATUS, self.journal.path]
        return max(0.0, time.time() - max(f.stat().st_mtime for f in files if f.exists()))


@dataclass(frozen=True)
class StageStatus:
    """Where one stage is; what is not known is None."""

    ref: str
    runs: str
    state: str  # finished, running, waiting, stopped, failed
    images: int
    num_images: int
    slices: str
    images_per_second: float | None
    loss: float | None
    silent_seconds: float | None
    left_seconds: float | None
    note: str = ""


class Stage:
    """The files of one stage."""

    def __init__(self, results: Path, ref: str, num_images: int, slice_ends: list[int] | None, runs: str) -> None:
        self._folder, self._ref, self._total = results / ref, ref, num_images
        self._ends, self._runs = slice_ends, runs
        self._told = told(self._folder)
        self._attempt = Attempt(self._folder)
        self._note = self._attempt.note

    def status(self) -> StageStatus:
        state, note = self._state()
        speed, silent, left = self._told.get("images_per_second"), None, None
        images = saved_images(self._folder, self._total)
        if state == "running":
            silent = self._attempt.silent()
            images = max(images, self._told.get("images", 0))
        if state != "finished" and speed:
            left = max(0.0, (self._total - images) / speed - (silent or 0.0))
        return StageStatus(
            self._ref, self._runs, state, images, self._total, self._slices(images), speed, self._told.get("loss"),
            silent, left, note,
        )  # fmt: skip

    def _state(self) -> tuple[str, str]:
        """What the stage is doing, and what there is to add."""
        if (self._folder / "manifest.json").is_file():
            return "finished", f"took {duration(read_json(self._folder / 'manifest.json')['seconds'])}"
        if not self._note:
            return "waiting", ""
        if "begin" in self._note:
            until = f"until {self._note['until']:,}"
            return ("running", until) if self._attempt.alive() else ("stopped", self._after_a_kill())
        if "error" in self._note:
            return "failed", self._note["error"].splitlines()[0]
        if self._note["why"] == FINISHED:
            return "waiting", "weights not exported yet" if self._trained() else "between two slices"
        return "stopped", self._note["why"]

    def _after_a_kill(self) -> str:
        saved = saved_images(self._folder, self._total)
        return "killed; goes on from its save" if saved else "killed before its first save; starts anew"

    def _trained(self) -> bool:
        return (self._folder / "final.ckpt").is_file()

    def _slices(self, images: int) -> str:
        if self._ends is None:
            return ""
        return f"{sum(end <= images for end in self._ends)}/{len(self._ends)}"


def of_study(study: Study, results: Path) -> Iterator[StageStatus]:
    """Every stage of a study, in its order, begun or not."""
    for ref, runs in runs_of(study).items():
        yield Stage(results, ref, study.recipe(ref)["num_images"], study.slice_ends(ref), runs).status()


def runs_of(study: Study) -> dict[str, str]:
    """Every stage of a study with its runs, shortened: `base +2`."""
    users: dict[str, list[str]] = {}
    for run in study.runs:
        for stage in run.stages:
            users.setdefault(stage.artifact, []).append(run.name)
    found = {ref: list(dict.fromkeys(names)) for ref, names in users.items()}
    return {ref: names[0] + (f" +{len(names) - 1}" if len(names) > 1 else "") for ref, names in found.items()}


def runs_of_all() -> dict[str, str]:
    """Every stage of the studies in config/studies with these and its runs: `quick: base +2`."""
    found: dict[str, str] = {}
    for path in sorted(STUDIES.glob("*.yaml")):
        try:
            stages = runs_of(load(path.stem))
        except StudyError as error:  # a study that somebody is writing hides no training
            print(f"warning: stages of the study {path.stem} are not named as such: {error}", file=sys.stderr)
            continue
        for ref, runs in stages.items():
            found[ref] = "; ".join(filter(None, (found.get(ref), f"{path.stem}: {runs}")))
    return found


def of_folder(results: Path, users: Mapping[str, str]) -> Iterator[StageStatus]:
    """Every stage that a results folder has begun, whichever study it belongs to; `users` names its study and runs."""
    recipes = [(path.parent, read_json(path)) for path in results.glob("train/*/recipe.json")]
    if not recipes:
        raise ArtifactError(f"{results} holds no stage of training; name the results folder: mdm status results")
    for folder, recipe in sorted(recipes, key=lambda r: (len(r[1]["model"]["levels"]), r[0].name)):
        ref = f"train/{folder.name}"
        yield Stage(results, ref, recipe["num_images"], None, users.get(ref, NO_STUDY)).status()


def table(stages: list[StageStatus], now: float) -> str:
    """A line for each stage, and how many are in which state."""
    width = max((len(_name(s)) for s in stages), default=0)
    lines = [f"{'stage':<{width}}  {'state':<8}  {'images':>25}        {'slices':>7} {'images/s':>9} {'loss':>8}"
             f" {'last word':>10}  ends"]  # fmt: skip
    lines += [f"{_name(s):<{width}}  {_row(s, now)}".rstrip() for s in stages]
    counts = {state: sum(s.state == state for s in stages) for state in dict.fromkeys(s.state for s in stages)}
    lines += ["", f"{len(stages)} stages: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    return "\n".join(lines)


def _name(s: StageStatus) -> str:
    return s.ref.removeprefix("train/") + (f" ({s.runs})" if s.runs else "")


def _row(s: StageStatus, now: float) -> str:
    images = f"{s.images:,}/{s.num_images:,}"
    speed = "" if s.images_per_second is None else f"{s.images_per_second:.1f}"
    loss = "" if s.loss is None else f"{s.loss:.4f}"
    silent = "" if s.silent_seconds is None else f"{clock(s.silent_seconds)} ago"
    return (
        f"{s.state:<8}  {images:>25} {percent(s.images / s.num_images):>6} {s.slices:>7} {speed:>9} {loss:>8}"
        f" {silent:>10}  {_end(s, now)}"
    )


def _end(s: StageStatus, now: float) -> str:
    """When a running stage ends; what a stopped one still needs."""
    if s.state == "running" and s.left_seconds is not None:
        form = "%H:%M" if s.left_seconds < 20 * 3600 else "%a %d %b %H:%M"
        at = time.strftime(form, time.localtime(now + s.left_seconds))
        return f"in {duration(s.left_seconds)}, at {at} ({s.note})"
    if s.state == "running":
        return f"starting ({s.note})"
    needs = f"needs {duration(s.left_seconds)} more" if s.left_seconds else ""
    return "; ".join(filter(None, (needs, s.note)))


def show(study: Study | None, results: Path, watch: bool) -> None:
    """Print the table once, or again and again until Ctrl-C."""
    users = {} if study else runs_of_all()
    while True:
        text = table(list(of_study(study, results) if study else of_folder(results, users)), time.time())
        if not watch:
            print(text)
            return
        home = "\033[H\033[2J" if sys.stdout.isatty() else ""
        print(f"{home}{time.strftime('%H:%M:%S')}\n{text}", flush=True)
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return
