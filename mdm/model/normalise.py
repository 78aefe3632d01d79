"""Group normalisation with what always follows it: modulation by the time embedding, and SiLU (spec A.4)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Below that the 30 small operations of the way back cost more than they save.
FUSED_NUMBERS = 2**17


class GroupNorm(nn.GroupNorm):
    """x [B,C,H,W] normalised; times 1 + scale plus shift, both [B,C], if given; through SiLU if asked."""

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, silu: bool = False
    ) -> Tensor:
        if _worthwhile(x):
            return _Fused.apply(x, self.weight, self.bias, scale, shift, self.num_groups, self.eps, silu)
        x = super().forward(x)
        if scale is not None:
            x = torch.addcmul(_per_channel(shift), x, _per_channel(1 + scale))
        return F.silu(x, inplace=not x.requires_grad) if silu else x


def _worthwhile(x: Tensor) -> bool:
    """PyTorch's own way back is up to 13 times as slow in channels_last, which CPU convolutions want."""
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return on_cpu and x.numel() >= FUSED_NUMBERS and torch.is_grad_enabled() and not torch.compiler.is_compiling()


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
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        x = x.contiguous(memory_format=layout)
        size = (len(x), x.shape[1], x[0, 0].numel(), groups)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *size, eps)
        if scale is not None:
            y = torch.addcmul(_per_channel(shift), y, _per_channel(1 + scale))
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


def _per_channel(values: Tensor) -> Tensor:
    """[B,C] -> [B,C,1,1]."""
    return values[:, :, None, None]
