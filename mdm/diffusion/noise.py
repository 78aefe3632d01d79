"""Noise as a pure function of what it is for, a seed, the picture's number, the step and the level.

Drawn on the CPU: the numbers of a CUDA generator depend on the model of the card.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mdm.config import DiffusionConfig
from mdm.config.sizes import Size, shape
from mdm.diffusion.parameterisation import preconditioning
from mdm.diffusion.reduce import reduced
from mdm.diffusion.schedule import steps_of_log_snr


def generator(purpose: str, seed: int, picture: int, step: int = 0, level: Size = 0) -> torch.Generator:
    """A CPU generator of its own for one draw."""
    name = hashlib.sha256(f"{purpose}/{seed}/{step}/{level}".encode()).digest()
    # The CPU generator keeps 32 bits of its seed; adding the picture's number (rather than hashing it too)
    # makes sure that no two of 4 billion pictures share a draw.
    return torch.Generator().manual_seed((int.from_bytes(name[:4], "big") + picture) % 2**32)


def normal(
    purpose: str, seed: int, pictures: Sequence[int], shape: Sequence[int], step: int = 0, level: Size = 0
) -> Tensor:
    """Standard normal numbers [B, *shape], one generator per picture."""
    noise = torch.empty(len(pictures), *shape)
    for row, picture in zip(noise, pictures, strict=True):
        torch.randn(*shape, generator=generator(purpose, seed, int(picture), step, level), out=row)
    return noise


def training_times(config: DiffusionConfig, seed: int, pictures: Sequence[int]) -> Tensor:
    """Times [B], one per image counter: steps in 0..N-1 by their density, or sigmas of the base resolution."""
    if config.sigmas and preconditioning(config).draws == "uniform":
        draws = [torch.rand(1, generator=generator("time", seed, int(p))) for p in pictures]
        return preconditioning(config).sigma(torch.cat(draws))
    if config.sigmas or config.noise_levels != "uniform":
        return times_of_normal(config, normal("time", seed, pictures, (1,))[:, 0])
    draws = [torch.randint(config.steps, (1,), generator=generator("time", seed, int(p))) for p in pictures]
    return torch.cat(draws)


def times_of_normal(config: DiffusionConfig, numbers: Tensor) -> Tensor:
    """Times [B] of standard normal numbers [B], where the density of noise levels is made from such."""
    if config.sigmas:
        return preconditioning(config).sigma(numbers)
    drawn = config.noise_mean + config.noise_deviation * numbers
    # t x0 + (1 - t) epsilon has SNR (t / (1 - t))^2, so ln(SNR) is twice the logit of t; and -2 ln(sigma).
    return steps_of_log_snr(config, 2 * drawn if config.noise_levels == "logit-normal" else -2 * drawn)


def spread_times(config: DiffusionConfig, count: int) -> Tensor:
    """Times [count] spread evenly over what training draws, where luck should play no part."""
    shares = (torch.arange(count) + 0.5) / count
    if config.sigmas and preconditioning(config).draws == "uniform":
        return preconditioning(config).sigma(shares)
    if config.sigmas or config.noise_levels != "uniform":
        return times_of_normal(config, torch.special.ndtri(shares))
    return torch.linspace(0, config.steps - 1, count).long()


def training_noises(
    config: DiffusionConfig, seed: int, pictures: Sequence[int], resolutions: Sequence[Size]
) -> list[Tensor]:
    """Noise [B,3,R,R] or [B,T,3,R,R] of every level, highest first: independent, or pooled from the highest."""
    if not config.shared_noise:
        return [normal("noise", seed, pictures, shape(size), level=size) for size in resolutions]
    noises = [normal("noise", seed, pictures, shape(resolutions[0]), level=resolutions[0])]
    for size in resolutions[1:]:
        high, low = noises[-1], reduced(noises[-1], size)
        # The mean of ratio^2 unit normals has deviation 1/ratio.
        noises.append(low * (high.shape[-1] // low.shape[-1]))
    return noises
