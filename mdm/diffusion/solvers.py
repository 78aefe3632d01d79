"""Solvers: from noise to pictures, all levels at once, each on its shifted schedule (docs/reference.md, section 14).

Pictures are sqrt(gamma) x0 + sqrt(1 - gamma) epsilon whatever the parameterisation. Gammas are scalars on the CPU,
so no step waits for the device, in the precision of the path: float32 for a schedule, because the released code
computes with float32 and 1 - gamma / gamma' of neighbouring levels has few bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from mdm.config import SampleConfig
from mdm.diffusion.guidance import Denoiser
from mdm.diffusion.path import Moment
from mdm.diffusion.process import Gamma

Pictures = list[Tensor]


@dataclass(frozen=True)
class Journey:
    """What every solver is given: the network, the moments, noise(step) of all levels, report(step, steps)."""

    denoise: Denoiser
    moments: Sequence[Moment]
    config: SampleConfig
    noise: Callable[[int], Pictures]
    report: Callable[[int, int], None]


def ancestral(start: Pictures, journey: Journey) -> Pictures:
    """DDPM (the posterior given x0), or DDIM, whose eta = 1 has the same variance."""
    x, config = start, journey.config
    for step, (now, then) in enumerate(pairwise(journey.moments), start=1):
        clean = journey.denoise(x, now)
        noisy = not then.clean and (config.sampler == "ddpm" or config.eta > 0)
        noise = journey.noise(step) if noisy else [None] * len(x)
        move = _ddpm_step if config.sampler == "ddpm" else _ddim_step
        x = [move(*parts, config.eta) for parts in zip(x, clean, now.gammas, then.gammas, noise, strict=True)]
        journey.report(step, config.steps)
    return x


def posterior_variance(gamma: Gamma, after: Gamma) -> Gamma:
    """Variance of q(x_s | x_t, x0) for gammas of t and s < t."""
    return (1 - gamma / after) * (1 - after) / (1 - gamma)


def _ddpm_step(x: Tensor, x0: Tensor, gamma: Gamma, after: Gamma, noise: Tensor | None, _eta: float) -> Tensor:
    alpha = gamma / after
    mean = x0 * ((1 - alpha) * after**0.5 / (1 - gamma)) + x * (alpha**0.5 * (1 - after) / (1 - gamma))
    return mean if noise is None else mean + posterior_variance(gamma, after) ** 0.5 * noise


def _ddim_step(x: Tensor, x0: Tensor, gamma: Gamma, after: Gamma, noise: Tensor | None, eta: float) -> Tensor:
    # epsilon follows from the thresholded x0, so that the picture stays on the path the threshold chose.
    epsilon = (x - gamma**0.5 * x0) / (1 - gamma) ** 0.5
    variance = eta**2 * posterior_variance(gamma, after)
    x = after**0.5 * x0 + max(1 - after - variance, 0.0) ** 0.5 * epsilon
    return x if noise is None else x + variance**0.5 * noise


def multistep(start: Pictures, journey: Journey) -> Pictures:
    """DPM-Solver++(2M), Lu et al. 2022; the last step is of first order: the log-SNR there is infinite."""
    x, before, last = start, None, None
    for step, (now, then) in enumerate(pairwise(journey.moments), start=1):
        clean = journey.denoise(x, now)
        if then.clean:
            x = clean
        else:
            directions = clean if last is None else _ahead(clean, before, last, now, then)
            x = [_exponential_step(*parts) for parts in zip(x, directions, now.gammas, then.gammas, strict=True)]
            before, last = clean, now
        journey.report(step, journey.config.steps)
    return x


def _ahead(clean: Pictures, before: Pictures, last: Moment, now: Moment, then: Moment) -> Pictures:
    """Clean pictures at the middle of the coming step, extrapolated through the last two."""
    found = []
    for x0, x0_before, *gammas in zip(clean, before, last.gammas, now.gammas, then.gammas, strict=True):
        first, second, third = map(_half_log_snr, gammas)
        # A level that leads the others may stand still for a step: nothing can be extrapolated from it.
        share = (third - second) / (2 * (second - first)) if second != first else 0.0
        found.append(x0 + share * (x0 - x0_before) if share else x0)
    return found


def _half_log_snr(gamma: Gamma) -> float:
    return 0.5 * math.log(float(gamma) / (1 - float(gamma)))


def _exponential_step(x: Tensor, x0: Tensor, gamma: Gamma, after: Gamma) -> Tensor:
    """The exact solution for a clean picture that does not change on the way."""
    h = _half_log_snr(after) - _half_log_snr(gamma)
    return ((1 - after) / (1 - gamma)) ** 0.5 * x - after**0.5 * math.expm1(-h) * x0


def heun(start: Pictures, journey: Journey) -> Pictures:
    """Karras et al. 2022, algorithm 1: Heun steps of dx/dsigma in x / sqrt(gamma); 2n - 1 calls."""
    x = start
    for step, (now, then) in enumerate(pairwise(journey.moments), start=1):
        clean = journey.denoise(x, now)
        if then.clean:
            x = clean
        else:
            slopes = _slopes(x, clean, now)
            trial = _along(x, slopes, now, then)
            second = _slopes(trial, journey.denoise(trial, then), then)
            x = _along(x, [(a + b) / 2 for a, b in zip(slopes, second, strict=True)], now, then)
        journey.report(step, journey.config.steps)
    return x


def _sigma(gamma: Gamma) -> float:
    return math.sqrt((1 - float(gamma)) / float(gamma))


def _slopes(pictures: Pictures, clean: Pictures, moment: Moment) -> Pictures:
    """dx/dsigma of every level in the coordinates x / sqrt(gamma)."""
    rows = zip(pictures, clean, moment.gammas, strict=True)
    return [(x / gamma**0.5 - x0) / _sigma(gamma) for x, x0, gamma in rows]


def _along(pictures: Pictures, slopes: Pictures, now: Moment, then: Moment) -> Pictures:
    """Every level followed along its slope from one moment to another."""
    rows = zip(pictures, slopes, now.gammas, then.gammas, strict=True)
    return [after**0.5 * (x / gamma**0.5 + (_sigma(after) - _sigma(gamma)) * slope) for x, slope, gamma, after in rows]


SOLVERS = {"ddpm": ancestral, "ddim": ancestral, "dpm++": multistep, "heun": heun}
