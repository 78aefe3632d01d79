"""One step of training: what the loop repeats, the plan simulates and the benchmark times."""

from contextlib import nullcontext

import torch
from torch import Tensor

from mdm.config import DiffusionConfig, TrainConfig
from mdm.diffusion.loss import Part, training_loss
from mdm.model.balance import balances
from mdm.model.upsampler import seeing
from mdm.train.bottlenecks import Stopwatch
from mdm.train.example import Example
from mdm.train.optim import picture_values, sanitize, shorten
from mdm.train.ranks import SINGLE, Ranks
from mdm.train.state import TrainingState


def training_step(
    state: TrainingState,
    config: TrainConfig,
    diffusion: DiffusionConfig,
    gammas: Tensor,
    example: Example,
    ranks: Ranks = SINGLE,
    accumulate: int = 1,
    clock: Stopwatch | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move weights and average by a batch; the loss, the loss of each level [L], the gradient's norm, of all processes.

    `example` is this process's part of the batch, taken in `accumulate` parts one after the other. Nothing here asks
    the device for a number: the next batch is prepared while it still computes.
    """
    parts = []
    for number in range(accumulate):
        micro = example.part(number, accumulate)
        part = Part(ranks.rank + ranks.world * number, ranks.world * accumulate)
        state.drop(micro.pictures)
        timed, bf16 = clock.running() if clock else nullcontext(), config.precision == "bf16"
        with timed, torch.autocast(gammas.device.type, torch.bfloat16, enabled=bf16):
            network, learned = seeing(state.model, micro.low), balances(state.model)
            loss, per_level = training_loss(network, diffusion, gammas, *micro.inputs(), part=part, balances=learned)
        with state.adding_up(last_part=number == accumulate - 1):
            loss.backward()
        parts.append(torch.cat([loss.detach().reshape(1), per_level]))
    losses = ranks.all_sum(parts[0] if accumulate == 1 else torch.stack(parts).sum(dim=0))
    if config.sanitize_gradients:
        sanitize(state.trained, picture_values(state.model))
    norm, counted = shorten(state.trained, config.clip_norm), config.counted(state.images)
    state.images += config.batch_images
    if config.skip_nonfinite and not norm.isfinite():  # this waits for the device: the price of going on
        state.forget_gradients()
        state.skipped += 1
    else:
        state.step()
        state.ema.update(config.batch_images, state.images if config.ema_width else counted)
    return losses[0], losses[1:], norm
