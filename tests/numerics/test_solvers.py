"""Samplers against an exact solution: Gaussian data, for which the best denoiser and its flow are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from mdm.config import DiffusionConfig, SampleConfig
from mdm.diffusion import path, process, sampler, schedule

MEAN, DEVIATION = 0.3, 0.2
RESOLUTIONS = (8, 4)
DIFFUSION = DiffusionConfig()
GAMMAS = schedule.levels(DIFFUSION, RESOLUTIONS).double()


def exact_network(pictures, times, text=None, mask=None, labels=None):
    """The v that the posterior mean of N(MEAN, DEVIATION^2) implies, at every level."""
    said = []
    for x, gammas in zip(pictures, GAMMAS, strict=True):
        g = gammas[times + 1][:, None, None, None]
        weight = g.sqrt() * DEVIATION**2 / (g * DEVIATION**2 + 1 - g)
        said.append(process.from_x0(MEAN + weight * (x - g.sqrt() * MEAN), "v", x, g))
    return said


def error(name: str, steps: int, first: int) -> float:
    """Largest distance from the end of the exact flow that begins at noise level `first`."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, r, r, generator=generator).double() for r in RESOLUTIONS]
    config = SampleConfig(sampler=name, steps=steps, threshold="none")
    final = sampler.sample(
        exact_network,
        GAMMAS,
        config,
        DIFFUSION,
        RESOLUTIONS,
        None,
        None,
        None,
        None,
        range(4),
        0,
        noise=lambda step: start,
    )
    worst = 0.0
    for x, end, gammas in zip(start, final, GAMMAS, strict=True):
        g = gammas[first]
        variance = DEVIATION**2 + (1 - g) / g
        exact = MEAN + DEVIATION * (x / g.sqrt() - MEAN) / variance.sqrt()
        worst = max(worst, (end - exact.clamp(-1, 1)).abs().max().item())
    return worst


def first_level(name: str, steps: int) -> int:
    if name == "ddim":
        return path.reference_times(1000, steps)[0]
    return path.karras_times(GAMMAS[-1], steps)[0]


@pytest.mark.parametrize(("name", "limit"), [("ddim", 0.05), ("dpm++", 0.005), ("heun", 0.005)])
def test_solvers_reach_the_exact_end(name, limit) -> None:
    coarse, fine = (error(name, steps, first_level(name, steps)) for steps in (20, 80))
    assert fine < limit
    assert fine < coarse / 2


def test_second_order_beats_first() -> None:
    assert error("dpm++", 20, first_level("dpm++", 20)) < error("ddim", 20, first_level("ddim", 20)) / 2
    assert error("heun", 20, first_level("heun", 20)) < error("ddim", 20, first_level("ddim", 20)) / 2


@pytest.mark.parametrize("steps", [1, 2, 7, 250, 999, 1000])
def test_karras_times_are_different_and_end_at_zero(steps) -> None:
    times = path.karras_times(GAMMAS[-1], steps)
    assert len(times) == steps + 1
    assert times[-1] == 0
    assert all(a > b for a, b in pairwise(times))
    assert times[0] <= 1000


EDM = DiffusionConfig(parameterisation="edm")
FACTORS = schedule.levels(EDM, RESOLUTIONS).double()
NOTHING = (None, None, None, None)


def exact_edm_network(seen, told, text=None, mask=None, labels=None):
    """What an EDM network must answer for D to be the posterior mean."""
    said = []
    for x, factor in zip(seen, FACTORS[:, 0], strict=True):
        sigma = factor * (4 * told.double()).exp()[:, None, None, None]
        scale = (sigma**2 + EDM.sigma_data**2) ** -0.5
        y = x / scale
        clean = MEAN + DEVIATION**2 / (DEVIATION**2 + sigma**2) * (y - MEAN)
        said.append((clean - (EDM.sigma_data * scale) ** 2 * y) / (sigma * EDM.sigma_data * scale))
    return said


def edm_error(name: str, steps: int) -> float:
    """Largest distance from the end of the exact flow from sigma 80, in continuous sigma."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, r, r, generator=generator).double() for r in RESOLUTIONS]
    config = SampleConfig(sampler=name, steps=steps, threshold="none")
    shared = (exact_edm_network, FACTORS, config, EDM, RESOLUTIONS, *NOTHING)
    final = sampler.sample(*shared, image_ids=range(4), seed=0, noise=lambda step: start)
    worst = 0.0
    for z, end, factor in zip(start, final, FACTORS[:, 0], strict=True):
        sigma = 80 * factor
        exact = MEAN + DEVIATION * (sigma * z - MEAN) / (DEVIATION**2 + sigma**2).sqrt()
        worst = max(worst, (end - exact.clamp(-1, 1)).abs().max().item())
    return worst


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm++", 2), ("heun", 2)])
def test_order_of_the_solvers(name: str, order: int) -> None:
    errors = [edm_error(name, steps) for steps in (20, 40, 80)]
    for coarse, fine in pairwise(errors):
        assert order - 0.15 < math.log2(coarse / fine) < order + 0.3


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 1.0), ("ddim", 0.5)])
def test_noisy_samplers_draw_the_distribution(name: str, eta: float) -> None:
    config = SampleConfig(sampler=name, eta=eta, steps=500, threshold="none")
    pictures = sampler.sample(
        exact_network, GAMMAS, config, DIFFUSION, RESOLUTIONS, *NOTHING, image_ids=range(40), seed=1
    )
    for x in pictures:
        assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
        assert x.std().item() == pytest.approx(DEVIATION, rel=0.06)
