"""What each kind of artifact is made from: the content of its recipe.json, typed.

A recipe is parsed once, where a job begins, and handed on as an object. Parents are named by their folders
(`data/scenes-0123456789ab`). What a recipe leaves out (`later`) was added after artifacts had been made, so that
their digests are what they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from mdm.config.base import Name, Positive, Seed, Strict
from mdm.config.cascade import AugmentationConfig
from mdm.config.diffusion import DiffusionConfig, SampleConfig
from mdm.config.families import AnyModel
from mdm.config.recipe_base import Recipe, Ref
from mdm.config.recipe_latent import AutoencoderRecipe, LatentsRecipe, LatentStage
from mdm.config.recipe_measured import (
    AuditRecipe,
    ClipRecipe,
    ExcessRecipe,
    FeaturesRecipe,
    JudgeRecipe,
    ScoresRecipe,
    TheoryRecipe,
)
from mdm.config.sizes import Size
from mdm.config.text import ENCODER_VERSION, T5Settings, TinyT5Settings
from mdm.config.training import TrainConfig


class DataRecipe(Recipe):
    """A data set; its source checks the settings (mdm/data/sources)."""

    kind: Literal["data"] = "data"
    source: str
    settings: dict[str, Any]
    shard_images: Positive

    @property
    def num_images(self) -> int:
        """Pictures of the data set, planted copies among them."""
        return pictures_of(self.settings)


def pictures_of(settings: Mapping[str, Any]) -> int:
    """Return how many pictures a data set with these settings of its source has, planted copies among them."""
    copies = settings.get("copies") or {"count": 1, "of": 0}
    return settings.get("num_images", 0) + copies["of"] * (copies["count"] - 1)


class EncoderRecipe(Strict):
    """A frozen text encoder."""

    name: str
    settings: TinyT5Settings | T5Settings
    channels: Positive
    version: PositiveInt = ENCODER_VERSION

    @property
    def stored_as(self) -> tuple[int, str]:
        """Width of the features, and the type of number that a cache holds, as torch prints it."""
        stored = self.settings.stored if isinstance(self.settings, T5Settings) else "float16"
        return self.channels, f"torch.{stored}"


class TextRecipe(Recipe):
    """The embedded captions of data sets, the empty caption, and the ones listed here."""

    later: ClassVar = ("captions",)

    kind: Literal["text"] = "text"
    encoder: EncoderRecipe
    data: tuple[Ref, ...]
    captions: tuple[str, ...] = ()


class StageRecipe(Recipe):
    """One stage of training: its network, its optimisation, its data, and the weights it starts from."""

    later: ClassVar = ("dropout_masks", "moments", "stills", "stills_text", "take", "augmentation", "latents")

    kind: Literal["train"] = "train"
    seed: Seed
    model: AnyModel
    train: TrainConfig
    diffusion: DiffusionConfig
    # Masks of dropout were once drawn by batch; recipes without dropout compute what they always did.
    dropout_masks: Literal["by picture"] | None = None
    moments: Literal["carried"] | None = None
    num_images: Positive
    start_from: Literal["ema", "raw"]
    parent: Ref | None
    class_label: Name | None
    data: Ref
    text: Ref | None
    validation: Ref | None
    validation_text: Ref | None
    stills: Ref | None = None
    stills_text: Ref | None = None
    take: Positive | None = None  # trains on the first so many pictures of `data`
    augmentation: AugmentationConfig | None = None  # of an upsampler
    latents: LatentStage | None = None  # it trains on codes of these pictures instead

    @property
    def sizes(self) -> tuple[Size, ...]:
        """What its levels show, highest first."""
        return self.model.resolutions

    @property
    def drawn(self) -> tuple[Size, ...]:
        """What is drawn with it, highest first: its levels, or the pictures that its codes are decoded to."""
        return (self.latents.pictures,) if self.latents else self.sizes

    @property
    def conditional(self) -> bool:
        """Whether its network reads captions or classes."""
        return bool(self.text or self.model.classes)

    @property
    def low_size(self) -> int | None:
        """Side of the small pictures that an upsampler enlarges; None for all other networks."""
        return self.augmentation and self.model.upsamples.size


class SnapshotRecipe(Recipe):
    """The averaged weights of a stage on its way, at one image count."""

    kind: Literal["snapshot"] = "snapshot"
    train: Ref
    images: Positive


class SamplesRecipe(Recipe):
    """The pictures that a stage's network draws for the first captions of a data set; `train` may be a snapshot.

    Without prompts there are no captions, and a network that knows classes is asked for classes drawn at random.
    An upsampler enlarges the pictures of `low`: what its base drew for the same prompts, or the prompts' own data set.
    """

    later: ClassVar = ("guide", "labels", "low", "per_prompt", "autoencoder")

    kind: Literal["samples"] = "samples"
    train: Ref
    guide: Ref | None = None
    sample: SampleConfig
    seed: Seed
    num_images: Positive
    prompts: Ref | None
    text: Ref | None
    labels: Literal["all", "used", "balanced"] = "all"
    per_prompt: Positive = 1  # pictures of each caption, one after the other
    low: Ref | None = None
    autoencoder: Ref | None = None  # decodes what is drawn


KINDS: dict[str, type[Recipe]] = {
    model.model_fields["kind"].default: model
    for model in (
        DataRecipe, TextRecipe, StageRecipe, SnapshotRecipe, JudgeRecipe, ClipRecipe, SamplesRecipe, FeaturesRecipe,
        ScoresRecipe, ExcessRecipe, AuditRecipe, TheoryRecipe, AutoencoderRecipe, LatentsRecipe,
    )
}  # fmt: skip


def strings(content: Any) -> Iterator[str]:
    """Every string of a recipe's plain content, in the order written: the names of its parents are among them."""
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from strings(item)
    elif isinstance(content, str):
        yield content
