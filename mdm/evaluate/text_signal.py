"""How strongly a network's answer depends on a caption: large for captions whose picture it knows by heart.

Wen et al. (2024) detect memorised captions by the distance of the noise predicted with a caption from that predicted
without, where a sampler begins. `copies.area_under_curve` says how well that tells copied captions from others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mdm.config import DiffusionConfig, StudyError
from mdm.config.recipe import SamplesRecipe
from mdm.config.recipe_measured import AuditRecipe
from mdm.config.sizes import Size, shape
from mdm.data.batches.reader import Pictures
from mdm.data.text.cache import Embeddings
from mdm.diffusion import noise, schedule
from mdm.diffusion.guidance import Prompt
from mdm.diffusion.parameterisation import parameterisation
from mdm.evaluate.copies import area_under_curve
from mdm.evaluate.excess import Queries, answers, moments, ready_to_answer, spread
from mdm.evaluate.intervals import jackknife_both, metric
from mdm.evaluate.metric_names import LOG_SNRS, TEXT_SIGNAL
from mdm.files.artifact import read_recipe

FEWEST = 4  # captions of an interval
EARLY = LOG_SNRS[:3]  # where hardly anything of a picture is visible yet


def text_signal(
    network: nn.Module, config: DiffusionConfig, sizes: Sequence[Size], prompts: Prompt, empty: Prompt,
    draws: int = 4, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Mean distance of the noises predicted with each of B captions and without, over levels, noise levels and draws.

    `prompts` has B rows, `empty` has one. Every caption meets the same noises, so that captions compare.
    """
    told = next(part for part in (prompts.text, prompts.labels) if part is not None)
    count, device = len(told), told.device
    total, way = np.zeros(count), parameterisation(config)
    with torch.no_grad():
        for place, time in enumerate(moments(config, EARLY)):
            times = time.expand(count)
            levels = torch.stack([way.level(row, times) for row in schedule.levels(config, sizes)])
            for draw in range(draws):
                begun = [x.to(device) for x in _begun(config, sizes, levels, seed, draw, place)]
                queries = Queries(begun, levels.to(device), times.to(device))
                both = [answers(network, config, queries, given, count) for given in (prompts, empty)]
                for own, without, level in zip(*both, levels, strict=True):
                    # Of one noisy picture, noises differ as clean pictures do, times the root of the SNR.
                    scale = (-way.log_sigma(level)).exp()
                    total += (scale * (own - without).flatten(1).norm(dim=1).cpu()).double().numpy()
    return total / (draws * len(EARLY))


def _begun(
    config: DiffusionConfig, sizes: Sequence[Size], levels: torch.Tensor, seed: int, draw: int, place: int
) -> list[torch.Tensor]:  # fmt: skip
    """Grey pictures in one noise for all captions, as a sampler sees them at first."""
    way, found = parameterisation(config), []
    for size, level in zip(sizes, levels, strict=True):
        z = noise.normal("text-signal", seed, [draw], shape(size), step=place, level=size)
        found.append(way.noisy(torch.zeros_like(z), z, level[:1]).expand(len(level), *z.shape[1:]))
    return found


def signal_row(recipe: AuditRecipe, root: Path) -> dict[str, Any]:
    """How well the signal tells captions of training pictures from others: 0.5 by guessing, 1 always."""
    train = root / read_recipe(root / recipe.samples / "recipe.json", SamplesRecipe).train
    stage, network, _, empty, device = ready_to_answer(train, root / str(recipe.text))
    known = captions(Pictures(root / recipe.data, recipe.take))
    trained_on = set(known)
    other = [text for text in captions(Pictures(root / str(recipe.held_out))) if text not in trained_on]
    sides = []
    for texts, cache in (known, recipe.text), (other, recipe.held_out_text):
        if len(texts) < FEWEST:
            raise StudyError(
                f"text_signal: {len(texts)} captions stand in one of the two data sets alone; {FEWEST} are needed"
            )
        chosen = [texts[place] for place in spread(len(texts), min(recipe.num_images, len(texts)))]
        features, mask = (part.to(device) for part in Embeddings(root / str(cache)).lookup(chosen))
        labels = None if empty.labels is None else empty.labels.expand(len(chosen))
        sides.append(text_signal(network, stage.diffusion, stage.sizes, Prompt(features, mask, labels), empty))
    return auc_row(*sides)


def captions(pictures: Pictures) -> list[str]:
    """The different captions of a data set, in its order."""
    return list(dict.fromkeys(pictures.caption(number) for number in range(len(pictures))))


def auc_row(known: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """The area under the curve of signals [N] and [M], with its interval over both sets of captions."""
    found = jackknife_both(_area, known, other)
    low, high = found.value - found.half_width, found.value + found.half_width
    return metric(TEXT_SIGNAL, found.value, low, high, min(len(known), len(other)))


def _area(known: np.ndarray, other: np.ndarray) -> float:
    return area_under_curve(np.concatenate([known, other]), np.arange(len(known) + len(other)) < len(known))
