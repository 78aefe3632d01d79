"""What exactly was measured: "FID-30k on COCO" names at least five protocols, so ours stands beside the number."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from mdm.config import StudyError

RESIZE_RULES = {
    "judge": "judge: area average to its input",
    "clip": "CLIP: open_clip's own preprocessing",
    "video": "network of clips: 16 frames, bilinear to 224 px",
    "dino": "DINOv2: Pillow's bicubic resize to 224 px, bytes",
    "inception": "Inception: clean-fid's bicubic resize to 299 px on floats",
    "inception/tf1": "Inception: TensorFlow 1's bilinear resize to 299 px, without antialiasing",
}


@dataclass(frozen=True)
class Protocol:
    """Prompts and pictures on one side, real pictures on the other, and how both are read."""

    images: str
    prompts: str | None  # None: real pictures are scored, with their own captions
    num_images: int
    reference: str
    num_reference: int
    resolution: int
    extractors: tuple[str, ...]
    # The words of the two data sets' own rules, where they have such, and the hashes of their lists of ids.
    prompts_rule: str | None = None
    reference_rule: str | None = None
    index_sha256: tuple[str | None, str | None] = (None, None)
    resize: str = "clean"
    published: str | None = None  # what is said of statistics that others made
    besides: str | None = None  # what else the numbers depend on

    @classmethod
    def between(cls, generated: Mapping[str, Any], reference: Mapping[str, Any]) -> Self:
        """From the manifests of two features artifacts; sides that cannot be compared are an error."""
        for key, advice in (
            ("extractors", "use the same judge, clip and inception on both sides"),
            ("resolution", "measure both sides at one resolution"),
            ("resize", "resize both sides alike"),
        ):
            own, other = (side.get(key, "clean") if key == "resize" else side[key] for side in (generated, reference))
            if own != other:
                raise StudyError(
                    f"{generated['artifact']} and {reference['artifact']} cannot be compared: {key} is "
                    f"{own} on one side and {other} on the other; {advice}"
                )
        if reference["prompts"] is not None or reference["images"].startswith("samples/"):
            raise StudyError(
                f"the reference {reference['artifact']} holds generated pictures ({reference['images']}); "
                "name a data set of real ones"
            )
        return cls(
            generated["images"], generated["prompts"], generated["num_images"], reference["images"],
            reference["num_images"], generated["resolution"], tuple(sorted(generated["extractors"])),
            # Features that were made before these were noted do not have them.
            generated.get("rule"), reference.get("rule"),
            (generated.get("index_sha256"), reference.get("index_sha256")), generated.get("resize", "clean"),
        )  # fmt: skip

    def describe(self) -> str:
        drawn = f"for the first captions of {self.prompts}" if self.prompts else f"of {self.images}"
        real = f"the first {self.num_reference} real pictures of {self.reference}{_said(self.reference_rule)}"
        tf1 = {"inception": "inception/tf1"} if self.resize == "tf1" else {}
        rules = "; ".join(RESIZE_RULES[tf1.get(name, name)] for name in self.extractors)
        return (
            f"{self.num_images} pictures {drawn}{_said(self.prompts_rule)}, against {real}, "
            f"both area-averaged to {self.resolution} px ({rules}){self.besides or ''}{self.published or ''}"
        )

    def as_json(self) -> dict[str, Any]:
        found = {**asdict(self), "description": self.describe()}
        return {key: value for key, value in found.items() if key not in ("published", "besides") or value}


def _said(rule: str | None) -> str:
    return f" [{rule}]" if rule else ""
