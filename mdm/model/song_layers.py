"""Layers of DDPM++ and NCSN++: scaled starts, resampling by a filter, residual blocks with one head of attention."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm.config.song import Part, norm_groups
from mdm.model.attention import attend
from mdm.model.dropout import PictureDropout
from mdm.model.normalise import GroupNorm

EPSILON = 1e-6
FINAL_GAIN, QKV_GAIN = 1e-5, math.sqrt(0.2)  # of the last layer of a branch, and of queries, keys and values


def start(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Xavier's uniform weights times a gain, and biases of zero."""
    kernel = math.prod(layer.weight.shape[2:])
    bound = math.sqrt(6 / (kernel * (layer.weight.shape[0] + layer.weight.shape[1])))
    with torch.no_grad():
        layer.weight.copy_((torch.rand(layer.weight.shape) * 2 - 1) * bound * gain)
        if layer.bias is not None:
            # The released code draws biases too before it sets them to zero; only so do equal seeds give equal weights.
            torch.rand(layer.bias.shape)
            layer.bias.zero_()


def filter_of(taps: tuple[int, ...]) -> Tensor:
    """The filter [1,1,k,k] of both directions, whose sum is one."""
    row = torch.tensor(taps, dtype=torch.float32)
    return (row.outer(row) / row.sum().square())[None, None]


class Linear(nn.Linear):
    """A linear layer that starts as the released ones do."""

    def __init__(self, c_in: int, c_out: int, bias: bool = True) -> None:
        super().__init__(c_in, c_out, bias)
        start(self, 1.0)

    def reset_parameters(self) -> None:
        """Draw nothing here: PyTorch's own draws would shift all that follow."""


class Conv(nn.Conv2d):
    """A convolution [B,C_in,H,W] -> [B,C_out,H,W]; with a filter at half or twice the side, resampled first.

    `fused` halves after the convolution and adds the bias last: other values at the border, and another order.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        gain: float = 1.0,
        resample: Literal["", "up", "down"] = "",
        taps: tuple[int, ...] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__(c_in, c_out, kernel, padding=kernel // 2)
        start(self, gain)
        self.resample, self.fused, self.margin = resample, fused, (len(taps) - 1) // 2
        self.plain = taps == (1, 1)  # means of 2x2 pixels and repeated pixels, for which there are faster ways
        if resample:
            self.register_buffer("resample_filter", filter_of(taps))

    def reset_parameters(self) -> None:
        """Draw nothing here: PyTorch's own draws would shift all that follow."""

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            x = F.conv2d(x, self.weight, padding=self.padding[0] + self.margin)
            return self._halved(x, padding=0) + self.bias[:, None, None].to(x.dtype)
        if self.resample == "up":
            x = self._doubled(x)
        elif self.resample == "down":
            x = self._halved(x, self.margin)
        # A dilation changes nothing of a single pixel, and hands it to the faster library (see PointwiseConv).
        pointwise = self.kernel_size == (1, 1) and x.device.type == "cpu"
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=2 if pointwise else 1)

    def _halved(self, x: Tensor, padding: int) -> Tensor:
        if self.plain:
            return F.avg_pool2d(x, 2)
        return F.conv2d(x, self._depthwise(x), groups=x.shape[1], stride=2, padding=padding)

    def _doubled(self, x: Tensor) -> Tensor:
        if self.plain:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.conv_transpose2d(x, 4 * self._depthwise(x), groups=x.shape[1], stride=2, padding=self.margin)

    def _depthwise(self, x: Tensor) -> Tensor:
        """The filter for each channel, [C,1,k,k]."""
        return self.resample_filter.to(x.dtype).expand(x.shape[1], 1, -1, -1)


def norm(width: int) -> GroupNorm:
    """The normalisation of so many channels."""
    return GroupNorm(norm_groups(width), width, eps=EPSILON)


class Block(nn.Module):
    """Two convolutions with the noise level's vector added between them, then attention; both branches are scaled."""

    def __init__(self, part: Part, embedding_width: int, dropout: float, taps: tuple[int, ...]) -> None:
        super().__init__()
        c_in, c_out, resample = part.c_in, part.c_out, part.resample
        self.norm0 = norm(c_in)
        self.conv0 = Conv(c_in, c_out, 3, resample=resample, taps=taps)
        self.affine = Linear(embedding_width, c_out)
        self.norm1 = norm(c_out)
        self.conv1 = Conv(c_out, c_out, 3, FINAL_GAIN)
        self.skip = Conv(c_in, c_out, 1, resample=resample, taps=taps) if c_in != c_out or resample else None
        self.attends = part.attention
        if part.attention:
            self.norm2 = norm(c_out)
            self.qkv = Conv(c_out, 3 * c_out, 1, QKV_GAIN)
            self.proj = Conv(c_out, c_out, 1, FINAL_GAIN)
        self.dropout = PictureDropout(dropout)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """x [B,C_in,H,W], vector [B,E] -> [B,C_out,H',W']."""
        hidden = self.conv0(self.norm0(x, silu=True))
        hidden = self.norm1(hidden + self.affine(vector)[:, :, None, None], silu=True)
        hidden = self.conv1(self.dropout(hidden, len(x)))
        x = (hidden + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
        return (self.proj(self._attended(x)) + x) * math.sqrt(0.5) if self.attends else x

    def _attended(self, x: Tensor) -> Tensor:
        """One head over all pixels; query, key and value of a channel are neighbours in the output of `qkv`."""
        tokens = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (-1, 3))  # [B,C,3,S]
        query, key, value = (part.transpose(1, 2)[:, None].contiguous() for part in tokens.unbind(2))
        return attend(query, key, value)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
