"""Settings of one run: the complete recipe that `base` writes out and ablations change."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from mdm.config.base import Name, Positive, Strict
from mdm.config.diffusion import CASCADE_SETTINGS, DiffusionConfig, SampleConfig
from mdm.config.network import NetworkConfig
from mdm.config.training import StageConfig, TrainConfig


class RunConfig(Strict):
    """One complete recipe: `base` of a study, or `base` with an ablation's `set` applied."""

    later: ClassVar = ("take", "data_settings", "autoencoder")

    data: Name = Field(description="data set to train on")
    data_settings: dict[str, Any] = Field(
        default={}, description="settings of `data` that differ in this run, as in data_settings.num_images: 1000"
    )
    take: Positive | None = Field(default=None, description="train on the first so many pictures of `data` (all)")
    validation: Name | None = Field(default=None, description="data set of the held-out loss")
    text: Name | None = Field(default=None, description="encoder name; none = unconditional or classes only")
    autoencoder: Name | None = Field(
        default=None,
        description="train on the latent codes of one of `autoencoders`: resolutions of stages are sides of its grid",
    )
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
    def _cascade_settings_need_an_upsampler(self) -> RunConfig:
        if any(stage.upsamples for stage in self.stages.values()):
            return self
        for key in CASCADE_SETTINGS:
            value, default = getattr(self.sample, key), SampleConfig.model_fields[key].default
            if value != default:
                raise ValueError(
                    f"sample.{key} {value} has no effect without an upsampler; leave it out (default: {default}), or "
                    "write upsamples in a stage"
                )
        return self

    @model_validator(mode="after")
    def _class_label_needs_classes(self) -> RunConfig:
        if self.class_label != type(self).model_fields["class_label"].default and not self.model.classes:
            raise ValueError(f"class_label '{self.class_label}' has no effect without model.classes, their number")
        return self
