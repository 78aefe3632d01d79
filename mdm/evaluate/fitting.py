"""The short deterministic training shared by the measuring networks (judge and tiny CLIP)."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from mdm.config.instruments import FitSettings
from mdm.evaluate.fit_saves import Saves
from mdm.evaluate.progress import progress
from mdm.model.muon import Muon

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


def make_optimizers(module: nn.Module, hidden: Iterable[Tensor], settings: FitSettings) -> list[torch.optim.Optimizer]:
    """Orthogonal momentum for the weights of hidden layers, AdamW for all others (heads, embeddings, biases)."""
    matrices = list(hidden)
    chosen, decay = {id(p) for p in matrices}, settings.weight_decay
    others = [p for p in module.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, settings.matrix_rate, decay),
        torch.optim.AdamW(others, settings.learning_rate, betas=(0.9, 0.98), weight_decay=decay),
    ]


def fit(
    task: str,
    module: nn.Module,
    hidden: Iterable[Tensor],
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    count: int,
    settings: FitSettings,
    folder: Path | None = None,
) -> float:
    """Train on `count` pictures; loss_of(indices [B], noise generator) is a scalar. Returns the last loss.

    With a folder, a killed training goes on with its last save there (`fit_saves.forget` when all is written).
    """
    optimizers = make_optimizers(module, hidden, settings)
    peaks = [optimizer.defaults["lr"] for optimizer in optimizers]
    noise = torch.Generator().manual_seed(settings.seed + 1)
    module.train()
    loss, saves = torch.tensor(math.nan), Saves(folder, module, optimizers, noise)
    done = saves.resume()
    batches = islice(enumerate(shuffled_batches(count, settings)), done, None)
    with progress(task, settings.num_images, done=done * settings.batch_images) as bar:
        for step, indices in batches:
            factor = rate_factor((step + 1) * settings.batch_images / (settings.num_images + settings.batch_images))
            loss = loss_of(indices, noise)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{task}: the loss is {loss.item()} at step {step}; lower learning_rate")
            module.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                optimizer.param_groups[0]["lr"] = peak * factor
                optimizer.step()
            bar.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
            bar.update(min(len(indices), bar.total - bar.n))
            saves.after(step + 1)
    module.eval()
    return loss.item()
