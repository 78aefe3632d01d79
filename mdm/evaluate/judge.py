"""Train the judge on real pictures and measure how far it can be trusted."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mdm.config.instruments import JudgeSettings
from mdm.config.recipe_measured import JudgeRecipe
from mdm.evaluate.alignment import alignment
from mdm.evaluate.augment import augment
from mdm.evaluate.fitting import fit
from mdm.evaluate.judge_network import WEIGHTS, Judge, JudgeReader, Reading, to_input
from mdm.evaluate.labels import CLASSES, WIDTHS, encode
from mdm.evaluate.pictures import PictureSet, open_pictures
from mdm.files.artifact import Making
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.hashes import sha256_file
from mdm.files.weights import save_weights

CLASS_WEIGHT = 0.5
CHANCE_SHIFTS = 16
READ_BATCH = 256


def train_judge(recipe_path: str | Path) -> None:
    """Train on the recipe's data and test on its test set; write weights, judge.json and manifest."""
    making = Making(recipe_path, JudgeRecipe)
    recipe, folder = making.recipe, making.folder
    settings = recipe.settings
    judge, loss = fit_judge(open_labelled(making.root / recipe.data, settings.resolution), settings)
    shape = {"resolution": settings.resolution, "channels": settings.channels}
    save_weights(folder / WEIGHTS, judge.state_dict(), shape)
    # Its accuracy on real pictures, and guessing, under the names that scores use.
    test, reader = open_labelled(making.root / recipe.test, settings.resolution), JudgeReader(folder)
    read = [reader(batch)[0] for batch in test.batches(READ_BATCH)]
    answers = {key: np.concatenate([part[key] for part in read]) for key in read[0]}
    metrics = alignment(answers, encode(test.labels), CHANCE_SHIFTS)
    write_json(folder / "judge.json", {"metrics": metrics, "test": recipe.test})
    parameters = sum(p.numel() for p in judge.parameters())
    making.finish({"loss": loss, "parameters": parameters, "sha256": sha256_file(folder / WEIGHTS)})


def open_labelled(folder: Path, resolution: int) -> PictureSet:
    """A data set of which every picture says what is in it, averaged down to the judge's resolution."""
    pictures = open_pictures(folder, resolution=resolution)
    if not all(pictures.labels):
        raise ArtifactError(f"{folder} has pictures without labels; a judge needs a labelled source, e.g. scenes")
    return pictures


def fit_judge(pictures: PictureSet, settings: JudgeSettings) -> tuple[Judge, float]:
    """A judge trained from its seed: the same pictures and settings give the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        judge = Judge(settings.channels).to(memory_format=torch.channels_last)
    pixels = pictures.all()
    labels = {key: torch.from_numpy(value).long() for key, value in encode(pictures.labels).items()}

    def loss_of(indices: Tensor, noise: torch.Generator) -> Tensor:
        batch = augment(to_input(pixels[indices.numpy()], settings.resolution), noise)
        reading = judge(batch.contiguous(memory_format=torch.channels_last))
        return reading_loss(reading, {key: value[indices] for key, value in labels.items()})

    return judge, fit("judge", judge, judge.hidden(), loss_of, len(pictures), settings)


def reading_loss(reading: Reading, labels: dict[str, Tensor]) -> Tensor:
    """Cross entropies of all sets and classes, per picture. One-group scenes teach the relation "none"."""
    total = torch.zeros(())
    for key in WIDTHS:
        found, true = getattr(reading, key), labels[key].float()
        total = total + F.binary_cross_entropy_with_logits(found, true, reduction="sum")
    for key in CLASSES:
        total = total + CLASS_WEIGHT * F.cross_entropy(getattr(reading, key), labels[key], reduction="sum")
    return total / len(reading.count)
