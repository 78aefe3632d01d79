"""Settings of the noise process, its loss and its samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mdm.config.base import Positive, Probability, Strict, StudyError
from mdm.config.sizes import Clip, Size, in_order

WEIGHTINGS = ("min_snr", "soft_min_snr", "sigmoid_weight")
DENSITY_SETTINGS = ("noise_mean", "noise_deviation")
GAMMA_SETTINGS = (
    "schedule", "steps", "prediction", "loss_on", *WEIGHTINGS, "loss_floor", "residual_levels", "noise_levels",
    *DENSITY_SETTINGS, "lead",
)  # fmt: skip
EDM_SETTINGS = ("sigma_data", "log_sigma_mean", "log_sigma_deviation")


class DiffusionConfig(Strict):
    """The noise process and the loss (Gu et al. 2023, section 3)."""

    later: ClassVar = (
        "soft_min_snr", "sigmoid_weight", "loss_floor", "residual_levels", "noise_levels", *DENSITY_SETTINGS, "lead",
    )  # fmt: skip

    parameterisation: Literal["gamma", "edm", "vp", "ve"] = Field(
        default="gamma",
        description="gamma: discrete steps of a schedule; edm: continuous sigma, preconditioned (Karras et al. 2022); "
        "vp, ve: continuous sigma, preserving or exploding the variance (Song et al. 2021)",
    )
    schedule: Literal["squared-cosine", "cosine", "linear", "sigmoid"] = Field(
        default="squared-cosine", description="gamma by step; squared-cosine: the released code's"
    )
    # The linear schedule leaves float32 behind 8,000 steps (its last gamma becomes zero); nobody trains with so many.
    steps: Annotated[int, Field(gt=0, le=5000)] = Field(default=1000, description="discrete noise levels")
    prediction: Literal["v", "epsilon", "x0"] = Field(default="v", description="what the network answers")
    loss_on: Literal["epsilon", "v", "x0"] = Field(default="epsilon", description="whose squared error is the loss")
    shift_power: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="SNR is divided by (resolution ratio) ** shift_power; 0 = no shift"
    )
    base_resolution: Positive | None = Field(
        default=None, description="resolution that keeps the unshifted schedule (default: the innermost)"
    )
    level_weights: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="per level, highest first (default: the paper's, 1 per mean error)"
    )
    mixed_ratio: tuple[float, ...] | None = Field(
        default=None,
        min_length=1,
        description="shares of the batch, highest first: 2:1 = two thirds go through the high level",
    )
    shared_noise: bool = Field(default=False, description="low levels see the pooled noise of the highest")
    min_snr: float | None = Field(default=None, gt=0, description="clip of the min-SNR loss weight")
    soft_min_snr: float | None = Field(
        default=None, gt=0, description="g of the soft min-SNR loss weight SNR g / (SNR + g) on the squared error of x0"
    )
    sigmoid_weight: float | None = Field(
        default=None, description="b of the loss weight 1 / (1 + SNR e^-b) on the squared error of epsilon"
    )
    loss_floor: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="prediction x0: its error as one of v or epsilon is divided by sqrt(1 - gamma), but by no less",
    )
    residual_levels: bool = Field(
        default=False,
        description="prediction x0: an outer level predicts what its picture has beyond the inner level's, enlarged",
    )
    noise_levels: Literal["uniform", "normal", "logit-normal"] = Field(
        default="uniform",
        description="density of the noise levels in training: steps alike, ln(sigma) normal, or logit of the share "
        "of the picture in a mixture t x0 + (1 - t) epsilon normal",
    )
    noise_mean: float | None = Field(default=None, description="mean of that normal distribution")
    noise_deviation: float | None = Field(default=None, gt=0, description="its standard deviation")
    lead: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the way by which each level is ahead of the one around it"
    )
    sigma_data: Annotated[float, Field(gt=0)] = Field(default=0.5, description="edm: deviation of the pictures")
    log_sigma_mean: float = Field(default=-1.2, description="edm: mean of ln(sigma) in training")
    log_sigma_deviation: Annotated[float, Field(gt=0)] = Field(
        default=1.2, description="edm: deviation of ln(sigma) in training"
    )

    @model_validator(mode="after")
    def _nothing_of_the_other_parameterisation(self) -> DiffusionConfig:
        foreign = () if self.parameterisation == "edm" else EDM_SETTINGS
        foreign += GAMMA_SETTINGS if self.sigmas else ()
        for key in foreign:
            value, default = getattr(self, key), type(self).model_fields[key].default
            if value != default:
                raise ValueError(
                    f"{key} {value} has no effect with parameterisation: {self.parameterisation}; "
                    f"leave it out (default: {default})"
                )
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> DiffusionConfig:
        weights = {key: getattr(self, key) for key in WEIGHTINGS if getattr(self, key) is not None}
        if len(weights) > 1:
            raise ValueError(f"{' and '.join(f'{k} {v}' for k, v in weights.items())}: a loss has one weight; keep one")
        for key in ("loss_floor", "residual_levels"):
            if getattr(self, key) and self.prediction != "x0":
                raise ValueError(f"{key} {getattr(self, key)} needs prediction: x0, not {self.prediction}")
        if self.loss_floor and self.loss_on == "x0":
            raise ValueError(f"loss_floor {self.loss_floor} has no effect with loss_on: x0; leave it out")
        if self.loss_floor and weights:  # they are given by what they make of an error that is not bounded
            raise ValueError(
                f"loss_floor {self.loss_floor} beside {next(iter(weights))}: both bound the loss; keep one"
            )
        normal = self.noise_levels != "uniform"
        for key in DENSITY_SETTINGS:
            if (getattr(self, key) is not None) != normal:
                raise ValueError(
                    f"{key} {getattr(self, key)} with noise_levels: {self.noise_levels}; a normal density needs "
                    f"{' and '.join(DENSITY_SETTINGS)}, a uniform one has neither"
                )
        return self

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

    @property
    def sigmas(self) -> bool:
        """Whether noise levels are continuous sigmas of a preconditioning, and not steps of a schedule."""
        return self.parameterisation != "gamma"

    def effective(self, resolutions: Sequence[Size]) -> DiffusionConfig:
        """The same process for a nest of these levels, with default values where a setting changes nothing."""
        lowest = in_order(resolutions)[0]
        clips = [size for size in resolutions if isinstance(size, Clip)]
        if clips and self.residual_levels:
            raise StudyError(f"residual_levels: a level of clips ({clips[0]}) has no still picture to begin from")
        if self.lead * (len(resolutions) - 1) >= 1:
            raise StudyError(
                f"lead {self.lead:g} leaves no time for {len(resolutions)} levels one after the other; write less than "
                f"{1 / (len(resolutions) - 1):.3g}"
            )
        changes: dict[str, Any] = {}
        if self.base_resolution == lowest:
            changes["base_resolution"] = None
        if len(resolutions) == 1:
            changes |= {"shared_noise": False, "mixed_ratio": None, "residual_levels": False, "lead": 0.0}
            if self.base_resolution in (None, lowest):
                changes["shift_power"] = type(self).model_fields["shift_power"].default
        return self.model_copy(update=changes)


CASCADE_SETTINGS = ("low", "low_noise", "base")
GUIDANCE_SETTINGS = ("guidance_rescale", "guidance_interval", "negative_prompt")


class SampleConfig(Strict):
    """How pictures are drawn from a trained network."""

    later: ClassVar = ("guide", "autoguidance", "latents", *CASCADE_SETTINGS)

    sampler: Literal["ddpm", "ddim", "dpm++", "heun", "karras"] = Field(
        default="ddim",
        description="how noise becomes a picture; karras: heun on states in float64, from latents as the code of arXiv "
        "2310.02664 draws them (picture k of seed s: generator s * 2^20 + k), for a single level of sigmas; "
        "threshold: none",
    )
    steps: Positive = Field(default=250, description="steps of the sampler")
    eta: Probability = Field(default=0.0, description="noise added by ddim: 0 none, 1 as much as ddpm")
    guidance: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="1 = no guidance; the settings of guidance then change nothing, nor the digest"
    )
    guidance_rescale: Probability = Field(default=0.0, description="how far to undo guidance's gain in contrast")
    guidance_interval: tuple[Probability, Probability] | None = Field(
        default=None, description="guide only between these shares of the way (0 clean, 1 noise)"
    )
    threshold: Literal["none", "clip", "dynamic", "dynamic-deepfloyd"] = Field(
        default="clip", description="what keeps clean pictures within their range while sampling"
    )
    negative_prompt: str = Field(default="", description="guidance leads away from this caption")
    guide: str | None = Field(
        default=None, description="autoguidance: another run, with a smaller or shorter-trained network of these levels"
    )
    autoguidance: Annotated[float, Field(ge=1)] = Field(
        default=1.0, description="how far to lead away from the guide's answer: guide + weight (own - guide)"
    )
    precision: Literal["float32", "bf16"] = Field(default="float32", description="of the network's own arithmetic")
    low: Literal["drawn", "real"] = Field(
        default="drawn",
        description="what an upsampler enlarges: what its base drew, or the real picture of each prompt",
    )
    low_noise: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="noise that an upsampler's small pictures get, of which it is told: 0 none, e.g. 0.2"
    )
    base: dict[str, Any] = Field(
        default={}, description="settings of sampling that differ where the base of an upsampler draws"
    )
    latents: Literal["drawn", "real"] = Field(
        default="drawn",
        description="of a run with an autoencoder: codes that are decoded; real: those of the prompts' real pictures, "
        "which nothing is drawn for, and which show the best that the autoencoder allows",
    )

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> SampleConfig:
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta {self.eta} has no effect with sampler: {self.sampler}; leave it out or write ddim")
        if self.guidance_interval and self.guidance_interval[0] >= self.guidance_interval[1]:
            raise ValueError(f"guidance_interval {list(self.guidance_interval)} is empty; write [low, high]")
        if self.sampler == "karras" and self.threshold != "none":
            raise ValueError(f"threshold {self.threshold}: the sampler karras clips nothing; write threshold: none")
        return self

    def effective(self) -> SampleConfig:
        """The same pictures with default values where a setting changes nothing."""
        if self.guidance != 1:
            return self
        # Autoguidance is inside the interval too.
        keys = [key for key in GUIDANCE_SETTINGS if key != "guidance_interval" or self.autoguidance == 1]
        return self.model_copy(update={key: type(self).model_fields[key].default for key in keys})
