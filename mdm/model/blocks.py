"""Residual blocks, chains of them at an inner resolution, and modulation (docs/reference.md, sections 1, 3 and 6)."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdm.model.attention import HEADS, PixelAttention, PointwiseConv, per_frame, zeroed
from mdm.model.dropout import PictureDropout
from mdm.model.normalise import GroupNorm
from mdm.model.processor import on_cpu
from mdm.model.video import FrameAttention, FrameConv


def frequencies(time_channels: int) -> Tensor:
    """Angular frequencies [1, D/8] of the sinusoids; divided by their number, not number - 1."""
    half = time_channels // 8
    return torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000) / half))[None]


def sinusoids(values: Tensor, rates: Tensor) -> Tensor:
    """Embed values [B] as [B, D/4], sines first; float32 because times up to 1000 need their low bits."""
    angles = values.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class MicroConditioning(nn.ModuleDict):
    """Scalars such as the original picture size, each through its own two layers that start at zero."""

    def __init__(self, defaults: dict[str, float], time_channels: int) -> None:
        super().__init__()
        for name in defaults:
            layers = nn.Linear(time_channels // 4, time_channels), zeroed(nn.Linear(time_channels, time_channels))
            self[name] = nn.ModuleList(layers)
        self.defaults = dict(defaults)

    def forward(self, micros: dict[str, Tensor] | None, rows: int, rates: Tensor) -> Tensor:
        """Sum over names, [rows, D], or [1, D] where only defaults are used."""
        total = torch.zeros(1, 1, device=rates.device)
        for name, (first, second) in self.items():
            default = self.defaults[name]
            given = (micros or {}).get(name)
            value = torch.full((1,), default, device=rates.device) if given is None else given[:rows]
            # The released code caps "scale" at its default and multiplies every other scalar by 1000.
            value = value.clamp(max=default) if name == "scale" else value * 1000
            total = total + second(F.silu(first(sinusoids(value, rates))))
        return total


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions [B,C_in,H,W] -> [B,C_out,H,W] modulated by the time embedding."""

    def __init__(self, c_in: int, c_out: int, time_channels: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time_layer = nn.Linear(time_channels, 2 * c_out)
        self.norm2 = GroupNorm(groups, c_out)
        self.conv2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.conv3 = PointwiseConv(c_in, c_out) if c_in != c_out else None
        self.dropout = PictureDropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B,C_in,H,W], or frames [B*T,C_in,H,W]; time [B,D] (already through SiLU) -> the same with C_out."""
        hidden = self.conv1(self.norm1(x, silu=True))
        hidden = self.norm2(hidden, *per_frame(self.time_layer(time), len(x)).chunk(2, dim=1), silu=True)
        return self.conv2(self.dropout(hidden, len(time))) + (x if self.conv3 is None else self.conv3(x))


class Chain(nn.Module):
    """Residual blocks, each followed by its attention layers, at one inner resolution."""

    def __init__(
        self,
        widths_in: Sequence[int],
        channels: int,
        *,
        time_channels: int,
        groups: int = 32,
        dropout: float = 0.0,
        attention: int = 0,
        attention_ffn: bool = True,
        heads: int = HEADS,
        text_channels: int | None = None,
        frames: int = 1,
        frame_attention: int = 0,
        rotary: bool = False,
        resample: Literal["space", "time"] | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(width, channels, time_channels, groups, dropout) for width in widths_in
        )
        self.attn = nn.ModuleList(
            PixelAttention(channels, text_channels, attention_ffn, heads) for _ in range(attention * len(widths_in))
        )
        self.t_attn = nn.ModuleList(
            FrameAttention(channels, frames, rotary) for _ in range(frame_attention * len(widths_in))
        )
        self.resample = self.resampling(channels, frames, resample) if resample else None
        self.recompute = False

    def resampling(self, channels: int, frames: int, over: str) -> nn.Module:
        """The layer at the end of the chain, over "space" or "time"."""
        raise NotImplementedError

    def block(self, *inputs: Any) -> Tensor:
        """As `_block`; with `recompute`, computed twice."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._block, *inputs, use_reentrant=False)
        return self._block(*inputs)

    def _block(
        self, index: int, parts: tuple[Tensor, ...], time: Tensor, text: Tensor | None, keep: Tensor | None
    ) -> Tensor:
        """Residual block number `index` over the channels of all parts, [B,C,H,W], and its attention layers."""
        x = self.resnets[index](parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), time)
        for layer in self._own(self.attn, index):
            x = layer(x, text, keep)
        for layer in self._own(self.t_attn, index):
            x = layer(x)
        return x

    def _own(self, layers: nn.ModuleList, index: int) -> Iterable[nn.Module]:
        per_block = len(layers) // len(self.resnets)
        return layers[index * per_block : (index + 1) * per_block]


class DownChain(Chain):
    """A chain that halves the picture's side, or the number of frames, at its end unless it is the last."""

    def resampling(self, channels: int, frames: int, over: str) -> nn.Module:
        if over == "time":
            return FrameConv(channels, frames, stride=2)
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor, text: Tensor | None, keep: Tensor | None) -> list[Tensor]:
        """Every activation that the way up will want; the last one is the output."""
        kept = []
        for index in range(len(self.resnets)):
            x = self.block(index, (x,), time, text, keep)
            kept.append(x)
        if self.resample is not None:
            kept.append(self.resample(x))
        return kept


class EnlargingConv(nn.Conv2d):
    """Twice the size by repeating pixels, then a 3x3 convolution, [B,C_in,H,W] -> [B,C_out,2H,2W]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Each enlarged pixel sees but 2x2 different ones: 4 products instead of 9, worth the preparation of the
        # weights where there are many pixels. By picture, not by batch: a picture must not depend on its company.
        if on_cpu(x) and x[0, 0].numel() >= x.shape[1]:
            return F.conv_transpose2d(x, self._folded(), self.bias, stride=2, padding=1)
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))

    def _folded(self) -> Tensor:
        """The weights [C_in,C_out,4,4] of the transposed convolution that does both in one."""
        weight = self.weight.permute(1, 2, 3, 0)  # [C_in,3,3,C_out]
        for side in (1, 2):
            first, middle, last = weight.unbind(side)
            weight = torch.stack([last, middle + last, first + middle, first], side)
        return weight.permute(0, 3, 1, 2)


class UpChain(Chain):
    """A chain that takes one kept activation per residual block and doubles at its end what the way down halved."""

    def resampling(self, channels: int, frames: int, over: str) -> nn.Module:
        # The picture is enlarged first, so these convolutions have stride 1 (unlike those on the way down).
        if over == "time":
            return FrameConv(channels, 2 * frames, stride=1)
        return EnlargingConv(channels, channels)

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, text: Tensor | None, keep: Tensor | None) -> Tensor:
        """x [B,C,H,W]; takes its activations from the end of `skips`."""
        for index in range(len(self.resnets)):
            x = self.block(index, (x, skips.pop()), time, text, keep)
        if isinstance(self.resample, FrameConv):
            x = x.repeat_interleave(2, dim=0)  # every frame twice
        return x if self.resample is None else self.resample(x)
