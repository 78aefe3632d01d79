"""Typed settings of a study: every key a user may write, its meaning, its default, and what is refused.

The JSON schema in workflow/schemas is generated from these classes (`mdm schema`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mdm.config_base import (
    NAME,
    SHA256,
    Count,
    Name,
    Positive,
    Probability,
    Strict,
    StudyError,
    nearest,
)
from mdm.config_diffusion import DiffusionConfig, SampleConfig
from mdm.sizes import Clip, Size, as_clip

__all__ = [
    "NAME",
    "SHA256",
    "Count",
    "DiffusionConfig",
    "Name",
    "Positive",
    "Probability",
    "SampleConfig",
    "Strict",
    "StudyError",
    "nearest",
]


Decay = Annotated[float, Field(ge=0, lt=1)]
# The names become parts of the names of weights (`cond_layers.NAME.0.weight`).
MicroName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class DataConfig(Strict):
    """One data set: a source and its settings (each source checks its own)."""

    source: str = Field(description="scenes, cc12m, folder, ... (mdm/data/sources.py)")
    settings: dict[str, Any] = Field(default={}, description="settings of that source")
    shard_images: Positive = Field(default=1024, description="pictures in one shard (a tar file)")
    shards_per_job: Positive = Field(default=1, description="shards that one job makes; changes no result")


class EncoderConfig(Strict):
    """The frozen text encoder."""

    name: str = Field(default="tiny-t5", description="tiny-t5 (embedded, fixed seed) or t5 (a local folder)")
    settings: dict[str, Any] = Field(default={}, description="settings of that encoder")
    channels: Positive = Field(description="width of its features")


class VideoConfig(Strict):
    """What makes a level one of clips instead of pictures (spec A.10). The innermost level shows pictures."""

    frames: Positive = Field(description="frames of a clip: 4, 16, 64, ...")
    halves: Literal["time", "space"] = Field(
        default="time", description="what each inner resolution halves; time: the frames, space: their sides"
    )
    attention: tuple[Count, ...] = Field(
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

    resolution: Positive = Field(description="side of the picture in pixels")
    channels: tuple[Positive, ...] = Field(description="channels at each inner resolution, finest first")
    resnets: tuple[Positive, ...] = Field(description="residual blocks at each inner resolution")
    attention: tuple[Count, ...] = Field(default=(), description="attention layers per residual block, 0 = none")
    attention_ffn: bool = Field(default=True, description="feed-forward layer after each attention")
    middle: bool = Field(default=False, description="blocks at the bottom; yes for the innermost level")
    dropout: Decay = 0.0
    norm_groups: Positive = Field(default=32, description="groups of the residual blocks' normalisation")
    normalize_input: bool = Field(default=False, description="divide the noisy picture by its deviation")
    micro_conditioning: dict[MicroName, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="name: default value, e.g. scale: 64"
    )
    video: VideoConfig | None = Field(default=None, description="a level of clips (none: of pictures)")

    @model_serializer(mode="wrap")
    def _as_before_without_video(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The recipes (and so the digests) of levels of pictures do not know that there are clips."""
        data = write(self)
        return {key: value for key, value in data.items() if key != "video" or value is not None}

    @property
    def ratio(self) -> int:
        """How much smaller the coarsest inner resolution is: of the side, or of the number of frames."""
        return 2 ** (len(self.channels) - 1)

    @property
    def frames(self) -> int:
        """Frames of one row of the batch."""
        return self.video.frames if self.video else 1

    @property
    def size(self) -> Size:
        """What the level shows."""
        return Clip(self.frames, self.resolution) if self.video else self.resolution

    @property
    def halves(self) -> str:
        """What each inner resolution halves, space or time."""
        return self.video.halves if self.video else "space"

    def grid(self, index: int) -> Clip:
        """Frames and side of the feature maps at inner resolution number `index`, finest first."""
        if self.halves == "time":
            return Clip(self.frames >> index, self.resolution)
        return Clip(self.frames, self.resolution >> index)

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

    @model_validator(mode="after")
    def _clips_are_possible(self) -> LevelConfig:
        if self.video is None:
            return self
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

    levels: tuple[LevelConfig, ...] = Field(min_length=1)
    time_channels: Positive | None = Field(default=None, description="width of the time embedding, all levels")
    text_channels: Positive | None = Field(default=None, description="width of the encoder's features")
    text_projection: Count = Field(default=0, description="project the features to this width (0: as they are)")
    text_layers: Count = Field(default=0, description="learnable self-attention layers over the features")
    mask_text: bool = Field(default=True, description="cross attention ignores padding (released model: false)")
    classes: Positive | None = Field(default=None, description="number of classes (ImageNet: 1000)")

    @model_validator(mode="after")
    def _chain_is_possible(self) -> ModelConfig:
        if self.levels[0].video:
            raise ValueError(
                f"the innermost level shows clips ({self.levels[0].size}); put a level of pictures inside it"
            )
        for inner, outer in zip(self.levels, self.levels[1:], strict=False):
            if inner.video or outer.video:
                _check_clip_inside(inner, outer)
            elif outer.resolution != inner.resolution * outer.ratio:
                raise ValueError(
                    f"impossible resolution chain {inner.resolution} -> {outer.resolution}: the outer level has "
                    f"{len(outer.channels)} inner resolutions and so nests a picture of "
                    f"{outer.resolution // outer.ratio} px; "
                    f"give it {_depth(inner.resolution, outer.resolution)} channel entries"
                )
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


def _check_clip_inside(inner: LevelConfig, outer: LevelConfig) -> None:
    nested, wanted = outer.grid(len(outer.channels) - 1), as_clip(inner.size)
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


class TrainConfig(Strict):
    """Everything of the optimisation that determines the weights. Durations are in images."""

    batch_images: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    inner_rate: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="factor on the learning rate of the levels that came from the parent; 0 freezes"
    )
    matrix_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="rate of orthogonal momentum (Muon) for inner weight matrices; none = AdamW for all"
    )
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_images: Count = 0
    cooldown_images: Count = Field(default=0, description="the rate falls linearly to zero over the last images")
    clip_norm: Annotated[float, Field(gt=0)] = 2.0
    ema_halflife_images: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="half-life of the weight average; or write ema_width"
    )
    ema_width: Annotated[float, Field(gt=0, lt=0.28)] | None = Field(
        default=None,
        description="an average by a power function instead: its width as a share of the images seen so far, e.g. 0.1",
    )
    condition_dropout: Probability = Field(
        default=0.1, description="share of pictures trained with the empty caption and without their class"
    )
    precision: Literal["float32", "bf16"] = "float32"
    decode: Literal["exact", "dct"] = Field(
        default="exact",
        description="pictures stored larger than trained: exact means, or (faster, JPEG only) DCT-scaled decoding",
    )
    validate_images: Count = Field(default=0, description="held-out loss after every so many images (0: never)")
    skip_nonfinite: Count = Field(
        default=0, description="steps whose gradient is infinite or not a number that may be left out (0: none may)"
    )

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if (self.ema_halflife_images is None) == (self.ema_width is None):
            raise ValueError(
                f"ema_halflife_images {self.ema_halflife_images} and ema_width {self.ema_width}: write one of them "
                "(and null for the other, if it is inherited)"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_without_news(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes (and so digests) that ask for nothing new are what they were before there was anything new."""
        news = ("ema_width", "skip_nonfinite")
        return {key: value for key, value in write(self).items() if value or key not in news}

    def require_parts(self, parts: int, diffusion: DiffusionConfig) -> None:
        """A batch must fall into so many equal parts, each with a picture for the highest level."""
        if parts < 1:
            raise StudyError(f"a batch cannot be taken in {parts} parts; write accumulate 1 or more")
        if self.batch_images % parts:
            multiple = max(1, round(self.batch_images / parts)) * parts
            raise StudyError(
                f"train.batch_images {self.batch_images} cannot be shared by {parts} parts (processes x accumulate); "
                f"write a multiple, such as {multiple}, or use another number of processes"
            )
        ratio = diffusion.mixed_ratio or (1,)
        highest = int(self.batch_images * ratio[0] / sum(ratio) + 1e-9)
        if highest < parts:
            raise StudyError(
                f"diffusion.mixed_ratio {list(ratio)} sends {highest} of {self.batch_images} pictures through the "
                f"highest level, fewer than the {parts} parts of a batch (processes x accumulate); use fewer parts"
            )


class ResourceConfig(Strict):
    """What a cluster job of this stage asks for. Not part of any digest."""

    nodes: Positive = Field(default=1, le=1, description="only training spreads over more")
    gpus: Count = Field(default=0, le=1, description="only training uses more")
    cpus: Positive = Field(default=1, description="processors of each process; there is one for each GPU")
    minutes: Positive = Field(default=60, description="time limit of a job; a training of many jobs: see slice_images")
    memory_mb: Positive = Field(default=4000, description="main memory of each node")


class TrainingResources(ResourceConfig):
    """What a training job asks for, and how it uses it: memory against time, with the same weights up to rounding."""

    nodes: Positive = Field(default=1, description="machines; more than one needs SLURM")
    gpus: Count = Field(default=0, description="GPUs of each node; one process trains on each")
    recompute: tuple[Positive, ...] = Field(
        default=(), description="levels that compute their activations again on the way back instead of keeping them"
    )
    compile: Literal["none", "blocks", "network"] = Field(
        default="none", description="what torch.compile fuses; needs a C++ compiler, on a GPU also Triton"
    )
    accumulate: Positive = Field(
        default=1, description="each process takes its part of a batch in so many parts, one after the other"
    )
    shard_optimizer: bool = Field(
        default=False, description="each process keeps the optimiser's moments of a part of the weights (ZeRO-1)"
    )

    @property
    def parts(self) -> int:
        """In how many parts a batch is taken, at the same time (one process for each GPU) or one after the other."""
        return self.nodes * max(1, self.gpus) * self.accumulate

    @property
    def options(self) -> str:
        """The same as options of `mdm train`."""
        levels = f"--recompute {' '.join(map(str, self.recompute))}" if self.recompute else ""
        parts = f"--accumulate {self.accumulate}" if self.accumulate > 1 else ""
        shard = "--shard-optimizer" if self.shard_optimizer else ""
        return " ".join(filter(None, (levels, f"--compile {self.compile}", parts, shard)))

    @model_validator(mode="after")
    def _shards_among_several(self) -> TrainingResources:
        if self.shard_optimizer and self.nodes * self.gpus < 2:
            raise ValueError("shard_optimizer has no effect with a single process; leave it out, or write more gpus")
        return self


class StageConfig(Strict):
    """One phase of progressive training."""

    resolutions: tuple[Positive, ...] = Field(min_length=1, description="levels trained, lowest first")
    num_images: Positive = Field(description="training images shown in this stage")
    start_from: Literal["ema", "raw"] = Field(default="ema", description="which weights of the stage before")
    moments: Literal["fresh", "carried"] = Field(
        default="fresh", description="what the optimiser knows of the weights of the stage before: nothing, or all"
    )
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


class NetworkConfig(Strict):
    """The `model` section of a study: levels by resolution; each stage takes those it names."""

    levels: dict[int, dict[str, Any]] = Field(min_length=1, description="resolution: settings of that level")
    time_channels: Positive | None = None
    text_projection: Count = 0
    text_layers: Count = 0
    mask_text: bool = True
    classes: Positive | None = Field(default=None, description="number of classes (ImageNet: 1000)")


class RunConfig(Strict):
    """One complete recipe: `base` of a study, or `base` with an ablation's `set` applied."""

    data: Name
    validation: Name | None = Field(default=None, description="data set of the held-out loss")
    text: Name | None = Field(default=None, description="encoder name; none = unconditional or classes only")
    class_label: Name = Field(default="class", description="label of a picture that holds its class (model.classes)")
    model: NetworkConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig
    stages: dict[Name, StageConfig] = Field(min_length=1, description="in the order they are trained")
    sample: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _text_settings_need_text(self) -> RunConfig:
        settings = {
            "model.text_projection": self.model.text_projection,
            "model.text_layers": self.model.text_layers,
            "sample.negative_prompt": self.sample.negative_prompt,
        }
        for key, value in settings.items():
            if value and not self.text:
                raise ValueError(f"{key} {value!r} has no effect without text; leave it out or name an encoder in text")
        if not (self.model.mask_text or self.text):
            raise ValueError("model.mask_text has no effect without text; leave it out or name an encoder in text")
        return self

    @model_validator(mode="after")
    def _class_label_needs_classes(self) -> RunConfig:
        if self.class_label != type(self).model_fields["class_label"].default and not self.model.classes:
            raise ValueError(f"class_label '{self.class_label}' has no effect without model.classes, their number")
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
    settings: dict[str, Any] = Field(default={})


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
    settings: dict[str, Any] = Field(default={})
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
    text: dict[Name, EncoderConfig] = Field(default={})
    judges: dict[Name, InstrumentConfig] = Field(default={})
    clips: dict[Name, InstrumentConfig] = Field(default={})
    base: RunConfig
    seeds: list[Count] = Field(default=[0], min_length=1)
    protocols: dict[Name, ProtocolConfig] = Field(default={})
    groups: dict[Name, str] = Field(default={})
    ablations: dict[Name, AblationConfig] = Field(default={})
    claims: dict[Name, ClaimConfig] = Field(default={})
    seconds_per_gigaflop: Annotated[float, Field(gt=0)] = Field(
        default=0.012, description="assumed cost where nothing was measured yet (mdm plan)"
    )
