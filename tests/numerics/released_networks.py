"""The golden numbers of the released model, and networks with the weights they were measured with."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mdm.config import LevelConfig, ModelConfig

GOLDEN = Path(__file__).parent / "golden"
HALVED = (".conv2.weight", ".proj_out.weight", ".ffn.3.weight", ".main.3.weight")


def weight_of(name: str, shape: torch.Size) -> Tensor:
    """The golden weight of a state-dict entry: a function of its name (golden/README.md)."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) == 1:
        return 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
    return z / math.sqrt(math.prod(shape[1:])) * (0.5 if name.endswith(HALVED) else 1)


def with_golden_weights(network: nn.Module) -> nn.Module:
    """Fill every entry, in place."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.copy_(weight_of(name, tensor.shape))
    return network.eval()


@dataclass(frozen=True)
class Case:
    """One golden file: its network, its arrays, highest resolution first."""

    config: ModelConfig
    network: nn.Module
    arrays: dict[str, Tensor]
    meta: dict

    def levels(self, name: str) -> list[Tensor]:
        """`name`, or name.0, name.1, ... where the file has one array per level."""
        if name in self.arrays:
            return [self.arrays[name]]
        return [self.arrays[f"{name}.{i}"] for i in range(len(self.config.levels))]


def golden_config(nested: bool) -> ModelConfig:
    """8 px, or 32 px around 8 px."""
    inner = LevelConfig(
        resolution=8, channels=(32, 64), resnets=(1, 2), attention=(0, 2), middle=True, micro_conditioning={"scale": 8}
    )
    outer = LevelConfig(resolution=32, channels=(32, 32, 64), resnets=(2, 1, 1), micro_conditioning={"scale": 32})
    levels = (inner, outer) if nested else (inner,)
    return ModelConfig(levels=levels, text_channels=24, text_projection=40, mask_text=False)
