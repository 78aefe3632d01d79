"""What each kind of artifact is made from: the content of its recipe.json, typed.

A recipe is parsed once, where a job begins, and handed on as an object. Parents are named by their folders
(`data/scenes-0123456789ab`). What a recipe leaves out (`later`) was added after artifacts had been made, so that
their digests are what they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from mdm.config.audit import Group
from mdm.config.base import Count, Name, Positive, Seed, Strict, StudyError, parse
from mdm.config.diffusion import DiffusionConfig, SampleConfig
from mdm.config.families import AnyModel
from mdm.config.instruments import ClipSettings, JudgeSettings, ScoreSettings
from mdm.config.sizes import Size
from mdm.config.study import WeightsConfig
from mdm.config.text import ENCODER_VERSION, T5Settings, TinyT5Settings
from mdm.config.training import TrainConfig

# Raised in the same commit as any change of code that alters what a recipe computes; refactors leave it.
RECIPE_VERSION = 3
Ref = Annotated[str, Field(description="an artifact: KIND/NAME-DIGEST")]


class Recipe(Strict):
    """What every recipe has in common; the field `kind` tells which one it is."""

    kind: str
    version: PositiveInt = RECIPE_VERSION

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self:
        """Parse the content of a recipe.json; `path` is where it was read, for the message if it is no such recipe."""
        wanted, kind = cls.model_fields["kind"].default, content.get("kind") if isinstance(content, dict) else None
        if kind != wanted:
            raise StudyError(f"{path} is a recipe of {kind}; name one of results/{wanted}/")
        return parse(cls, content, str(path))

    def plain(self) -> dict[str, Any]:
        """The JSON content whose digest names the artifact."""
        return self.model_dump(mode="json")


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

    later: ClassVar = ("dropout_masks", "moments", "stills", "stills_text", "take")

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

    @property
    def sizes(self) -> tuple[Size, ...]:
        """What its levels show, highest first."""
        return self.model.resolutions

    @property
    def conditional(self) -> bool:
        """Whether its network reads captions or classes."""
        return bool(self.text or self.model.classes)


class SnapshotRecipe(Recipe):
    """The averaged weights of a stage on its way, at one image count."""

    kind: Literal["snapshot"] = "snapshot"
    train: Ref
    images: Positive


class JudgeRecipe(Recipe):
    """A network that reads pictures of scenes."""

    kind: Literal["judge"] = "judge"
    data: Ref
    test: Ref
    settings: JudgeSettings


class ClipRecipe(Recipe):
    """A small CLIP trained on the pictures and captions of a data set."""

    kind: Literal["clip"] = "clip"
    data: Ref
    test: Ref
    settings: ClipSettings


class SamplesRecipe(Recipe):
    """The pictures that a stage's network draws for the first captions of a data set; `train` may be a snapshot.

    Without prompts there are no captions, and a network that knows classes is asked for classes drawn at random.
    """

    later: ClassVar = ("guide", "labels")

    kind: Literal["samples"] = "samples"
    train: Ref
    guide: Ref | None = None
    sample: SampleConfig
    seed: Seed
    num_images: Positive
    prompts: Ref | None
    text: Ref | None
    labels: Literal["all", "used"] = "all"


class FeaturesRecipe(Recipe):
    """What measuring networks see in drawn or real pictures."""

    later: ClassVar = ("first", "resize", "spectrum")

    kind: Literal["features"] = "features"
    images: Ref
    first: Count = 0  # the number of the first picture
    num_images: Positive
    resolution: Positive
    resize: Literal["clean", "tf1"] = "clean"
    extractors: dict[str, Ref | WeightsConfig]
    spectrum: bool = False


class ScoresRecipe(Recipe):
    """The metrics of one set of pictures against another; `floor`: as many real pictures, none of the reference."""

    kind: Literal["scores"] = "scores"
    # 5: intervals by the jackknife over both sides, distances also without bias, the floor from pictures of its own.
    version: PositiveInt = 5
    features: Ref
    reference: Ref
    floor: Ref | None = None
    settings: ScoreSettings


class ExcessRecipe(Recipe):
    """How far the answers of a stage's network are from the best that its training pictures allow."""

    kind: Literal["excess"] = "excess"
    train: Ref
    data: Ref
    text: Ref | None  # holds the empty caption
    num_images: Positive
    seed: Seed


class AuditRecipe(Recipe):
    """Which drawn pictures copy pictures of a data set; `decode`: how training read these."""

    later: ClassVar = ("take", "sscd", "known_sscd", "held_out_text", "twin")

    kind: Literal["audit"] = "audit"
    samples: Ref
    data: Ref
    take: Positive | None = None  # its first pictures only
    decode: Literal["exact", "dct"] = "exact"
    num_images: Positive
    neighbours: Annotated[int, Field(ge=2)]
    metrics: tuple[Group, ...]
    held_out: Ref | None = None
    features: Ref | None = None  # of the drawn pictures
    known_features: Ref | None = None  # of those of the data set
    sscd: Ref | None = None  # the same by a network that knows copies
    known_sscd: Ref | None = None
    text: Ref | None = None  # captions of the training set and the empty one, for what asks the network
    held_out_text: Ref | None = None
    twin: Ref | None = None  # what a network trained on other pictures drew from the same noises


class TheoryRecipe(Recipe):
    """Pictures of why the best denoiser of a few training pictures copies them."""

    kind: Literal["theory"] = "theory"
    data: Ref
    num_images: Positive  # that the denoiser knows: the first
    sets: tuple[Positive, ...]  # sizes of the sets whose best loss is drawn
    seed: Seed
    resolution: Positive


KINDS: dict[str, type[Recipe]] = {
    model.model_fields["kind"].default: model
    for model in (
        DataRecipe, TextRecipe, StageRecipe, SnapshotRecipe, JudgeRecipe, ClipRecipe, SamplesRecipe, FeaturesRecipe,
        ScoresRecipe, ExcessRecipe, AuditRecipe, TheoryRecipe,
    )
}  # fmt: skip


def strings(content: Any) -> Iterator[str]:
    """Every string of a recipe's plain content, in the order written: the names of its parents are among them."""
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from strings(item)
    elif isinstance(content, str):
        yield content
