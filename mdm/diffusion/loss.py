"""The training loss over all levels of a nest (Gu et al. 2023, eq. 4; spec B.4, B.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, StudyError
from mdm.diffusion.process import add_noise, convert, per_row, target
from mdm.diffusion.reduce import reduced
from mdm.sizes import Size, as_clip


def pyramid(images: Tensor, resolutions: Sequence[Size], stills: Tensor | None = None) -> list[Tensor]:
    """Clean pictures of every level, highest first, by repeated average pooling of [B,3,H,W].

    Clips [B,T,3,H,W] also lose frames. `stills` [b,3,h,w] are pictures without a clip that join a batch of clips:
    further rows of the picture levels (`mixed_ratio` then says how many rows the levels of clips have).
    """
    side = as_clip(resolutions[0]).resolution
    if images.shape[-1] % side:
        raise ValueError(f"pictures of {images.shape[-1]} px cannot be pooled to {side} px")
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
    # The nudge keeps 2/3 of 6 pictures from becoming 3 by rounding.
    rows = [int(share * batch + 1e-9) for share in level_shares(config, count)]
    if not rows[0]:
        enough = math.ceil(1 / level_shares(config, count)[0])
        raise StudyError(
            f"mixed_ratio {list(config.mixed_ratio or ())} leaves no picture of a batch of {batch} "
            f"for the highest level; use a batch of at least {enough}"
        )
    return rows


def min_snr_weight(loss_on: str, gamma: Tensor, clip: float) -> Tensor:
    """Hang et al. 2023: the weight that gives the loss on x0 the weight min(SNR, clip)."""
    snr = gamma / (1 - gamma)
    per_unit = {"x0": torch.ones_like(snr), "epsilon": 1 / snr, "v": 1 / (snr + 1)}[loss_on]
    return snr.clamp(max=clip) * per_unit


def picture_losses(
    prediction: Tensor, config: DiffusionConfig, x0: Tensor, epsilon: Tensor, x_t: Tensor, gamma: Tensor
) -> Tensor:
    """Mean squared error of each picture of one level, [B], in float32."""
    said = convert(prediction.float(), config.prediction, config.loss_on, x_t, gamma)
    losses = (said - target(config.loss_on, x0, epsilon, gamma)).square().mean(dim=tuple(range(1, said.ndim)))
    return (
        losses if config.min_snr is None else losses * min_snr_weight(config.loss_on, gamma, config.min_snr).flatten()
    )


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
) -> tuple[Tensor, Tensor]:
    """Weighted sum over levels, and the unweighted loss of each level [L] (no gradient).

    gammas [L,N+1]; images and noises [B,3,H,W] per level, highest first; times [B] in 0..N-1.
    Levels of clips have [B,T,3,H,W]; only the rows that `mixed_ratio` sends through a level must be there.
    """
    rows = level_rows(config, len(images), len(times))
    shares = level_shares(config, len(images))
    # The noise level of time t is gamma[t + 1]: index 0 is the clean picture.
    clean, noise = ([p[:n] for p, n in zip(part, rows, strict=True)] for part in (images, noises))
    _require_rows(config, rows, clean)
    gamma = [per_row(level[times[: len(x)] + 1], x) for level, x in zip(gammas, clean, strict=True)]
    noisy = [add_noise(*parts) for parts in zip(clean, noise, gamma, strict=True)]
    predictions = model(noisy, times, text, mask, labels=labels)
    losses = [
        picture_losses(prediction, config, *parts).sum() / (share * len(times))
        for prediction, share, *parts in zip(predictions, shares, clean, noise, noisy, gamma, strict=True)
    ]
    weighted = [weight * loss for weight, loss in zip(level_weights(config, len(losses)), losses, strict=True)]
    return torch.stack(weighted).sum(), torch.stack(losses).detach()


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
