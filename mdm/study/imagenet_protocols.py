"""FID-50K on ImageNet 256 under names: which classes are drawn, and against which pictures, prepared how.

ADM, DiT and EDM2 compare 50,000 pictures with the whole training set, cut by ADM's rule and resized by TensorFlow 1's.
Against the 50,000 validation pictures the same pictures get another, higher number, so that has a name of its own.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mdm.config import DataConfig, StudyError

SHARD_IMAGES = 5000
PICTURES = {"train": 1_281_167, "val": 50_000}
KEPT = 50_000  # real pictures whose features are kept one by one; statistics are of all


@dataclass(frozen=True)
class ImageNet:
    """One evaluation of networks that draw ImageNet's classes."""

    FILES: ClassVar = ("path", "layout", "val_classes")

    description: str
    split: Literal["train", "val"]
    labels: Literal["balanced", "all"]
    num_images: int = 50_000
    resolution: int = 256

    def data_sets(self, name: str, files: dict[str, str], where: str) -> dict[str, DataConfig]:
        """The real pictures; there are no captions."""
        missing = sorted({"path"} - files.keys())
        if missing:
            raise StudyError(
                f"{where}.files: standard {name} needs path: ImageNet's tar of the {self.split} split, or its folders "
                "(with layout: folders)"
            )
        settings = {
            "split": self.split, "num_images": PICTURES[self.split], "resolution": self.resolution, "resize": "adm",
        }  # fmt: skip
        real = DataConfig(source="imagenet", settings={**settings, **files}, shard_images=SHARD_IMAGES)
        return {f"imagenet-{self.split}-adm-{self.resolution}": real}

    def settings(self, name: str, sets: list[str]) -> dict[str, Any]:
        """What a protocol that names this standard says."""
        return {
            "reference": sets[0], "labels": self.labels, "num_images": self.num_images, "resize": "tf1",
            "num_reference": PICTURES[self.split], "resolution": self.resolution, "keep_rows": KEPT,
        }  # fmt: skip


BALANCED = "50,000 pictures, 50 of each class in an order mixed by hashes"
AGAINST = "against {} of ImageNet, cut by ADM's rule to 256 px"
TRAIN = AGAINST.format("all 1,281,167 training pictures")
IMAGENET = {
    "imagenet-256-50k": ImageNet(f"{BALANCED}, {TRAIN}", "train", "balanced"),
    "imagenet-256-50k-random": ImageNet(f"50,000 pictures of classes drawn uniformly, {TRAIN}", "train", "all"),
    "imagenet-256-50k-val": ImageNet(
        f"{BALANCED}, {AGAINST.format('the 50,000 validation pictures')}: another number than against training "
        "pictures, and a higher one", "val", "balanced",
    ),
}  # fmt: skip
