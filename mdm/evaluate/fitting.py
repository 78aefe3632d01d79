"""The short deterministic training shared by the measuring networks (judge and tiny CLIP)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mdm.evaluate.progress import Progress
from mdm.evaluate.settings import FitSettings

WARMUP_SHARE = 0.05


def rate_factor(share: float) -> float:
    """Linear warm-up, then a cosine to zero: share of the training done -> factor on the rate."""
    if share < WARMUP_SHARE:
        return share / WARMUP_SHARE
    return 0.5 + 0.5 * math.cos(math.pi * (share - WARMUP_SHARE) / (1 - WARMUP_SHARE))


def shuffled_batches(count: int, settings: FitSettings) -> Iterator[Tensor]:
    """Indices [B] of each batch: a new seeded order in every epoch, epochs joined without a gap."""
    generator = torch.Generator().manual_seed(settings.seed)
    waiting = torch.empty(0, dtype=torch.long)
    for _ in range(math.ceil(settings.num_images / settings.batch_images)):
        while len(waiting) < settings.batch_images:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[: settings.batch_images]
        waiting = waiting[settings.batch_images :]


def fit(
    task: str,
    module: nn.Module,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    count: int,
    settings: FitSettings,
) -> float:
    """Train on `count` pictures; loss_of(indices [B], noise generator) is a scalar. Returns the last loss."""
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    noise = torch.Generator().manual_seed(settings.seed + 1)
    progress = Progress(task, settings.num_images, "pictures")
    module.train()
    loss = torch.tensor(math.nan)
    for step, indices in enumerate(shuffled_batches(count, settings)):
        share = (step + 1) * settings.batch_images / (settings.num_images + settings.batch_images)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(share)
        loss = loss_of(indices, noise)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{task}: the loss is {loss.item()} at step {step}; lower settings.learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.advance(settings.batch_images, f"loss {loss.item():.4f}")
    module.eval()
    return loss.item()
