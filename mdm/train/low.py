"""The small pictures of an upsampler's training: the real ones, made smaller as its base sees them, in noise.

Never what the base draws: the upsampler is trained beside it, whatever it draws.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdm.config import ModelConfig, SongConfig
from mdm.config.recipe import StageRecipe
from mdm.data.batches.loader import from_bytes
from mdm.data.rows import to_bytes
from mdm.diffusion.augmentation import augmented, drawn_levels, spread_levels
from mdm.diffusion.reduce import reduced
from mdm.model.upsampler import Low


def small(images: Tensor, size: int) -> Tensor:
    """Real pictures [B,3,R,R] -> [B,3,size,size], rounded to bytes, as those are that the base will have drawn."""
    return from_bytes(to_bytes(reduced(images, size)))


def training_low(recipe: StageRecipe, images: Tensor, pictures: Sequence[int]) -> Low | None:
    """Small pictures of a batch, each at a level of its own; None for a network that is no upsampler."""
    if recipe.augmentation is None:
        return None
    low, levels = small(images, recipe.low_size), drawn_levels(recipe.augmentation, recipe.seed, pictures)
    return Low(augmented(recipe.augmentation, low, levels, recipe.seed, pictures), levels)


def validation_low(recipe: StageRecipe, images: Tensor, seed: int) -> Low | None:
    """Small pictures of the held-out loss, at levels spread evenly."""
    if recipe.augmentation is None:
        return None
    low, levels = small(images, recipe.low_size), spread_levels(recipe.augmentation, len(images))
    return Low(augmented(recipe.augmentation, low, levels, seed, range(len(images))), levels)


def preview_low(recipe: StageRecipe, images: Tensor, device: torch.device) -> Low | None:
    """Small pictures of previews, without noise."""
    if recipe.augmentation is None:
        return None
    return Low(small(images, recipe.low_size), torch.zeros(len(images))).each(lambda x: x.to(device))


def blank_low(model: ModelConfig | SongConfig, count: int, device: torch.device | str = "cpu") -> Low | None:
    """Small pictures without content, to time or to weigh a network with."""
    if not isinstance(model, ModelConfig) or model.upsamples is None:
        return None
    size = model.upsamples.size
    return Low(torch.zeros(count, 3, size, size, device=device), torch.zeros(count, device=device))
