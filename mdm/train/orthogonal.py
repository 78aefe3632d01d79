"""Momentum with orthogonalised updates (Muon, Jordan 2024): every direction of a weight matrix learns equally.

Measured on the judge with 20,000 pictures shown: the share of real pictures whose colour-shape pairs are all read
right is 81 % with AdamW and 96 % with this, at the same cost. On the laptop study's first stage: benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.9
STEPS = 4
# Coefficients of an odd polynomial that drives all singular values towards 1 (not exactly: that is not needed).
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [..., M, N] with the same singular vectors and singular values near 1."""
    rows, columns = matrices.shape[-2:]
    wide = matrices.mT if rows > columns else matrices
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        product = wide @ wide.mT
        wide = LINEAR * wide + (CUBIC * product + QUINTIC * product @ product) @ wide
    return wide.mT if rows > columns else wide


class OrthogonalMomentum(torch.optim.Optimizer):
    """For weights of two dimensions or more; a convolution is the matrix [outputs, inputs * kernel]."""

    def __init__(self, parameters: Iterable[Tensor] | list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every weight that has a gradient; weights of one shape move together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(weight.shape, []).append(weight)
            for weights in alike.values():
                self._update(weights, group["lr"], group["weight_decay"])

    def _update(self, weights: Sequence[Tensor], rate: float, decay: float) -> None:
        gradients = [weight.grad for weight in weights]
        momenta = [self._momentum(weight) for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).flatten(2)
        # A tall matrix reaches only part of its outputs: the factor keeps the size of their change.
        tall = max(1.0, ahead.shape[1] / ahead.shape[2]) ** 0.5
        moves = orthogonalised(ahead).unflatten(2, weights[0].shape[1:]).unbind()
        if decay:
            torch._foreach_mul_(weights, 1 - rate * decay)
        torch._foreach_add_(weights, moves, alpha=-rate * tall)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]
