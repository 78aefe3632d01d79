"""Protocols that a study can name: zero-shot evaluations on COCO, each one of those that papers call FID-30K.

A name stands for a rule over COCO's ids: which captions, against which pictures, how they are cut and scaled. It makes
two data sets, so it is hashed into the path of every result. Another rule is another name, never a change of one.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mdm.config import DataConfig, ProtocolConfig, StudyConfig, StudyError, nearest
from mdm.study.imagenet_protocols import IMAGENET, ImageNet

SHARD_IMAGES = 5000
SEED = 30000  # of all drawn sets: drawn once, by the rule of mdm/data/sources/coco.py
PICTURES = {("val", 2014): 40504, ("val", 2017): 5000, ("train", 2014): 82783}


@dataclass(frozen=True)
class Standard:
    """One evaluation set: captions on one side, real pictures on the other."""

    FILES: ClassVar = ("images", "annotations", "captions_sha256", "train_images")

    description: str
    captions: Literal["first", "one", "drawn"]
    against: Literal["own", "all", "train"]  # the pictures of these captions, all of the part, or all for training
    num_images: int = 30000
    edition: int = 2014
    seed: int | None = SEED
    resize: Literal["area", "bicubic", "lanczos"] = "bicubic"
    resolution: int = 256

    @property
    def num_reference(self) -> int:
        parts = {"all": "val", "train": "train"}
        return PICTURES[parts[self.against], self.edition] if self.against in parts else self.num_images

    def prompts(self) -> dict[str, Any]:
        return {
            "edition": self.edition, "part": "val", "captions": self.captions, "seed": self.seed,
            "num_images": self.num_images, "resolution": self.resolution, "resize": self.resize,
        }  # fmt: skip

    def reference(self) -> dict[str, Any]:
        if self.against == "own":
            return self.prompts()
        part = "train" if self.against == "train" else "val"
        return {**self.prompts(), "part": part, "captions": "first", "seed": None, "num_images": self.num_reference}

    def data_sets(self, name: str, files: dict[str, str], where: str) -> dict[str, DataConfig]:
        """The data sets of captions and of real pictures, in this order; one where they are the same."""
        scaled = f"{self.resize}-{self.resolution}"
        real = {"own": name, "all": f"coco-all-{scaled}", "train": f"coco-train-{scaled}"}[self.against]
        own = {key: path for key, path in files.items() if key != "train_images"}
        there = own
        if self.against == "train":
            if "train_images" not in files:
                raise StudyError(
                    f"{where}.files: standard {name} compares with the pictures of train2014; write train_images: "
                    "COCO's train2014.zip, or the folder of its pictures"
                )
            there = own | {"images": files["train_images"]}
        return {
            key: DataConfig(source="coco", settings={**settings, **lie}, shard_images=SHARD_IMAGES)
            for key, settings, lie in ((name, self.prompts(), own), (real, self.reference(), there))
        }

    def settings(self, name: str, sets: list[str]) -> dict[str, Any]:
        """What a protocol that names this standard says."""
        return {
            "prompts": sets[0], "reference": sets[-1], "num_images": self.num_images,
            "num_reference": self.num_reference, "resolution": self.resolution,
        }  # fmt: skip


OWN, ALL = "against these pictures", "against all 40,504 pictures"
ONE, DRAWN = "30,000 pictures of val2014, one drawn caption of each", "30,000 captions drawn among all of val2014"
FIRST_5K = f"all 5,000 pictures of val2017, the first caption of each, {OWN}"
STANDARDS = {
    "coco-30k-first": Standard(f"30,000 pictures of val2014, the first caption of each, {OWN}", "first", "own"),
    "coco-30k-one": Standard(f"{ONE}, {OWN}", "one", "own"),
    "coco-30k-one-area": Standard(f"{ONE}, {OWN}, scaled by area", "one", "own", resize="area"),
    "coco-30k-one-all": Standard(f"{ONE}, {ALL}", "one", "all"),
    "coco-30k-one-train": Standard(f"{ONE}, against all 82,783 training pictures", "one", "train"),
    "coco-30k-drawn": Standard(f"{DRAWN}, against the pictures they were written for", "drawn", "own"),
    "coco-30k-drawn-all": Standard(f"{DRAWN}, {ALL}", "drawn", "all"),
    "coco-5k-first": Standard(FIRST_5K, "first", "own", num_images=5000, edition=2017, seed=None),
}


def expand(config: StudyConfig, where: str) -> StudyConfig:
    """Write out every named protocol of a study: two data sets and the numbers of pictures."""
    data, protocols = dict(config.data), dict(config.protocols)
    for name, entry in config.protocols.items():
        if entry.standard is not None:
            protocols[name] = _written_out(entry, data, f"{where}: protocols.{name}")
    return config.model_copy(update={"data": data, "protocols": protocols})


def _written_out(entry: ProtocolConfig, data: dict[str, DataConfig], where: str) -> ProtocolConfig:
    """A protocol with everything that its standard says; its data sets are added to those of the study."""
    known: dict[str, Standard | ImageNet] = {**STANDARDS, **IMAGENET}
    if entry.standard not in known:
        raise StudyError(f"{where}.standard: there is no '{entry.standard}'; {nearest(str(entry.standard), known)}")
    standard, name = known[entry.standard], entry.standard
    _check_said(entry, standard, where)
    wanted = standard.data_sets(name, entry.files, where)
    for key, described in wanted.items():
        if data.setdefault(key, described) != described:
            raise StudyError(
                f"{where}: '{key}' is the name of a data set of standard {name}, and the study has another of that "
                "name (or names other files for it); rename it, or write the same files"
            )
    said = standard.settings(name, list(wanted))
    if changed := [key for key in said if key in entry.model_fields_set and getattr(entry, key) != said[key]]:
        raise StudyError(
            f"{where}.{changed[0]} {getattr(entry, changed[0])}: standard {name} says {said[changed[0]]}; leave it "
            "out, or write the protocol out instead of naming a standard"
        )
    return entry.model_copy(update={**said, "description": entry.description or standard.description})


def _check_said(entry: ProtocolConfig, standard: Standard | ImageNet, where: str) -> None:
    """Refuse files that would change what the name stands for, and captions where there are none."""
    if unknown := sorted(entry.files.keys() - set(standard.FILES)):
        raise StudyError(
            f"{where}.files.{unknown[0]}: standard {entry.standard} has no such file, and its rule is its name; write "
            f"{', '.join(standard.FILES)}, or write the protocol out"
        )
    if entry.clip and isinstance(standard, ImageNet):
        raise StudyError(f"{where}.clip: standard {entry.standard} has classes and no captions to compare with")
