"""Changes that keep a picture's labels, so that a measuring network also reads generated pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE = 0.08  # deviation at most, pictures in [-1, 1]
BRIGHTNESS = 0.1
CONTRAST = 0.15
BLURRED_SHARE = 0.4


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, blur and noise on pictures [B, 3, H, W] in [-1, 1], each drawn per picture.

    No flips and no colour shifts: "left of" and "red" are what the networks must tell apart.
    """
    batch = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(batch, 1, 1, 1).uniform_(low, high, generator=generator)

    changed = pictures * uniform(1 - CONTRAST, 1 + CONTRAST) + uniform(-BRIGHTNESS, BRIGHTNESS)
    blurred = torch.rand(batch, 1, 1, 1, generator=generator) < BLURRED_SHARE
    changed = torch.where(blurred, soften(changed, uniform(0.3, 1.0)), changed)
    noise = torch.randn(changed.shape, generator=generator)
    return (changed + noise * uniform(0, NOISE)).clamp(-1, 1)


def soften(pictures: Tensor, amount: Tensor) -> Tensor:
    """Mix pictures [B, 3, H, W] with their half-size copies by amount [B, 1, 1, 1]."""
    small = F.avg_pool2d(pictures, 2)
    smooth = F.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(pictures, smooth, amount)
