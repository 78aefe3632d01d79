"""Which jobs draw the pictures of a protocol: one, or as many as its resources divide it among. No torch."""

from pathlib import Path

from mdm.config.training import DrawingResources
from mdm.evaluate.batching import PARTS, at_once, divided, part_ids, part_name, whole_batches
from mdm.study.study import Study


def part_images(study: Study, ref: str) -> int | None:
    """Return the pictures of each job, in whole batches; None where one job draws all."""
    recipe, resources = study.recipe(ref), study.resources(ref)
    asked = resources.images_per_job if isinstance(resources, DrawingResources) else None
    if asked is None:
        return None
    size = whole_batches(asked, at_once(study.recipe(study.trained(recipe.train)).sizes))
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


def drawn_images(folder: Path, batch_images: int, total: int) -> int:
    """Return how many pictures of an unfinished drawing need not be drawn again: of parts, and of single batches."""
    held: set[range] = set()
    for path in folder.glob(f"{PARTS}/*-*.npz"):
        ids = part_ids(path.stem)
        held |= {range(k, min(k + batch_images, ids.stop)) for k in range(ids.start, ids.stop, batch_images)}
    for path in folder.glob("partial/*/*.npz"):
        if path.stem.isdecimal():
            held.add(range(int(path.stem), min(int(path.stem) + batch_images, total)))
    return min(total, sum(map(len, held)))
