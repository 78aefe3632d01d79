"""`mdm status`: where every stage of training is, and every drawing in parts.

It reads small files only: no torch, and no lock is touched.
"""

import io
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mdm.config import StudyError
from mdm.config.recipe import SamplesRecipe, StageRecipe
from mdm.config.units import clock, percent, rough_duration
from mdm.evaluate.batching import PARTS
from mdm.files.atomic import ArtifactError, read_json
from mdm.study.drawing_jobs import drawn_images, in_parts, newest, parts, parts_there
from mdm.study.stage_files import SILENT_SECONDS, Attempt, last_status, saved_images
from mdm.study.study import Study, load, runs_of
from mdm.study.study_file import STUDIES
from mdm.train.journal import FINISHED

WATCH_SECONDS = 2
NO_STUDY = "of no study as it stands"  # an edited one, another version's, or one changed by --set
RIGHT = ("images", "slices", "images/s", "loss", "last word")  # columns of numbers
NARROWEST = 120  # columns that the numbers leave room for names; a narrower terminal breaks the lines itself
WHOLE = 10_000  # columns of a log or a pipe: no name is broken there


@dataclass(frozen=True)
class StageStatus:
    """Where one stage is; what is not known is None."""

    ref: str
    runs: str
    state: str  # finished, running, waiting, stopped, failed; of pictures that several jobs draw also drawing
    images: int
    num_images: int
    slices: str
    images_per_second: float | None
    loss: float | None
    silent_seconds: float | None
    left_seconds: float | None
    note: str = ""


def stage_status(folder: Path, num_images: int, slice_ends: list[int], runs: str) -> StageStatus:
    """Read from the files of one stage where it is."""
    attempt, last, images = Attempt(folder), last_status(folder), saved_images(folder, num_images)
    state, note = _state(folder, attempt, images)
    speed, silent, left = last.get("images_per_second"), None, None
    if state == "running":
        silent, images = attempt.silent(), max(images, last.get("images", 0))
    if state != "finished" and speed:
        left = max(0.0, (num_images - images) / speed - (silent or 0.0))
    slices = f"{sum(end <= images for end in slice_ends)}/{len(slice_ends)}" if slice_ends else ""
    ref = f"{folder.parent.name}/{folder.name}"
    return StageStatus(ref, runs, state, images, num_images, slices, speed, last.get("loss"), silent, left, note)


def drawing_status(folder: Path, num_images: int, names: list[str], runs: str) -> StageStatus:
    """Read from the files of one drawing in parts where it is; its jobs write nothing but pictures."""
    ref, there = f"{folder.parent.name}/{folder.name}", len(parts_there(folder, names))
    silent, images = newest(folder), drawn_images(folder, num_images)
    if (folder / "manifest.json").is_file():
        took = rough_duration(read_json(folder / "manifest.json")["seconds"])
        return StageStatus(ref, runs, "finished", num_images, num_images, f"{len(names)}/{len(names)}" if names else "",
                           None, None, None, None, f"took {took}")  # fmt: skip
    state = "waiting" if silent is None else "drawing" if silent < SILENT_SECONDS else "stopped"
    note = "goes on from its last batches" if state == "stopped" else ""
    note = "not put together yet" if images == num_images else note
    jobs = f"{there}/{len(names)}" if names else ""
    return StageStatus(ref, runs, state, images, num_images, jobs, None, None, silent, None, note)


def _state(folder: Path, attempt: Attempt, saved: int) -> tuple[str, str]:
    """Return what the stage is doing, and what there is to add."""
    last = attempt.note
    if (folder / "manifest.json").is_file():
        return "finished", f"took {rough_duration(read_json(folder / 'manifest.json')['seconds'])}"
    if "begin" in last and attempt.alive():
        return "running", f"until {last['until']:,}"
    if "begin" in last:
        return "stopped", "killed; goes on from its save" if saved else "killed before its first save; starts anew"
    if "error" in last:
        return "failed", last["error"].splitlines()[0]
    if last and last["why"] != FINISHED:
        return "stopped", last["why"]
    trained = (folder / "final.ckpt").is_file()
    return "waiting", "" if not last else "weights not exported yet" if trained else "between two slices"


def of_study(study: Study, results: Path) -> Iterator[StageStatus]:
    """Yield every stage of a study, in its order, begun or not; then the pictures that several jobs draw."""
    users = _users(study)
    for ref in study.of_kind("train"):
        yield stage_status(results / ref, study.recipe(ref).num_images, study.slice_ends(ref), users[ref])
    for ref in in_parts(study):
        yield drawing_status(results / ref, study.recipe(ref).num_images, parts(study, ref), users.get(ref, ""))


def _users(study: Study) -> dict[str, str]:
    """Map artifacts to their runs, shortened: `base +2`."""
    return {ref: names[0] + (f" +{len(names) - 1}" if len(names) > 1 else "") for ref, names in runs_of(study).items()}


def users_of_all() -> dict[str, str]:
    """Map the artifacts of the studies in config/studies to these and their runs: `quick: base +2`."""
    found: dict[str, str] = {}
    for path in sorted(STUDIES.glob("*.yaml")):
        try:
            users = _users(load(path.stem))
        except StudyError as error:  # a study that somebody is writing hides no training
            print(f"warning: stages of the study {path.stem} are not named as such: {error}", file=sys.stderr)
            continue
        for ref, runs in users.items():
            found[ref] = "; ".join(filter(None, (found.get(ref), f"{path.stem}: {runs}")))
    return found


def of_folder(results: Path, users: Mapping[str, str]) -> Iterator[StageStatus]:
    """Yield every stage that a results folder has begun, of whichever study; `users` names studies and runs."""
    paths = results.glob("train/*/recipe.json")
    recipes = [(path.parent, StageRecipe.of(read_json(path), path)) for path in paths]
    if not recipes:
        raise ArtifactError(f"{results} holds no stage of training; name the results folder: mdm status results")
    for folder, recipe in sorted(recipes, key=lambda r: (len(r[1].model.resolutions), r[0].name)):
        yield stage_status(folder, recipe.num_images, [], users.get(f"train/{folder.name}", NO_STUDY))
    for folder in sorted(path.parent for path in results.glob(f"samples/*/{PARTS}")):
        count = SamplesRecipe.of(read_json(folder / "recipe.json"), folder / "recipe.json").num_images
        yield drawing_status(folder, count, [], users.get(f"samples/{folder.name}", NO_STUDY))


def table(stages: list[StageStatus], now: float, columns: int = WHOLE) -> str:
    """Return a line for each stage, its names broken where they do not fit, and how many are in which state."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for name in ("stage", "state", *RIGHT, "ends"):
        side = "right" if name in RIGHT else "left"
        grid.add_column(name, justify=side, no_wrap=name not in ("stage", "ends"), overflow="fold")
    for s in stages:
        grid.add_row(*_row(s, now))
    console = Console(file=io.StringIO(), width=max(columns, NARROWEST), markup=False, emoji=False)
    console.print(grid)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(s.state for s in stages).items())
    return "\n".join([*lines, "", f"{len(stages)} stages: {counts}"])


def _row(s: StageStatus, now: float) -> Iterator[str]:
    yield s.ref.removeprefix("train/") + (f" ({s.runs})" if s.runs else "")
    yield s.state
    yield f"{s.images:,}/{s.num_images:,}{percent(s.images / s.num_images):>7}"
    yield s.slices
    yield "" if s.images_per_second is None else f"{s.images_per_second:.1f}"
    yield "" if s.loss is None else f"{s.loss:.4f}"
    yield "" if s.silent_seconds is None else f"{clock(s.silent_seconds)} ago"
    yield _end(s, now)


def _end(s: StageStatus, now: float) -> str:
    """Say when a running stage ends, or what a stopped one still needs."""
    if s.state == "running" and s.left_seconds is not None:
        form = "%H:%M" if s.left_seconds < 20 * 3600 else "%a %d %b %H:%M"
        at = time.strftime(form, time.localtime(now + s.left_seconds))
        return f"in {rough_duration(s.left_seconds)}, at {at} ({s.note})"
    if s.state == "running":
        return f"starting ({s.note})"
    needs = f"needs {rough_duration(s.left_seconds)} more" if s.left_seconds else ""
    return "; ".join(filter(None, (needs, s.note)))


def show(study: Study | None, results: Path, watch: bool) -> None:
    users, terminal = {} if study else users_of_all(), sys.stdout.isatty()
    while True:
        stages = list(of_study(study, results) if study else of_folder(results, users))
        text = table(stages, time.time(), shutil.get_terminal_size().columns if terminal else WHOLE)
        if not watch:
            print(text)
            return
        print(("\033[H\033[2J" if terminal else "") + f"{time.strftime('%H:%M:%S')}\n{text}", flush=True)
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return
