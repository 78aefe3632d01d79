"""Samplers: from noise to pictures at all levels at once (Gu et al. 2023, section 3; spec B.7).

All levels share the time; each moves along its own shifted schedule. Coefficients are Python numbers, so no
step waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig, StudyError
from mdm.diffusion.guidance import Denoiser, Prompt
from mdm.diffusion.noise import normal
from mdm.sizes import Size, shape

Pictures = list[Tensor]
SIGMA_MAX, RHO = 80.0, 7.0  # Karras et al. 2022, table 1


@dataclass(frozen=True)
class Journey:
    """What every sampler is given: gammas [L][N+1] as numbers, noise(step) of all levels, report."""

    denoise: Denoiser
    gammas: Sequence[Sequence[float]]
    config: SampleConfig
    total: int
    noise: Callable[[int], Pictures]
    report: Callable[[int, int], None]


def reference_times(total: int, steps: int) -> list[int]:
    """The n + 1 noise levels of ddpm and ddim, down to 0; they start below `total` if steps < total."""
    return [int(t) for t in np.round(np.arange(steps, -1, -1) * ((total + 1) / (steps + 1)))]


def karras_times(gammas: Sequence[float], steps: int) -> list[int]:
    """Noise levels nearest to Karras' sigmas on the lowest level's schedule, all different, then 0."""
    sigmas = np.array([math.sqrt((1 - g) / g) for g in gammas[1:]])
    low, high = sigmas[0] ** (1 / RHO), min(SIGMA_MAX, sigmas[-1]) ** (1 / RHO)
    wanted = np.linspace(low, high, steps) ** RHO if steps > 1 else np.array([high**RHO])
    times: list[int] = [0]
    last = len(sigmas)
    for place, sigma in enumerate(wanted):
        nearest = int(np.abs(np.log(sigmas) - math.log(sigma)).argmin()) + 1
        # Small sigmas share a level when there are many steps: take the next one, leave room for the rest.
        times.append(min(max(nearest, times[-1] + 1), last - (steps - 1 - place)))
    return times[::-1]


def ancestral(start: Pictures, journey: Journey) -> Pictures:
    """DDPM (the posterior given x0), or DDIM, whose eta = 1 has the same variance."""
    x, steps = start, journey.config.steps
    times = reference_times(journey.total, steps)
    for step, (t, s) in enumerate(pairwise(times), start=1):
        clean = journey.denoise(x, t)
        noisy = s > 0 and (journey.config.sampler == "ddpm" or journey.config.eta > 0)
        noise = journey.noise(step) if noisy else [None] * len(x)
        move = _ddpm_step if journey.config.sampler == "ddpm" else _ddim_step
        x = [
            move(x_t, x0, gamma[t], gamma[s], z, journey.config.eta)
            for x_t, x0, gamma, z in zip(x, clean, journey.gammas, noise, strict=True)
        ]
        journey.report(step, steps)
    return x


def posterior_variance(gamma: float, after: float) -> float:
    """Variance of q(x_s | x_t, x0) for gammas of t and s < t."""
    return (1 - gamma / after) * (1 - after) / (1 - gamma)


def _ddpm_step(x: Tensor, x0: Tensor, gamma: float, after: float, noise: Tensor | None, _eta: float) -> Tensor:
    alpha = gamma / after
    mean = x0 * ((1 - alpha) * after**0.5 / (1 - gamma)) + x * (alpha**0.5 * (1 - after) / (1 - gamma))
    return mean if noise is None else mean + posterior_variance(gamma, after) ** 0.5 * noise


def _ddim_step(x: Tensor, x0: Tensor, gamma: float, after: float, noise: Tensor | None, eta: float) -> Tensor:
    # epsilon follows from the thresholded x0, so that the picture stays on the path the threshold chose.
    epsilon = (x - gamma**0.5 * x0) / (1 - gamma) ** 0.5
    variance = eta**2 * posterior_variance(gamma, after)
    x = after**0.5 * x0 + max(1 - after - variance, 0.0) ** 0.5 * epsilon
    return x if noise is None else x + variance**0.5 * noise


def multistep(start: Pictures, journey: Journey) -> Pictures:
    """DPM-Solver++(2M), Lu et al. 2022; the last step is of first order: the log-SNR there is infinite."""
    x, previous, h_previous = start, None, 0.0
    times = karras_times(journey.gammas[-1], journey.config.steps)
    for step, (t, s) in enumerate(pairwise(times), start=1):
        clean = journey.denoise(x, t)
        if s == 0:
            x = clean
        else:
            # The shift adds the same number to every half log-SNR of a level, so h is common to all levels.
            h = _half_log_snr(journey.gammas[-1][s]) - _half_log_snr(journey.gammas[-1][t])
            ahead = 0.0 if previous is None else h / (2 * h_previous)
            x = [
                _multistep_step(x_t, x0, x0 if previous is None else previous[level], gamma[t], gamma[s], h, ahead)
                for level, (x_t, x0, gamma) in enumerate(zip(x, clean, journey.gammas, strict=True))
            ]
            previous, h_previous = clean, h
        journey.report(step, journey.config.steps)
    return x


def _half_log_snr(gamma: float) -> float:
    return 0.5 * math.log(gamma / (1 - gamma))


def _multistep_step(
    x: Tensor, x0: Tensor, before: Tensor, gamma: float, after: float, h: float, ahead: float
) -> Tensor:
    direction = x0 + ahead * (x0 - before)
    return ((1 - after) / (1 - gamma)) ** 0.5 * x - after**0.5 * math.expm1(-h) * direction


def heun(start: Pictures, journey: Journey) -> Pictures:
    """Karras et al. 2022, algorithm 1: Heun steps of dx/dsigma in x / sqrt(gamma); 2n - 1 calls."""
    x = start
    times = karras_times(journey.gammas[-1], journey.config.steps)
    for step, (t, s) in enumerate(pairwise(times), start=1):
        clean = journey.denoise(x, t)
        if s == 0:
            x = clean
        else:
            pairs = [(gamma[t], gamma[s]) for gamma in journey.gammas]
            slopes = [_slope(x_t, x0, pair[0]) for x_t, x0, pair in zip(x, clean, pairs, strict=True)]
            trial = [_along(*parts) for parts in zip(x, slopes, pairs, strict=True)]
            corrected = [
                (slope + _slope(x_s, x0, pair[1])) / 2
                for slope, x_s, x0, pair in zip(slopes, trial, journey.denoise(trial, s), pairs, strict=True)
            ]
            x = [_along(*parts) for parts in zip(x, corrected, pairs, strict=True)]
        journey.report(step, journey.config.steps)
    return x


def _sigma(gamma: float) -> float:
    return math.sqrt((1 - gamma) / gamma)


def _slope(x: Tensor, x0: Tensor, gamma: float) -> Tensor:
    """dx/dsigma in the coordinates x / sqrt(gamma)."""
    return (x / gamma**0.5 - x0) / _sigma(gamma)


def _along(x: Tensor, slope: Tensor, pair: tuple[float, float]) -> Tensor:
    """Follow a slope from the first gamma to the second."""
    gamma, after = pair
    return after**0.5 * (x / gamma**0.5 + (_sigma(after) - _sigma(gamma)) * slope)


SAMPLERS = {"ddpm": ancestral, "ddim": ancestral, "dpm++": multistep, "heun": heun}


@torch.no_grad()
def sample(
    model: Callable[..., Pictures],
    gammas: Tensor,
    config: SampleConfig,
    diffusion: DiffusionConfig,
    resolutions: Sequence[Size],
    text: Tensor | None,
    mask: Tensor | None,
    negative_text: Tensor | None,
    negative_mask: Tensor | None,
    image_ids: Sequence[int],
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
    labels: Tensor | None = None,
    negative_labels: Tensor | None = None,
    noise: Callable[[int], Pictures] | None = None,
) -> Pictures:
    """Pictures [B,3,R,R] or clips [B,T,3,R,R] in [-1,1] of every level, highest first, each a function of (seed, id).

    `model` must be in eval mode. Texts are [B,S,D] and [B,S], or one for the whole batch; `noise`
    (step) replaces the standard normal pictures of all levels; step 0 asks for the start.
    """
    total = gammas.shape[1] - 1
    _check_steps(config.steps, total)
    numbers, batch = gammas.tolist(), len(image_ids)
    prompt, negative = Prompt(text, mask, labels), Prompt(negative_text, negative_mask, negative_labels)
    denoise = Denoiser(model, config, diffusion, numbers, prompt, negative, batch)
    noise = noise or partial(_noise, seed, image_ids, resolutions, gammas.device)
    journey = Journey(denoise, numbers, config, total, noise, on_step or _silent)
    pictures = SAMPLERS[config.sampler](noise(0), journey)
    return [x.clamp(-1, 1) for x in pictures]


def _noise(seed: int, pictures: Sequence[int], sizes: Sequence[Size], device: torch.device, step: int) -> Pictures:
    return [normal("sample", seed, pictures, shape(size), step, level=size).to(device) for size in sizes]


def _silent(step: int, steps: int) -> None:
    """Nobody watches."""


def _check_steps(steps: int, total: int) -> None:
    if steps > total:
        raise StudyError(f"{steps} sampling steps, but the schedule has {total}; write at most {total}")
