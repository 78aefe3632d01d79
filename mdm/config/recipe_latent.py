"""What autoencoders and the codes of data sets are made from, and what a stage that trains on codes names."""

from __future__ import annotations

from typing import Literal

from mdm.config.base import Positive, Strict
from mdm.config.instruments import WeightsConfig
from mdm.config.latent import AutoencoderFit, AutoencoderNetwork
from mdm.config.recipe_base import Recipe, Ref


class AutoencoderRecipe(Recipe):
    """An autoencoder with the scale of its codes: trained (`fit`), or given (`weights`)."""

    kind: Literal["autoencoder"] = "autoencoder"
    data: Ref
    test: Ref
    network: AutoencoderNetwork
    fit: AutoencoderFit | None = None
    weights: WeightsConfig | None = None


class LatentsRecipe(Recipe):
    """Mean and deviation of the codes of all pictures of a data set."""

    kind: Literal["latents"] = "latents"
    autoencoder: Ref
    data: Ref


class LatentStage(Strict):
    """What a stage that trains on codes reads, and the side of the pictures that they are decoded to."""

    autoencoder: Ref
    codes: Ref
    validation: Ref | None = None
    pictures: Positive
