"""One step of training: what the loop repeats, the plan simulates and the benchmark times."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdm.config import DiffusionConfig, TrainConfig
from mdm.diffusion.loss import training_loss
from mdm.train.example import Example
from mdm.train.state import TrainingState


def training_step(
    state: TrainingState, config: TrainConfig, diffusion: DiffusionConfig, gammas: Tensor, example: Example
) -> tuple[Tensor, Tensor, Tensor]:
    """Move weights and average by one batch; the loss, the loss of each level [L], the gradient's norm.

    Nothing here asks the device for a number: the next batch is prepared while it still computes.
    """
    with torch.autocast(gammas.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        loss, per_level = training_loss(state.model, diffusion, gammas, *example.inputs())
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.trained, config.clip_norm, foreach=True)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    state.images += config.batch_images
    state.ema.update(config.batch_images, state.images)
    return loss, per_level, norm
