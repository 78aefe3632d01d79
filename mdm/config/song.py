"""Settings of the networks DDPM++ and NCSN++ (Song et al. 2021, as released with EDM): one U-Net of one resolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from mdm.config.base import Count, Decay, Layers, Positive, Strict, Width

Filter = tuple[Positive, ...]
Flag = Annotated[int, Field(ge=0, le=1)]
Factor = Annotated[int, Field(gt=0, le=64)]
EMBEDDING_FACTOR = 4  # width of the embedding over the base width
# What the two architectures of the paper differ in.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpm++": {"embedding": "positional", "noise_width": 1, "encoder": "standard", "filter": (1, 1)},
    "ncsn++": {"embedding": "fourier", "noise_width": 2, "encoder": "residual", "filter": (1, 3, 3, 1)},
}


class Part(NamedTuple):
    """A layer or block of the network in the order in which it is made; its output has `side` pixels a side."""

    name: str
    kind: Literal["conv", "block", "aux_residual", "aux_norm", "aux_conv"]
    side: int
    c_in: int
    c_out: int
    resample: Literal["", "up", "down"] = ""
    attention: bool = False
    #: of the encoder: its output is kept for the decoder; of the decoder: it reads a kept output beside its input
    skip: bool = False


class _Shape(Strict):
    """What a study writes and a recipe holds alike."""

    channels: Width = Field(default=128, description="base width: that of the first convolution")
    multipliers: tuple[Factor, ...] = Field(
        default=(2, 2, 2),
        min_length=1,
        max_length=16,
        description="width over the base width, highest resolution first",
    )
    blocks: Annotated[Layers, Field(gt=0)] = Field(default=2, description="residual blocks at each inner resolution")
    dropout: Decay = Field(default=0.0, description="share of features set to zero inside each residual block")
    fourier_scale: Annotated[float, Field(gt=0)] = Field(
        default=16.0, description="deviation of the frequencies of Fourier features"
    )


class SongConfig(_Shape):
    """DDPM++ or NCSN++ of one resolution, every choice written out."""

    later: ClassVar = ()

    family: Literal["song"] = Field(description="song: tells the settings from those of a nested network")
    resolution: Positive = Field(description="side of the picture in pixels")
    attention: tuple[Positive, ...] = Field(description="inner resolutions whose blocks have attention")
    embedding: Literal["positional", "fourier"] = Field(
        default="positional", description="of the noise level: fixed sinusoids, or random Fourier features"
    )
    noise_width: Factor = Field(default=1, description="features of the noise level over the base width")
    encoder: Literal["standard", "residual"] = Field(
        default="standard", description="residual: the shrunken picture is added at each lower inner resolution"
    )
    filter: Filter = Field(default=(1, 1), description="of halving and doubling: [1, 1] or [1, 3, 3, 1]")
    skips: tuple[Flag, ...] | None = Field(
        default=None, description="1 or 0 for each skip connection in the order of the encoder: kept, or removed"
    )
    classes: Width | None = Field(default=None, description="number of classes (label_dim)")
    augment: Count = Field(default=0, le=2**20, description="numbers that tell of augmentation (EDM's pipe: 9)")

    @model_validator(mode="after")
    def _sides_are_possible(self) -> SongConfig:
        halvings = len(self.multipliers) - 1
        if self.resolution % 2**halvings:
            raise ValueError(
                f"resolution {self.resolution} cannot be halved {halvings} times, once for each of the multipliers "
                f"{list(self.multipliers)} but one; use a multiple of {2**halvings}"
            )
        if unknown := [side for side in self.attention if side not in self.sides]:
            raise ValueError(
                f"attention {list(self.attention)}: the network works at {', '.join(map(str, self.sides))} px, so that "
                f"{', '.join(map(str, unknown))} would have no effect; write some of these, or [] for none"
            )
        if len(set(self.attention)) < len(self.attention):
            raise ValueError(f"attention {list(self.attention)} names a resolution twice")
        if self.filter not in ((1, 1), (1, 3, 3, 1)):
            raise ValueError(f"filter {list(self.filter)} is none of [1, 1] and [1, 3, 3, 1]")
        if self.skips is not None and len(self.skips) != (wanted := self.per_level * len(self.sides)):
            raise ValueError(
                f"skips has {len(self.skips)} entries, but the network has {wanted} skip connections: {self.per_level} "
                f"at each of {', '.join(map(str, self.sides))} px, the first of each after its convolution or halving, "
                "then one after each block"
            )
        return self

    @model_validator(mode="after")
    def _widths_are_possible(self) -> SongConfig:
        features = self.noise_features
        if features % 2 or (self.embedding == "positional" and features < 4):
            raise ValueError(
                f"channels {self.channels} x noise_width {self.noise_width} give {features} features of the noise "
                "level; write channels that are even and at least 4"
            )
        ways = {"enc": self.encoder_parts(), "dec": self.decoder_parts()}
        for way, part in ((way, part) for way, parts in ways.items() for part in parts):
            # Such widths would fail at the first picture only.
            widths = (part.c_in, part.c_out) if part.kind == "block" else (part.c_out,) * (part.kind == "aux_norm")
            for width in widths:
                groups = norm_groups(width)
                if width < 4 or width % groups:
                    raise ValueError(self._no_groups(f"{way}.{part.name}", width, groups))
        if self.fourier_scale != 16 and self.embedding != "fourier":
            raise ValueError(
                f"fourier_scale {self.fourier_scale:g} has no effect on embedding {self.embedding}; leave it out"
            )
        return self

    def _no_groups(self, name: str, width: int, groups: int) -> str:
        if width < 4:
            return f"block {name} has {width} channels, too few to be normalised in groups; write 4 or more"
        joined = " (its own and those of a skip connection)" if name.startswith("dec.") else ""
        return (
            f"block {name} normalises {width} channels{joined} in {groups} groups, which do not share them evenly; "
            f"write channels that are a multiple of 32 (seen: {self.channels})"
        )

    @property
    def sides(self) -> tuple[int, ...]:
        """Inner resolutions, highest first."""
        return tuple(self.resolution >> level for level in range(len(self.multipliers)))

    @property
    def per_level(self) -> int:
        """Outputs of the encoder that are kept at each inner resolution."""
        return self.blocks + 1

    @property
    def noise_features(self) -> int:
        """Features in which the noise level is told."""
        return self.channels * self.noise_width

    @property
    def embedding_width(self) -> int:
        """Width of the vector that every block reads."""
        return EMBEDDING_FACTOR * self.channels

    @property
    def resolutions(self) -> tuple[int, ...]:
        """What the network shows, as a nest of one level."""
        return (self.resolution,)

    @property
    def drops(self) -> bool:
        """Whether training drops features."""
        return self.dropout > 0

    @property
    def text_channels(self) -> None:
        """These networks read no text."""

    @property
    def time_conditioning(self) -> bool:
        """They are always told the noise level."""
        return True

    @property
    def learned_balance(self) -> bool:
        """They learn no weights of their loss."""
        return False

    def encoder_parts(self) -> Iterator[Part]:
        """Everything on the way down."""
        width, picture = self.channels, 3
        for side, multiplier in zip(self.sides, self.multipliers, strict=True):
            at, wider = f"{side}x{side}", self.channels * multiplier
            if side == self.resolution:
                yield Part(f"{at}_conv", "conv", side, 3, width, skip=True)
            else:
                yield Part(f"{at}_down", "block", side, width, width, "down", skip=True)
                if self.encoder == "residual":
                    yield Part(f"{at}_aux_residual", "aux_residual", side, picture, width, "down")
                    picture = width
            for number in range(self.blocks):
                attends = side in self.attention
                yield Part(f"{at}_block{number}", "block", side, width, wider, attention=attends, skip=True)
                width = wider

    def decoder_parts(self) -> Iterator[Part]:
        """Everything on the way up, which reads what the way down kept, the last first."""
        kept = [part.c_out for part in self.encoder_parts() if part.skip]
        width = kept[-1]
        for side, multiplier in reversed(list(zip(self.sides, self.multipliers, strict=True))):
            at, wider = f"{side}x{side}", self.channels * multiplier
            if side == self.sides[-1]:
                yield Part(f"{at}_in0", "block", side, width, width, attention=True)
                yield Part(f"{at}_in1", "block", side, width, width)
            else:
                yield Part(f"{at}_up", "block", side, width, width, "up")
            for number in range(self.per_level):
                attends = number == self.blocks and side in self.attention
                joined = width + kept.pop()
                yield Part(f"{at}_block{number}", "block", side, joined, wider, attention=attends, skip=True)
                width = wider
        yield Part(f"{at}_aux_norm", "aux_norm", side, width, width)
        yield Part(f"{at}_aux_conv", "aux_conv", side, width, 3)


def norm_groups(width: int) -> int:
    """Groups in which so many channels are normalised."""
    return max(1, min(32, width // 4))


class SongSettings(_Shape):
    """The `model.song` section of a study: an architecture by name, and what differs from it."""

    arch: Literal["ddpm++", "ncsn++"] = Field(
        default="ddpm++", description="ddpm++ or ncsn++: embedding, noise_width, encoder and filter unless written here"
    )
    resolution: Positive = Field(default=32, description="side of the picture in pixels")
    attention: tuple[Positive, ...] | None = Field(
        default=None, description="inner resolutions whose blocks have attention (default: half the picture's side)"
    )
    embedding: Literal["positional", "fourier"] | None = Field(
        default=None, description="of the noise level: fixed sinusoids, or random Fourier features"
    )
    noise_width: Factor | None = Field(default=None, description="features of the noise level over the base width")
    encoder: Literal["standard", "residual"] | None = Field(
        default=None, description="residual: the shrunken picture is added at each lower inner resolution"
    )
    filter: Filter | None = Field(default=None, description="of halving and doubling: [1, 1] or [1, 3, 3, 1]")
    skips: tuple[Flag, ...] | None = Field(
        default=None, description="1 or 0 for each skip connection in the order of the encoder (default: all are kept)"
    )

    def written_out(self, classes: int | None) -> dict[str, Any]:
        """Every setting of the network, for `SongConfig`; equal networks are written alike."""
        written = {key: value for key, value in self.model_dump(exclude={"arch"}).items() if value is not None}
        if self.skips and all(self.skips) and len(self.skips) == len(self.multipliers) * (self.blocks + 1):
            del written["skips"]
        attention = () if len(self.multipliers) == 1 else (self.resolution // 2,)
        found = {"attention": attention, **ARCHITECTURES[self.arch], **written, "family": "song", "classes": classes}
        return found | {"attention": tuple(sorted(found["attention"], reverse=True))}
