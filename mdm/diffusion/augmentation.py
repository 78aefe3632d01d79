"""Noise on the small pictures of a cascade: its upsampler shall not trust what the base draws to the last detail.

Ho et al. 2022 (CDM), "noise conditioning augmentation"; docs/reference.md, section 22. Level, noise and diffusion time
of a picture are independent, and each is a function of the seed and the picture's number.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdm.config import AugmentationConfig
from mdm.diffusion.noise import generator, normal
from mdm.diffusion.process import add_noise, per_row
from mdm.diffusion.schedule import alpha_bar

GOLDEN = 0.6180339887498949  # multiples of it, modulo one, are spread evenly however many there are


def drawn_levels(config: AugmentationConfig, seed: int, pictures: Sequence[int]) -> Tensor:
    """Noise levels [B] of training, uniform in [0, most), one for each image counter."""
    if config.levels == "none":
        return torch.zeros(len(pictures))
    draws = [torch.rand(1, generator=generator("augmentation-level", seed, int(p))) for p in pictures]
    return torch.cat(draws) * config.most


def spread_levels(config: AugmentationConfig, count: int) -> Tensor:
    """Noise levels [count] spread evenly, in an order that has nothing to do with that of times."""
    if config.levels == "none":
        return torch.zeros(count)
    return (torch.arange(count, dtype=torch.float64) * GOLDEN % 1).float() * config.most


def augmented(config: AugmentationConfig, low: Tensor, levels: Tensor, seed: int, pictures: Sequence[int]) -> Tensor:
    """Small pictures [B,3,r,r] in noise of levels [B]: shares of the way along the base's unshifted schedule.

    Level 0 leaves a picture as it is.
    """
    table = alpha_bar(config.schedule, config.steps)
    gammas = per_row(table[(levels.double() * config.steps).round().long()], low)
    epsilon = normal("augmentation", seed, pictures, low.shape[1:], level=low.shape[-1])
    return add_noise(low, epsilon, gammas)
