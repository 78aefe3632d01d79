"""Sampling: noise per picture, a path, a solver; pictures of all levels come out (Gu et al. 2023, section 3)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig
from mdm.config.sizes import Codes, Size, shape
from mdm.diffusion.guidance import Denoiser, Prompt
from mdm.diffusion.karras import karras_heun, karras_steps, picture_seeds, released_latents
from mdm.diffusion.noise import normal
from mdm.diffusion.parameterisation import preconditioning
from mdm.diffusion.path import RHO, path
from mdm.diffusion.solvers import SOLVERS, Journey, Pictures


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
    guide: Callable[..., Pictures] | None = None,
) -> Pictures:
    """Pictures [B,3,R,R] or clips [B,T,3,R,R] in [-1,1] of every level, highest first, each a function of (seed, id).

    Levels of codes give these, [B,C,R,R], of any value.

    `model` must be in eval mode; gammas are what `schedule.levels` gives. Texts are [B,S,D] and [B,S], or one for
    the whole batch; `noise` (step) replaces the standard normal pictures of all levels; step 0 asks for the start.
    `guide`: the worse network of autoguidance, in eval mode too. The sampler karras gives float64.
    """
    moments = path(config, diffusion, gammas)
    prompt, negative = Prompt(text, mask, labels), Prompt(negative_text, negative_mask, negative_labels)
    denoise = Denoiser(model, config, diffusion, prompt, negative, len(image_ids), guide)
    if config.sampler == "karras":
        start = noise(0)[0] if noise else released_latents(picture_seeds(seed, image_ids), resolutions[0])[0]
        return [_karras(denoise, start.to(gammas.device), config, diffusion, on_step or _silent)]
    noise = noise or partial(_noise, seed, image_ids, resolutions, gammas.device)
    journey = Journey(denoise, moments, config, noise, on_step or _silent)
    pictures = SOLVERS[config.sampler](denoise.start(noise(0), moments[0]), journey)
    # Codes have no range; their pictures get one when they are decoded.
    return [x if isinstance(size, Codes) else x.clamp(-1, 1) for x, size in zip(pictures, resolutions, strict=True)]


def _karras(
    denoise: Denoiser,
    start: Tensor,
    config: SampleConfig,
    diffusion: DiffusionConfig,
    report: Callable[[int, int], None],
) -> Tensor:
    """Pictures [B,3,R,R] of a single level in float64, by the sampler that the released code of the study uses."""
    way = preconditioning(diffusion)
    highest = float(karras_steps(1, way.sigma_min, way.sigma_max)[0])

    def clean(y: Tensor, sigma: Tensor) -> Tensor:
        return denoise.at_sigma(way, y, sigma, (float(sigma) / highest) ** (1 / RHO))

    return karras_heun(clean, start, config.steps, way.sigma_min, way.sigma_max, report=report).clamp(-1, 1)


def _noise(seed: int, pictures: Sequence[int], sizes: Sequence[Size], device: torch.device, step: int) -> Pictures:
    return [normal("sample", seed, pictures, shape(size), step, level=size).to(device) for size in sizes]


def _silent(step: int, steps: int) -> None:
    """Nobody watches."""
