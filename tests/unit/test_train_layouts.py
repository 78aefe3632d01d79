"""The fused AdamW of PyTorch walks weights, gradients and moments in memory order, and says nothing if they differ."""

from __future__ import annotations

import copy

import pytest
import torch

from mdm.config import ModelConfig, TrainConfig
from mdm.model.ema import Ema
from mdm.model.nested import build
from mdm.train.optim import make_optimizers, set_rates
from mdm.train.state import TrainingState

LEVELS = (
    {"resolution": 8, "channels": [32], "resnets": [1], "attention": [1], "norm_groups": 8, "middle": True},
    {"resolution": 16, "channels": [8, 16], "resnets": [1, 1], "norm_groups": 4},
)
RATE = 1e-2


def in_channels_last() -> tuple[torch.nn.Module, TrainingState]:
    config = TrainConfig(batch_images=2, learning_rate=RATE, ema_halflife_images=1)
    network = build(ModelConfig(levels=LEVELS)).to(memory_format=torch.channels_last)
    return network, TrainingState(network, Ema(network, 1), make_optimizers(network, config, set()))


def backpropagate(network: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.randn(2, 3, side, side, generator=generator) for side in (16, 8)]
    said = network(pictures, torch.tensor([100, 700]))
    sum((answer - picture).square().mean() for answer, picture in zip(said, pictures, strict=True)).backward()


@pytest.mark.parametrize("saved", [torch.contiguous_format, torch.channels_last])
def test_steps_after_a_checkpoint_are_those_of_a_plain_optimiser(saved: torch.memory_format) -> None:
    """Whatever layout a file's tensors come in, moments move the weights that they belong to."""
    network, state = in_channels_last()
    assert any(not p.is_contiguous() for p in network.parameters())
    plain = {name: p.detach().contiguous().requires_grad_() for name, p in network.named_parameters()}
    groups = state.optimizers[0].param_groups[0]
    reference = torch.optim.AdamW(
        plain.values(), lr=RATE, betas=groups["betas"], eps=groups["eps"], weight_decay=groups["weight_decay"],
        fused=False, foreach=False,
    )  # fmt: skip
    for step in range(4):
        backpropagate(network, step)
        for name, parameter in network.named_parameters():
            assert parameter.grad.stride() == parameter.stride() or parameter.numel() == max(parameter.shape), name
            plain[name].grad = parameter.grad.contiguous().clone()
        set_rates(state.optimizers, 1.0)
        state.step()
        reference.step()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(
                parameter,
                plain[name],
                rtol=1e-5,
                atol=1e-6,
                msg=lambda text, at=f"{name} after step {step}": f"{at}: {text}",
            )
        if step == 1:  # a stop and a start
            kept = {name: relaid(value, saved) for name, value in state.tensors().items()}
            network, state = in_channels_last()
            state.restore(copy.deepcopy(kept), images=4)


def relaid(value: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    return value.detach().clone(memory_format=layout if value.ndim == 4 else torch.contiguous_format)
