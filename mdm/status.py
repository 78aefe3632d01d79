"""`mdm status`: where every stage of training is. Reads small files only: no torch, and no lock is touched."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.manifest import ArtifactError, read_json
from mdm.study import Study
from mdm.train.journal import FINISHED, LOCK, Journal, holds, last_error, machine
from mdm.units import clock, duration, percent

SILENT_SECONDS = 600  # another machine that told nothing for so long is taken for dead; compiling takes minutes
WATCH_SECONDS = 2
STATUS = "status.json"
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
        self._journal = Journal(self._folder / "progress")
        lines = self._journal.lines()
        self._note = last_error(lines) or (lines or [{}])[-1]

    def status(self) -> StageStatus:
        state, note = self._state()
        speed, silent, left = self._told.get("images_per_second"), None, None
        images = saved_images(self._folder, self._total)
        if state == "running":
            silent = self._silent()
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
            return ("running", until) if self._alive() else ("stopped", "killed; goes on from its save")
        if "error" in self._note:
            return "failed", self._note["error"].splitlines()[0]
        if self._note["why"] == FINISHED:
            return "waiting", "weights not exported yet" if self._trained() else "between two slices"
        return "stopped", self._note["why"]

    def _trained(self) -> bool:
        return (self._folder / "final.ckpt").is_file()

    def _alive(self) -> bool:
        """On this machine the kernel knows; of others only what they wrote last."""
        here = machine()
        if here is not None and self._note["machine"] == here:
            return holds(self._note["pid"], self._folder / "progress" / LOCK)
        return self._silent() < SILENT_SECONDS

    def _silent(self) -> float:
        """Seconds since the training last wrote something about itself."""
        files = [self._folder / "progress" / STATUS, self._journal.path]
        return max(0.0, time.time() - max(f.stat().st_mtime for f in files if f.exists()))

    def _slices(self, images: int) -> str:
        if self._ends is None:
            return ""
        return f"{sum(end <= images for end in self._ends)}/{len(self._ends)}"


def of_study(study: Study, results: Path) -> Iterator[StageStatus]:
    """Every stage of a study, in its order, begun or not."""
    users: dict[str, list[str]] = {}
    for run in study.runs:
        for stage in run.stages:
            users.setdefault(stage.artifact, []).append(run.name)
    for ref, names in users.items():
        names = list(dict.fromkeys(names))
        runs = names[0] + (f" +{len(names) - 1}" if len(names) > 1 else "")
        yield Stage(results, ref, study.recipe(ref)["num_images"], study.slice_ends(ref), runs).status()


def of_folder(results: Path) -> Iterator[StageStatus]:
    """Every stage that a results folder has begun, whichever study it belongs to."""
    recipes = [(path.parent, read_json(path)) for path in results.glob("train/*/recipe.json")]
    if not recipes:
        raise ArtifactError(f"{results} holds no stage of training; name the results folder: mdm status results")
    for folder, recipe in sorted(recipes, key=lambda r: (len(r[1]["model"]["levels"]), r[0].name)):
        yield Stage(results, f"train/{folder.name}", recipe["num_images"], None, "").status()


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
    while True:
        text = table(list(of_study(study, results) if study else of_folder(results)), time.time())
        if not watch:
            print(text)
            return
        home = "\033[H\033[2J" if sys.stdout.isatty() else ""
        print(f"{home}{time.strftime('%H:%M:%S')}\n{text}", flush=True)
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return
