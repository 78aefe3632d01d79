"""Settings of autoencoders, whose latent codes diffusion may be trained on; free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mdm.config.base import Name, Positive, Strict, Width, require_groups
from mdm.config.instruments import FitSettings, WeightsConfig
from mdm.config.training import ResourceConfig

Weight = Annotated[float, Field(ge=0)]
SCALED_OVER = 16_384  # pictures at most by whose codes the scale of an autoencoder is set
PICKLES = (".ckpt", ".pt", ".pth", ".bin")


class AutoencoderNetwork(Strict):
    """The shape of an autoencoder. By default it is the small one, which trains in a minute on one core."""

    network: Literal["small", "kl"] = Field(
        default="small",
        description="small: blocks of pixels folded into channels, all layers on the grid of codes; kl: that of "
        "Rombach et al. 2022, with the names of weights of diffusers.AutoencoderKL",
    )
    resolution: Positive = Field(default=64, description="side of the pictures that it is trained and measured on")
    factor: Positive = Field(default=4, description="pixels of a picture's side to each place of the grid of codes")
    codes: Positive = Field(default=4, description="channels of a code (of AutoencoderKL: latent_channels)")
    channels: tuple[Width, ...] = Field(
        default=(64,), min_length=1, description="small: one width; kl: at each resolution (block_out_channels)"
    )
    resnets: Positive = Field(
        default=2, description="residual blocks of the encoder (kl: at each resolution); the decoder has one more"
    )
    norm_groups: Positive = Field(default=32, description="groups of the normalisation")

    @property
    def grid(self) -> int:
        """Side of the grid of codes of a picture."""
        return self.resolution // self.factor

    @model_validator(mode="after")
    def _is_possible(self) -> AutoencoderNetwork:
        if self.resolution % self.factor:
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of factor {self.factor}; write one that is"
            )
        if self.network == "small" and len(self.channels) > 1:
            raise ValueError(f"channels {list(self.channels)}: the small network has one width; write channels: [64]")
        reached = 2 ** (len(self.channels) - 1)
        if self.network == "kl" and self.factor != reached:
            raise ValueError(
                f"factor {self.factor} with {len(self.channels)} entries of channels, which halve the side to 1/"
                f"{reached}; write factor: {reached}, or another number of channels"
            )
        require_groups(self.channels, self.norm_groups)
        return self


class AutoencoderFit(FitSettings):
    """The training of an autoencoder: no perceptual and no adversarial loss, whose networks nothing here provides."""

    num_images: Positive = 8192
    batch_images: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    matrix_rate: Annotated[float, Field(gt=0)] = 0.02
    weight_decay: Weight = 0.0
    l1: Weight = Field(default=1.0, description="weight of the mean absolute error")
    mse: Weight = Field(default=1.0, description="weight of the mean squared error")
    kl: Weight = Field(default=1e-3, description="weight of the codes' divergence from a unit normal, nats per pixel")

    @model_validator(mode="after")
    def _compares_pictures(self) -> AutoencoderFit:
        if not self.l1 and not self.mse:
            raise ValueError("l1 0 and mse 0: nothing would teach it to reconstruct; write one of them above 0")
        return self


class AutoencoderConfig(Strict):
    """An autoencoder: trained by a rule on real pictures, or given by its weights."""

    data: Name = Field(description="real pictures to train it on, and over which its codes are made unit normal")
    test: Name = Field(description="real pictures on which reconstruction and rate are measured")
    network: AutoencoderNetwork = Field(default=AutoencoderNetwork(), description="its shape")
    settings: dict[str, Any] = Field(default={}, description="of its training (mdm/config/latent.py)")
    weights: WeightsConfig | None = Field(
        default=None, description="instead of training: a safetensors file with the names of diffusers.AutoencoderKL"
    )
    shards_per_job: Positive = Field(
        default=64, description="shards of a data set that one job encodes; changes no result"
    )
    resources: ResourceConfig = Field(default=ResourceConfig(), description="of its training and of encoding jobs")

    @model_validator(mode="after")
    def _weights_are_possible(self) -> AutoencoderConfig:
        if self.weights is None:
            return self
        if self.settings:
            raise ValueError(f"settings {sorted(self.settings)} have no effect beside weights; leave out one of them")
        if self.network.network != "kl":
            raise ValueError("weights need network: {network: kl, ...}, whose names of weights they have")
        if self.weights.path.endswith(PICKLES):
            raise ValueError(
                f"weights.path {self.weights.path}: this kind of file runs code when it is read and is never opened; "
                "convert it to safetensors with diffusers: AutoencoderKL.from_single_file(...).save_pretrained(...)"
            )
        return self
