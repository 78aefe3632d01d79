"""Attention over pixels and from pixels to text, over text or frames (docs/reference.md, sections 4 and 5)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm.config import StudyError
from mdm.model.normalise import GroupNorm
from mdm.model.processor import on_cpu

HEADS = 8
ATTENTION_GROUPS = 32  # the released model uses 32 here whatever the residual blocks use
FEW_SCORES = 64 * 64  # so few per head that PyTorch's fused CPU kernel takes 2 to 7 times as long as plain products


def zeroed(layer: nn.Module) -> nn.Module:
    """Set weight and bias to zero, so that the branch this layer ends starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def per_frame(rows: Tensor, count: int) -> Tensor:
    """[B,...] -> [count,...]: what belongs to a clip, for each of its frames (neighbours in the batch)."""
    return rows if len(rows) == count else rows.repeat_interleave(count // len(rows), dim=0)


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B,S,C] -> [B,heads,S,C/heads]; a head is a contiguous block of channels."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def _join_heads(heads: Tensor) -> Tensor:
    """[B,heads,S,C/heads] -> [B,S,C]."""
    return heads.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None) -> Tensor:
    """Softmax attention of heads [B,heads,S,C/heads] over the keys that keep, bool [B,1,1,S_k], allows."""
    if not on_cpu(query) or query.shape[2] * key.shape[2] > FEW_SCORES:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=keep)
    # Keys in the rows: over a short last dimension PyTorch's softmax takes 20 times as long, and products with few
    # columns take 3 times as long as those with few rows.
    scores = (key * query.shape[3] ** -0.5) @ query.transpose(2, 3)
    if keep is not None:
        scores = scores + torch.where(keep.transpose(2, 3), 0.0, -math.inf)
    return (value.transpose(2, 3) @ scores.softmax(dim=2)).transpose(2, 3)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution [B,C_in,H,W] -> [B,C_out,H,W]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        # One pixel has no distance to its neighbours, so a dilation changes nothing; but only with one does PyTorch
        # hand the work of a single CPU thread to oneDNN, which takes half the time of its own loop.
        return F.conv2d(x, self.weight, self.bias, dilation=2 if x.device.type == "cpu" else 1)


def feed_forward(channels: int) -> nn.Sequential:
    """Two 1x1 convolutions [B,C,H,W] -> [B,C,H,W]; the last starts at zero."""
    return nn.Sequential(
        GroupNorm(ATTENTION_GROUPS, channels),
        PointwiseConv(channels, 4 * channels),
        nn.GELU(),
        zeroed(PointwiseConv(4 * channels, channels)),
    )


class PixelAttention(nn.Module):
    """x [B,C,H,W] plus attention to itself and to text [B,S,D]: one query, two softmaxes, their sum."""

    def __init__(self, channels: int, text_channels: int | None, with_ffn: bool, heads: int = HEADS) -> None:
        super().__init__()
        if channels % ATTENTION_GROUPS:
            raise StudyError(f"attention over {channels} channels: the width must be divisible by {ATTENTION_GROUPS}")
        self.norm = GroupNorm(ATTENTION_GROUPS, channels)
        self.qkv = PointwiseConv(channels, 3 * channels)
        if text_channels:
            self.norm_cond = nn.LayerNorm(text_channels)
            self.kv_cond = nn.Linear(text_channels, 2 * channels)
        self.proj_out = zeroed(PointwiseConv(channels, channels))
        self.ffn = feed_forward(channels) if with_ffn else None
        self.reads_text, self.heads = bool(text_channels), heads

    def forward(self, x: Tensor, text: Tensor | None, keep: Tensor | None) -> Tensor:
        """x [B,C,H,W], text [B,S,D], keep bool [B,1,1,S] (None: every position) -> [B,C,H,W].

        Frames of clips are more rows than texts: the frames of one clip read the same text.
        """
        # The fused kernels want a head's channels side by side; in channels_last they already are.
        tokens = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        query, key, value = (_split_heads(part, self.heads) for part in tokens.chunk(3, dim=2))
        heads = attend(query, key, value)
        if self.reads_text:
            told = per_frame(self.kv_cond(self.norm_cond(text)), len(x))
            keep = None if keep is None else per_frame(keep, len(x))
            key, value = (_split_heads(part, self.heads) for part in told.chunk(2, dim=2))
            heads = heads + attend(query, key, value, keep)
        x = x + self.proj_out(_join_heads(heads).transpose(1, 2).unflatten(2, x.shape[2:]))
        return x if self.ffn is None else x + self.ffn(x)


class TokenAttention(nn.Module):
    """Residual self-attention over text or frames [B,S,C]; `position` turns queries and keys [B,heads,S,C/heads]."""

    def __init__(self, channels: int, heads: int = HEADS, position: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj_out = zeroed(nn.Linear(channels, channels))
        self.heads, self.pos_emb = heads, position

    def forward(self, text: Tensor, keep: Tensor | None) -> Tensor:
        """text [B,S,C], keep bool [B,1,1,S] -> [B,S,C]."""
        query, key, value = (_split_heads(part, self.heads) for part in self.qkv(self.norm(text)).chunk(3, dim=2))
        if self.pos_emb is not None:
            query, key = self.pos_emb(query), self.pos_emb(key)
        heads = attend(query, key, value, keep)
        return text + self.proj_out(_join_heads(heads))


class TokenFeedForward(nn.Module):
    """Residual two-layer perceptron over text or frames [B,S,C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            zeroed(nn.Linear(4 * channels, channels)),
        )

    def forward(self, text: Tensor) -> Tensor:
        """[B,S,C] -> [B,S,C]."""
        return text + self.main(text)


class TextLayer(nn.Module):
    """One learnable layer on top of the frozen text encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = TokenAttention(channels)
        self.mlp = TokenFeedForward(channels)

    def forward(self, text: Tensor, keep: Tensor | None) -> Tensor:
        """text [B,S,C], keep bool [B,1,1,S] -> [B,S,C]."""
        return self.mlp(self.attn(text, keep))
