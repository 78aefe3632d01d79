"""The pictures of a protocol: drawn in batches, each batch kept until all are there, then one archive.

One job draws all, or each of several a part of them (`draw_part`), and another puts the parts together
(mdm/evaluate/gather.py). Batches and bits are the same, so either continues what the other began.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mdm.config.recipe import SamplesRecipe
from mdm.data.rows import Row
from mdm.evaluate.archive import ArrayStream, read_array, write_archive
from mdm.evaluate.batching import PARTS, at_once, check_part, part_name
from mdm.evaluate.gather import rows_of, write_samples
from mdm.evaluate.painter import Painter
from mdm.evaluate.part_files import COSTS, Origin, asked_for, fitting, picture_stream, write_part
from mdm.evaluate.pictures import LEVEL
from mdm.evaluate.progress import progress
from mdm.files.artifact import Making, digest


def generate(recipe_path: str | Path, batch_images: int | None = None) -> None:
    """Draw every picture of a samples recipe; a killed run continues with its first unfinished batch."""
    drawing = Drawing(recipe_path, batch_images)
    making, count = drawing.making, drawing.making.recipe.num_images
    batches = drawing.draw(range(count))
    sizes = drawing.painter.resolutions
    levels = {r: picture_stream(f"{LEVEL}{r}", count, batches) for r in sizes}
    costs = {name: np.concatenate([read_array(path, name) for path in batches]) for name in COSTS}
    facts = write_samples(making, drawing.rows, levels, costs, drawing.painter)
    making.finish(facts, drawing.device_name)
    for name in ("partial", PARTS):
        shutil.rmtree(making.folder / name, ignore_errors=True)


def draw_part(recipe_path: str | Path, ids: range, batch_images: int | None = None) -> None:
    """Draw these pictures of a samples recipe into parts/; a killed job continues with its first unfinished batch."""
    drawing = Drawing(recipe_path, batch_images)
    check_part(ids, drawing.making.recipe.num_images, drawing.batch_images)
    batches = drawing.draw(ids)
    asked = asked_for(drawing.rows[ids.start : ids.stop])
    path = drawing.making.folder / PARTS / f"{part_name(ids)}.npz"
    write_part(path, ids, drawing.origin, asked, batches)
    for batch in batches:  # its own only: other jobs are at work beside it
        batch.unlink()


class Drawing:
    """The pictures of one recipe while they are drawn: what for, by whom, and where finished batches lie."""

    def __init__(self, recipe_path: str | Path, batch_images: int | None) -> None:
        self.making = Making(recipe_path, SamplesRecipe)
        recipe, root, folder = self.making.recipe, self.making.root, self.making.folder
        self.rows = rows_of(recipe, root)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device_name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        self.painter = Painter(recipe, root, device)
        self.batch_images = batch_images or at_once(self.painter.resolutions)
        weights, named = self.painter.weights_hash, folder.name.rpartition("-")[2]
        self.origin = Origin(named, weights, self.batch_images, str(torch.__version__), self.device_name)
        # Weights made anew on another machine may differ in the last bit, and captions of a data set made anew may be
        # others: never mix their pictures.
        drawing = digest([weights, asked_for(self.rows)])
        self._partial = folder / "partial" / f"{drawing}-{self.batch_images}"

    def draw(self, ids: range) -> list[Path]:
        """Return the files of all batches of these pictures; those that are not there are drawn first."""
        self._partial.mkdir(parents=True, exist_ok=True)
        batches = dict(self._batches(ids))
        self._take_from_parts(batches)
        left = {path: batch for path, batch in batches.items() if not path.exists()}
        with progress("sampling", len(ids), done=len(ids) - sum(map(len, left.values()))) as bar:
            for path, batch in left.items():
                self._draw_batch(batch, self.rows[batch.start : batch.stop], path)
                bar.update(len(batch))
        return list(batches)

    def _batches(self, ids: range) -> Iterator[tuple[Path, range]]:
        for start in range(ids.start, ids.stop, self.batch_images):
            yield self._partial / f"{start:07d}.npz", range(start, min(start + self.batch_images, ids.stop))

    def _take_from_parts(self, batches: dict[Path, range]) -> None:
        """Whoever divides the pictures otherwise than before draws nothing twice."""
        paths = {batch: path for path, batch in batches.items() if not path.exists()}
        for part in fitting(self.making.folder / PARTS, self.origin) if paths else ():
            if not any(batch.start in part.ids for batch in paths):
                continue
            if part.asked != asked_for(self.rows[part.ids.start : part.ids.stop]):
                continue  # whoever puts the parts together refuses it
            for batch, arrays in part.batches():
                if batch in paths:
                    _write_batch(paths.pop(batch), arrays)

    def _draw_batch(self, ids: Sequence[int], rows: Sequence[Row], path: Path) -> None:
        painter = self.painter
        begin, evaluated = time.monotonic(), painter.rows_evaluated
        pictures = painter.paint(ids, [row.caption for row in rows], painter.classes(rows))
        cost = {"seconds": time.monotonic() - begin, "evaluations": painter.rows_evaluated - evaluated}
        _write_batch(
            path, {f"{LEVEL}{r}": level for r, level in pictures.items()} | {k: np.array([v]) for k, v in cost.items()}
        )


def _write_batch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_archive(path, {name: ArrayStream.of(array) for name, array in arrays.items()})
