"""Training on codes: each epoch draws them anew from their moments, as a function of (seed, picture, epoch) alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config.recipe import StageRecipe
from mdm.data.batches.codes import CodeLoader
from mdm.data.batches.loader import Batch, Loader, signal
from mdm.diffusion import noise


def drawn_codes(moments: Tensor, seed: int, numbers: Sequence[int], epochs: Sequence[int]) -> Tensor:
    """Codes [B,C,H,W] of pictures with these numbers from their means and deviations [B,2,C,H,W]."""
    draws = torch.empty_like(moments[:, 0], memory_format=torch.contiguous_format)
    for row, number, epoch in zip(draws, numbers, epochs, strict=True):
        torch.randn(*row.shape, generator=noise.generator("codes", seed, int(number), step=int(epoch)), out=row)
    return (moments[:, 0] + moments[:, 1] * draws).contiguous()


def open_loader(root: Path, codes: str | None, *arguments: Any, **settings: Any) -> Loader:
    """Open a data set's pictures, or its codes where the stage trains on such."""
    return CodeLoader(*arguments, codes=root / codes, **settings) if codes else Loader(*arguments, **settings)


def shown(recipe: StageRecipe, batch: Batch, seed: int, pictures: Sequence[int], total: int) -> Tensor:
    """What the highest level is shown of a batch: pictures as they are, or codes drawn for the epoch of each picture.

    `pictures` are image counters of a run over `total` pictures.
    """
    if not recipe.latents:
        return signal(batch.images)
    return drawn_codes(batch.images, seed, batch.ids.tolist(), [picture // total for picture in pictures])
