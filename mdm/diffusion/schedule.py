"""Noise schedules: alpha-bar ("gamma") of N+1 noise levels, 0 = clean, and their shift with resolution."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mdm.config import DiffusionConfig, StudyError, nearest
from mdm.config.sizes import Size, side

BETA_FIRST, BETA_LAST = 1e-4, 0.02  # Ho et al. 2020, for 1000 steps; the released code does not rescale them


def _squared_cosine(steps: int) -> np.ndarray:
    """Nichol & Dhariwal 2021, as the released models use it."""
    clean = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - clean[1:] / clean[:-1], 0.999)
    return np.exp(np.cumsum(np.log1p(-np.concatenate([[0.0], betas]))))


def _cosine(steps: int) -> np.ndarray:
    """Log-SNR from 5 to -5 along a cosine, then the clean level in front."""
    last, first = np.arctan(np.exp(-2.5)), np.arctan(np.exp(2.5))
    log_snr = -2 * np.log(np.tan((first - last) * np.linspace(0, 1, steps) + last))
    return np.concatenate([[1.0], 1 / (1 + np.exp(-log_snr))])


def _linear(steps: int) -> np.ndarray:
    """Linearly growing betas."""
    return np.cumprod(1 - np.concatenate([[0.0], np.linspace(BETA_FIRST, BETA_LAST, steps)]))


def _sigmoid(steps: int) -> np.ndarray:
    """Jabri et al. 2022 with start -3, end 3, temperature 1; the floor keeps the last SNR above zero."""
    falling = 1 / (1 + np.exp(np.linspace(-3, 3, steps + 1)))
    return np.maximum((falling - falling[-1]) / (falling[0] - falling[-1]), 1e-9)


SCHEDULES = {"squared-cosine": _squared_cosine, "cosine": _cosine, "linear": _linear, "sigmoid": _sigmoid}


def alpha_bar(name: str, steps: int) -> Tensor:
    """Gamma of every noise level, float32 [steps + 1], from 1 downwards."""
    if name not in SCHEDULES:
        raise StudyError(f"unknown schedule '{name}'; {nearest(name, SCHEDULES)}")
    return torch.from_numpy(SCHEDULES[name](steps)).float()


def shift(gammas: Tensor, ratio: float, power: float) -> Tensor:
    """Divide the SNR by ratio ** power; a larger picture hides its content only under more noise.

    float32 like the released code: 1 - gamma of the first levels depends on the rounding.
    """
    if ratio == 1 or power == 0:
        return gammas
    snr = gammas / (1 - gammas) / ratio**power
    return 1 / (1 + 1 / snr)


def levels(config: DiffusionConfig, resolutions: Sequence[Size]) -> Tensor:
    """Noise levels of a nest, highest resolution first: shifted gammas [L, N+1].

    Sigmas have no table of levels: instead, the factors [L, 1] on the base's sigma that shift its SNR as much. All
    frames of a clip count as one picture.
    """
    sides = [side(size) for size in resolutions]
    ratios = [ours / (config.base_resolution or min(sides)) for ours in sides]
    if config.sigmas:
        return torch.tensor([[ratio ** (config.shift_power / 2)] for ratio in ratios])
    gammas = alpha_bar(config.schedule, config.steps)
    rows = [shift(gammas, ratio, config.shift_power) for ratio in ratios]
    return torch.stack([_ahead(row, depth, len(rows), config) for depth, row in enumerate(rows)])


def _ahead(gammas: Tensor, depth: int, count: int, config: DiffusionConfig) -> Tensor:
    """The schedule of level number `depth` of `count`, highest first, which goes ahead of the one around it.

    Every level goes the whole way from noise to the clean picture in the same share of the time, one after the other:
    a level that began below the last gamma would be started from noise that no picture of training ever was.
    """
    if not config.lead:
        return gammas
    share = torch.arange(len(gammas), dtype=torch.float64) / config.steps
    own = (share - depth * config.lead) / (1 - (count - 1) * config.lead)
    places = (own * config.steps).round().long().clamp(1, config.steps)
    return torch.cat([gammas[:1], gammas[places[1:]]])


def steps_of_log_snr(config: DiffusionConfig, log_snr: Tensor) -> Tensor:
    """The steps 0..N-1 of the unshifted schedule whose ln(SNR) is nearest to each of these values."""
    return config.steps - 1 - torch.searchsorted(_middles(config.schedule, config.steps), log_snr.double())


@cache
def _middles(schedule: str, steps: int) -> Tensor:
    """Half-way between neighbouring ln(SNR) of a schedule, rising: every batch of training asks for them."""
    gammas = alpha_bar(schedule, steps)[1:].double()
    rising = (gammas / (1 - gammas)).log().flip(0)
    return (rising[1:] + rising[:-1]) / 2
