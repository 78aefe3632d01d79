"""DDPM++ and NCSN++ (Song et al. 2021) with the released names of weights (docs/reference.md, section 18)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdm.config.song import Part, SongConfig
from mdm.model.song_layers import FINAL_GAIN, Block, Conv, Linear, norm

LONGEST = 10_000  # period of the slowest sinusoid, over 2 pi


def exactly(told: Tensor) -> Tensor:
    """Noise levels [B] with the digits that their sines need."""
    return told if told.dtype == torch.float64 else told.float()


class Positional(nn.Module):
    """Noise levels [B] as sinusoids [B,Z]; their frequencies are divided by half the number minus one."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.half = features // 2

    def forward(self, told: Tensor) -> Tensor:
        steps = torch.arange(self.half, dtype=torch.float32, device=told.device) / (self.half - 1)
        angles = exactly(told)[:, None] * (1 / LONGEST) ** steps
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Fourier(nn.Module):
    """Noise levels [B] as sinusoids [B,Z] of random frequencies, which are drawn once and never learn."""

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(features // 2) * scale)

    def forward(self, told: Tensor) -> Tensor:
        angles = exactly(told)[:, None] * (2 * math.pi * self.freqs)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class SongNetwork(nn.Module):
    """Layers and arithmetic; how it is called is added by `SongUNet` and `SongNest`."""

    def __init__(self, config: SongConfig) -> None:
        super().__init__()
        self.config, features, width = config, config.noise_features, config.embedding_width
        fourier = config.embedding == "fourier"
        # The order of construction is that of the draws, and of the names in the released files.
        self.map_noise = Fourier(features, config.fourier_scale) if fourier else Positional(features)
        self.map_label = Linear(config.classes, features) if config.classes else None
        self.map_augment = Linear(config.augment, features, bias=False) if config.augment else None
        self.map_layer0 = Linear(features, width)
        self.map_layer1 = Linear(width, width)
        self._ways = tuple(config.encoder_parts()), tuple(config.decoder_parts())
        self.enc, self.dec = (nn.ModuleDict({part.name: self._made(part) for part in way}) for way in self._ways)
        self.recompute = False

    def _made(self, part: Part) -> nn.Module:
        taps = self.config.filter
        if part.kind == "block":
            return Block(part, self.config.embedding_width, self.config.dropout, taps)
        if part.kind == "aux_norm":
            return norm(part.c_out)
        if part.kind == "aux_residual":
            return Conv(part.c_in, part.c_out, 3, resample=part.resample, taps=taps, fused=True)
        return Conv(part.c_in, part.c_out, 3, FINAL_GAIN if part.kind == "aux_conv" else 1.0)

    def answer(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        """What the network says of pictures [B,3,H,W] at noise levels [B]; labels [B,classes] and [B,augment]."""
        vector = self._embed(noise_labels, class_labels, augment_labels)
        return self._up(*self._down(x, vector), vector)

    def _embed(self, noise_labels: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        vector = self.map_noise(noise_labels).to(self.map_layer0.weight.dtype)
        if self.map_label is not None:
            count = self.map_label.in_features
            told = vector.new_zeros(1, count) if class_labels is None else class_labels.to(vector.dtype)
            vector = vector + self.map_label(told * math.sqrt(count))
        if self.map_augment is not None and augment_labels is not None:
            vector = vector + self.map_augment(augment_labels)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(vector))))

    def _down(self, x: Tensor, vector: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The lowest feature map, and what is kept for the way up: zeros where a skip connection is removed."""
        flags, picture = iter(self.config.skips or ()), x
        kept: list[Tensor] = []
        stays = True
        for part in self._ways[0]:
            layer = self.enc[part.name]
            if part.kind == "aux_residual":
                # The sum always goes on; it is kept in the place of the halved features, if those are kept.
                x = picture = (x + layer(picture)) * math.sqrt(0.5)
                kept[-1] = x if stays else kept[-1]
                continue
            x = self._block(layer, x, vector) if part.kind == "block" else layer(x)
            stays = bool(next(flags, 1))
            kept.append(x if stays else torch.zeros_like(x))
        return x, kept

    def _up(self, x: Tensor, kept: list[Tensor], vector: Tensor) -> Tensor:
        for part in self._ways[1]:
            layer = self.dec[part.name]
            if part.kind == "block":
                x = self._block(layer, torch.cat([x, kept.pop()], dim=1) if part.skip else x, vector)
            else:
                x = layer(x, silu=True) if part.kind == "aux_norm" else layer(x)
        return x

    def _block(self, block: nn.Module, x: Tensor, vector: Tensor) -> Tensor:
        """A block; with `recompute`, its activations are computed again on the way back."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, x, vector, use_reentrant=False)
        return block(x, vector)


class SongUNet(SongNetwork):
    """As the released network is called: pictures, noise levels and one-hot labels as tensors."""

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Pictures [B,3,H,W], levels [B], labels [B,classes] (none: zeros), augmentation [B,augment] -> [B,3,H,W]."""
        return self.answer(x, noise_labels, class_labels, augment_labels)


class SongNest(SongNetwork):
    """As a nest of one level, which training, sampling and measuring know how to call."""

    def forward(
        self,
        pictures: list[Tensor],
        times: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        micros: dict[str, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """One batch [B,3,H,W] at levels [B] with class numbers [B] -> one batch; number `classes` means no class."""
        if len(pictures) != 1 or len(pictures[0]) != len(times):
            rows = [len(picture) for picture in pictures]
            raise ValueError(f"the network has one level, but batches of {rows} pictures and {len(times)} times came")
        if text is not None or micros:
            raise ValueError(
                "text or micro-conditioning was given to a network of the song family, which reads neither"
            )
        return [self.answer(pictures[0], times, self._one_hot(labels), None)]

    def _one_hot(self, labels: Tensor | None) -> Tensor | None:
        count = self.config.classes
        if not count:
            return None
        if labels is None:
            raise ValueError(f"a network with {count} classes needs labels, but none were given")
        return F.one_hot(labels, count + 1)[:, :count].float()
