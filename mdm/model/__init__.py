"""The networks: one U-Net per resolution, nested."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from mdm.config import ModelConfig


def build(config: ModelConfig, seed: int = 0) -> nn.Module:
    """The network of a configuration; its fresh weights are a function of (config, seed) alone."""
    from mdm.model.nested import assemble  # torch is loaded only when a network is wanted

    return assemble(config, seed)
