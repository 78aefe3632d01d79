"""The audit: which drawn pictures copy training pictures, at every level of the nest.

Each distinct training picture is asked once, and how often it stands is counted, so that both rules can be told: the
paper's, under which a picture that stands twice can never be copied, and one that does not care how often it stands.
Nothing here loads torch unless a metric needs a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdm.config import StudyError
from mdm.config.recipe_measured import AuditRecipe
from mdm.evaluate.archive import ArrayStream, array_names, read_batches, write_archive
from mdm.evaluate.audit_rows import Level, agreements, facts, rows
from mdm.evaluate.copies import released_distances
from mdm.evaluate.known import Distinct, Known, OfData
from mdm.evaluate.metric_names import TEXT_SIGNAL
from mdm.evaluate.neighbours import Neighbours, Search
from mdm.evaluate.pictures import LEVEL
from mdm.evaluate.progress import progress
from mdm.evaluate.worst_pairs import Pair, sheet, worst
from mdm.files.artifact import Making
from mdm.files.atomic import write_atomic, write_json

COARSE, SPREAD = 8, 4096  # side at which cells of the data-copying score are made, and of how many pictures


class _Searching:
    """One level while training pictures pass by."""

    def __init__(self, side: int, drawn: np.ndarray, held: np.ndarray | None, nearest: int, every: int) -> None:
        self.side, self.drawn, self._held, self._every = side, drawn, held, every
        self.search, self.known = Search(drawn, nearest), Distinct()
        self.held_search = None if held is None else Search(held, 1)
        self._coarse: list[np.ndarray] = []

    def add(self, numbers: np.ndarray, pictures: np.ndarray) -> None:
        fresh = self.known.fresh(numbers, pictures)
        self.search.add(fresh)
        if self.held_search:
            self.held_search.add(fresh)
            self._coarse.append(coarse(pictures[numbers % self._every == 0]))

    def found(self) -> Level:
        near, numbers, copies = self.search.found(), self.known.numbers, self.known.copies
        if copies.sum() < 2:
            raise StudyError(
                f"copies are told by the two nearest training pictures; there is {copies.sum()} at {self.side} px; "
                "audit a run that was trained on two or more"
            )
        squared = near.expanded(copies, min(self.search.nearest, int(copies.sum())))
        distinct = Neighbours(near.squared, numbers[near.index])
        held, tiny = None, None
        if self.held_search and self._held is not None:
            held = self.held_search.found().squared[:, 0]
            tiny = coarse(self.drawn), coarse(self._held), np.concatenate(self._coarse)
        return Level(self.side, squared, distinct, copies[near.index], numbers, copies, None, held, tiny)


def coarse(pictures: np.ndarray) -> np.ndarray:
    """Pictures as points [n,D]: means over squares, 8 x 8 of them where the side allows."""
    count, side = pictures.shape[:2]
    step = side // COARSE if side % COARSE == 0 else 1
    return pictures.reshape(count, side // step, step, side // step, step, 3).mean(axis=(2, 4)).reshape(count, -1)


def look(
    drawn: Mapping[int, np.ndarray], known: Known, metrics: Sequence[str], nearest: int,
    held_out: Mapping[int, np.ndarray] | None = None,
) -> list[Level]:  # fmt: skip
    """Find the nearest training pictures of what was drawn at every level, highest first."""
    every = -(-len(known.source) // SPREAD)
    held = held_out if held_out and "copying_score" in metrics else {}
    levels = [_Searching(side, drawn[side], held.get(side), nearest, every) for side in sorted(drawn, reverse=True)]
    with progress("audit", len(known.source)) as bar:
        for numbers, block in known.blocks():
            for level in levels:
                level.add(numbers, block[level.side])
            bar.update(len(numbers))
    found = [level.found() for level in levels]
    own = _own(found, known) if "authentic" in metrics else {}
    released = _released(drawn, known) if "released" in metrics else {}
    return [
        Level(**{**vars(level), "own": own.get(level.side), "released": released.get(level.side)}) for level in found
    ]


def _own(levels: Sequence[Level], known: Known) -> dict[int, np.ndarray]:
    """Of each level, from the nearest training picture of what was drawn to the nearest other one of the set."""
    asked = {level.side: np.unique(level.distinct.index[:, 0]) for level in levels}
    searches = {
        side: Search(np.stack([known.at(number, side) for number in numbers.tolist()]), 2)
        for side, numbers in asked.items()
    }
    for _, block in known.blocks():
        for side, search in searches.items():
            search.add(block[side])
    # The nearest is the picture itself, or one equal to it.
    second = {side: search.found().squared[:, 1] for side, search in searches.items()}
    return {x.side: second[x.side][np.searchsorted(asked[x.side], x.distinct.index[:, 0])] for x in levels}


def _released(drawn: Mapping[int, np.ndarray], known: Known) -> dict[int, np.ndarray]:
    """The two smallest distances of each level by the released arithmetic, block after block."""
    best: dict[int, np.ndarray] = {}
    for _, block in known.blocks():
        for side, pictures in block.items():
            count = min(2, len(pictures))
            parts = [best[side]] if side in best else []
            parts.append(released_distances(drawn[side], pictures, count))
            best[side] = np.sort(np.concatenate(parts, axis=1), axis=1)[:, :2]
    return best


def measure_audit(recipe_path: str | Path) -> None:
    """Write audit.json, neighbours.npz, worst.png and manifest.json of an audit recipe."""
    making = Making(recipe_path, AuditRecipe)
    recipe, root, folder = making.recipe, making.root, making.folder
    drawn = drawn_pictures(root / recipe.samples / "images.npz", recipe.num_images)
    known = Known(OfData(root / recipe.data, max(drawn), recipe.decode, recipe.take), list(drawn))
    held = held_out_pictures(recipe, root, list(drawn)) if recipe.held_out else None
    levels = look(drawn, known, recipe.metrics, recipe.neighbours, held)
    found = [row for level in levels for row in rows(level, recipe.metrics)]
    found += list(_of_networks(recipe, root))
    if recipe.twin:
        found += list(agreements(drawn, drawn_pictures(root / recipe.twin / "images.npz", recipe.num_images)))
    pairs = write_pairs(folder, levels, drawn, known)
    write_json(folder / "audit.json", {"metrics": found, "levels": [facts(x, pairs[x.side]) for x in levels]})
    show(found)
    making.finish({"num_images": recipe.num_images, "known": int(levels[0].copies.sum())})


def _of_networks(recipe: AuditRecipe, root: Path) -> Iterator[dict[str, Any]]:
    """What needs features or the network itself."""
    for drawn, known in (recipe.features, recipe.known_features), (recipe.sscd, recipe.known_sscd):
        if drawn and known:
            from mdm.evaluate.feature_copies import similarities

            yield from similarities(root / drawn, root / known, recipe.num_images)
    if "loss_gap" in recipe.metrics:
        from mdm.evaluate.loss_gap import loss_gap

        yield from loss_gap(recipe, root)
    if TEXT_SIGNAL in recipe.metrics:
        from mdm.evaluate.text_signal import signal_row

        yield signal_row(recipe, root)


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of metrics."""
    for row in found:
        print("{metric:28} {value:10.4f}  [{low:.4f}, {high:.4f}]  n = {n}".format(**row))


def drawn_pictures(path: Path, count: int) -> dict[int, np.ndarray]:
    """The first pictures of an archive of samples, uint8 [n,R,R,3] by side."""
    sides = [int(name.removeprefix(LEVEL)) for name in array_names(path) if name.startswith(LEVEL)]
    return {side: next(read_batches(path, f"{LEVEL}{side}", count, count)) for side in sorted(sides, reverse=True)}


def held_out_pictures(recipe: AuditRecipe, root: Path, sides: Sequence[int]) -> dict[int, np.ndarray]:
    """As many held-out pictures as were drawn, or all there are."""
    held = Known(OfData(root / str(recipe.held_out), max(sides), recipe.decode, recipe.num_images), sides)
    blocks = [block for _, block in held.blocks()]
    return {side: np.concatenate([block[side] for block in blocks]) for side in sides}


def write_pairs(
    folder: Path, levels: Sequence[Level], drawn: Mapping[int, np.ndarray], known: Known
) -> dict[int, list[Pair]]:
    """Write neighbours.npz and worst.png, and return the worst pairs of each level."""
    arrays: dict[str, np.ndarray] = {}
    for level in levels:
        parts = {"squared": level.distinct.squared, "index": level.distinct.index, "copies": level.times}
        arrays |= {f"{name}_{level.side}": array for name, array in parts.items()}
    write_archive(folder / "neighbours.npz", {name: ArrayStream.of(array) for name, array in arrays.items()})
    pairs = {level.side: worst(level.distinct, level.times, level.side, known) for level in levels}
    write_atomic(folder / "worst.png", sheet(pairs, drawn, known))
    return pairs
