"""Train the judge on real pictures and measure how far it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from mdm.config import Positive
from mdm.evaluate.alignment import alignment
from mdm.evaluate.augment import augment
from mdm.evaluate.fitting import FitSettings, fit
from mdm.evaluate.judge_network import STRIDE, Judge, JudgeReader, Reading, to_input
from mdm.evaluate.labels import CLASSES, WIDTHS, encode
from mdm.evaluate.pictures import PictureSet, open_pictures
from mdm.manifest import (
    ArtifactError,
    Stopwatch,
    provenance,
    read_recipe,
    results_root,
    sha256_file,
    write_json,
)
from mdm.model.checkpoints import save_weights
from mdm.study_file import parse

CLASS_WEIGHT = 0.5
CHANCE_SHIFTS = 16
READ_BATCH = 256
WEIGHTS = "weights.safetensors"


class JudgeSettings(FitSettings):
    """Settings of a judge; `num_images` are pictures shown, with repetition."""

    resolution: Annotated[int, Field(ge=2 * STRIDE)] = 64
    channels: tuple[Positive, Positive, Positive] = (24, 48, 64)
    num_images: Positive = 40_000
    batch_images: Positive = 32
    learning_rate: float = 3e-3

    @field_validator("resolution")
    @classmethod
    def _has_whole_cells(cls, resolution: int) -> int:
        if resolution % STRIDE:
            raise ValueError(
                f"resolution {resolution} is not a multiple of {STRIDE}, the size of the judge's cells"
            )
        return resolution


def train_judge(recipe_path: str | Path) -> None:
    """Train on the recipe's data, test on its test set; write weights.safetensors, judge.json, manifest.json."""
    clock, recipe, folder = Stopwatch(), read_recipe(recipe_path), Path(recipe_path).parent
    settings = parse(JudgeSettings, recipe["settings"], f"{recipe_path}: settings")
    root = results_root(recipe_path)
    judge, loss = fit_judge(open_labelled(root / recipe["data"], settings.resolution), settings)
    save_weights(folder / WEIGHTS, judge.state_dict(), {"recipe": folder.name})
    # The reader needs the settings beside the weights; the numbers follow once it has read the test set.
    described = {"settings": settings.model_dump(mode="json"), "test": recipe["test"]}
    write_json(folder / "judge.json", {"metrics": [], **described})
    metrics = examine(folder, open_labelled(root / recipe["test"], settings.resolution))
    write_json(folder / "judge.json", {"metrics": metrics, **described})
    record = {
        "artifact": f"judge/{folder.name}", "recipe": recipe, "loss": loss, "sha256": sha256_file(folder / WEIGHTS),
        "parameters": sum(p.numel() for p in judge.parameters()), **provenance(), "seconds": clock.seconds,
    }  # fmt: skip
    write_json(folder / "manifest.json", record)


def open_labelled(folder: Path, resolution: int) -> PictureSet:
    """A data set of which every picture says what is in it, averaged down to the judge's resolution."""
    pictures = open_pictures(folder, resolution=resolution)
    if not all(pictures.labels):
        raise ArtifactError(
            f"{folder} has pictures without labels; a judge learns from a labelled source (scenes)"
        )
    return pictures


def fit_judge(pictures: PictureSet, settings: JudgeSettings) -> tuple[Judge, float]:
    """A judge trained from its seed: the same pictures and settings give the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        judge = Judge(settings.channels)
    pixels = pictures.all()
    labels = {key: torch.from_numpy(value).long() for key, value in encode(pictures.labels).items()}
    judge = judge.to(memory_format=torch.channels_last)

    def loss_of(indices: Tensor, noise: torch.Generator) -> Tensor:
        batch = augment(to_input(pixels[indices.numpy()], settings.resolution), noise)
        reading = judge(batch.contiguous(memory_format=torch.channels_last))
        return reading_loss(reading, {key: value[indices] for key, value in labels.items()})

    return judge, fit("judge", judge, loss_of, len(pictures), settings)


def reading_loss(reading: Reading, labels: dict[str, Tensor]) -> Tensor:
    """Cross entropies of all sets and classes. One-group scenes teach the relation "none"."""
    sets = [
        F.binary_cross_entropy_with_logits(getattr(reading, key), labels[key].float(), reduction="sum")
        for key in WIDTHS
    ]
    classes = [F.cross_entropy(getattr(reading, key), labels[key], reduction="sum") for key in CLASSES]
    return (sum(sets) + CLASS_WEIGHT * sum(classes)) / len(reading.count)


def examine(folder: Path, pictures: PictureSet) -> list[dict]:
    """The judge's accuracy on real pictures, and guessing, under the names that scores use."""
    import numpy as np

    reader = JudgeReader(folder)
    read = [reader(batch)[0] for batch in pictures.batches(READ_BATCH)]
    answers = {key: np.concatenate([part[key] for part in read]) for key in read[0]}
    return alignment(answers, encode(pictures.labels), CHANCE_SHIFTS)
