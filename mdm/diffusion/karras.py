"""The sampler of the memorization study: Heun's method on states in float64, from latents that a picture's seed fixes.

Karras et al. 2022, algorithm 1 without churn, as the released code of Gu et al. 2023 runs it (docs/reference.md,
section 19).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mdm.diffusion.path import RHO, SIGMA_MAX, SIGMA_MIN

PICTURES = 2**20  # seeds that each seed of a protocol has for its pictures
SEEDS = 2**32  # a generator on the CPU keeps so many


def picture_seeds(seed: int, pictures: Sequence[int]) -> list[int]:
    """The seed of each picture of a protocol; those of protocol seed 0 are the pictures' own numbers."""
    return [(seed * PICTURES + int(picture)) % SEEDS for picture in pictures]


def released_latents(seeds: Sequence[int], resolution: int, classes: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Standard normal latents [B,3,R,R] and, of a network with classes, labels [B] drawn after them.

    Every picture has a generator of its own, so neither depends on the batch it is in.
    """
    latents, labels = [], []
    for seed in seeds:
        own = torch.Generator().manual_seed(seed % SEEDS)
        latents.append(torch.randn(3, resolution, resolution, generator=own))
        if classes:
            labels.append(torch.randint(classes, (), generator=own))
    return torch.stack(latents), torch.stack(labels) if classes else None


def karras_steps(steps: int, sigma_min: float, sigma_max: float, rho: float = RHO) -> Tensor:
    """The noise levels of a run, float64 [steps + 1], from the highest down to 0."""
    if steps < 1:
        raise ValueError(f"steps {steps}: a sampler needs one step or more")
    low, high = max(SIGMA_MIN, sigma_min) ** (1 / rho), min(SIGMA_MAX, sigma_max) ** (1 / rho)
    # With one step there is no way from high to low to share out: it begins at high.
    shares = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    return torch.cat([(high + shares * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def karras_heun(
    denoise: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    steps: int,
    sigma_min: float = 0.0,
    sigma_max: float = float("inf"),
    rho: float = RHO,
    report: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Clean pictures in float64 from latents [B,...] in 2 steps - 1 evaluations; nothing is clipped on the way.

    `denoise(x, sigma)` answers the clean picture of x = y + sigma epsilon; x is float64 and sigma one float64 number
    for the whole batch. The limits are those of the network; the sampler itself stays within 0.002 and 80.
    """
    sigmas = karras_steps(steps, sigma_min, sigma_max, rho)
    x = latents.double() * sigmas[0]
    for step, (now, then) in enumerate(pairwise(sigmas), start=1):
        slope = (x - denoise(x, now).double()) / now
        trial = x + (then - now) * slope
        if step < steps:
            second = (trial - denoise(trial, then).double()) / then
            trial = x + (then - now) * (slope + second) / 2
        x = trial
        if report:
            report(step, steps)
    return x


def truncated_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as bytes by the released rule, truncated after adding 128: halves are rounded up."""
    return (pictures * 127.5 + 128).clip(0, 255).to(torch.uint8)
