"""By how much more a network loses on pictures that it was not trained on, in little noise, where copying begins.

Overfitting shows there before any picture is copied (Bonnaire et al. 2025). Captions are left empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdm.config.audit import GAP_LOG_SNR
from mdm.config.recipe import SamplesRecipe
from mdm.config.recipe_measured import AuditRecipe
from mdm.data.batches.reader import Pictures
from mdm.diffusion.loss import pyramid
from mdm.evaluate.excess import BATCH_IMAGES, answers, asked, read_signal, ready_to_answer, spread
from mdm.evaluate.intervals import jackknife_both, metric
from mdm.evaluate.metric_names import at_level
from mdm.files.artifact import read_recipe


def loss_gap(recipe: AuditRecipe, root: Path) -> Iterator[dict[str, Any]]:
    """The rows of every level: held-out over training loss, minus one."""
    train = root / read_recipe(root / recipe.samples / "recipe.json", SamplesRecipe).train
    stage, network, _, prompt, device = ready_to_answer(train, root / recipe.text if recipe.text else None)
    sides = []
    for data, take in (recipe.data, recipe.take), (str(recipe.held_out), None):
        pictures = Pictures(root / data)
        total = min(take or len(pictures), len(pictures))
        numbers = spread(total, min(recipe.num_images, total))
        with torch.no_grad():
            queries = asked(stage, pictures, numbers, 0, device, (GAP_LOG_SNR,))
            said = answers(network, stage.diffusion, queries, prompt, BATCH_IMAGES)
        clean = pyramid(read_signal(pictures, stage, numbers)[1].to(device), stage.sizes)
        errors = [(a - b).square().flatten(1).mean(dim=1) for a, b in zip(said, clean, strict=True)]
        sides.append([part.double().cpu().numpy() for part in errors])
    for side, known, held in zip(map(str, stage.sizes), *sides, strict=True):
        yield gap_row(at_level("loss_gap", side), known, held)


def gap_row(name: str, known: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    """The gap of losses [N] and [H], with its interval over both sets of pictures."""
    found = jackknife_both(lambda one, other: float(other.mean() / one.mean() - 1), known, held)
    low, high = found.value - found.half_width, found.value + found.half_width
    return metric(name, found.value, low, high, min(len(known), len(held)))
