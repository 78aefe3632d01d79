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
from mdm.config.recipe import AuditRecipe, SamplesRecipe
from mdm.data.batches.reader import Pictures
from mdm.diffusion.loss import pyramid
from mdm.evaluate.excess import BATCH_IMAGES, answers, asked, empty_prompt, read_signal, spread
from mdm.evaluate.intervals import Estimate, groups_of, metric
from mdm.evaluate.metric_names import at_level
from mdm.evaluate.painter import averaged_network, stage_of
from mdm.files.artifact import read_recipe


def loss_gap(recipe: AuditRecipe, root: Path) -> Iterator[dict[str, Any]]:
    """The rows of every level: held-out over training loss, minus one."""
    train = root / read_recipe(root / recipe.samples / "recipe.json", SamplesRecipe).train
    stage, device = stage_of(train), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network, _ = averaged_network(train, device)
    prompt = empty_prompt(stage, root / recipe.text if recipe.text else None, device)
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
    gap = held.mean() / known.mean() - 1
    parts = [
        [np.delete(side, group).mean() for group in groups_of(len(side))] for side in (known, held)
    ]  # fmt: skip
    over_known = np.array([held.mean() / part - 1 for part in parts[0]])
    over_held = np.array([part / known.mean() - 1 for part in parts[1]])
    half = Estimate(float(gap), over_known, over_held).half_width
    return metric(name, gap, gap - half, gap + half, min(len(known), len(held)))
