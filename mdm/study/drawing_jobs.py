"""Which jobs draw the pictures of a protocol: one, or as many as its resources divide it among. No torch."""

import time
from contextlib import suppress
from pathlib import Path

from mdm.config.training import DrawingResources
from mdm.evaluate.batching import PART, PARTS, at_once, divided, part_ids, part_name, whole_batches
from mdm.study.study import Study


def part_images(study: Study, ref: str) -> int | None:
    """Return the pictures of each job, in whole batches; None where one job draws all."""
    recipe, resources = study.recipe(ref), study.resources(ref)
    asked = resources.images_per_job if isinstance(resources, DrawingResources) else None
    if asked is None:
        return None
    size = whole_batches(asked, at_once(study.recipe(study.trained(recipe.train)).drawn))
    return size if size < recipe.num_images else None


def parts(study: Study, ref: str) -> list[str]:
    """Return the names of the parts that jobs draw, known before anything is made; none where one job draws all."""
    size = part_images(study, ref)
    return [part_name(ids) for ids in divided(study.recipe(ref).num_images, size)] if size else []


def in_parts(study: Study) -> list[str]:
    """Return every drawing of a study that is divided among jobs."""
    return [ref for ref in study.of_kind("samples") if part_images(study, ref)]


def gathering(study: Study) -> str:
    """Return what matches the digests of these: they have a rule of their own. Without any it matches nothing."""
    return "|".join(ref.rpartition("-")[2] for ref in in_parts(study)) or "none"


def parts_there(folder: Path, names: list[str]) -> list[str]:
    """Return which of these parts of a drawing are finished."""
    return [name for name in names if (folder / PARTS / f"{name}.npz").is_file()]


def newest(folder: Path) -> float | None:
    """Return the seconds since a job of this drawing last finished a batch or a part; None if none has."""
    files = [*folder.glob(f"{PARTS}/*.npz"), *folder.glob("partial/*/*.npz")]
    times = []
    for path in files:
        with suppress(FileNotFoundError):  # its job has just put it into a part
            times.append(path.stat().st_mtime)
    return max(0.0, time.time() - max(times)) if times else None


def drawn_images(folder: Path, total: int) -> int:
    """Return how many pictures of an unfinished drawing need not be drawn again: of parts, and of single batches."""
    held: set[int] = set()
    for path in folder.glob(f"{PARTS}/*.npz"):
        if PART.fullmatch(path.stem):
            held.update(part_ids(path.stem))
    for path in folder.glob("partial/*/*.npz"):
        batch, start = path.parent.name.rpartition("-")[2], path.stem
        if batch.isdecimal() and start.isdecimal():
            held.update(range(int(start), int(start) + int(batch)))
    return len(held & set(range(total)))
