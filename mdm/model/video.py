"""Layers of a level of clips (docs/reference.md, section 8).

Between the layers of such a level, a clip's T frames are T neighbouring rows of the batch, [B*T,C,H,W]: layers that
work on pictures need not know of time, and doubling the frames is repeating every row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm.model.attention import TokenAttention, TokenFeedForward

HEAD_CHANNELS = 32  # of the attention over time, in the released model
ROTARY_BASE = 10_000.0
LARGEST_BATCH = 65_535  # of the fused attention kernels: the longest axis but one of a CUDA grid


def tile(clips: Tensor) -> Tensor:
    """Clips [B,n*n,C,H,W] as pictures [B,C,n*H,n*W]: the frames in reading order, as the released model has them."""
    grid = clips.unflatten(1, (math.isqrt(clips.shape[1]), -1))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def untile(pictures: Tensor, frames: int) -> Tensor:
    """Pictures [B,C,n*H,n*W] of n*n tiled frames as clips [B,n*n,C,H,W]; undoes `tile`."""
    n = math.isqrt(frames)
    grid = pictures.unflatten(3, (n, -1)).unflatten(2, (n, -1))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


class TiledConv(nn.Conv2d):
    """A 3x3 convolution of the released model's tiled frames, [B*T,C,H,W]: it sees over their borders."""

    def __init__(self, c_in: int, c_out: int, frames: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        """[B*T,C_in,H,W] -> [B*T,C_out,H,W]."""
        if self.frames == 1:
            return super().forward(x)
        picture = tile(x.unflatten(0, (-1, self.frames)))
        return untile(super().forward(picture), self.frames).flatten(0, 1)


class FrameConv(nn.Conv1d):
    """A convolution over the frames, at each pixel by itself; `stride` 2 halves their number."""

    def __init__(self, channels: int, frames: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride=stride, padding=1)
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        """[B*T,C,H,W] -> [B*T/stride,C,H,W]."""
        # As a two-dimensional convolution over (time, pixels): in channels_last this moves no data around it.
        clips = x.unflatten(0, (-1, self.frames)).flatten(3).transpose(1, 2)
        clips = F.conv2d(clips, self.weight[..., None], self.bias, stride=(*self.stride, 1), padding=(1, 0))
        return clips.transpose(1, 2).unflatten(3, x.shape[2:]).flatten(0, 1)


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021): pair i of a head's channels turns by frame * freqs[i]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rates = 1 / ROTARY_BASE ** (torch.arange(0, channels, 2) / channels)
        self.freqs = nn.Parameter(rates, requires_grad=False)  # the released weights hold them

    def forward(self, heads: Tensor) -> Tensor:
        """Queries or keys [B,heads,T,D]; the pairs are neighbours: 0 and 1, 2 and 3, ..."""
        angles = torch.arange(heads.shape[2], device=heads.device)[:, None] * self.freqs.float()
        cos, sin = angles.cos(), angles.sin()
        even, odd = heads.float().unflatten(3, (-1, 2)).unbind(4)
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=4).flatten(3).to(heads.dtype)


class FrameAttention(nn.Module):
    """x [B*T,C,H,W] plus attention between the frames of a clip, at each pixel of half their side."""

    def __init__(self, channels: int, frames: int, rotary: bool) -> None:
        super().__init__()
        self.frames = frames
        position = Rotary(HEAD_CHANNELS) if rotary else None
        self.attn = TokenAttention(channels, channels // HEAD_CHANNELS, position)
        self.mlp = TokenFeedForward(channels)
        self.down_conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.up_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B*T,C,H,W] with even H and W -> [B*T,C,H,W]."""
        clips = self.down_conv(x).unflatten(0, (-1, self.frames))
        tokens = clips.permute(0, 3, 4, 1, 2).flatten(0, 2)  # [B*H*W/4,T,C]
        tokens = torch.cat([self.mlp(self.attn(part, None)) for part in tokens.split(LARGEST_BATCH)])
        clips = tokens.unflatten(0, (len(clips), *clips.shape[3:])).permute(0, 3, 4, 1, 2)
        return x + self.up_conv(F.interpolate(clips.flatten(0, 1), scale_factor=2, mode="nearest"))
