"""The upsampler of a cascade: a U-Net that also sees a small picture, enlarged, and is told of the noise on it.

Ho et al. 2022 (CDM) and Saharia et al. 2022 (Imagen); docs/reference.md, section 22.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm.config import LevelConfig, LowConfig, ModelConfig
from mdm.model.arithmetic import time_channels
from mdm.model.attention import zeroed
from mdm.model.blocks import sinusoids
from mdm.model.unet import Condition, InnermostUNet

TOLD = 1000.0  # a noise level of 0..1 is told on the scale of the time


@dataclass(frozen=True)
class Low:
    """What an upsampler enlarges: pictures [B,3,r,r], noisy already, and their noise levels [B], from 0 to 1."""

    pictures: Tensor
    levels: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Low:
        return Low(change(self.pictures), change(self.levels))


class Upsampler(InnermostUNet):
    """A U-Net of a single level whose first convolution also reads the enlarged small picture.

    A convolution of joined channels is the sum of two convolutions; the second one, over the small picture, and the
    last layer that embeds its noise level begin at zero, so what is untrained changes nothing.
    """

    def __init__(self, level: LevelConfig, config: ModelConfig) -> None:
        super().__init__(level, config)
        width = time_channels(config)
        self.low_in = zeroed(nn.Conv2d(level.pixel_channels, level.channels[0], 3, padding=1))
        self.low_layer1 = nn.Linear(width // 4, width)
        self.low_layer2 = zeroed(nn.Linear(width, width))

    def forward(
        self,
        pictures: list[Tensor],
        times: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        micros: dict[str, Tensor] | None = None,
        labels: Tensor | None = None,
        low: Low | None = None,
    ) -> list[Tensor]:
        """As any network; `low` holds as many rows, or half of them: both branches of guidance see the same."""
        self._check(pictures, times, micros)
        low, condition = self._checked(low, len(times)), self.encode(text, mask, labels)
        told = self.low_layer2(F.silu(self.low_layer1(sinusoids(low.levels * TOLD, self.t_emb))))
        vector = told if condition.vector is None else told + condition.vector
        seen = enlarged(low.pictures.to(pictures[0].dtype), self.config.upsamples, pictures[0].shape[-1])
        if self.level.patch > 1:
            seen = F.pixel_unshuffle(seen, self.level.patch)
        condition = Condition(vector, condition.text, condition.keep)
        return self.denoise(pictures, times, condition, micros, self.low_in(seen))[0]

    def _checked(self, low: Low | None, rows: int) -> Low:
        size = self.config.upsamples.size
        if low is None:
            raise ValueError(f"an upsampler needs small pictures of {size} px, but none were given")
        if low.pictures.shape[1:] != (3, size, size) or len(low.pictures) != len(low.levels):
            raise ValueError(
                f"an upsampler takes small pictures [B, 3, {size}, {size}] and a noise level for each, but "
                f"{list(low.pictures.shape)} with {len(low.levels)} levels were given"
            )
        if rows % len(low.levels):
            raise ValueError(f"{len(low.levels)} small pictures do not fit a batch of {rows}")
        return low.each(lambda x: x.repeat(rows // len(x), *[1] * (x.ndim - 1)))


def enlarged(low: Tensor, config: LowConfig, side: int) -> Tensor:
    """Small pictures [B,3,r,r] -> [B,3,side,side] by the operator of the recipe."""
    return F.interpolate(low, size=(side, side), mode=config.operator, align_corners=False)


def build(config: ModelConfig, seed: int) -> Upsampler:
    """Return the upsampler of a configuration with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return Upsampler(config.levels[0], config)


def seeing(model: Callable[..., list[Tensor]], low: Low | None) -> Callable[..., list[Tensor]]:
    """Return the network with its small pictures at hand; any other network as it is."""
    return model if low is None else partial(model, low=low)
