"""How fast networks go: measured by `mdm calibrate` on the machine that will train, or assumed by the study."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.config import DiffusionConfig, ModelConfig, SampleConfig, SongConfig, StudyError
from mdm.files.artifact import digest
from mdm.files.atomic import read_json
from mdm.model.arithmetic import gigaflops, step_gigaflops
from mdm.study.study import Study

FILE = "calibration.json"
VERSION = 1
DRAWN_TOGETHER = 32  # pictures of a sampling batch, as `mdm sample` draws them


@dataclass(frozen=True)
class Work:
    """What one network does over and over: steps of training, or calls while pictures are drawn."""

    kind: str  # train or draw
    ref: str
    model: ModelConfig | SongConfig
    diffusion: DiffusionConfig
    tokens: int
    batch_images: int
    precision: str
    on_gpu: bool
    settings: dict[str, Any]  # whatever else changes its speed

    @property
    def key(self) -> str:
        """Identify all work that takes the same time per picture."""
        mixed = self.diffusion.mixed_ratio if self.kind == "train" else None
        parts = [self.kind, self.model.model_dump(mode="json"), mixed, self.tokens, self.batch_images]
        return digest([*parts, self.precision, self.settings])

    @property
    def gigaflops(self) -> float:
        """Return the arithmetic per picture: of a step of training, or of one call."""
        if self.kind == "draw":
            return gigaflops(self.model, self.tokens)
        frozen, recompute = self.settings["frozen_levels"], self.settings["recompute"]
        return step_gigaflops(self.model, self.diffusion, self.tokens, frozen, recompute)


def training(study: Study, ref: str) -> Work:
    """Describe a training stage as one of its processes does it: on its own part of each batch."""
    recipe, resources = study.recipe(ref), study.resources(ref)
    inherited = len(study.recipe(recipe.parent).model.resolutions) if recipe.parent else 0
    train = recipe.train
    settings = {
        "inherited_levels": inherited, "frozen_levels": inherited if train.inner_rate == 0 else 0,
        "matrices_apart": train.matrix_rate is not None, "recompute": list(resources.recompute),
        "compile": resources.compile, **({"accumulate": resources.accumulate} if resources.accumulate > 1 else {}),
    }  # fmt: skip
    own, positions = train.batch_images * resources.accumulate // resources.parts, tokens(study, recipe.text)
    network = (recipe.model, recipe.diffusion)
    return Work("train", ref, *network, positions, own, train.precision, resources.gpus > 0, settings)


def drawing(study: Study, ref: str) -> Work:
    recipe = study.recipe(ref)
    stage, sample, on_gpu = study.recipe(study.trained(recipe.train)), recipe.sample, study.resources(ref).gpus > 0
    network, settings = (stage.model, stage.diffusion), {"guided": sample.guidance != 1}
    positions = tokens(study, recipe.text)
    return Work("draw", ref, *network, positions, DRAWN_TOGETHER, sample.precision, on_gpu, settings)


def work(study: Study, ref: str) -> Work:
    return (training if ref.startswith("train/") else drawing)(study, ref)


def devices(study: Study, ref: str) -> int:
    """Return how many devices share the work: GPUs of all nodes, or the processor."""
    resources = study.resources(ref)
    return max(1, resources.nodes * resources.gpus)


def passes(study: Study, ref: str) -> int:
    """Return the pictures to train on, or the calls of the network for all pictures to be drawn."""
    recipe = study.recipe(ref)
    return recipe.num_images * (1 if ref.startswith("train/") else calls(recipe.sample))


def tokens(study: Study, text: str | None) -> int:
    """Return the most positions of a caption."""
    return study.recipe(text).encoder.settings.max_tokens if text else 0


def calls(sample: SampleConfig) -> int:
    """Return how often a network sees each picture; an interval of guidance saves some of it."""
    if sample.latents == "real":
        return 0
    steps = sample.steps
    a_step = (1 if sample.guidance == 1 else 2) + (sample.autoguidance != 1)
    return (2 * steps - 1 if sample.sampler in ("heun", "karras") else steps) * a_step


@dataclass(frozen=True)
class Speed:
    """Seconds that one device needs per picture (of a call, when drawing), and how that is known."""

    seconds: float
    # c: this very work was calibrated, f: calibrated work of the same kind, by FLOPs (cb, fb: on a busy machine);
    # r: it went so on this results folder; ?: assumed
    mark: str
    peak_bytes: int | None = None


class Throughput:
    """Speeds from a calibration file, or from the study's assumption."""

    def __init__(self, seconds_per_gigaflop: float, calibration: dict[str, Any] | None = None) -> None:
        self._assumed, self._file = seconds_per_gigaflop, calibration
        self._shapes: dict[str, dict[str, Any]] = calibration["shapes"] if calibration else {}

    @property
    def source(self) -> str:
        """Name the machine that was measured, and the day."""
        return f"{self._file['machine']['device']}, {self._file['made'][:10]}" if self._file else ""

    def speed(self, work: Work) -> Speed:
        if not self._file or (work.on_gpu and self._file["machine"]["kind"] != "cuda"):
            return Speed(work.gigaflops * self._assumed, "?")
        found = self._shapes.get(work.key)
        if found and "seconds_per_image" in found:
            return Speed(found["seconds_per_image"], f"c{self._doubt(found)}", found["peak_bytes"])
        each, mark = self.by_arithmetic(work.kind, work.precision, work.on_gpu)
        return Speed(work.gigaflops * each, mark)

    def by_arithmetic(self, kind: str, precision: str, on_gpu: bool) -> tuple[float, str]:
        """Return the seconds of a GFLOP of training or drawing, and how they are known (a mark of `Speed`)."""
        if not self._file or (on_gpu and self._file["machine"]["kind"] != "cuda"):
            return self._assumed, "?"
        wanted = {"kind": kind, "precision": precision}
        similar = [s for s in self._shapes.values() if "seconds_per_image" in s and wanted.items() <= s.items()]
        steady = [s for s in similar if not self._doubt(s)] or similar
        if not steady:
            return self._assumed, "?"
        per_gigaflop = statistics.median(s["seconds_per_image"] / s["gigaflops_per_image"] for s in steady)
        return per_gigaflop, f"f{self._doubt(steady[0])}"

    def _doubt(self, found: dict[str, Any]) -> str:
        """Return `b` for what was measured on a busy machine."""
        return "b" if (self._file and self._file.get("busy")) or found.get("disturbed") else ""


def load(study: Study, path: Path, asked_for: bool = False) -> Throughput:
    """Read the calibration at a path; without one, unless the user named it, take the study's assumption."""
    assumed = study.config.seconds_per_gigaflop
    if not path.is_file() and not asked_for:
        return Throughput(assumed)
    calibration = read_json(path)
    if not isinstance(calibration, dict) or calibration.get("version") != VERSION:
        raise StudyError(f"{path} is no calibration of version {VERSION}; write a new one: mdm calibrate --out {path}")
    return Throughput(assumed, calibration)
