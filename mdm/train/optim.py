"""Optimiser and learning rate. Durations are in images, so a batch size changes no meaning."""

import math
from collections.abc import Iterable, Sequence, Set
from typing import Any

import torch
from torch import nn

from mdm.config import TrainConfig
from mdm.config.sizes import shape
from mdm.model.muon import Muon

# What meets pixels, pictures or classes is no map between hidden features, and is left to AdamW.
OUTSIDE = ("conv_in", "low_in", "conv_out", "class_emb", "balance", "aux_conv", "map_label", "map_augment")
PICTURE_CHANNELS = 3
INFINITE = 1e5  # what stands for infinity in a sanitised gradient of a loss that sums over values


def make_optimizers(model: nn.Module, config: TrainConfig, inherited: set[str]) -> list[torch.optim.Optimizer]:
    """AdamW, or Adam if the decay is coupled; and orthogonal momentum for hidden matrices if `matrix_rate` asks for it.

    Weights inherited from the parent stage learn at `inner_rate` times the rate; 0 freezes them.
    """
    if config.inner_rate == 0:
        for name in inherited:
            model.get_parameter(name).requires_grad_(False)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = {name for name, p in learning.items() if config.matrix_rate and is_hidden_matrix(name, p)}
    # Fused: one pass over the weights, 1.6 times as fast as foreach on the laptop networks' CPU step.
    coupled = config.decay == "coupled"
    # Adam takes the same step for any multiple of the gradient, if epsilon and decay are multiplied as well.
    scale = 1 / picture_values(model) if coupled else 1
    optimizers: list[torch.optim.Optimizer] = [(torch.optim.Adam if coupled else torch.optim.AdamW)(
        _groups(learning, learning.keys() - hidden, inherited, config.learning_rate, config.inner_rate),
        betas=config.betas, eps=config.epsilon * scale, weight_decay=config.weight_decay * scale, fused=True,
    )]  # fmt: skip
    if config.matrix_rate:
        groups = _groups(learning, hidden, inherited, config.matrix_rate, config.inner_rate)
        optimizers.append(Muon(groups, config.matrix_rate, config.weight_decay))
    return optimizers


def picture_values(model: nn.Module) -> int:
    """C*H*W of the highest level's picture: a loss that sums over values is so many times our mean."""
    return math.prod(shape(model.config.resolutions[0])) if hasattr(model, "config") else 1


def sanitize(parameters: Iterable[nn.Parameter], values: int) -> None:
    """Make every gradient finite, with bounds that are those of the released code on a loss that sums over values."""
    bound = INFINITE / values
    for parameter in parameters:
        if parameter.grad is not None:
            torch.nan_to_num(parameter.grad, nan=0.0, posinf=bound, neginf=-bound, out=parameter.grad)


def shorten(parameters: Sequence[nn.Parameter], longest: float | None) -> torch.Tensor:
    """The norm of the gradient before it is shortened to `longest` (None: it is left as it is)."""
    if longest is not None:
        return nn.utils.clip_grad_norm_(parameters, longest, foreach=True)
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a weight maps hidden features to hidden features."""
    parts = name.split(".")
    # In DDPM++ and NCSN++ these names begin with a resolution, and the first of the residual ones reads the picture.
    ours = [part.partition("_")[2] if part[0].isdigit() else part for part in parts]
    first = parts[0] == "enc" and "conv" in ours
    if parameter.ndim < 2 or first or ("aux_residual" in ours and parameter.shape[1] == PICTURE_CHANNELS):
        return False
    return not any(part in OUTSIDE for part in ours)


def _groups(
    parameters: dict[str, nn.Parameter], chosen: Set[str], inherited: set[str], rate: float, inner_rate: float
) -> list[dict[str, Any]]:
    """Inherited and fresh weights with their names and their peak rates."""
    found = []
    for factor, from_parent in ((inner_rate, True), (1.0, False)):
        names = [name for name in parameters if name in chosen and (name in inherited) is from_parent]
        if names:
            found.append({"params": [parameters[n] for n in names], "names": names, "peak": rate * factor})
    return found


def rate_share(config: TrainConfig, images: int, total: int) -> float:
    """Share of the peak rates: linear warm-up, constant, linear cool-down over the last `cooldown_images`.

    Where the images before the step are counted, the first step has rate 0 even without a warm-up, as in the released
    code.
    """
    share = 1.0
    if config.warmup_images or config.images_counted == "before-step":
        share *= min(1.0, config.counted(images) / max(config.warmup_images, 1))
    if config.cooldown_images:
        share *= min(1.0, (total - images) / config.cooldown_images)
    return share


def set_rates(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
