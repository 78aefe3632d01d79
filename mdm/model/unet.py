"""The U-Net of one level, and the innermost one, which reads text and classes (docs/reference.md, sections 2 and 6)."""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm.config import LevelConfig, ModelConfig, nearest
from mdm.config.sizes import shape
from mdm.model.arithmetic import text_width, time_channels
from mdm.model.attention import TextLayer, zeroed
from mdm.model.balance import NoiseBalance
from mdm.model.blocks import DownChain, MicroConditioning, UpChain, frequencies, sinusoids
from mdm.model.normalise import GroupNorm


@dataclass(frozen=True)
class Condition:
    """For every level: vector [B,D] that joins the time embedding, text [B,S,P], keep bool [B,1,1,S]."""

    vector: Tensor | None = None
    text: Tensor | None = None
    keep: Tensor | None = None

    def rows(self, count: int) -> Self:
        return Condition(*(None if part is None else part[:count] for part in (self.vector, self.text, self.keep)))


def over_time(level: LevelConfig, index: int) -> dict[str, Any]:
    """What the chains of inner resolution `index` need to know about frames."""
    if level.video is None:
        return {}
    layers = level.video.attention[index] if level.video.attention else 0
    return {"frames": level.grid(index).frames, "frame_attention": layers, "rotary": level.video.rotary}


class UNet(nn.Module):
    """One level: pictures [B,3,H,W] -> prediction [B,3,H,W] and the last feature map [B,C,H,W].

    A level of clips takes and predicts [B,T,3,H,W]; all its feature maps are [B*T,C,H,W] (mdm/model/video.py).
    """

    def __init__(self, level: LevelConfig, config: ModelConfig) -> None:
        super().__init__()
        width, first = time_channels(config), level.channels[0]
        self.level, self.config, self.sizes = level, config, config.resolutions
        if config.time_conditioning:
            self.temb_layer1 = nn.Linear(width // 4, width)
            self.temb_layer2 = nn.Linear(width, width)
        if config.learned_balance:
            self.balance = NoiseBalance()
        self.cond_layers = MicroConditioning(level.micro_conditioning, width)
        self.conv_in = nn.Conv2d(level.pixel_channels, first, 3, padding=1)
        self.norm_out = GroupNorm(level.norm_groups, first)
        self.conv_out = zeroed(nn.Conv2d(first, level.pixel_channels, 3, padding=1))
        self._build_chains(level, width, text_width(config))
        # Not persistent: the released checkpoints hold no buffers.
        self.register_buffer("t_emb", frequencies(width), persistent=False)

    def _build_chains(self, level: LevelConfig, width: int, text_channels: int | None) -> None:
        shared = {
            "time_channels": width, "groups": level.norm_groups, "dropout": level.dropout,
            "attention_ffn": level.attention_ffn, "heads": level.heads, "text_channels": text_channels,
        }  # fmt: skip
        attention = level.attention or (0,) * len(level.channels)
        inside = [{"attention": layers, **over_time(level, i), **shared} for i, layers in enumerate(attention)]
        self.down_blocks, self.mid_blocks, self.up_blocks = (nn.ModuleList() for _ in range(3))
        skips = self._build_down(level, inside)
        x = level.channels[-1]
        if level.middle:
            self.mid_blocks.extend(DownChain([x], x, attention=layers, **shared) for layers in (1, 0))
        self._build_up(level, inside, skips)

    def _build_down(self, level: LevelConfig, inside: list[dict[str, Any]]) -> list[int]:
        """The way down, with settings for each inner resolution; the widths of what it keeps."""
        skips = [level.channels[0]]
        for i, channels in enumerate(level.channels):
            last = i == len(level.channels) - 1
            widths = [skips[-1]] + [channels] * (level.resnets[i] - 1)
            self.down_blocks.append(DownChain(widths, channels, resample=None if last else level.halves, **inside[i]))
            skips += [channels] * (level.resnets[i] + (not last))
        return skips

    def _build_up(self, level: LevelConfig, inside: list[dict[str, Any]], skips: list[int]) -> None:
        """The way up, which takes what the way down kept, last first."""
        x = level.channels[-1]
        for i, channels in reversed(list(enumerate(level.channels))):
            before = [x] + [channels] * level.resnets[i]
            widths, x = [width + skips.pop() for width in before], channels
            self.up_blocks.append(UpChain(widths, channels, resample=level.halves if i else None, **inside[i]))

    def forward(
        self,
        pictures: list[Tensor],
        times: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        micros: dict[str, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """Predictions, highest level first, for noisy pictures [b,3,H,W] or clips [b,T,3,H,W] at integer times [B].

        A higher level may hold fewer rows than a lower one: they are the first of the batch. So clips and single
        pictures train together: the pictures are further rows of the picture levels.
        """
        self._check(pictures, times, micros)
        return self.denoise(pictures, times, self.encode(text, mask, labels), micros, None)[0]

    def _check(self, pictures: list[Tensor], times: Tensor, micros: dict[str, Tensor] | None) -> None:
        self._check_rows([len(picture) for picture in pictures], len(times))
        for picture, size in zip(pictures, self.sizes, strict=True):
            # Frames that are not where the level expects them would pass as more rows of the batch.
            if picture.shape[1:-2] != (wanted := shape(size)[:-2]):
                raise ValueError(
                    f"the level {size} takes tensors [B, {', '.join(map(str, wanted))}, H, W], "
                    f"but one of shape {list(picture.shape)} was given"
                )
        self._check_sides(pictures)
        self._check_micros(micros or {})

    def _check_rows(self, rows: list[int], times: int) -> None:
        if len(rows) != len(self.config.levels):
            raise ValueError(f"the network has {len(self.config.levels)} levels, but {len(rows)} pictures were given")
        if rows != sorted(rows) or rows[-1] != times:
            raise ValueError(
                f"{times} times for batches of {rows} pictures (highest resolution first); "
                "the lowest needs one per time, and no higher level more than a lower one"
            )

    def _check_micros(self, micros: dict[str, Tensor]) -> None:
        known = {name for level in self.config.levels for name in level.micro_conditioning}
        for name in micros.keys() - known:
            raise ValueError(f"no level is told '{name}' (micro_conditioning); {nearest(name, known)}")

    def _check_sides(self, pictures: list[Tensor]) -> None:
        """Pictures need not be square, but every level must halve without remainder down to the next."""
        sides = [tuple(picture.shape[-2:]) for picture in pictures]
        levels = list(reversed(self.config.levels))
        for place, (level, (height, width)) in enumerate(zip(levels, sides, strict=True)):
            ratio = level.resolution // level.grid(len(level.channels) - 1).resolution
            scale = levels[place + 1].patch if place + 1 < len(levels) else 1
            if height % ratio or width % ratio:
                raise ValueError(
                    f"the level of {level.resolution} px makes its pictures {ratio} times smaller, so "
                    f"{height} x {width} does not fit; give it multiples of {ratio}"
                )
            inside = (height // ratio * scale, width // ratio * scale)
            if sides[place + 1 : place + 2] not in ([], [inside]):
                raise ValueError(
                    f"a picture of {height} x {width} at the level of {level.resolution} px nests one of "
                    f"{inside[0]} x {inside[1]}, but {sides[place + 1][0]} x {sides[place + 1][1]} was given"
                )

    def embed(self, times: Tensor, micros: dict[str, Tensor] | None, condition: Condition) -> Tensor:
        """Everything that modulates the residual blocks, [B,D], through the SiLU they all would apply."""
        vector = torch.zeros(len(times), time_channels(self.config), device=times.device)
        if self.config.time_conditioning:
            vector = self.temb_layer2(F.silu(self.temb_layer1(sinusoids(times, self.t_emb))))
        if condition.vector is not None:
            vector = vector + condition.vector
        if len(self.cond_layers):
            vector = vector + self.cond_layers(micros, len(times), self.t_emb)
        return F.silu(vector)

    def enter(self, noisy: Tensor, features: Tensor | None) -> Tensor:
        """First feature map [B,C,H,W] of a noisy picture [B,3,H,W], plus what the level around sends in."""
        noisy = noisy.flatten(0, -4)  # [B,T,3,H,W] -> [B*T,3,H,W]; a picture stays as it is
        if self.level.normalize_input:
            noisy = noisy / noisy.std(dim=(1, 2, 3), keepdim=True)
        if self.level.patch > 1:
            noisy = F.pixel_unshuffle(noisy, self.level.patch)
        x = self.conv_in(noisy)
        return x if features is None else x + features

    def go_down(self, x: Tensor, time: Tensor, condition: Condition) -> tuple[Tensor, list[Tensor]]:
        """x [B,C,H,W] -> the coarsest feature map and all activations that the way up takes."""
        skips = [x]
        for chain in self.down_blocks:
            skips += chain(skips[-1], time, condition.text, condition.keep)
        return skips[-1], skips

    def go_up(self, x: Tensor, skips: list[Tensor], time: Tensor, condition: Condition) -> Tensor:
        """Coarsest feature map -> last feature map [B,C,H,W]; empties `skips`."""
        for chain in self.up_blocks:
            x = chain(x, skips, time, condition.text, condition.keep)
        return x

    def predict(self, x: Tensor) -> Tensor:
        """Last feature map [B,C,H,W] -> prediction [B,3,H,W]; [B*T,C,H,W] -> [B,T,3,H,W]."""
        said = self.conv_out(self.norm_out(x, silu=True))
        if self.level.patch > 1:
            said = F.pixel_shuffle(said, self.level.patch)
        return said.unflatten(0, (-1, self.level.frames)) if self.level.video else said


class InnermostUNet(UNet):
    """The lowest resolution, which reads the text or the class for all levels."""

    def __init__(self, level: LevelConfig, config: ModelConfig) -> None:
        super().__init__(level, config)
        width, text = time_channels(config), text_width(config)
        if text:
            if config.text_projection:
                self.lm_proj = nn.Linear(config.text_channels, text)
            self.lm_head = nn.ModuleList(TextLayer(text) for _ in range(config.text_layers))
            self.cond_emb = nn.Linear(text, width, bias=False)
        if config.classes:
            self.class_emb = nn.Embedding(config.classes + 1, width)  # the last row stands for "no class"

    def denoise(
        self,
        pictures: list[Tensor],
        times: Tensor,
        condition: Condition,
        micros: dict[str, Tensor] | None,
        features: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Predictions of this level, and its last feature map before the output normalisation."""
        time = self.embed(times, micros, condition)
        x, skips = self.go_down(self.enter(pictures[0], features), time, condition)
        for chain in self.mid_blocks:
            x = chain(x, time, condition.text, condition.keep)[-1]
        x = self.go_up(x, skips, time, condition)
        return [self.predict(x)], x

    def encode(self, text: Tensor | None, mask: Tensor | None, labels: Tensor | None) -> Condition:
        """text [B,S,D] with mask [B,S] of 0/1, or labels [B] (= number of classes: no class) -> Condition."""
        vector, keep = None, None
        if self.config.text_channels:
            text, keep, vector = self._encode_text(text, mask)
        elif text is not None:
            raise ValueError("text was given to a network without text; set text_channels in the model section")
        if self.config.classes:
            if labels is None:
                raise ValueError(f"a network with {self.config.classes} classes needs labels, but none were given")
            embedded = self.class_emb(labels)
            vector = embedded if vector is None else vector + embedded
        return Condition(vector, text, keep)

    def _encode_text(self, text: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        if text is None or text.shape[-1] != self.config.text_channels:
            seen = "none" if text is None else f"features of width {text.shape[-1]}"
            raise ValueError(f"the network reads text of width {self.config.text_channels}, but {seen} was given")
        if self.config.text_projection:
            text = self.lm_proj(text)
        keep = attended(mask) if self.config.mask_text and mask is not None else None
        for layer in self.lm_head:
            text = layer(text, keep)
        # The released model pools with the mask even where its attention ignores the mask, unless text layers
        # have already mixed padding into every position.
        mixed = not self.config.mask_text and self.config.text_layers > 0
        pooled = text.mean(dim=1) if mask is None or mixed else masked_mean(text, mask)
        return text, keep, self.cond_emb(pooled)


def attended(mask: Tensor) -> Tensor:
    """Mask [B,S] of 0/1 -> bool [B,1,1,S]; a caption without any token may look at its padding (no NaN)."""
    keep = mask > 0
    return (keep | ~keep.any(dim=1, keepdim=True))[:, None, None, :]


def masked_mean(text: Tensor, mask: Tensor) -> Tensor:
    """Mean over unmasked positions, [B,S,P] and [B,S] -> [B,P]; zero where there is none."""
    weights = mask.to(text.dtype)[:, :, None]
    return (text * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
