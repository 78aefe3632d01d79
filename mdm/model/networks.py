"""Networks of either family from their configuration: the nested U-Net, or DDPM++ and NCSN++."""

import torch

from mdm.config import ModelConfig
from mdm.config.song import SongConfig
from mdm.model import nested, upsampler
from mdm.model.song import SongNest
from mdm.model.unet import UNet

Network = UNet | SongNest


def build(config: ModelConfig | SongConfig, seed: int = 0) -> Network:
    """The network of a configuration with fresh weights, on the CPU (or inside `torch.device("meta")`)."""
    if isinstance(config, ModelConfig):
        return upsampler.build(config, seed) if config.upsamples else nested.build(config, seed)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return SongNest(config)
