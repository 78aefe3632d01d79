"""Autoencoders: pictures to the mean and log-variance of their codes, and codes to pictures (reference, section 24).

The small one folds blocks of pixels into channels and does all its work on the grid of codes, where a picture costs a
third of what it costs at full resolution on a CPU, and trains better. `mdm/model/autoencoder_kl.py` has the other one.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mdm.config.latent import AutoencoderNetwork

# Log-variances beyond these are slips of a network: exp would overflow, or a code would be certain.
LOWEST, HIGHEST = -30.0, 20.0
EPSILON = 1e-6


class Residual(nn.Module):
    """Two convolutions beside a way around them, each after normalisation and SiLU; names are those of diffusers."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        around = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        x = self.conv1(F.silu(self.norm1(x)))
        return around + self.conv2(F.silu(self.norm2(x)))


class Autoencoder(nn.Module):
    """What all have in common: pictures [B,3,R,R] in [-1,1], codes [B,C,R/f,R/f]."""

    def __init__(self, config: AutoencoderNetwork) -> None:
        super().__init__()
        self.config = config

    def raw(self, pictures: Tensor) -> Tensor:
        """Mean and log-variance, one behind the other: [B,2C,R/f,R/f]."""
        raise NotImplementedError

    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the codes [B,C,R/f,R/f]."""
        mean, log_variance = self.raw(pictures).chunk(2, dim=1)
        return mean, log_variance.clamp(LOWEST, HIGHEST)

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures [B,3,R,R]; they may reach beyond [-1,1]."""
        raise NotImplementedError

    def hidden(self) -> list[Tensor]:
        """Weights between hidden features: those that meet neither pictures nor codes."""
        raise NotImplementedError


class SmallAutoencoder(Autoencoder):
    """Blocks of pixels as channels; convolutions and residual blocks on the grid of codes."""

    def __init__(self, config: AutoencoderNetwork) -> None:
        super().__init__(config)
        width, folded, groups = config.channels[0], 3 * config.factor**2, config.norm_groups
        self.enter = nn.Conv2d(folded, width, 3, padding=1)
        self.encoder = nn.Sequential(*(Residual(width, width, groups) for _ in range(config.resnets)))
        self.to_moments = nn.Conv2d(width, 2 * config.codes, 1)
        self.from_codes = nn.Conv2d(config.codes, width, 3, padding=1)
        self.decoder = nn.Sequential(*(Residual(width, width, groups) for _ in range(config.resnets + 1)))
        self.leave = nn.Conv2d(width, folded, 3, padding=1)

    def raw(self, pictures: Tensor) -> Tensor:
        """Mean and log-variance of the codes."""
        return self.to_moments(self.encoder(self.enter(F.pixel_unshuffle(pictures, self.config.factor))))

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of codes."""
        return F.pixel_shuffle(self.leave(self.decoder(self.from_codes(codes))), self.config.factor)

    def hidden(self) -> list[Tensor]:
        """The convolutions of the residual blocks."""
        return [p for part in (self.encoder, self.decoder) for p in part.parameters() if p.ndim == 4]


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the codes of each picture from a unit normal, in nats [B]: their rate."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)
