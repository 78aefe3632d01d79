"""What the folder of a training stage says of it: images saved, the last status, and whether an attempt is alive."""

import re
import time
from pathlib import Path
from typing import Any

from mdm.files.atomic import read_json
from mdm.files.lock import holder, machine
from mdm.study.study import Study
from mdm.train.journal import LOCK, Journal, last_error, snapshot_file

SILENT_SECONDS = 600  # another machine that wrote nothing for so long is taken for dead; compiling takes minutes
STATUS = "status.json"
CHECKPOINT = re.compile(r"(?:autosave|slice)-(\d+)\.ckpt$")


def saved_images(folder: Path, total: int) -> int:
    """Return how many images of training a kill -9 at this moment would leave."""
    if (folder / "manifest.json").is_file() or (folder / "final.ckpt").is_file():
        return total
    files = [*folder.glob("slice-*.ckpt"), *folder.glob("progress/autosave-*.ckpt")]
    return max((int(found[1]) for f in files if (found := CHECKPOINT.match(f.name))), default=0)


def asked_too_late(study: Study, results: Path, snapshot: str) -> bool:
    """Return whether a training went past a snapshot without leaving its weights: then it is repeated up to there."""
    recipe = study.recipe(snapshot)
    folder = results / recipe.train
    passed = saved_images(folder, study.recipe(recipe.train).num_images) >= recipe.images
    return passed and not snapshot_file(folder, recipe.images).is_file()


def last_status(folder: Path) -> dict[str, Any]:
    """Return what a training last wrote of itself; nothing if it has not begun."""
    path = folder / "progress" / STATUS
    return read_json(path) if path.is_file() else {}


def live_status(folder: Path) -> dict[str, Any]:
    """Return what the attempt that trains now wrote of itself; nothing if none is alive, or none has written yet."""
    return last_status(folder) if Attempt(folder).alive() else {}


def done_share(folder: Path) -> float:
    """Return how much of a training or a drawing is done, 0..1."""
    if (folder / "manifest.json").is_file():
        return 1.0
    status = last_status(folder)
    return status["images"] / status["num_images"] if status else 0.0


class Attempt:
    """The last start of a stage's training, and whether it is still at work."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "progress"
        self.journal = Journal(self._folder)
        lines = self.journal.lines()
        self.note = last_error(lines) or (lines or [{}])[-1]

    def alive(self) -> bool:
        """On this machine the kernel knows; another machine is judged by the age of what it wrote last."""
        if "begin" not in self.note:
            return False
        here = machine()
        if here is not None and self.note["machine"] == here:
            return holder(self._folder / LOCK) == self.note["pid"]
        return self.silent() < SILENT_SECONDS

    def silent(self) -> float:
        """Return the seconds since the training last wrote something about itself."""
        files = [self._folder / STATUS, self.journal.path]
        return max(0.0, time.time() - max(f.stat().st_mtime for f in files if f.exists()))
