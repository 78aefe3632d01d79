"""Everything that changes while training, as named tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdm.model.checkpoints import load_into
from mdm.model.ema import Ema


@dataclass
class TrainingState:
    """The network, its average, the optimiser's moments, and how many images were seen."""

    model: nn.Module
    ema: Ema
    optimizer: torch.optim.Optimizer
    images: int = 0

    def _moments(self) -> dict[str, Tensor]:
        found = {}
        for group in self.optimizer.param_groups:
            for name, parameter in zip(group["names"], group["params"], strict=True):
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    found[f"optimizer.{key}.{name}"] = value
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All state by name."""
        model = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        average = {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return {**model, **average, **self._moments()}

    def restore(self, tensors: dict[str, Tensor], images: int) -> None:
        """Take over saved tensors; a name too many or too few is an error."""
        load_into(self.model, under("model.", tensors), "the checkpoint's weights")
        self.ema.load_state_dict(under("ema.", tensors))
        self._restore_moments(under("optimizer.", tensors))
        self.images = images

    def _restore_moments(self, moments: dict[str, Tensor]) -> None:
        for group in self.optimizer.param_groups:
            for name, parameter in zip(group["names"], group["params"], strict=True):
                self.optimizer.state[parameter] = {
                    key: _as(parameter, value)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if (value := moments.get(f"{key}.{name}")) is not None
                }


def _as(parameter: Tensor, value: Tensor) -> Tensor:
    """A saved tensor on the parameter's device and, if it has its shape, in its memory layout: the fused optimiser
    walks weights and moments in memory order, and a moment in another layout would update the wrong weights."""
    if value.shape != parameter.shape:  # the step count
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
