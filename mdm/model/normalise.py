"""Group normalisation, modulation by the time embedding, and SiLU in one (docs/reference.md, section 3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mdm.model.processor import on_cpu

# Below that the 30 small operations of the way back cost more than they save.
FUSED_NUMBERS = 2**17
# In channels_last PyTorch gathers pictures below so many pixels value by value, which takes long for narrow groups.
GATHERED_PIXELS, NARROW, FEW_NUMBERS = 1024, 8, 2**15
# In channels_last PyTorch adds up a group value by value: errors of 5e-6 at 256 px, 3e-4 at 1024.
MANY_PIXELS = 2**14


class GroupNorm(nn.GroupNorm):
    """x [B,C,H,W] normalised; times 1 + scale plus shift, both [B,C], if given; through SiLU if asked."""

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, silu: bool = False
    ) -> Tensor:
        if _worthwhile(x):
            return _Fused.apply(x, self.weight, self.bias, scale, shift, self.num_groups, self.eps, silu)
        if x.dtype != self.weight.dtype:
            x = self._in_half(x)
        elif torch.is_grad_enabled() or not on_cpu(x):
            x = super().forward(x)
        else:
            x, _, _ = _normalised(x, self.weight, self.bias, self.num_groups, self.eps)
        if scale is not None:
            x = torch.addcmul(_per_channel(shift), x, _per_channel(1 + scale))
        return F.silu(x, inplace=not x.requires_grad) if silu else x

    def _in_half(self, x: Tensor) -> Tensor:
        """Outside autocast, which would make float32 (as the statistics are in any case) of what convolutions want."""
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def _worthwhile(x: Tensor) -> bool:
    """PyTorch's own way back is up to 13 times as slow in channels_last, which CPU convolutions want."""
    return on_cpu(x) and x.dtype == torch.float32 and x.numel() >= FUSED_NUMBERS and torch.is_grad_enabled()


class _Fused(torch.autograd.Function):
    """y = f(x A + D) with A and D per picture and channel, f = SiLU or nothing; keeps x alone for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        groups: int,
        eps: float,
        silu: bool,
    ) -> Tensor:
        y, mean, rstd = _normalised(x, weight, bias, groups, eps)
        if scale is not None:
            torch.addcmul(_per_channel(shift), y, _per_channel(1 + scale), out=y)
        ctx.save_for_backward(x, mean, rstd, weight, bias, scale, shift)
        ctx.silu = silu
        return F.silu(y, inplace=True) if silu else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias, scale, shift = ctx.saved_tensors
        batch, channels, groups = x.shape[0], x.shape[1], mean.shape[1]
        mean, rstd = (part.repeat_interleave(channels // groups, 1) for part in (mean, rstd))  # [B,C]
        gain = rstd * weight
        offset = torch.addcmul(bias, mean, gain, value=-1)
        factor = 1 if scale is None else 1 + scale
        slope = _per_channel(gain * factor)
        if ctx.silu:
            middle = offset * factor if shift is None else torch.addcmul(shift, offset, factor)
            before = torch.addcmul(_per_channel(middle), x, slope)
            given = torch.ops.aten.silu_backward.grad_input(given, before, grad_input=before)
        # Of each channel: the gradient's sum, and its sum with the normalised picture, [2,B,C].
        plain = given.sum((2, 3))
        sums = torch.stack([torch.addcmul((given * x).sum((2, 3)), mean, plain, value=-1) * rstd, plain])
        d_scale = None if scale is None else torch.addcmul(bias * plain, weight, sums[0])
        sums = sums * factor
        d_weight, d_bias = sums.sum(1)
        # What mean and deviation of a group pass on to each of its pixels: x * bend + level.
        ways = (sums * weight).view(2, batch, groups, -1).mean(3) / x[0, 0].numel()
        deviation, centre = ways.repeat_interleave(channels // groups, 2) * -rstd
        bend = deviation * rstd
        level = torch.addcmul(centre, bend, mean, value=-1)
        d_x = torch.addcmul(_per_channel(level), x, _per_channel(bend)).addcmul_(given, slope)
        return d_x, d_weight, d_bias, d_scale, None if scale is None else plain, None, None, None


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [B,C,H,W] normalised, with mean and 1/deviation of every group [B,G]; float32 on the CPU."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    if len(x) == 1:  # a lone picture may come with any stride over the batch, which reads as another layout
        x = x.as_strided(x.shape, (x.numel(), *x.stride()[1:]))
    batch, channels, pixels = x.shape[0], x.shape[1], x[0, 0].numel()
    gathered = pixels < GATHERED_PIXELS and channels // groups <= NARROW and x.numel() >= FEW_NUMBERS
    if not last or not (gathered or pixels >= MANY_PIXELS):
        return torch.native_group_norm(x, weight, bias, batch, channels, pixels, groups, eps)
    squares = x.square()
    sums = torch.stack([x.sum((2, 3)), squares.sum((2, 3))]).view(2, batch, groups, -1)
    mean, square = sums.mean(3) / pixels
    rstd = torch.rsqrt((square - mean.square()).clamp(min=0) + eps)
    gain = rstd[:, :, None] * weight.view(groups, -1)
    offset = torch.addcmul(bias.view(groups, -1), mean[:, :, None], gain, value=-1)
    gain, offset = gain.view(batch, channels), offset.view(batch, channels)
    return torch.addcmul(_per_channel(offset), x, _per_channel(gain), out=squares), mean, rstd


def _per_channel(values: Tensor) -> Tensor:
    return values[:, :, None, None]
