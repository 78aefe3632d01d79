"""How strongly a network's answer depends on a caption: large for captions whose picture it knows by heart.

Wen et al. (2024) detect memorised captions by the distance of the noise predicted with a caption from that predicted
without, where a sampler begins. `copies.area_under_curve` says how well that tells copied captions from others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mdm.config import DiffusionConfig
from mdm.config.sizes import Size, shape
from mdm.diffusion import noise, schedule
from mdm.diffusion.guidance import Prompt
from mdm.diffusion.parameterisation import parameterisation
from mdm.evaluate.excess import Queries, answers, moments
from mdm.evaluate.metric_names import LOG_SNRS

EARLY = LOG_SNRS[:3]  # where hardly anything of a picture is visible yet


def text_signal(
    network: nn.Module, config: DiffusionConfig, sizes: Sequence[Size], prompts: Prompt, empty: Prompt,
    draws: int = 4, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Mean distance of the noises predicted with each of B captions and without, over levels, noise levels and draws.

    `prompts` has B rows, `empty` has one. Every caption meets the same noises, so that captions compare.
    """
    count = len(next(part for part in (prompts.text, prompts.labels) if part is not None))
    total, way = np.zeros(count), parameterisation(config)
    with torch.no_grad():
        for place, time in enumerate(moments(config, EARLY)):
            times = time.expand(count)
            levels = torch.stack([way.level(row, times) for row in schedule.levels(config, sizes)])
            for draw in range(draws):
                queries = Queries(_begun(config, sizes, levels, seed, draw, place), levels, times)
                both = [answers(network, config, queries, given, count) for given in (prompts, empty)]
                for own, without, level in zip(*both, levels, strict=True):
                    # Of one noisy picture, noises differ as clean pictures do, times the root of the SNR.
                    scale = (-way.log_sigma(level)).exp()
                    total += (scale * (own - without).flatten(1).norm(dim=1)).double().numpy()
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
