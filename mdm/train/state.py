"""Everything that changes while training, as named tensors."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mdm.config import TrainConfig
from mdm.data.batches.order import draws
from mdm.files.atomic import ArtifactError
from mdm.model import dropout
from mdm.model.checkpoints import load_into
from mdm.model.ema import Ema
from mdm.model.muon import Muon
from mdm.train.gradient_buckets import GradientBuckets
from mdm.train.ranks import Ranks
from mdm.train.sharding import Shards

# What an optimiser remembers of a weight once it has moved it.
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    Muon: ("momentum",),
}


@dataclass
class TrainingState:
    """The network, its average, the optimisers' moments, the count of images, and what else a checkpoint holds."""

    model: nn.Module
    ema: Ema
    optimizers: list[torch.optim.Optimizer]
    images: int = 0
    skipped: int = 0
    seed: int = 0
    machines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dropping = dropout.layers(self.model)
        self._exchange: GradientBuckets | None = None
        self._shards: Shards | None = None
        self._kinds = [(type(optimizer), name) for optimizer, name, _ in self._optimized()]

    def share(self, ranks: Ranks) -> None:
        """From now on gradients are the sum over all processes."""
        if ranks.world > 1:
            self._exchange = GradientBuckets(self.trained)
            self._exchange.begin()

    def adding_up(self, last_part: bool) -> AbstractContextManager[None]:
        """Around a backward pass: processes exchange gradients once a step, with the last part of their batches."""
        return self._exchange.adding_up() if self._exchange and last_part else nullcontext()

    def drop(self, pictures: Sequence[int]) -> None:
        """Choose what dropout drops: a function of (seed, image counter)."""
        if self._dropping and pictures:
            device = next(self.model.parameters()).device
            keys = picture_keys(self.seed, pictures).to(device)
            for layer in self._dropping:
                layer.keys = keys

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def shard_moments(self, ranks: Ranks) -> None:
        """From now on this process moves a part of the weights, and knows the moments of these only."""
        if ranks.world > 1:
            self._shards = Shards(self.optimizers, ranks)

    def step(self) -> None:
        """Move the weights by their gradients, and forget these."""
        for optimizer in self.optimizers:
            optimizer.step()
        self.forget_gradients()
        if self._shards:
            self._shards.spread()

    def forget_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _moments(self) -> dict[str, Tensor]:
        own = {
            f"{key}.{name}": value
            for optimizer, name, parameter in self._optimized()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        moments = self._shards.gathered(own) if self._shards else own
        return {f"optimizer.{name}": value for name, value in moments.items()}

    def _optimized(self) -> Iterator[tuple[torch.optim.Optimizer, str, nn.Parameter]]:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for name, parameter in zip(group["names"], group["params"], strict=True):
                    yield optimizer, name, parameter

    def tensors(self) -> dict[str, Tensor]:
        model = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        average = {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return {**model, **average, **self._moments()}

    def metadata(self) -> dict[str, Any]:
        return {"images": self.images, "skipped": self.skipped, "machines": self.machines}

    def restore(self, tensors: dict[str, Tensor], images: int, skipped: int = 0) -> None:
        """Take over saved tensors; a name too many or too few is an error."""
        load_into(self.model, under("model.", tensors), "the checkpoint's weights")
        self.ema.load_state_dict(under("ema.", tensors))
        self._restore_moments(under("optimizer.", tensors), skipped)
        self.images, self.skipped = images, skipped

    def _restore_moments(self, moments: dict[str, Tensor], skipped: int) -> None:
        every = [{f"{key}.{name}" for key in MOMENTS[kind]} for kind, name in self._kinds]
        # A weight has none before its first step, and that may have been left out.
        wanted = {key for keys in every if not skipped or keys & moments.keys() for key in keys}
        if wrong := sorted(wanted ^ moments.keys()):
            raise ArtifactError(
                f"the checkpoint's optimiser is another: {len(wrong)} of its tensors differ, e.g. {wrong[:3]}"
            )
        self._take_moments(moments)

    def inherit(self, moments: dict[str, Tensor], prefix: str) -> None:
        """Take over what another stage's optimiser knew of the weights that are now called `prefix` + their name."""
        self._take_moments({name.replace(".", f".{prefix}", 1): value for name, value in moments.items()})

    def _take_moments(self, moments: dict[str, Tensor]) -> None:
        for optimizer, name, parameter in self._optimized():
            kept = {key: moments.get(f"{key}.{name}") for key in MOMENTS[type(optimizer)]}
            if None not in kept.values():
                optimizer.state[parameter] = {key: _as(parameter, value) for key, value in kept.items()}


def _as(parameter: Tensor, value: Tensor) -> Tensor:
    """A saved tensor on the parameter's device and, if it has its shape, in its memory layout: the fused optimiser
    walks weights and moments in memory order, and a moment in another layout would update the wrong weights."""
    if value.shape != parameter.shape:  # the step count
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def average_of(model: nn.Module, config: TrainConfig) -> Ema:
    return Ema(model, config.ema_halflife_images, config.ema_ramp, config.ema_width, config.ema_beta)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def picture_keys(seed: int, pictures: Sequence[int]) -> Tensor:
    """One key per picture, int32 [B]."""
    numbers = draws(np.asarray(pictures, dtype=np.int64), "dropout", seed) >> np.uint64(32)
    return torch.from_numpy(numbers.astype(np.uint32).view(np.int32))
