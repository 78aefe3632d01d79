"""Weights of the loss by noise level (docs/reference.md, section 12).

A loss on epsilon is SNR times, one on v is SNR + 1 times the squared error of the clean picture. Every weight here is
given by what it makes of that error, and divided by the factor that the space of the loss already has.
"""

import math

import torch
from torch import Tensor

from mdm.config import DiffusionConfig


def loss_weight(config: DiffusionConfig, gamma: Tensor) -> Tensor | None:
    """The weight of losses in the space `loss_on` at each gamma; None: one everywhere."""
    snr = gamma / (1 - gamma)
    per_unit = {"x0": torch.ones_like(snr), "epsilon": 1 / snr, "v": 1 / (snr + 1)}[config.loss_on]
    if config.min_snr is not None:  # Hang et al. 2023
        return snr.clamp(max=config.min_snr) * per_unit
    if config.soft_min_snr is not None:  # Crowson et al. 2024
        return snr * config.soft_min_snr / (snr + config.soft_min_snr) * per_unit
    if config.sigmoid_weight is not None:  # Kingma & Gao 2023; Hoogeboom et al. 2024
        return snr / (1 + snr * math.exp(-config.sigmoid_weight)) * per_unit
    return None


def floored_gain(loss_on: str, gamma: Tensor, floor: float) -> Tensor:
    """Factor from an error of x0 to one of v (or epsilon), whose division by the noise stops at `floor` (JiT 2025)."""
    gain = 1 / ((1 - gamma) ** 0.5).clamp(min=floor)
    return gain if loss_on == "v" else gamma**0.5 * gain
