"""What measurements are made from: instruments, features, scores, and what is found about copies and optima."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from mdm.config.audit import Group
from mdm.config.base import Count, Positive, Seed
from mdm.config.instruments import Asked, ClipSettings, JudgeSettings, PublishedConfig, ScoreSettings, WeightsConfig
from mdm.config.recipe_base import Recipe, Ref


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


class FeaturesRecipe(Recipe):
    """What measuring networks see in drawn or real pictures."""

    later: ClassVar = ("first", "resize", "spectrum", "logits", "frames", "destroyed", "keep_rows")

    kind: Literal["features"] = "features"
    images: Ref
    first: Count = 0  # the number of the first picture
    num_images: Positive
    resolution: Positive
    resize: Literal["clean", "tf1"] = "clean"
    extractors: dict[str, Ref | WeightsConfig]
    spectrum: bool = False
    frames: Positive | None = None  # of each clip; none: pictures
    keep_rows: Positive | None = None  # features of the first pictures alone, and statistics of all
    destroyed: bool = False  # also clips whose motion was destroyed in three ways, as the frame of a distance
    logits: bool = False  # also what the classifier of Inception says, where the file has one


class ScoresRecipe(Recipe):
    """The metrics of one set of pictures against another; `floor`: as many real pictures, none of the reference."""

    later: ClassVar = ("metrics", "published")

    kind: Literal["scores"] = "scores"
    # 5: intervals by the jackknife over both sides, distances also without bias, the floor from pictures of its own.
    version: PositiveInt = 5
    features: Ref
    reference: Ref
    floor: Ref | None = None
    settings: ScoreSettings
    metrics: tuple[Asked, ...] = ()
    published: PublishedConfig | None = None


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
