"""Typed settings of a study: every key a user may write, its meaning, its default, and what is refused.

The JSON schema in workflow/schemas is generated from these classes (`mdm schema`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[a-z0-9][a-z0-9.]*(-[a-z0-9.]+)*$"
SHA256 = r"^[0-9a-f]{64}$"
Name = Annotated[str, Field(pattern=NAME, max_length=40)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class StudyError(ValueError):
    """Something in a study file is wrong; the message says what, where, and what to write instead."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint: the closest valid word if there is one, and all of them."""
    words = [str(v) for v in valid]
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.5)
    listing = ", ".join(sorted(words)) or "none"
    return (f"did you mean '{close[0]}'? " if close else "") + f"(valid: {listing})"


class Strict(BaseModel):
    """Frozen, and unknown keys are refused with the nearest valid one."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key '{key}'; {nearest(key, cls.model_fields)}")
        return data


class DataConfig(Strict):
    """One data set: a source and its settings (each source checks its own)."""

    source: str = Field(description="scenes, cc12m, folder, ... (mdm/data/sources.py)")
    settings: dict[str, Any] = Field(default={}, description="settings of that source")
    shard_images: Positive = Field(default=1024, description="pictures in one shard (a tar file)")


class EncoderConfig(Strict):
    """The frozen text encoder."""

    name: str = Field(default="tiny-t5", description="tiny-t5 (embedded, fixed seed) or t5 (a local folder)")
    settings: dict[str, Any] = Field(default={}, description="settings of that encoder")
    channels: Positive = Field(description="width of its features")


class LevelConfig(Strict):
    """One resolution of the nest: a U-Net whose innermost part is the next lower resolution."""

    resolution: Positive = Field(description="side of the picture in pixels")
    channels: tuple[Positive, ...] = Field(description="channels at each inner resolution, finest first")
    resnets: tuple[Positive, ...] = Field(description="residual blocks at each inner resolution")
    attention: tuple[Count, ...] = Field(default=(), description="attention layers per residual block, 0 = none")
    attention_ffn: bool = Field(default=True, description="feed-forward layer after each attention")
    middle: bool = Field(default=False, description="blocks at the bottom; yes for the innermost level")
    dropout: Probability = 0.0
    norm_groups: Positive = Field(default=32, description="groups of the residual blocks' normalisation")
    normalize_input: bool = Field(default=False, description="divide the noisy picture by its deviation")
    micro_conditioning: dict[str, float] = Field(default={}, description="name: default value, e.g. scale: 64")

    @property
    def ratio(self) -> int:
        """How much smaller the coarsest inner resolution is."""
        return 2 ** (len(self.channels) - 1)

    @model_validator(mode="after")
    def _lists_agree(self) -> LevelConfig:
        depth = len(self.channels)
        for key in ("resnets", "attention"):
            value = getattr(self, key)
            if (value or key == "resnets") and len(value) != depth:
                raise ValueError(
                    f"{key} has {len(value)} entries, channels has {depth}; write one per inner resolution"
                )
        if self.resolution % self.ratio:
            raise ValueError(
                f"resolution {self.resolution} cannot be halved {depth - 1} times; use a multiple of {self.ratio}"
            )
        for width in self.channels:
            if width % self.norm_groups:
                raise ValueError(f"channels {width} is not divisible by norm_groups {self.norm_groups}")
        widths = [w for w, layers in zip(self.channels, self.attention, strict=False) if layers]
        for width in widths + ([self.channels[-1]] if self.middle else []):
            if width % 32:
                raise ValueError(f"a level with attention needs channels divisible by 32, not {width}")
        return self


class ModelConfig(Strict):
    """The nested network. Levels stand innermost (lowest resolution) first: the order in which they grow."""

    levels: tuple[LevelConfig, ...] = Field(min_length=1)
    time_channels: Positive | None = Field(default=None, description="width of the time embedding, all levels")
    text_channels: Positive | None = Field(default=None, description="width of the encoder's features")
    text_projection: Count = Field(default=0, description="project the features to this width (0: as they are)")
    text_layers: Count = Field(default=0, description="learnable self-attention layers over the features")
    mask_text: bool = Field(default=True, description="cross attention ignores padding (released model: false)")
    classes: Positive | None = Field(default=None, description="number of classes (ImageNet: 1000)")
    freeze_inner: bool = False

    @model_validator(mode="after")
    def _chain_is_possible(self) -> ModelConfig:
        for inner, outer in zip(self.levels, self.levels[1:], strict=False):
            if outer.resolution != inner.resolution * outer.ratio:
                raise ValueError(
                    f"impossible resolution chain {inner.resolution} -> {outer.resolution}: the outer level has "
                    f"{len(outer.channels)} inner resolutions and so nests a picture of "
                    f"{outer.resolution // outer.ratio} px; give it {_depth(inner, outer)} channel entries"
                )
        if self.time_channels is not None and self.time_channels % 8:
            raise ValueError(f"time_channels {self.time_channels} is not divisible by 8; write a multiple of 8")
        if not self.levels[0].middle:
            raise ValueError(f"the innermost level ({self.levels[0].resolution} px) needs middle: true")
        return self

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Sides of the pictures, highest first: the order of every list of tensors."""
        return tuple(level.resolution for level in reversed(self.levels))


def _depth(inner: LevelConfig, outer: LevelConfig) -> str:
    ratio = outer.resolution / inner.resolution
    exact = ratio >= 1 and ratio == int(ratio) and int(ratio).bit_count() == 1
    return str(int(ratio).bit_length()) if exact else "(no number fits; the ratio must be a power of two)"


class DiffusionConfig(Strict):
    """The noise process and the loss (Gu et al. 2023, section 3)."""

    schedule: Literal["squared-cosine", "cosine", "linear", "sigmoid"] = "squared-cosine"
    steps: Positive = Field(default=1000, description="discrete noise levels")
    prediction: Literal["v", "epsilon", "x0"] = "v"
    loss_on: Literal["epsilon", "v", "x0"] = "epsilon"
    shift_power: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="SNR is divided by (resolution ratio) ** shift_power; 0 = no shift"
    )
    base_resolution: Positive | None = Field(
        default=None, description="resolution that keeps the unshifted schedule (default: the innermost)"
    )
    level_weights: tuple[float, ...] | None = Field(default=None, description="per level, highest first")
    mixed_ratio: tuple[float, ...] | None = Field(
        default=None, description="shares of the batch, highest first: 2:1 = two thirds go through the high level"
    )
    shared_noise: bool = Field(default=False, description="low levels see the pooled noise of the highest")
    min_snr: float | None = Field(default=None, gt=0, description="clip of the min-SNR loss weight")

    @model_validator(mode="after")
    def _shares_are_possible(self) -> DiffusionConfig:
        ratio, weights = self.mixed_ratio, self.level_weights
        if ratio is not None and (min(ratio) < 0 or ratio[0] <= 0):
            raise ValueError(
                f"mixed_ratio {list(ratio)} must be zero or more, and more than zero for the highest level"
            )
        if weights is not None and (min(weights) < 0 or max(weights) == 0):
            raise ValueError(f"level_weights {list(weights)} must be zero or more, one of them more than zero")
        return self


class TrainConfig(Strict):
    """Everything of the optimisation that determines the weights. Durations are in images."""

    batch_images: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    inner_rate: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="factor on the learning rate of the levels that came from the parent; 0 freezes"
    )
    betas: tuple[Probability, Probability] = (0.9, 0.99)
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_images: Count = 0
    cooldown_images: Count = Field(default=0, description="the rate falls linearly to zero over the last images")
    clip_norm: Annotated[float, Field(gt=0)] = 2.0
    ema_halflife_images: Annotated[float, Field(gt=0)] = Field(description="half-life of the weight average")
    caption_dropout: Probability = Field(default=0.1, description="share of captions replaced by the empty one")
    precision: Literal["float32", "bf16"] = "float32"
    validate_images: Count = Field(default=0, description="held-out loss after every so many images (0: never)")


class ResourceConfig(Strict):
    """What a cluster job of this stage asks for. Not part of any digest."""

    nodes: Literal[1] = Field(default=1, description="more than one is not built yet")
    gpus: Annotated[int, Field(ge=0, le=1)] = Field(default=0, description="more than one is not built yet")
    cpus: Positive = 1
    minutes: Positive = 60
    memory_mb: Positive = 4000


class TrainingResources(ResourceConfig):
    """What a training job asks for, and how it uses it: memory against time, with the same weights up to rounding."""

    recompute: tuple[Positive, ...] = Field(
        default=(), description="levels that compute their activations again on the way back instead of keeping them"
    )
    compile: Literal["none", "blocks", "network"] = Field(
        default="none", description="what torch.compile fuses; needs a C++ compiler, on a GPU also Triton"
    )

    @property
    def options(self) -> str:
        """The same as options of `mdm train`."""
        levels = f"--recompute {' '.join(map(str, self.recompute))}" if self.recompute else ""
        return f"{levels} --compile {self.compile}".strip()


class StageConfig(Strict):
    """One phase of progressive training."""

    resolutions: tuple[Positive, ...] = Field(min_length=1, description="levels trained, lowest first")
    num_images: Positive = Field(description="training images shown in this stage")
    start_from: Literal["ema", "raw"] = Field(default="ema", description="which weights of the stage before")
    slice_images: Positive | None = Field(default=None, description="images per job (default: all in one)")
    data: Name | None = Field(default=None, description="another data set than the run's")
    validation: Name | None = Field(default=None, description="another validation set than the run's")
    train: dict[str, Any] = Field(default={}, description="settings of `train` that differ in this stage")
    diffusion: dict[str, Any] = Field(default={}, description="settings of `diffusion` that differ")
    resources: TrainingResources = TrainingResources()

    @model_validator(mode="after")
    def _recomputes_its_own_levels(self) -> StageConfig:
        foreign = sorted(set(self.resources.recompute) - set(self.resolutions))
        if foreign:
            raise ValueError(f"resources.recompute {foreign}: this stage has the levels {sorted(self.resolutions)}")
        return self


class SampleConfig(Strict):
    """How pictures are drawn from a trained network."""

    sampler: Literal["ddpm", "ddim", "dpm++", "heun"] = "ddim"
    steps: Positive = 250
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    guidance: Annotated[float, Field(ge=0)] = Field(default=1.0, description="1 = no guidance")
    guidance_rescale: Probability = 0.0
    guidance_interval: tuple[float, float] | None = Field(default=None, description="share of time with guidance")
    threshold: Literal["none", "clip", "dynamic", "dynamic-deepfloyd"] = "clip"
    negative_prompt: str = ""
    precision: Literal["float32", "bf16"] = Field(default="float32", description="of the network's own arithmetic")


class NetworkConfig(Strict):
    """The `model` section of a study: levels by resolution; each stage takes those it names."""

    levels: dict[int, dict[str, Any]] = Field(min_length=1, description="resolution: settings of that level")
    time_channels: Positive | None = None
    text_projection: Count = 0
    text_layers: Count = 0
    mask_text: bool = True


class RunConfig(Strict):
    """One complete recipe: `base` of a study, or `base` with an ablation's `set` applied."""

    data: Name
    validation: Name | None = Field(default=None, description="data set of the held-out loss")
    text: Name | None = Field(default=None, description="encoder name; none = unconditional or classes only")
    model: NetworkConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig
    stages: dict[Name, StageConfig] = Field(min_length=1, description="in the order they are trained")
    sample: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _schedule_has_the_steps(self) -> RunConfig:
        if self.sample.steps > self.diffusion.steps:
            raise ValueError(f"sample.steps {self.sample.steps} is more than diffusion.steps {self.diffusion.steps}")
        return self


class AblationConfig(Strict):
    """One question. Its jobs, table row, figure, report section and target follow from this entry."""

    title: str
    question: str
    group: Name
    against: str = Field(default="base", description="the run it is compared with")
    set: dict[str, Any] = Field(default={}, description="dotted.path: value, applied to the base recipe")
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, max_length=1, description="dotted.path: list of values"
    )
    seeds: list[Count] | None = Field(default=None, min_length=1, description="default: the study's")
    protocols: list[Name] | None = Field(default=None, description="default: all of the study")

    @model_validator(mode="after")
    def _changes_something(self) -> AblationConfig:
        if not self.set and not self.sweep:
            raise ValueError("an ablation needs `set` or `sweep` (dotted.path: value); this one changes nothing")
        return self


class WeightsConfig(Strict):
    """Weights on disk, named by content: the path may differ between machines, the hash may not."""

    path: str
    sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(description="null plans a study, but nothing runs")
    model: str | None = Field(default=None, description="open_clip architecture, e.g. ViT-B-16")


class InstrumentConfig(Strict):
    """A measuring network that is trained by a rule on real pictures."""

    data: Name
    test: Name
    settings: dict[str, Any] = {}


class ProtocolConfig(Strict):
    """One way of measuring, hashed into the result's path."""

    description: str
    prompts: Name = Field(description="data set whose captions are drawn")
    reference: Name = Field(description="data set of real pictures")
    num_images: Positive
    num_reference: Positive
    resolution: Positive | None = Field(default=None, description="measure at this side (default: the run's highest)")
    seed: Count = 0
    judge: Name | None = None
    clip: Name | WeightsConfig | None = None
    inception: WeightsConfig | None = None
    settings: dict[str, Any] = {}
    resources: ResourceConfig = ResourceConfig()


class ClaimConfig(Strict):
    """A sentence of the paper as an expression over metrics."""

    statement: str
    source: str = Field(description="where the paper says it")
    expect: str = Field(description='e.g. fd_judge["base"] < fd_judge["no-progressive"]')
    protocol: Name | None = Field(default=None, description="default: the first")


class StudyConfig(Strict):
    """A whole study."""

    title: str
    question: str
    abstract: str = ""
    data: dict[Name, DataConfig] = Field(min_length=1)
    text: dict[Name, EncoderConfig] = {}
    judges: dict[Name, InstrumentConfig] = {}
    clips: dict[Name, InstrumentConfig] = {}
    base: RunConfig
    seeds: list[Count] = Field(default=[0], min_length=1)
    protocols: dict[Name, ProtocolConfig] = {}
    groups: dict[Name, str] = {}
    ablations: dict[Name, AblationConfig] = {}
    claims: dict[Name, ClaimConfig] = {}
    seconds_per_gigaflop: Annotated[float, Field(gt=0)] = Field(
        default=0.012, description="assumed cost where nothing was measured yet (mdm plan)"
    )
