"""What is drawn where no data set says it: pictures without captions, of classes drawn at random."""

import hashlib
import json
from pathlib import Path

import torch

from mdm.config.recipe import SamplesRecipe, StageRecipe
from mdm.data.batches.classes import ClassLabel, class_label
from mdm.data.batches.reader import Pictures
from mdm.data.rows import Row
from mdm.diffusion.karras import picture_seeds, released_latents
from mdm.diffusion.noise import generator
from mdm.evaluate.archive import read_array


def unprompted_rows(recipe: SamplesRecipe, stage: StageRecipe, root: Path) -> list[Row]:
    """One row for each picture, named by its number; its label is the class that the network is asked for."""
    label, numbers = class_label(stage), range(recipe.num_images)
    if label is None:
        return [Row(str(number), "") for number in numbers]
    if drawn := _of_the_base(recipe, label, root):
        return [Row(str(number), "", labels) for number, labels in zip(numbers, drawn, strict=True)]
    if recipe.labels == "balanced":
        return [Row(str(n), "", {label.name: n_th}) for n, n_th in enumerate(_balanced(recipe, label.count))]
    known = list(range(label.count)) if recipe.labels == "all" else used_classes(stage, label, root)
    return [
        Row(str(number), "", {label.name: known[place]})
        for number, place in zip(numbers, _places(recipe, stage, len(known)), strict=True)
    ]


def _of_the_base(recipe: SamplesRecipe, label: ClassLabel, root: Path) -> list[dict[str, int]]:
    """The classes that the base of a cascade was asked for, whatever drew them there; none if it knows no classes.

    Drawn anew they would be others where both do not draw them alike: by the sampler karras, of levels of other sizes,
    or of the classes that other training pictures have.
    """
    if recipe.low is None or not recipe.low.startswith("samples/"):
        return []
    labels = [json.loads(text) for text in read_array(root / recipe.low / "images.npz", "labels").tolist()]
    return labels if labels and all(label.name in found for found in labels) else []


def _balanced(recipe: SamplesRecipe, count: int) -> list[int]:
    """Each class equally often (by one), in an order that the hashes of the pictures' numbers mix.

    Then any part of the pictures, and any group of an interval, is of all classes.
    """
    digests = [hashlib.sha256(f"{recipe.seed}/{number}".encode()).digest() for number in range(recipe.num_images)]
    found = [0] * recipe.num_images
    for place, number in enumerate(sorted(range(recipe.num_images), key=digests.__getitem__)):
        found[number] = place % count
    return found


def used_classes(stage: StageRecipe, label: ClassLabel, root: Path) -> list[int]:
    """The classes of the pictures that the stage was trained on, in order.

    Labels drawn at random leave some out: asked for one of those, a network answers what nobody ever taught it.
    """
    pictures = Pictures(root / stage.data, stage.take)
    where = f"of {pictures.folder}"
    return sorted({label.of(pictures.labels(n), f"picture {pictures.key(n)} {where}") for n in range(len(pictures))})


def _places(recipe: SamplesRecipe, stage: StageRecipe, count: int) -> list[int]:
    """A number below `count` for each picture, all equally likely.

    The sampler karras draws it as the released code does, from the generator of the picture's latents, after them.
    """
    numbers = range(recipe.num_images)
    if recipe.sample.sampler == "karras":
        side, seeds = stage.sizes[0], picture_seeds(recipe.seed, numbers)
        return [int(released_latents([seed], side, count)[1]) for seed in seeds]
    draws = [torch.randint(count, (), generator=generator("label", recipe.seed, number)) for number in numbers]
    return [int(draw) for draw in draws]
