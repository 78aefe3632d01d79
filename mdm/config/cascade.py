"""Settings of a cascade: a stage that draws large pictures from small ones, which another stage drew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mdm.config.base import Positive, Strict
from mdm.config.sizes import Clip, Size, listed


class UpsamplesConfig(Strict):
    """What makes a stage an upsampler (docs/reference.md, section 22)."""

    size: Positive = Field(description="side of the small pictures, which a stage before it in the same run draws")
    noise: Literal["uniform", "none"] = Field(
        default="uniform",
        description="noise on the small pictures in training, of which the network is told: uniform levels of the "
        "unshifted schedule of the stage that draws them, or none",
    )
    most: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="the uniform levels end here: a short training looks at those that drawing uses alone"
    )

    @model_validator(mode="after")
    def _ends_some_noise(self) -> UpsamplesConfig:
        if self.noise == "none" and self.most != type(self).model_fields["most"].default:
            raise ValueError(f"upsamples.most {self.most} has no effect with noise: none; leave it out")
        return self


class LowConfig(Strict):
    """How a network sees small pictures: enlarged, beside the noisy picture. Part of its recipe."""

    size: Positive
    # Half a pixel lies between this and align_corners=True: training and drawing must use the same one.
    operator: Literal["bilinear"] = "bilinear"

    def require_larger(self, sizes: Sequence[Size]) -> None:
        """Refuse a network that cannot enlarge such pictures: it has one level, of pictures some times as large."""
        if len(sizes) > 1 or isinstance(sizes[0], Clip):
            raise ValueError(f"an upsampler has one level, of pictures, not {listed(sizes)}; write the side it draws")
        if self.size >= sizes[0] or sizes[0] % self.size:
            raise ValueError(
                f"upsamples.size {self.size}: pictures of {sizes[0]} px are made from smaller ones whose side divides "
                f"theirs; write {sizes[0] // 4} or {sizes[0] // 2}, or another resolution"
            )


class AugmentationConfig(Strict):
    """The noise that small pictures get in training, and the levels that drawing may use. Part of a stage's recipe."""

    later: ClassVar = ("most",)

    levels: Literal["uniform", "none"]
    schedule: Literal["squared-cosine", "cosine", "linear", "sigmoid"]
    steps: Positive
    most: Annotated[float, Field(gt=0, le=1)] = 1.0
