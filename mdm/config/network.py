"""Settings of the nested network and of its levels."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mdm.config.base import Count, Decay, Layers, Positive, Strict, Width, require_groups
from mdm.config.cascade import LowConfig
from mdm.config.sizes import Clip, Codes, Size
from mdm.config.song import SongSettings

# The names become parts of the names of weights (`cond_layers.NAME.0.weight`).
ClipName = Annotated[str, Field(pattern=r"^[1-9][0-9]*x[1-9][0-9]*$")]
MicroName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class VideoConfig(Strict):
    """Settings of a level of clips (docs/reference.md, section 8); the innermost level always shows pictures."""

    frames: Positive = Field(description="frames of a clip: 4, 16, 64, ...")
    halves: Literal["time", "space"] = Field(
        default="time", description="what each inner resolution halves; time: the frames, space: their sides"
    )
    attention: tuple[Layers, ...] = Field(
        default=(), description="attention layers over the frames per residual block, at each inner resolution"
    )
    rotary: bool = Field(default=False, description="rotary position embedding in the attention over the frames")

    @model_validator(mode="after")
    def _frames_are_possible(self) -> VideoConfig:
        if self.frames == 1 or self.frames.bit_count() != 1 or self.frames.bit_length() % 2 == 0:
            raise ValueError(
                f"frames {self.frames} is not a power of 4; write 4, 16, 64, ... "
                "(clips become shorter by halves, and their frames form a square grid between the levels)"
            )
        if self.rotary and not any(self.attention):
            raise ValueError("rotary: true, but there is no attention over the frames; write video.attention")
        return self


class LevelConfig(Strict):
    """One resolution of the nest: a U-Net whose innermost part is the next lower resolution."""

    later: ClassVar = ("video", "patch", "heads", "codes")

    resolution: Positive = Field(description="side of the picture in pixels")
    patch: Positive = Field(
        default=1, description="the level works on blocks of so many pixels a side, each folded into channels"
    )
    channels: tuple[Width, ...] = Field(description="channels at each inner resolution, finest first")
    resnets: tuple[Annotated[Layers, Field(gt=0)], ...] = Field(description="residual blocks at each inner resolution")
    attention: tuple[Layers, ...] = Field(default=(), description="attention layers per residual block, 0 = none")
    attention_ffn: bool = Field(default=True, description="feed-forward layer after each attention")
    heads: Positive = Field(default=8, description="heads of the attention over pixels and text")
    middle: bool = Field(default=False, description="blocks at the bottom; yes for the innermost level")
    dropout: Decay = 0.0
    norm_groups: Positive = Field(default=32, description="groups of the residual blocks' normalisation")
    normalize_input: bool = Field(default=False, description="divide the noisy picture by its deviation")
    micro_conditioning: dict[MicroName, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="name: default value, e.g. scale: 64"
    )
    video: VideoConfig | None = Field(default=None, description="a level of clips (none: of pictures)")
    codes: Positive | None = Field(
        default=None, description="channels of the latent codes that it shows, as its run's autoencoder has them"
    )

    @property
    def ratio(self) -> int:
        """How much smaller the coarsest inner resolution is: of the side, or of the number of frames."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def pixel_channels(self) -> int:
        """Channels of a picture as the first convolution sees it: three for each pixel, or those of a code."""
        return (self.codes or 3) * self.patch**2

    @property
    def frames(self) -> int:
        """Frames of one row of the batch."""
        return self.video.frames if self.video else 1

    @property
    def size(self) -> Size:
        """What the level shows."""
        if self.video:
            return Clip(self.frames, self.resolution)
        return Codes(self.resolution, self.codes) if self.codes else self.resolution

    @property
    def halves(self) -> str:
        """What each inner resolution halves, space or time."""
        return self.video.halves if self.video else "space"

    def grid(self, index: int) -> Clip:
        """Frames and side of the feature maps at inner resolution number `index`, finest first."""
        if self.halves == "time":
            return Clip(self.frames >> index, self.resolution)
        return Clip(self.frames, self.resolution // self.patch >> index)

    @model_validator(mode="after")
    def _lists_agree(self) -> LevelConfig:
        depth = len(self.channels)
        lists = {"resnets": self.resnets, "attention": self.attention}
        lists |= {"video.attention": self.video.attention} if self.video else {}
        for key, value in lists.items():
            if (value or key == "resnets") and len(value) != depth:
                raise ValueError(
                    f"{key} has {len(value)} entries, channels has {depth}; write one per inner resolution"
                )
        if self.halves == "space" and self.resolution % self.ratio:
            blocks = f" in blocks of {self.patch} px" if self.patch > 1 else ""
            raise ValueError(
                f"resolution {self.resolution} cannot be halved {depth - 1} times{blocks}; "
                f"use a multiple of {self.ratio}"
            )
        require_groups(self.channels, self.norm_groups)
        widths = [w for w, layers in zip(self.channels, self.attention, strict=False) if layers]
        for width in widths + ([self.channels[-1]] if self.middle else []):
            if width % 32:
                raise ValueError(f"a level with attention needs channels divisible by 32, not {width}")
            if width % self.heads:
                raise ValueError(f"{self.heads} heads cannot share {width} channels; write a divisor of {width}")
        return self

    @model_validator(mode="after")
    def _clips_are_possible(self) -> LevelConfig:
        if self.video is None:
            return self
        if self.patch > 1:
            raise ValueError(f"patch {self.patch}: levels of clips know no blocks of pixels; leave it out")
        if self.halves == "time" and self.frames < self.ratio:
            raise ValueError(
                f"{self.frames} frames cannot be halved {len(self.channels) - 1} times; "
                f"give the level {self.frames.bit_length()} channel entries or fewer"
            )
        for index, layers in enumerate(self.video.attention):
            width, side = self.channels[index], self.grid(index).resolution
            if layers and width % 32:
                raise ValueError(f"attention over the frames needs channels divisible by 32 (its heads), not {width}")
            if layers and side % 2:
                raise ValueError(f"attention over the frames works at half their side, which {side} px has not")
        return self


class ModelConfig(Strict):
    """The nested network. Levels stand innermost (lowest resolution) first: the order in which they grow."""

    later: ClassVar = ("time_conditioning", "learned_balance", "upsamples")

    levels: tuple[LevelConfig, ...] = Field(min_length=1)
    time_channels: Width | None = Field(default=None, description="width of the time embedding, all levels")
    text_channels: Width | None = Field(default=None, description="width of the encoder's features")
    text_projection: Annotated[int, Field(ge=0, le=2**20)] = Field(
        default=0, description="project the features to this width (0: as they are)"
    )
    text_layers: Layers = Field(default=0, description="learnable self-attention layers over the features")
    mask_text: bool = Field(default=True, description="cross attention ignores padding (released model: false)")
    classes: Width | None = Field(default=None, description="number of classes (ImageNet: 1000)")
    time_conditioning: bool = Field(default=True, description="the network is told how noisy its pictures are")
    learned_balance: bool = Field(
        default=False, description="each level learns its uncertainty at each noise level, which weighs its loss (EDM2)"
    )
    upsamples: LowConfig | None = Field(default=None, description="a small picture that the network sees enlarged")

    @model_validator(mode="after")
    def _chain_is_possible(self) -> ModelConfig:
        if self.levels[0].video:
            raise ValueError(
                f"the innermost level shows clips ({self.levels[0].size}); put a level of pictures inside it"
            )
        for inner, outer in zip(self.levels, self.levels[1:], strict=False):
            if inner.video or outer.video:
                _check_clip_inside(inner, outer)
            else:
                _check_picture_inside(inner, outer)
        if not self.levels[0].middle:
            raise ValueError(f"the innermost level ({self.levels[0].resolution} px) needs middle: true")
        for level in self.levels[1:]:
            if level.middle:
                raise ValueError(
                    f"middle: true has no effect on the level {level.size}, whose middle is the level inside it; "
                    "leave it out"
                )
        return self

    @model_validator(mode="after")
    def _enlarges_what_is_smaller(self) -> ModelConfig:
        if self.upsamples:
            self.upsamples.require_larger([level.size for level in self.levels])
        return self

    @model_validator(mode="after")
    def _widths_are_possible(self) -> ModelConfig:
        time = self.time_channels or 4 * self.levels[0].channels[0]
        if time % 8:
            raise ValueError(f"time_channels {time} is not divisible by 8; write a multiple of 8")
        text = self.text_projection or self.text_channels
        if self.text_layers and not self.text_channels:
            raise ValueError(f"text_layers {self.text_layers} has no effect without text_channels")
        if self.text_projection and not self.text_channels:
            raise ValueError(f"text_projection {self.text_projection} has no effect without text_channels")
        if self.text_layers and text and text % 8:
            raise ValueError(f"text layers over {text} channels: their 8 heads need a width divisible by 8")
        return self

    @property
    def resolutions(self) -> tuple[Size, ...]:
        """Sides of the pictures (or sizes of the clips), highest first: the order of every list of tensors."""
        return tuple(level.size for level in reversed(self.levels))

    @property
    def drops(self) -> bool:
        """Whether training drops features."""
        return any(level.dropout for level in self.levels)


def _check_picture_inside(inner: LevelConfig, outer: LevelConfig) -> None:
    """The coarsest feature map of a level is as large as the first one of the level inside."""
    coarsest, first = outer.resolution // outer.ratio, inner.grid(0).resolution
    if coarsest == first and outer.resolution >= inner.resolution:
        return
    place = f"impossible resolution chain {inner.resolution} -> {outer.resolution}: "
    if inner.patch == outer.patch == 1:
        raise ValueError(
            f"{place}the outer level has {len(outer.channels)} inner resolutions and so nests a picture of "
            f"{coarsest} px; give it {_depth(inner.resolution, outer.resolution)} channel entries"
        )
    if outer.resolution < inner.resolution:
        raise ValueError(f"{place}the outer level must not be the smaller one")
    raise ValueError(
        f"{place}the coarsest feature map of the outer level is {coarsest} px wide, the first of the one inside "
        f"{first}; with patch {outer.patch} give the outer level {_depth(first * outer.patch, outer.resolution)} "
        f"channel entries"
    )


def _check_clip_inside(inner: LevelConfig, outer: LevelConfig) -> None:
    nested, wanted = outer.grid(len(outer.channels) - 1), inner.grid(0)
    if nested == wanted and inner.size != outer.size:
        return
    place = f"impossible chain {inner.size} -> {outer.size}: "
    if inner.frames > outer.frames:
        raise ValueError(f"{place}the inner level has {inner.frames} frames, the outer only {outer.frames}")
    if inner.size == outer.size:
        raise ValueError(f"{place}both levels show the same; leave one out")
    over_time = outer.halves == "time"
    entries = _depth(wanted.frames, outer.frames) if over_time else _depth(wanted.resolution, outer.resolution)
    kept = "sides" if over_time else "numbers of frames"
    raise ValueError(
        f"{place}the outer level halves {outer.halves} {len(outer.channels) - 1} times and so nests "
        f"{nested.frames} frame(s) of {nested.resolution} px, not {wanted.frames} of {wanted.resolution}; "
        f"give it {entries} channel entries, and both levels the same {kept} (one level cannot halve both)"
    )


def _depth(inside: int, outside: int) -> str:
    ratio = outside / inside
    exact = ratio >= 1 and ratio == int(ratio) and int(ratio).bit_count() == 1
    return str(int(ratio).bit_length()) if exact else "(no number fits; the ratio must be a power of two)"


class NetworkConfig(Strict):
    """The `model` section of a study: levels by resolution, of which each stage takes those it names, or `song`."""

    levels: Annotated[dict[int | ClipName, dict[str, Any]], Field(min_length=1)] | None = Field(
        default=None, description="resolution, or frames x resolution of clips (16x64): settings of that level"
    )
    song: SongSettings | None = Field(default=None, description="instead of levels: DDPM++ or NCSN++, one resolution")
    time_channels: Positive | None = Field(default=None, description="width of the time embedding, all levels")
    text_projection: Count = Field(default=0, description="project the text features to this width (0: as they are)")
    text_layers: Count = Field(default=0, description="learnable self-attention layers over the text features")
    mask_text: bool = Field(default=True, description="attention ignores padding (released model: false)")
    classes: Positive | Literal["data"] | None = Field(
        default=None, description="number of classes (ImageNet: 1000); data: as many as the run's training set has"
    )
    time_conditioning: bool = Field(default=True, description="false: the network is not told the noise level")
    learned_balance: bool = Field(default=False, description="each level learns the weight of its loss by noise level")

    @model_validator(mode="after")
    def _one_family(self) -> NetworkConfig:
        if (self.levels is None) == (self.song is None):
            seen = "neither is there" if self.song is None else "both are there"
            raise ValueError(
                f"write levels (a nested network) or song (DDPM++ or NCSN++); {seen}"
                + (", and null for the one that is inherited" if self.song else "")
            )
        nested_only = set(type(self).model_fields) - {"levels", "song", "classes"}
        if self.song and (own := sorted(nested_only & {key for key, value in self if value != self._default(key)})):
            raise ValueError(f"{', '.join(own)}: only nested networks have this; leave it out beside song")
        return self

    def _default(self, key: str) -> Any:
        return type(self).model_fields[key].default
