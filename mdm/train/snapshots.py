"""The averaged weights of a training at given image counts: left as it passes them, and taken as artifacts.

Whoever asks for one too late has the training repeated up to there, in the folder of the snapshot; on the same kind of
processor the weights are the same.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mdm.config.recipe import SnapshotRecipe, StageRecipe
from mdm.files.artifact import Making, read_recipe
from mdm.files.atomic import ArtifactError
from mdm.files.weights import load_weights, read_meta, state_hash
from mdm.train.checkpoint import write_checkpoint
from mdm.train.export import gigaflops
from mdm.train.journal import snapshot_file
from mdm.train.start import WEIGHTS, identity, refuse_other_identity
from mdm.train.state import TrainingState


class Snapshots:
    """Leaves averaged weights on the way of a training; of several processes the first writes."""

    def __init__(self, folder: Path, counts: Collection[int], note: dict[str, Any], writes: bool) -> None:
        self._folder, self._counts, self._note, self._writes = folder, frozenset(counts), note, writes

    def due(self, images: int) -> bool:
        """Whether weights are to be left at this image count."""
        return images in self._counts

    def leave(self, state: TrainingState, seconds: float) -> None:
        """Write them before training goes on: no save that lies behind them is on disk without them."""
        if self._writes:
            note = {**self._note, **state.metadata(), "seconds": round(seconds, 2)}
            write_checkpoint(snapshot_file(self._folder, state.images), state.ema.state_dict(), note)


def take(recipe_path: Path) -> None:
    """Make an artifact of what a training left on its way, with what it had cost until then."""
    making = Making(recipe_path, SnapshotRecipe)
    recipe, folder, train = making.recipe, making.folder, making.root / making.recipe.train
    left, stage = _left(recipe, train, folder), read_recipe(train / "recipe.json", StageRecipe)
    weights, note = load_weights(left), read_meta(left)
    refuse_other_identity(note, identity(train / "recipe.json", stage), train / "recipe.json")
    _second_name(left, folder / WEIGHTS["ema"])
    facts = {
        "train": recipe.train, "images": recipe.images, "seconds": note["seconds"],
        "gigaflops": round(gigaflops(train / "recipe.json", stage, recipe.images), 3),
        "weights": {WEIGHTS["ema"]: state_hash(weights)}, "repeated": left.is_relative_to(folder),
        "trained_on": note["machines"], "skipped_steps": note["skipped"],
    }  # fmt: skip
    making.finish(facts, note["machines"][-1]["device"])
    for used in ("snapshots", "progress"):  # of a training that was repeated
        shutil.rmtree(folder / used, ignore_errors=True)


def _left(recipe: SnapshotRecipe, train: Path, folder: Path) -> Path:
    places = [snapshot_file(place, recipe.images) for place in (train, folder)]
    for place in places:
        if place.is_file():
            return place
    raise ArtifactError(
        f"neither {places[0]} nor {places[1]} is there: the training went past {recipe.images:,} images without "
        "leaving its weights; start Snakemake again, and it is repeated up to there"
    )


def _second_name(path: Path, name: Path) -> None:
    """A second name takes no room; where there is no such thing, a copy has to do."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:
        shutil.copyfile(path, name)
