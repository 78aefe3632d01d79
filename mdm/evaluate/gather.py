"""The end of a drawing: the archive of all pictures, a sheet of the first ones, and the manifest."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdm.config.recipe import SamplesRecipe
from mdm.config.sizes import Clip, Size
from mdm.data.rows import Row, png
from mdm.data.shards.shard import read_index
from mdm.evaluate.archive import ArrayStream, read_array, read_batches, write_archive
from mdm.evaluate.batching import PARTS
from mdm.evaluate.painter import Painter, stage_of
from mdm.evaluate.part_files import COSTS, Part, asked_for, check_fit, chosen, differences
from mdm.evaluate.pictures import LEVEL
from mdm.evaluate.unprompted import unprompted_rows
from mdm.files.artifact import Making
from mdm.files.atomic import ArtifactError, write_atomic
from mdm.files.hashes import sha256_file

GRID_SIDE = 8


def gather(recipe_path: str | Path, part_images: int | None = None) -> None:
    """Prove that the parts of a samples recipe fit, and write what one job would have written.

    With `part_images`, parts of this size are taken and others, of an earlier split, are left aside.
    """
    making = Making(recipe_path, SamplesRecipe)
    recipe, folder, root = making.recipe, making.folder, making.root
    # Who would draw: it knows the hash of all that takes part, and proves the files on the way.
    rows, painter = rows_of(recipe, root), Painter(recipe, root, torch.device("cpu"))
    again = f"python -m mdm sample {recipe_path} --part"
    parts = chosen(folder / PARTS, recipe.num_images, part_images, again)
    named, batch_images = folder.name.rpartition("-")[2], parts[0].origin.batch_images
    expected = {"recipe": named, "weights": painter.weights_hash, "batch_images": batch_images}
    asked = {part: asked_for(rows[part.ids.start : part.ids.stop]) for part in parts}
    check_fit(parts, expected, asked, recipe.train)
    levels = {r: _level(f"{LEVEL}{r}", parts) for r in painter.resolutions}
    costs = {name: np.concatenate([part.costs()[name] for part in parts]) for name in COSTS}
    facts = write_samples(making, rows, levels, costs, painter) | differences(parts)
    making.finish(facts, ", ".join(dict.fromkeys(part.origin.device for part in parts)))
    for name in ("partial", PARTS):
        shutil.rmtree(folder / name, ignore_errors=True)


def _level(name: str, parts: Sequence[Part]) -> ArrayStream:
    first = next(parts[0].pieces(name))

    def pieces() -> Iterator[np.ndarray]:
        for part in parts:
            yield from part.pieces(name)

    return ArrayStream((parts[-1].ids.stop, *first.shape[1:]), first.dtype, pieces())


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


def write_samples(
    making: Making[SamplesRecipe], rows: Sequence[Row], levels: Mapping[Size, ArrayStream],
    costs: Mapping[str, np.ndarray], painter: Painter,
) -> dict[str, Any]:  # fmt: skip
    """Write images.npz and the sheets, and return what the manifest says of them.

    Seconds count every batch, also those that were drawn before a kill or by another job.
    """
    text = {
        "ids": np.arange(len(rows)),
        "keys": np.array([row.key for row in rows]),
        "captions": np.array([row.caption for row in rows]),
        "labels": np.array([json.dumps(row.labels) for row in rows]),
    }
    path = making.folder / "images.npz"
    drawn = {f"{LEVEL}{size}": stream for size, stream in levels.items()}
    write_archive(path, {name: ArrayStream.of(array) for name, array in text.items()} | drawn)
    _write_grids(making.folder, list(levels))
    evaluations = int(costs["evaluations"].sum())
    psnr = painter.low.psnr(path, painter.resolutions[0], len(rows))
    return {
        **({} if psnr is None else {"low_psnr": round(psnr, 3)}),
        "num_images": len(rows), "resolutions": [str(size) if isinstance(size, Clip) else size for size in levels],
        "weights_hash": painter.weights_hash,
        "sha256": sha256_file(path), "network_evaluations": evaluations,
        "network_evaluations_per_image": evaluations / len(rows),
        "seconds": round(float(costs["seconds"].sum()), 3),
    }  # fmt: skip


def _write_grids(folder: Path, resolutions: Sequence[Size]) -> None:
    """The first pictures of every level, in reading order; of clips a line each, frame beside frame."""
    count = min(GRID_SIDE**2, len(read_array(folder / "images.npz", "ids")))
    for r in resolutions:
        first = next(read_batches(folder / "images.npz", f"{LEVEL}{r}", count, count))
        if isinstance(r, Clip):
            lines = [np.concatenate(list(clip), axis=1) for clip in first[:GRID_SIDE]]
            write_atomic(folder / f"grid_{r}.png", png(np.concatenate(lines)).data)
            continue
        columns = min(GRID_SIDE, count)
        rows = -(-count // columns)
        grid = np.full((rows * columns, r, r, 3), 255, np.uint8)
        grid[:count] = first
        sheet = grid.reshape(rows, columns, r, r, 3).swapaxes(1, 2).reshape(rows * r, columns * r, 3)
        write_atomic(folder / f"grid_{r}.png", png(sheet).data)
