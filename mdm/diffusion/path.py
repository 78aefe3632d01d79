"""The noise levels at which a sampler evaluates the network (docs/reference.md, section 14; Karras et al. 2022)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig, StudyError
from mdm.diffusion.parameterisation import preconditioning

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0  # Karras et al. 2022, table 1


@dataclass(frozen=True)
class Moment:
    """One noise level of all resolutions.

    told: what the network is told; share: of the way, 1 noise, 0 clean; gammas [L] on the CPU, highest resolution
    first, float32 from a schedule and float64 from sigmas, whose smallest would vanish in 1 - gamma.
    """

    told: float
    share: float
    gammas: Tensor

    @property
    def clean(self) -> bool:
        """No noise is left: the end of the way."""
        return self.share == 0


def path(config: SampleConfig, diffusion: DiffusionConfig, table: Tensor) -> list[Moment]:
    """The n + 1 moments of a sampler; `table` is what `schedule.levels` gives."""
    if diffusion.sigmas:
        return _sigma_moments(config.steps, diffusion, table[:, 0].cpu().double())
    gammas, total = table.cpu(), table.shape[1] - 1
    if config.steps > total:
        raise StudyError(f"{config.steps} sampling steps, but the schedule has {total}; write at most {total}")
    # With a lead levels stand still in turn, so that none can tell where steps are needed: they are even.
    even = config.sampler in ("ddpm", "ddim") or diffusion.lead
    times = reference_times(total, config.steps) if even else karras_times(gammas[-1].tolist(), config.steps)
    # The network is told t - 1 (docs/reference.md, section 10).
    return [Moment(t - 1, t / total, gammas[:, t]) for t in times]


def reference_times(total: int, steps: int) -> list[int]:
    """The n + 1 noise levels of ddpm and ddim, down to 0; they start below `total` if steps < total."""
    return [int(t) for t in np.round(np.arange(steps, -1, -1) * ((total + 1) / (steps + 1)))]


def karras_times(gammas: Sequence[float], steps: int) -> list[int]:
    """Noise levels nearest to Karras' sigmas on the lowest level's schedule, all different, then 0."""
    sigmas = np.array([math.sqrt((1 - g) / g) for g in gammas[1:]])
    wanted = karras_sigmas(steps, sigmas[0], min(SIGMA_MAX, sigmas[-1]))
    times: list[int] = [0]
    last = len(sigmas)
    for place, sigma in enumerate(wanted[::-1]):
        nearest = int(np.abs(np.log(sigmas) - math.log(sigma)).argmin()) + 1
        # Small sigmas share a level when there are many steps: take the next one, leave room for the rest.
        times.append(min(max(nearest, times[-1] + 1), last - (steps - 1 - place)))
    return times[::-1]


def karras_sigmas(steps: int, low: float = SIGMA_MIN, high: float = SIGMA_MAX) -> np.ndarray:
    """Sigmas from high to low, evenly spaced in sigma^(1/rho); a single step begins at high."""
    return np.linspace(high ** (1 / RHO), low ** (1 / RHO), steps) ** RHO


def _sigma_moments(steps: int, diffusion: DiffusionConfig, factors: Tensor) -> list[Moment]:
    """Karras' steps; each resolution is at its factor times the base's sigma, whose c_noise the network is told."""
    way = preconditioning(diffusion)
    low, high = max(SIGMA_MIN, way.sigma_min), min(SIGMA_MAX, way.sigma_max)
    sigmas = [*karras_sigmas(steps, low, high), 0.0]
    # sigma^(1/rho) is the coordinate in which these steps are even.
    shares = [(sigma / high) ** (1 / RHO) for sigma in sigmas]
    told = way.told(torch.tensor(sigmas, dtype=torch.float64)).tolist()
    gammas = [1 / (1 + (factors * sigma) ** 2) for sigma in sigmas]
    return [Moment(*parts) for parts in zip(told, shares, gammas, strict=True)]
