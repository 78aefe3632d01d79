"""The pictures of a protocol: drawn in batches, each batch kept until all are there, then one archive."""

import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdm.config.recipe import SamplesRecipe
from mdm.config.sizes import Clip, Size, shape
from mdm.data.rows import Row, png
from mdm.data.shards.shard import read_index
from mdm.evaluate.archive import ArrayStream, read_array, read_batches, write_archive
from mdm.evaluate.painter import Painter, stage_of
from mdm.evaluate.pictures import LEVEL
from mdm.evaluate.progress import progress
from mdm.evaluate.unprompted import unprompted_rows
from mdm.files.artifact import Making
from mdm.files.atomic import ArtifactError, write_atomic
from mdm.files.hashes import sha256_file

BATCH_IMAGES = 32  # at least
BATCH_PIXELS = 32 * 64**2  # of a level; small pictures are drawn many at a time, which costs a quarter of the time
MOST_IMAGES = 256
GRID_SIDE = 8


def generate(recipe_path: str | Path, batch_images: int | None = None) -> None:
    """Draw every picture of a samples recipe; a killed run continues with its first unfinished batch."""
    making = Making(recipe_path, SamplesRecipe)
    recipe, folder, root = making.recipe, making.folder, making.root
    rows = rows_of(recipe, root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    painter = Painter(recipe, root, device)
    batch_images = batch_images or at_once(painter.resolutions)
    # Weights made anew on another machine may differ in the last bit: never mix their pictures.
    partial = folder / "partial" / f"{painter.weights_hash[:12]}-{batch_images}"
    batches = _draw_batches(painter, rows, partial, batch_images)
    write_archive(folder / "images.npz", _arrays(batches, rows, painter.resolutions))
    _write_grids(folder, painter.resolutions)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    making.finish(_facts(folder, recipe.num_images, painter, batches), name)
    shutil.rmtree(folder / "partial")


def rows_of(recipe: SamplesRecipe, root: Path) -> list[Row]:
    """What each picture is drawn for: the captions of a data set, or nothing but a class drawn at random."""
    if recipe.prompts is None:
        return unprompted_rows(recipe, stage_of(root / recipe.train), root)
    rows = read_prompts(root / recipe.prompts, recipe.num_images // recipe.per_prompt)
    return [row for row in rows for _ in range(recipe.per_prompt)]


def read_prompts(data: Path, num_images: int) -> list[Row]:
    """The first num_images rows of a data set's index."""
    rows = read_index(data, 0, num_images)
    if len(rows) < num_images:
        raise ArtifactError(
            f"{data} has {len(rows)} captions, but num_images is {num_images}; write at most {len(rows)} "
            "in the protocol, or enlarge the data set"
        )
    return rows


def at_once(sizes: Sequence[Size]) -> int:
    """Return how many pictures of these levels are drawn in one batch."""
    largest = max(math.prod(shape(size)) // 3 for size in sizes)
    return min(max(BATCH_IMAGES, BATCH_PIXELS // largest), MOST_IMAGES)


def _draw_batches(painter: Painter, rows: Sequence[Row], partial: Path, batch_images: int) -> list[Path]:
    partial.mkdir(parents=True, exist_ok=True)
    ids = range(len(rows))
    batches = {partial / f"{start:07d}.npz": ids[start : start + batch_images] for start in ids[::batch_images]}
    left = {path: ids for path, ids in batches.items() if not path.exists()}
    with progress("sampling", len(rows), done=len(rows) - sum(map(len, left.values()))) as bar:
        for path, batch in left.items():
            _draw_batch(painter, batch, rows[batch.start : batch.stop], path)
            bar.update(len(batch))
    return list(batches)


def _draw_batch(painter: Painter, ids: Sequence[int], rows: Sequence[Row], path: Path) -> None:
    begin, evaluated = time.monotonic(), painter.rows_evaluated
    pictures = painter.paint(ids, [row.caption for row in rows], painter.classes(rows))
    cost = {"seconds": time.monotonic() - begin, "evaluations": painter.rows_evaluated - evaluated}
    arrays = {f"{LEVEL}{r}": level for r, level in pictures.items()} | {k: np.array([v]) for k, v in cost.items()}
    write_archive(path, {name: ArrayStream.of(array) for name, array in arrays.items()})


def _arrays(batches: Sequence[Path], rows: Sequence[Row], resolutions: Sequence[Size]) -> dict[str, ArrayStream]:
    """What an archive of samples holds; pictures stream through, so 30,000 of them need no memory."""

    def pieces(name: str) -> Iterator[np.ndarray]:
        return (read_array(path, name) for path in batches)

    text = {
        "ids": np.arange(len(rows)),
        "keys": np.array([row.key for row in rows]),
        "captions": np.array([row.caption for row in rows]),
        "labels": np.array([json.dumps(row.labels) for row in rows]),
    }
    arrays = {name: ArrayStream.of(array) for name, array in text.items()}
    for r in resolutions:
        name = f"{LEVEL}{r}"
        *frames, _, height, width = shape(r)
        arrays[name] = ArrayStream((len(rows), *frames, height, width, 3), np.dtype(np.uint8), pieces(name))
    return arrays


def _write_grids(folder: Path, resolutions: Sequence[Size]) -> None:
    """The first pictures of every level, in reading order."""
    count = min(GRID_SIDE**2, len(read_array(folder / "images.npz", "ids")))
    for r in resolutions:
        first = next(read_batches(folder / "images.npz", f"{LEVEL}{r}", count, count))
        if isinstance(r, Clip):  # a line for each clip, its frames in a row
            sheet = first[:GRID_SIDE].swapaxes(1, 2).reshape(-1, r.frames * r.resolution, 3)
            write_atomic(folder / f"grid_{r}.png", png(sheet).data)
            continue
        columns = min(GRID_SIDE, count)
        lines = -(-count // columns)
        grid = np.full((lines * columns, r, r, 3), 255, np.uint8)
        grid[:count] = first
        sheet = grid.reshape(lines, columns, r, r, 3).swapaxes(1, 2).reshape(lines * r, columns * r, 3)
        write_atomic(folder / f"grid_{r}.png", png(sheet).data)


def _facts(folder: Path, num_images: int, painter: Painter, batches: Sequence[Path]) -> dict[str, Any]:
    """For the manifest; seconds count every batch, also those that were drawn before a kill."""
    seconds = sum(float(read_array(path, "seconds")[0]) for path in batches)
    evaluations = sum(int(read_array(path, "evaluations")[0]) for path in batches)
    return {
        "num_images": num_images, "resolutions": [*map(_written, painter.resolutions)],
        "weights_hash": painter.weights_hash,
        "sha256": sha256_file(folder / "images.npz"), "network_evaluations": evaluations,
        "network_evaluations_per_image": evaluations / num_images, "seconds": round(seconds, 3),
    }  # fmt: skip


def _written(size: Size) -> int | str:
    return str(size) if isinstance(size, Clip) else size
