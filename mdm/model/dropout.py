"""Dropout whose masks are functions of the picture, not of its company in a batch or of the device.

The masks come from a hash of (picture, layer, frame, position), so one process with a whole batch and four with a
quarter each drop the same features, and computing a block a second time drops them again.
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 31


def mixed(x: Tensor) -> Tensor:
    """A bijection of int32 that scatters neighbours (two rounds of xor, shift and multiply, modulo 2^32)."""
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D
    x = (x ^ (x >> 15 & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ (x >> 16 & 0xFFFF)


class PictureDropout(nn.Module):
    """Sets features to zero with probability `share` and scales the rest; without keys as `F.dropout` does."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.keys: Tensor | None = None  # int32 [B], of the pictures that go through
        self.salt = 0  # of this layer

    def forward(self, x: Tensor, pictures: int) -> Tensor:
        """x [b*T,C,H,W] of the first b = `pictures` pictures of the batch."""
        if not self.share or not self.training:
            return x
        if self.keys is None:
            return F.dropout(x, self.share)
        return x * (self._kept(x, pictures).to(x.dtype) / (1 - self.share))

    def _kept(self, x: Tensor, pictures: int) -> Tensor:
        """Which features stay, bool [b*T,C,H,W]."""
        frames = torch.arange(len(x) // pictures, dtype=torch.int32, device=x.device)
        rows = mixed(mixed(self.keys[:pictures, None] ^ self.salt) + frames).view(-1, 1, 1, 1)
        places = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device).view(x.shape[1:])
        # An odd factor of its own for each row: no row is another one shifted.
        return (mixed(places * (rows | 1) + rows) & (2**BITS - 1)) >= int(self.share * 2**BITS)


def layers(network: nn.Module) -> list[PictureDropout]:
    """The layers that drop something, each with a salt made from its name."""
    found = []
    for name, module in network.named_modules():
        if isinstance(module, PictureDropout) and module.share:
            module.salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
            found.append(module)
    return found
