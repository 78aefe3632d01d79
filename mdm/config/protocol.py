"""Settings of a protocol: which pictures are drawn, and what they are compared with."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mdm.config.base import Name, Positive, Seed, Strict
from mdm.config.instruments import Asked, PublishedConfig, WeightsConfig
from mdm.config.training import DrawingResources

INTERVAL_GROUPS = 20  # of a jackknife (mdm/evaluate/intervals.py)

NEIGHBOURS = ("precision_recall", "density_coverage")
# Settings of scores -> the metrics that have them.
SETTINGS_OF = {
    "precision_nearest": NEIGHBOURS[:1], "coverage_nearest": NEIGHBOURS[1:], "most_drawn": NEIGHBOURS,
    "most_real": NEIGHBOURS,
}  # fmt: skip


class ProtocolConfig(Strict):
    """One way of measuring, hashed into the result's path: named (`standard`), or written out."""

    later: ClassVar = ("dino", "metrics", "keep_rows", "published", "video", "per_prompt", "named_only")

    description: str = Field(default="", description="default: that of the standard")
    standard: Name | None = Field(
        default=None,
        description="coco-30k-one, coco-30k-drawn-all, ... (mdm/study/standard_protocols.py), instead of prompts, "
        "reference, numbers and resolution",
    )
    files: dict[str, str] = Field(default={}, description="of a standard: where its files lie (images, annotations)")
    prompts: Name | None = Field(
        default=None,
        description="data set whose captions and classes are drawn (none: runs that read no text, classes at random)",
    )
    labels: Literal["all", "used", "balanced"] = Field(
        default="all",
        description="without prompts: classes drawn among all of the network, or those of training pictures; "
        "balanced: each of all equally often, in an order mixed by hashes",
    )
    reference: Name | None = Field(
        default=None, description="data set of real pictures (none: pictures are drawn and compared with nothing)"
    )
    num_images: Positive | None = Field(default=None, description="pictures drawn")
    num_reference: Positive | None = Field(default=None, description="real pictures")
    resolution: Positive | None = Field(default=None, description="measure at this side (default: the run's highest)")
    seed: Seed = Field(default=0, description="of the noises that are drawn from")
    judge: Name | None = Field(default=None, description="one of `judges`: alignment and distances of its features")
    clip: Name | WeightsConfig | None = Field(default=None, description="one of `clips`, or weights: CLIP score")
    inception: WeightsConfig | None = Field(default=None, description="weights of Inception: FID and KID")
    dino: WeightsConfig | None = Field(default=None, description="weights of DINOv2 ViT-L/14: FD-DINOv2 and KD")
    video: WeightsConfig | None = Field(
        default=None, description="weights of a network of clips (model: s3d, mvit_v2_s or swin3d_t): FVD by it"
    )
    per_prompt: Positive | None = Field(
        default=None, description="pictures drawn for each caption (1); num_images counts all of them"
    )
    metrics: tuple[Asked, ...] = Field(
        default=(),
        description="also precision_recall, density_coverage (of every network), inception_score, "
        "composition (of scenes, by the judge)",
    )
    resize: Literal["clean", "tf1"] = Field(
        default="clean", description="how Inception sees pictures: clean-fid's bicubic, or TensorFlow 1's bilinear"
    )
    keep_rows: Positive | None = Field(
        default=None,
        description="real pictures whose features are kept one by one, for KID and the like; Fréchet distances are of "
        "all (default: all)",
    )
    published: PublishedConfig | None = Field(
        default=None, description="statistics that others published: FID against these as well"
    )
    spectrum: bool = Field(default=False, description="measure the fine detail of every level against real pictures")
    settings: dict[str, Any] = Field(
        default={}, description="chance_shifts: how many wrong captions guessing is measured with"
    )
    named_only: bool = Field(
        default=False, description="measures only the ablations that name it in `protocols`, such as those of clips"
    )
    resources: DrawingResources = DrawingResources()

    @model_validator(mode="after")
    def _is_named_or_written_out(self) -> ProtocolConfig:
        stated = ("prompts", "reference", "num_images", "num_reference", "resolution")
        given = [key for key in stated if getattr(self, key) is not None]
        if self.standard and given:
            raise ValueError(
                f"{', '.join(given)}: standard {self.standard} says so already; leave out one or the other"
            )
        needed = ("description", "reference", "num_images", "num_reference")
        compared = () if self.drawn_only else ("reference", "num_reference")
        missing = [key for key in needed if not getattr(self, key) and (key in compared or "reference" not in key)]
        if not self.standard and missing:
            raise ValueError(f"{', '.join(missing)}: missing; write them, or name a `standard`")
        if self.clip and not self.prompts and not self.standard:
            raise ValueError("clip compares pictures with captions; name a data set in prompts, or leave clip out")
        if self.labels != "all" and (self.prompts or self.standard):
            raise ValueError(f"labels: {self.labels} has no effect with prompts, whose classes are drawn; leave it out")
        if self.resize != "clean" and not self.inception:
            raise ValueError(f"resize {self.resize} has no effect without inception weights; leave it out or name some")
        self._check_metrics()
        if self.per_prompt and (not self.prompts or (self.num_images or 0) % (INTERVAL_GROUPS * self.per_prompt)):
            raise ValueError(
                f"per_prompt {self.per_prompt}: num_images {self.num_images} must be a multiple of "
                f"{INTERVAL_GROUPS * self.per_prompt}, so that intervals leave out whole captions, and prompts must "
                "name whose captions are drawn"
            )
        if self.published and not self.inception:
            raise ValueError("published: statistics of Inception's features; name inception weights, or leave it out")
        if self.keep_rows and self.drawn_only:
            raise ValueError("keep_rows has no effect without real pictures; leave it out")
        if self.keep_rows and self.num_reference and self.keep_rows > self.num_reference:
            raise ValueError(f"keep_rows {self.keep_rows}: there are {self.num_reference} real pictures; leave it out")
        if self.files and not self.standard:
            raise ValueError("files has no effect without standard; leave it out")
        return self

    def _check_metrics(self) -> None:
        """Refuse metrics of features that nothing reads, and settings of metrics that nobody asks for."""
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics: {', '.join(self.metrics)}: one is named twice; leave it out once")
        for setting, groups in SETTINGS_OF.items():
            if setting in self.settings and not {*groups} & {*self.metrics}:
                raise ValueError(
                    f"settings: {setting} has no effect without metrics: [{' or '.join(groups)}]; leave it out"
                )
        if "inception_score" in self.metrics and not self.inception:
            raise ValueError("metrics: inception_score is of a classifier; name inception weights, or leave it out")
        if "composition" in self.metrics and not (self.judge and self.prompts):
            raise ValueError("metrics: composition is what a judge reads against captions; name a judge and prompts")
        if self.metrics and not (self.judge or self.inception or self.dino):
            raise ValueError(
                f"metrics: {', '.join(self.metrics)} compare features; name a judge, inception or dino, or leave it out"
            )

    @property
    def drawn_only(self) -> bool:
        """Whether its pictures are drawn and compared with nothing here (`audit` may still look for copies)."""
        instruments = self.judge or self.clip or self.inception or self.dino or self.video
        instruments = instruments or self.spectrum
        return not (self.standard or self.reference or self.num_reference or instruments)
