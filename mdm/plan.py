"""What a study would do and cost, before anything is submitted: runs x stages x images x time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, TrainConfig
from mdm.study import Study

if TYPE_CHECKING:
    from mdm.train.memory import Memory

TRAINING_FACTOR = 3  # forward, gradients of activations, gradients of weights
GIGA = 1e9
MEMORY_ASSUMPTIONS = (
    "assumed: one device takes the whole batch, captions of max_tokens positions, the precision and recompute of each\n"
    "stage; with GPUs, the layers a GPU would use, run here without content: not compared with a real GPU yet.\n"
    "not counted: what the libraries take for themselves, and free room between tensors."
)
CONFIGS = {"model": ModelConfig, "train": TrainConfig, "diffusion": DiffusionConfig}


def gigaflops(model: ModelConfig) -> float:
    """Rough cost of one forward pass for one picture or clip (convolutions and attention; within a quarter, tested)."""
    return sum(_level(level) for level in model.levels) / GIGA


def _level(level: LevelConfig) -> float:
    total = 2 * 9 * 3 * 2 * level.channels[0] * level.frames * level.resolution**2
    layers_over = (level.attention, level.video.attention if level.video else ())
    of_pixels, of_frames = (layers or (0,) * len(level.channels) for layers in layers_over)
    for depth, (width, blocks) in enumerate(zip(level.channels, level.resnets, strict=True)):
        frames, side = level.grid(depth)
        pixels = frames * side**2
        conv = 2 * 9 * width * width * pixels
        # Down: two convolutions a block. Up: one block more, and its first convolution reads the skip as well.
        total += conv * (2 * blocks + 3 * (blocks + 1))
        total += (2 if level.halves == "space" else 2 / 3) * conv * (depth > 0)
        per_block = of_pixels[depth] * frames * _attention(width, side**2, level.attention_ffn)
        # Around the attention over frames, one convolution at half the side and one at the full.
        per_block += of_frames[depth] * (1.25 * conv + (side // 2) ** 2 * _attention(width, frames, ffn=True))
        total += (2 * blocks + 1) * per_block
    if level.middle:
        total += 2 * 2 * conv + _attention(width, pixels, level.attention_ffn)
    return total


def _attention(width: int, pixels: int, ffn: bool) -> float:
    return 2 * pixels * width * width * (4 + 8 * ffn) + 4 * pixels * pixels * width


def training_gigaflops(recipe: dict[str, Any]) -> float:
    """Rough cost of a whole training stage."""
    return recipe["num_images"] * TRAINING_FACTOR * gigaflops(ModelConfig(**recipe["model"]))


def calls(sample: dict[str, Any]) -> int:
    """How often the network sees each picture; an interval of guidance saves some of it."""
    steps = sample["steps"]
    return (2 * steps - 1 if sample["sampler"] == "heun" else steps) * (1 if sample["guidance"] == 1 else 2)


@dataclass(frozen=True)
class Line:
    """One artifact that costs time."""

    ref: str
    images: int
    seconds: float
    measured: bool
    status: str


class Estimate:
    """Seconds of each artifact: measured where it was made on this disk, else from the study's assumption."""

    def __init__(self, study: Study, results: Path) -> None:
        self._study, self._results = study, results

    def line(self, ref: str) -> Line:
        artifact = self._study.artifact(ref)
        folder = self._results / ref
        images = artifact.recipe["num_images"]
        if (folder / "manifest.json").is_file():
            seconds = json.loads((folder / "manifest.json").read_text())["seconds"]
            return Line(ref, images, seconds, True, "done")
        seconds = self._train(artifact.recipe) if artifact.kind == "train" else self._sample(artifact.recipe)
        return Line(ref, images, seconds, False, self._status(folder))

    def _status(self, folder: Path) -> str:
        progress = folder / "progress" / "status.json"
        if not progress.is_file():
            return "to do"
        status = json.loads(progress.read_text())
        return f"{status['images'] / status['num_images']:.0%}"

    def _train(self, recipe: dict[str, Any]) -> float:
        return training_gigaflops(recipe) * self._study.config.seconds_per_gigaflop

    def _sample(self, recipe: dict[str, Any]) -> float:
        model = ModelConfig(**self._study.recipe(recipe["train"])["model"])
        return (
            recipe["num_images"] * calls(recipe["sample"]) * gigaflops(model) * self._study.config.seconds_per_gigaflop
        )


def _rows(study: Study, estimate: Estimate) -> Iterator[tuple[str, str, Line]]:
    """(run, what, line) of everything that costs time, each artifact once."""
    seen: set[str] = set()
    for run in study.runs:
        name = f"{run.name} #{run.seed}"
        works = [(stage.name, stage.artifact) for stage in run.stages]
        works += [(f"draw {e.protocol}", e.samples) for e in run.evaluations]
        for what, ref in works:
            if ref in seen:
                yield name, what, Line(ref, estimate.line(ref).images, 0.0, True, "shared")
            else:
                yield name, what, estimate.line(ref)
            seen.add(ref)


def render(study: Study, results: Path) -> str:
    """The plan as text."""
    rows = list(_rows(study, Estimate(study, results)))
    lines = [f"{'run':<28} {'stage':<18} {'artifact':<44} {'images':>13} {'time':>10}  status"]
    for run, what, line in rows:
        time = "" if line.status == "shared" else duration(line.seconds) + ("" if line.measured else " ?")
        lines.append(f"{run:<28} {what:<18} {line.ref:<44} {line.images:>13,} {time:>10}  {line.status}")
    todo = sum(line.seconds for _, _, line in rows if not line.measured)
    done = sum(line.seconds for _, _, line in rows if line.measured)
    lines.append("")
    lines.append(f"{len({line.ref for *_, line in rows})} artifacts; done: {duration(done)}, to do: {duration(todo)}")
    lines.append(
        f"? = not measured yet: {study.config.seconds_per_gigaflop:g} s per GFLOP and device are assumed "
        "(seconds_per_gigaflop in the study)"
    )
    return "\n".join(lines)


def memory(study: Study) -> str:
    """What a step of each training takes; networks are simulated, which takes seconds each."""
    from mdm.train.memory import estimate  # torch is loaded only for this

    lines = [
        "",
        f"{'memory of a training step':<44} {'batch':>6} {'weights':>9} {'gradients':>9} {'moments':>9} {'average':>9}"
        f" {'peak':>9}  activations by level",
    ]
    known: dict[tuple[Any, ...], Memory] = {}
    for ref in study.of_kind("train"):
        recipe, resources = study.recipe(ref), study.resources(ref)
        parent = study.recipe(recipe["parent"])["model"]["levels"] if recipe["parent"] else []
        text = study.recipe(recipe["text"])["encoder"]["settings"] if recipe["text"] else {"max_tokens": 0}
        parts = {key: recipe[key] for key in CONFIGS}
        settings = {"tokens": text["max_tokens"], "inherited": len(parent), "recompute": resources.recompute}
        settings["on_gpu"] = resources.gpus > 0
        key = (json.dumps(parts), *settings.values())
        if key not in known:
            known[key] = estimate(*(kind(**parts[name]) for name, kind in CONFIGS.items()), **settings)
        lines.append(_memory_line(ref, recipe["train"]["batch_images"], known[key]))
    return "\n".join([*lines, MEMORY_ASSUMPTIONS])


def _memory_line(ref: str, batch: int, memory: Memory) -> str:
    figures = (memory.parameters, memory.gradients, memory.moments, memory.average, memory.peak)
    levels = ", ".join(f"{r} px {size(kept)}" for r, kept in memory.activations.items())
    return f"{ref:<44} {batch:>6} {' '.join(f'{size(figure):>9}' for figure in figures)}  {levels}"


def size(count: int) -> str:
    """`61 MiB`, `8.6 GiB`."""
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """`45 s`, `3.2 min`, `5.1 h`, `12 d`."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86400:.3g} d"
