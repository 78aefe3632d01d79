"""A level around a level: a nested U-Net of any depth (Gu et al. 2023, section 3.2; docs/reference.md, section 7)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mdm.config import LevelConfig, ModelConfig
from mdm.model.attention import zeroed
from mdm.model.unet import Condition, InnermostUNet, UNet
from mdm.model.video import TiledConv


class NestedUNet(UNet):
    """An outer level: its coarsest feature map goes through the network of the next lower resolution."""

    def __init__(self, level: LevelConfig, config: ModelConfig, inner: UNet) -> None:
        super().__init__(level, config)
        outside, inside = level.channels[-1], inner.level.channels[0]
        # Zero adapters: a fresh level changes nothing of what the levels inside compute.
        self.inner_frames = inner.level.frames
        self.in_adapter = zeroed(TiledConv(outside, inside, self.inner_frames))
        self.out_adapter = zeroed(TiledConv(inside, outside, self.inner_frames))
        self.inner_unet = inner

    def encode(self, text: Tensor | None, mask: Tensor | None, labels: Tensor | None) -> Condition:
        """The innermost level reads the text once for all."""
        return self.inner_unet.encode(text, mask, labels)

    def denoise(
        self,
        pictures: list[Tensor],
        times: Tensor,
        condition: Condition,
        micros: dict[str, Tensor] | None,
        features: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Predictions of this level and all inside, and its last feature map; `features` come from the level around."""
        rows = len(pictures[0])
        own = condition.rows(rows)
        time = self.embed(times[:rows], micros, own)
        x, skips = self.go_down(self.enter(pictures[0], features), time, own)
        sent = _pad_rows(self.in_adapter(x), len(pictures[1]) * self.inner_frames)
        # The inner network sees all rows, so times and condition go in uncut.
        predictions, returned = self.inner_unet.denoise(pictures[1:], times, condition, micros, sent)
        x = x + self.out_adapter(returned[: rows * self.inner_frames])
        x = self.go_up(x, skips, time, own)
        return [self.predict(x), *predictions], x


def _pad_rows(x: Tensor, rows: int) -> Tensor:
    """[b,C,H,W] -> [rows,C,H,W] with zeros for the pictures that the outer level did not see."""
    return x if len(x) == rows else F.pad(x, (0, 0, 0, 0, 0, 0, 0, rows - len(x)))


def build(config: ModelConfig, seed: int = 0) -> InnermostUNet | NestedUNet:
    """The nest of a configuration with fresh weights, on the CPU (or inside `torch.device("meta")`)."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        # Inside first: the inner levels of a deeper nest then start with the weights of the smaller one.
        network: InnermostUNet | NestedUNet = InnermostUNet(config.levels[0], config)
        for level in config.levels[1:]:
            network = NestedUNet(level, config, network)
    return network
