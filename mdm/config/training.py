"""Settings of training: what determines the weights, and what a job asks for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mdm.config.base import Count, Decay, Name, Positive, Probability, Strict, StudyError
from mdm.config.cascade import UpsamplesConfig
from mdm.config.diffusion import DiffusionConfig
from mdm.config.network import ClipName
from mdm.config.sizes import Clip, Size, in_order, parse_size


class TrainConfig(Strict):
    """Everything of the optimisation that determines the weights. Durations are in images."""

    later: ClassVar = (
        "ema_width", "skip_nonfinite", "decay", "images_counted", "ema_ramp", "ema_beta", "sanitize_gradients", "order",
    )  # fmt: skip

    batch_images: Positive = Field(description="pictures of a step, all processes together")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak rate of AdamW")
    inner_rate: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="factor on the learning rate of the levels that came from the parent; 0 freezes"
    )
    matrix_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="rate of orthogonal momentum (Muon) for inner weight matrices; none = AdamW for all"
    )
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.99), description="AdamW's")
    epsilon: Annotated[float, Field(gt=0)] = Field(default=1e-8, description="AdamW's")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="of all weights")
    decay: Literal["decoupled", "coupled"] = Field(
        default="decoupled",
        description="decoupled: w -= rate * weight_decay * w (AdamW); coupled: Adam with weight_decay * w added to the "
        "gradient. As our loss is a mean over the C*H*W values of the highest level's picture, coupled divides "
        "weight_decay and epsilon by C*H*W: both then mean what they mean on the released code's summed loss",
    )
    warmup_images: Count = Field(default=0, description="the rate rises linearly over the first images")
    images_counted: Literal["with-step", "before-step"] = Field(
        default="with-step",
        description="images that warm-up and the average's ramp count. before-step (released code): rate * min(images "
        "before the step / warmup_images, 1), so the first step has rate 0, and the average begins as the network",
    )
    cooldown_images: Count = Field(default=0, description="the rate falls linearly to zero over the last images")
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=2.0, description="longest gradient; longer ones are shortened (null: none is)"
    )
    sanitize_gradients: bool = Field(
        default=False,
        description="before each step nan becomes 0 and +-infinity +-1e5 (of the summed loss; / C*H*W of ours), and a "
        "loss that is not finite ends no training",
    )
    ema_halflife_images: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="half-life of the weight average, which keeps 0.5^(batch / half), half = min(this, ema_ramp * "
        "images); or write ema_width. The released code's: 500000 (batch / 512)",
    )
    ema_ramp: Annotated[float, Field(gt=0)] | None = Field(
        default=0.05,
        description="the half-life is at most this share of the images counted (null: no ramp); the released "
        "code's with N pictures: 0.05 (50000 / N) (batch / 512), and images_counted: before-step",
    )
    ema_beta: Decay | None = Field(
        default=None,
        description="share of the average kept at each step, whatever the batch; 0: no averaging. With "
        "ema_halflife_images: after the ramp, ema_beta 0.5^(batch / half - batch / ema_halflife_images)",
    )
    ema_width: Annotated[float, Field(gt=0, lt=0.28)] | None = Field(
        default=None,
        description="an average by a power function instead: its width as a share of the images seen so far, e.g. 0.1",
    )
    condition_dropout: Probability = Field(
        default=0.1, description="share of pictures trained with the empty caption and without their class"
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="of the products; weights stay float32"
    )
    decode: Literal["exact", "dct"] = Field(
        default="exact",
        description="pictures stored larger than trained: exact means, or (faster, JPEG only) DCT-scaled decoding",
    )
    order: Literal["new-every-epoch", "same-every-epoch", "sliding-window"] = Field(
        default="new-every-epoch",
        description="of the pictures; same-every-epoch: one permutation, RandomState(seed).shuffle, again and again; "
        "sliding-window: the same, and after each picture it changes places with one of the half epoch before (EDM)",
    )
    validate_images: Count = Field(default=0, description="held-out loss after every so many images (0: never)")
    skip_nonfinite: Count = Field(
        default=0, description="steps whose gradient is infinite or not a number that may be left out (0: none may)"
    )

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        constant = self.ema_beta is not None
        if (self.ema_width is not None) == (self.ema_halflife_images is not None or constant):
            also = f" and ema_beta {self.ema_beta}" if constant else ""
            raise ValueError(
                f"ema_halflife_images {self.ema_halflife_images} and ema_width {self.ema_width}{also}: write one of "
                "them (and null for the other, if it is inherited)"
            )
        if self.ema_halflife_images is None and self.ema_ramp != type(self).model_fields["ema_ramp"].default:
            raise ValueError(f"ema_ramp {self.ema_ramp} has no effect without ema_halflife_images; leave it out")
        return self

    @model_validator(mode="after")
    def _optimiser_is_possible(self) -> TrainConfig:
        if self.decay == "coupled" and self.matrix_rate:
            raise ValueError(f"decay: coupled is Adam's; matrix_rate {self.matrix_rate} needs decay: decoupled")
        if self.sanitize_gradients and self.skip_nonfinite:
            raise ValueError(
                f"skip_nonfinite {self.skip_nonfinite} has no effect with sanitize_gradients: no gradient stays "
                "infinite; leave out one of them"
            )
        return self

    def counted(self, images_before: int) -> int:
        """Images that warm-up and the average's ramp count in the step after so many."""
        return images_before + (self.batch_images if self.images_counted == "with-step" else 0)

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


class DrawingResources(ResourceConfig):
    """What each job that draws and measures pictures asks for. Not part of any digest."""

    images_per_job: Positive | None = Field(
        default=None,
        description="pictures that one job draws, up to whole batches; others draw the rest (default: one draws all)",
    )


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
    preview_images: Count = Field(
        default=0, description="draw a grid from fixed noise after every so many images (0: never); changes no weight"
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
        previews = f"--preview-images {self.preview_images}" if self.preview_images else ""
        return " ".join(filter(None, (levels, f"--compile {self.compile}", parts, shard, previews)))

    @model_validator(mode="after")
    def _shards_among_several(self) -> TrainingResources:
        if self.shard_optimizer and self.nodes * self.gpus < 2:
            raise ValueError("shard_optimizer has no effect with a single process; leave it out, or write more gpus")
        return self


class StageConfig(Strict):
    """One phase of progressive training."""

    later: ClassVar = ("upsamples", "model")

    resolutions: tuple[Positive | ClipName, ...] = Field(
        min_length=1, description="levels trained, lowest first; 16x64 is the level of clips of 16 frames of 64 px"
    )
    num_images: Positive = Field(description="training images shown in this stage")
    start_from: Literal["ema", "raw"] = Field(default="ema", description="which weights of the stage before")
    moments: Literal["fresh", "carried"] = Field(
        default="fresh", description="what the optimiser knows of the weights of the stage before: nothing, or all"
    )
    slice_images: Positive | None = Field(default=None, description="images per job (default: all in one)")
    snapshots: tuple[Positive, ...] = Field(
        default=(), description="image counts of this stage whose averaged weights are kept and measured (see `along`)"
    )
    data: Name | None = Field(default=None, description="another data set than the run's")
    validation: Name | None = Field(default=None, description="another validation set than the run's")
    stills: Name | None = Field(
        default=None,
        description="pictures that join batches of clips: those rows that diffusion.mixed_ratio shows to pictures only",
    )
    upsamples: UpsamplesConfig | None = Field(
        default=None, description="the stage is an upsampler: it begins anew, and enlarges what a stage before it draws"
    )
    model: dict[str, Any] = Field(
        default={}, description="of an upsampler: settings of `model` that differ; a level named here is written whole"
    )
    train: dict[str, Any] = Field(default={}, description="settings of `train` that differ in this stage")
    diffusion: dict[str, Any] = Field(default={}, description="settings of `diffusion` that differ")
    resources: TrainingResources = TrainingResources()

    @model_validator(mode="after")
    def _recomputes_its_own_levels(self) -> StageConfig:
        foreign = sorted(set(self.resources.recompute) - set(self.resolutions))
        if foreign:
            raise ValueError(f"resources.recompute {foreign}: this stage has the levels {sorted(self.resolutions)}")
        return self

    @model_validator(mode="after")
    def _upsamples_by_itself(self) -> StageConfig:
        if self.upsamples is None:
            if self.model:
                raise ValueError(
                    f"model {sorted(self.model)}: a stage continues the network of the one before; only an upsampler "
                    "begins anew and may have another: write upsamples, or change base.model"
                )
            return self
        if len(self.resolutions) > 1 or isinstance(self.sizes[0], Clip):
            raise ValueError(
                f"upsamples with resolutions {list(self.resolutions)}: an upsampler has one level, of pictures; "
                "write the side that it draws alone"
            )
        if self.start_from != "ema" or self.moments != "fresh":
            raise ValueError("upsamples with start_from or moments: an upsampler begins anew; leave them out")
        return self

    @model_validator(mode="after")
    def _snapshots_are_on_the_way(self) -> StageConfig:
        listed, ascending = list(self.snapshots), sorted(set(self.snapshots))
        if listed != ascending:
            raise ValueError(f"snapshots {listed} do not ascend; write {ascending}")
        if listed and listed[-1] > self.num_images:
            within = [images for images in listed if images <= self.num_images]
            raise ValueError(
                f"snapshots {listed}: the stage ends at num_images {self.num_images}; write {within}, or train longer"
            )
        return self

    @property
    def sizes(self) -> tuple[Size, ...]:
        """What its levels show, innermost first."""
        return in_order(map(parse_size, self.resolutions))
