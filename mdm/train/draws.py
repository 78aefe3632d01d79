"""The chances of training as pure functions: time, noise and caption dropout of image k are those of image k,
whatever the batch size, the number of ranks or restarts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """times [B] (network times 0..steps-1), noises per level [B,3,H,W] highest first, drop [B] (bool)."""

    times: Tensor
    noises: list[Tensor]
    drop: Tensor


def image_generator(seed: int, image: int) -> torch.Generator:
    """A generator that depends on nothing but (seed, image)."""
    state = np.random.SeedSequence([seed, image]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def draw(seed: int, images: range, resolutions: tuple[int, ...], steps: int, caption_dropout: float) -> Draws:
    """All chances of the images with these running numbers; resolutions highest first."""
    count = len(images)
    times = torch.empty(count, dtype=torch.long)
    drop = torch.empty(count, dtype=torch.bool)
    noises = [torch.empty(count, 3, side, side) for side in resolutions]
    for row, image in enumerate(images):
        generator = image_generator(seed, image)
        times[row] = torch.randint(steps, (), generator=generator)
        drop[row] = torch.rand((), generator=generator) < caption_dropout
        for noise in noises:
            noise[row].normal_(generator=generator)
    return Draws(times, noises, drop)
