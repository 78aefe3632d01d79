"""The training loss over all levels of a nest (Gu et al. 2023, section 3.3; docs/reference.md, sections 11 and 12)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, StudyError
from mdm.config.sizes import Size, as_clip
from mdm.diffusion.parameterisation import parameterisation
from mdm.diffusion.process import per_row
from mdm.diffusion.reduce import reduced
from mdm.diffusion.residual import completed


def pyramid(images: Tensor, resolutions: Sequence[Size], stills: Tensor | None = None) -> list[Tensor]:
    """Clean pictures of every level, highest first, by repeated average pooling of [B,3,H,W].

    Clips [B,T,3,H,W] also lose frames. `stills` [b,3,h,w] are pictures without a clip that join a batch of clips:
    further rows of the picture levels (`mixed_ratio` then says how many rows the levels of clips have).
    """
    height, width = images.shape[-2:]
    sides = [as_clip(size).resolution for size in resolutions]
    if width % sides[0] or height % (width // sides[-1]):
        raise ValueError(f"pictures of {height} x {width} px cannot be pooled to widths {sides}")
    chain: list[Tensor] = []
    for size in resolutions:
        chain.append(reduced(chain[-1] if chain else images, size))
    if stills is not None:
        chain = [x if x.ndim == 5 else torch.cat([x, reduced(stills, x.shape[-1])]) for x in chain]
    return chain


def level_shares(config: DiffusionConfig, count: int) -> list[float]:
    """Fraction of the batch that goes through each level, highest first; the lowest sees everything."""
    if config.mixed_ratio is None:
        return [1.0] * count
    _one_per_level("mixed_ratio", config.mixed_ratio, count)
    total = sum(config.mixed_ratio)
    return [sum(config.mixed_ratio[: i + 1]) / total for i in range(count)]


def level_rows(config: DiffusionConfig, count: int, batch: int) -> list[int]:
    """How many pictures of the batch each level sees (always the first ones)."""
    # The nudge keeps 3/11 of 55 pictures (3:8) from becoming 14 by rounding, which the released code allows.
    rows = [int(share * batch + 1e-9) for share in level_shares(config, count)]
    if not rows[0]:
        enough = math.ceil(1 / level_shares(config, count)[0])
        raise StudyError(
            f"mixed_ratio {list(config.mixed_ratio or ())} leaves no picture of a batch of {batch} "
            f"for the highest level; use a batch of at least {enough}"
        )
    return rows


@dataclass(frozen=True)
class Part:
    """Part number `index` of `count` of a batch: every picture whose place in the batch, modulo `count`, is `index`.

    The losses of all parts add up to that of the whole batch, whatever share of it goes through each level.
    """

    index: int
    count: int

    def rows(self, of_batch: Sequence[int]) -> list[int]:
        """How many of the first `of_batch` pictures of the batch are in this part, for each level."""
        return [-((self.index - rows) // self.count) for rows in of_batch]


WHOLE = Part(0, 1)


def picture_losses(
    prediction: Tensor, config: DiffusionConfig, x0: Tensor, epsilon: Tensor, x_t: Tensor, level: Tensor
) -> Tensor:
    """Mean squared error of each picture of one level, [B], in float32, with the weight of its noise level."""
    way = parameterisation(config)
    losses = way.error(prediction.float(), x0, epsilon, x_t, level).square().flatten(1).mean(dim=1)
    return way.weigh(losses, level)


def training_loss(
    model: Callable[..., list[Tensor]],
    config: DiffusionConfig,
    gammas: Tensor,
    images: Sequence[Tensor],
    times: Tensor,
    noises: Sequence[Tensor],
    text: Tensor | None = None,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    part: Part = WHOLE,
    balances: Sequence[Callable[[Tensor], Tensor]] = (),
) -> tuple[Tensor, Tensor]:
    """Weighted sum over levels, and the unweighted loss of each level [L] (no gradient).

    gammas as `schedule.levels` gives them; images and noises [B,3,H,W] per level, highest first; times [B] as
    `noise.training_times` draws them. Levels of clips have [B,T,3,H,W]; only the rows that `mixed_ratio` sends
    through a level must be there. `part`: these pictures are a part of a batch of `part.count` as large ones.
    `balances`: what each level learns about the weight of its loss, a function of ln(sigma) [B].
    """
    batch, shares = len(times) * part.count, level_shares(config, len(images))
    way, rows = parameterisation(config), part.rows(level_rows(config, len(images), batch))
    clean, noise = ([p[:n] for p, n in zip(given, rows, strict=True)] for given in (images, noises))
    _require_rows(config, rows, clean)
    levels = [per_row(way.level(row, times[: len(x)]), x) for row, x in zip(gammas, clean, strict=True)]
    noisy = [way.noisy(*parts) for parts in zip(clean, noise, levels, strict=True)]
    seen = [way.seen(*parts) for parts in zip(noisy, levels, strict=True)]
    predictions = model(seen, way.told(times), text, mask, labels=labels)
    if config.residual_levels:
        predictions = completed([prediction.float() for prediction in predictions])
    by_picture = [
        picture_losses(prediction, config, *parts)
        for prediction, *parts in zip(predictions, clean, noise, noisy, levels, strict=True)
    ]
    losses = counted = _means(by_picture, shares, batch)
    if balances:
        log_sigmas = [way.log_sigma(level.flatten()) for level in levels]
        counted = _means(_balanced(by_picture, balances, log_sigmas), shares, batch)
    weighted = [weight * loss for weight, loss in zip(level_weights(config, len(losses)), counted, strict=True)]
    return torch.stack(weighted).sum(), torch.stack(losses).detach()


def _means(losses: list[Tensor], shares: Sequence[float], batch: int) -> list[Tensor]:
    """The mean loss of each level over the pictures that the whole batch sends through it."""
    return [loss.sum() / (share * batch) for loss, share in zip(losses, shares, strict=True)]


def _balanced(
    losses: list[Tensor], balances: Sequence[Callable[[Tensor], Tensor]], log_sigmas: list[Tensor]
) -> list[Tensor]:
    """Losses [B] of each level with the uncertainty that it has learned, which costs what it forgives."""
    uncertainties = [balance(log_sigma) for balance, log_sigma in zip(balances, log_sigmas, strict=True)]
    return [loss / u.exp() + u for loss, u in zip(losses, uncertainties, strict=True)]


def _require_rows(config: DiffusionConfig, rows: Sequence[int], clean: Sequence[Tensor]) -> None:
    there = [len(x) for x in clean]
    if there != list(rows):
        raise StudyError(
            f"the levels have {there} pictures or clips (highest first), but mixed_ratio "
            f"{list(config.mixed_ratio or ()) or 'none'} sends {list(rows)} of the batch through them"
        )


def level_weights(config: DiffusionConfig, count: int) -> tuple[float, ...]:
    """Weight of each level, highest first; 1 each equals the paper's weights on summed errors."""
    if config.level_weights is None:
        return (1.0,) * count
    _one_per_level("level_weights", config.level_weights, count)
    return config.level_weights


def _one_per_level(key: str, values: Sequence[float], count: int) -> None:
    if len(values) != count:
        raise StudyError(f"{key} has {len(values)} entries for a stage of {count} levels; write one per level")
