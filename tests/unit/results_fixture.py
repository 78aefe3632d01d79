"""A small invented study with an invented results tree. Every number here is made up: it tests the report, not MDM."""

from __future__ import annotations

import colorsys
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mdm.manifest import digest, write_json
from mdm.results import collect
from mdm.results.html import Sources

LITERATURE = Path(__file__).resolve().parents[2] / "config" / "literature.csv"
HOSTILE = '<script>window.hacked = 1</script> & "two" red circles <img src=x onerror="window.hacked=2">'
FACTORS = {"shape": 1 / 8, "colour": 1 / 8, "count": 1 / 4, "relation": 1 / 5}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# name: (Fréchet distance, alignment, CLIP score, seeds, stages)
INVENTED = {
    "base": (18.2, 0.71, 31.2, (0, 1), ((16,), (16, 64), (16, 64, 256))),
    "no-progressive": (24.9, 0.58, 29.4, (0, 1), ((16, 64, 256),)),
    "single-scale": (31.7, 0.44, 27.9, (0, 1), ((256,),)),
    "two-levels": (19.0, 0.69, 31.0, (0,), ((16,), (16, 256))),
    "guidance=1": (21.4, 0.55, 28.8, (0,), None),
    "guidance=2": (18.9, 0.66, 30.4, (0,), None),
    "guidance=6": (22.3, 0.75, 32.6, (0,), None),
    "shared-noise": (20.0, 0.69, 30.9, (0,), ((16,), (16, 64), (16, 64, 256))),
}
ABSENT = ("shared-noise",)


@dataclass(frozen=True)
class Stage:
    name: str
    artifact: str
    resolutions: tuple[int, ...]
    num_images: int


@dataclass(frozen=True)
class Evaluation:
    protocol: str
    samples: str
    features: str
    scores: str


@dataclass(frozen=True)
class Run:
    name: str
    seed: int
    ablation: str | None
    value: Any
    label: str
    settings_diff: dict[str, tuple[Any, Any]]
    stages: list[Stage]
    evaluations: list[Evaluation]


@dataclass(frozen=True)
class Ablation:
    name: str
    title: str
    question: str
    group: str
    against: str
    set: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Protocol:
    description: str
    num_images: int


@dataclass(frozen=True)
class Claim:
    name: str
    statement: str
    source: str
    expect: str
    protocol: str = "zero-shot"


@dataclass
class Study:
    name: str
    title: str
    question: str
    abstract: str
    digest: str
    runs: list[Run]
    ablations: dict[str, Ablation]
    groups: dict[str, str]
    protocols: dict[str, Protocol]
    claims: dict[str, Claim]
    arguments: str = "--study fixture"


ABLATIONS = (
    Ablation("no-progressive", "Without progressive training",
             "Does starting from the low resolutions help when the total number of pictures is equal?", "training", "base"),
    Ablation("shared-noise", "One noise for all levels", "Should the levels see the same noise?", "training", "base"),
    Ablation("single-scale", "Without nesting", "Is a plain U-Net at the target resolution as good?", "nesting", "base"),
    Ablation("two-levels", "Two levels instead of three", "Does the middle level pay?", "nesting", "base"),
    Ablation("guidance", "Guidance weight", "Where does guidance trade variety for agreement?", "sampling", "base"),
)  # fmt: skip
CHANGES = {
    "no-progressive": {"stages": ("3 stages", "1 stage")},
    "shared-noise": {"diffusion.shared_noise": (False, True)},
    "single-scale": {"stages.full.resolutions": ([16, 64, 256], [256])},
    "two-levels": {"stages.full.resolutions": ([16, 64, 256], [16, 256])},
}  # fmt: skip
CLAIMS = (
    Claim("progressive", "Progressive training gives better pictures than training all levels from scratch.",
          "section 4.3, figure 4", 'fd_judge["base"] < fd_judge["no-progressive"]'),
    Claim("nesting", "The nested network beats a plain diffusion model of equal budget by far.", "section 4.3",
          'fd_judge["single-scale"] - fd_judge["base"] > 5 and alignment["base"] > alignment["single-scale"]'),
    Claim("levels", "Three levels converge better than two.", "figure 8b", 'fd_judge["base"] < fd_judge["two-levels"]'),
    Claim("guidance", "The strongest guidance has the lowest Fréchet distance.", "invented for this fixture",
          'fd_judge["guidance=6"] < fd_judge["guidance=2"]'),
    Claim("noise", "Sharing the noise of all levels is worse.", "not in the paper",
          'fd_judge["base"] < fd_judge["shared-noise"]'),
)  # fmt: skip


def make_study(title: str = "Matryoshka Diffusion, rebuilt small (fixture)") -> Study:
    """The study, without any file."""
    runs = [run for name in INVENTED for run in _runs(name)]
    return Study(
        "fixture", title, "Does one network that denoises several resolutions at once train better than one at full size?",
        "Every number on this page is invented: the page is a test of the report.\n\nA real study says here what was asked, "
        "what was trained, and on what.", "f1c2d3e4a5b6", runs, {a.name: a for a in ABLATIONS},
        {"training": "How it is trained", "nesting": "How it is nested", "sampling": "How it is sampled"},
        {"zero-shot": Protocol("captions of pairs that training never showed", 256)}, {c.name: c for c in CLAIMS},
    )  # fmt: skip


def _runs(name: str) -> list[Run]:
    *_, seeds, stages = INVENTED[name]
    ablation, _, value = name.partition("=")
    titles = {a.name: a.title for a in ABLATIONS}
    label = titles.get(ablation, name) + (f" = {value}" if value else "")
    diff = {"sample.guidance": (4, float(value))} if value else CHANGES.get(name, {})
    return [
        Run(name, seed, None if name == "base" else ablation, float(value) if value else None, label, diff,
            _stages(name if stages else "base", seed), [_evaluation(name, seed)])
        for seed in seeds
    ]  # fmt: skip


def _stages(name: str, seed: int) -> list[Stage]:
    levels = INVENTED[name][-1]
    budget = 96_000 // len(levels)
    made = []
    for resolutions in levels:
        shared = all(len(r) <= 2 for r in levels[: levels.index(resolutions) + 1]) and name != "single-scale"
        recipe = {"levels": resolutions, "seed": seed, "run": "" if shared else name}
        made.append(
            Stage(f"r{resolutions[-1]}", f"train/r{resolutions[-1]}-{digest(recipe)}", resolutions, budget)
        )
    return made


def _evaluation(name: str, seed: int) -> Evaluation:
    key = digest([name, seed])
    return Evaluation(
        "zero-shot", f"samples/zero-shot-{key}", f"features/zero-shot-{key}", f"scores/zero-shot-{key}"
    )


def write_tree(
    study: Study, root: Path, absent: tuple[str, ...] = ABSENT, captions: list[str] | None = None
) -> Sources:
    """Write the results of all runs but `absent`, collect them, and return what a report needs."""
    results = root / "results"
    _write_instruments(results)
    for run in study.runs:
        if run.name in absent:
            continue
        for index, stage in enumerate(run.stages):
            _write_stage(results, run, stage, run.stages[index - 1].artifact if index else None)
        _write_evaluation(results, run, captions)
    sources = Sources(results, results / "metrics.csv", results / "missing.json", LITERATURE)
    collect.write(study, results, sources.metrics_csv, sources.missing_json)
    return sources


def _write_instruments(results: Path) -> None:
    real = {"shape": 0.97, "colour": 0.99, "count": 0.93, "relation": 0.9}
    rows = [{"metric": "alignment", "value": 0.84, "low": 0.81, "high": 0.87, "n": 512}]
    for name, value in real.items():
        rows.append(
            {
                "metric": f"alignment_{name}",
                "value": value,
                "low": value - 0.02,
                "high": min(1, value + 0.015),
                "n": 512,
            }
        )
        chance = FACTORS[name]
        rows.append(
            {
                "metric": f"alignment_{name}_chance",
                "value": chance,
                "low": chance - 0.03,
                "high": chance + 0.03,
                "n": 512,
            }
        )
    write_json(results / "judge/judge-aaaa/judge.json", {"metrics": rows})
    retrieval = {"metric": "retrieval_top1", "value": 0.62, "low": 0.58, "high": 0.66, "n": 512}
    write_json(results / "clip/clip-bbbb/manifest.json", {"metrics": [retrieval]})


def _write_stage(results: Path, run: Run, stage: Stage, parent: str | None) -> None:
    folder, luck = results / stage.artifact, random.Random(stage.artifact)
    speed = {16: 900.0, 64: 210.0, 256: 48.0}[stage.resolutions[-1]]
    lines = []
    for step in range(1, 61):
        images = stage.num_images * step // 60
        losses = {
            str(r): _loss(run, stage, r, step) * (0.97 + 0.06 * luck.random()) for r in stage.resolutions
        }
        line = {"images": images, "seconds": round(images / speed, 2), "loss": sum(losses.values()), "losses": losses,
                "images_per_second": speed * (0.97 + 0.06 * luck.random())}  # fmt: skip
        lines.append(
            line | ({"validation": {r: v * 1.04 for r, v in losses.items()}} if step % 4 == 0 else {})
        )
    recipe = {"kind": "train", "seed": run.seed, "parent": parent, "data": "data/scenes-train-5ca1ab1e0000"}
    write_json(folder / "recipe.json", recipe)
    write_json(folder / "manifest.json", {
        "recipe": stage.artifact, "images": stage.num_images, "seconds": round(stage.num_images / speed, 1),
        "parameters": {16: 5_900_000, 64: 6_300_000, 256: 6_450_000}[stage.resolutions[-1]], "device": "cpu (2 cores)",
        "git": {"commit": COMMIT, "dirty": False}, "packages": {}, "parent": parent,
    })  # fmt: skip
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _loss(run: Run, stage: Stage, resolution: int, step: int) -> float:
    """Falls with the pictures seen since the level was added, over all stages."""
    seen = [s for s in run.stages[: run.stages.index(stage)] if resolution in s.resolutions]
    share = (sum(s.num_images for s in seen) + stage.num_images * step / 60) / 96_000
    penalty = INVENTED[run.name][0] / 18
    return penalty * (0.05 + 0.4 * math.exp(-5 * share)) * 3 / resolution**0.5


def _write_evaluation(results: Path, run: Run, captions: list[str] | None) -> None:
    evaluation, luck = run.evaluations[0], random.Random(f"{run.name} {run.seed}")
    distance, agreement, clip, *_ = INVENTED[run.name]
    guidance = run.value if run.value is not None else 4.0
    write_json(results / evaluation.samples / "recipe.json", {
        "sample": {"sampler": "ddim", "steps": 50, "guidance": guidance}, "seed": 0, "train": run.stages[-1].artifact,
    })  # fmt: skip
    write_json(
        results / evaluation.samples / "manifest.json",
        {"seconds": 93.0, "num_images": 256, "network_evaluations_per_image": 100.0},
    )
    _write_pictures(results / evaluation.samples, run, agreement, captions)
    write_json(
        results / evaluation.features / "recipe.json",
        {"extractors": {"judge": "judge/judge-aaaa", "clip": "clip/clip-bbbb"}},
    )
    write_json(results / evaluation.scores / "recipe.json", {"features": evaluation.features})
    values = {"fd_judge": (distance + luck.uniform(-0.4, 0.4), 1.1), "clip_score": (clip + luck.uniform(-0.1, 0.1), 0.4),
              "alignment": (agreement, 0.03), "kid_judge": (distance / 400, 0.003)}  # fmt: skip
    for index, factor in enumerate(FACTORS):
        values[f"alignment_{factor}"] = (
            min(0.96, agreement + 0.12 - 0.08 * index + luck.uniform(-0.02, 0.02)),
            0.05,
        )
    rows = [{"metric": k, "value": v, "low": v - h, "high": v + h, "n": 256} for k, (v, h) in values.items()]
    write_json(results / evaluation.scores / "scores.json", {"metrics": rows})


def _write_pictures(folder: Path, run: Run, agreement: float, captions: list[str] | None) -> None:
    said, drawn = [], []
    for index in range(12):
        luck = random.Random(index)  # the same prompt for every run
        hue, kind = luck.randrange(8) / 8, luck.choice(("circle", "square", "triangle"))
        said.append(f"{luck.choice(('two', 'three', 'four'))} {kind}s in hue {hue:.2f} on a quiet background")
        drawn.append(_picture(hue, kind, luck, random.Random(f"{run.name} {index}"), agreement))
    said = (captions or []) + said[len(captions or []) :]
    top = run.stages[-1].resolutions
    arrays = {
        str(r): np.stack([np.asarray(p.resize((r, r), Image.Resampling.BOX)) for p in drawn]) for r in top
    }
    np.savez(folder / "images.npz", ids=np.arange(12), captions=np.array(said), **arrays)


def _picture(
    hue: float, kind: str, luck: random.Random, noise: random.Random, agreement: float
) -> Image.Image:
    def colour(h: float, s: float, v: float) -> tuple[int, ...]:
        return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(h, s, v))

    picture = Image.new("RGB", (256, 256), colour(luck.random(), 0.12, 0.92))
    pen = ImageDraw.Draw(picture)
    for _ in range(luck.choice((2, 3, 4))):
        x, y, r = luck.randrange(50, 206), luck.randrange(50, 206), luck.randrange(22, 46)
        fill = colour(hue if noise.random() < agreement + 0.2 else noise.random(), 0.75, 0.8)
        box = (x - r, y - r, x + r, y + r)
        if kind == "circle":
            pen.ellipse(box, fill=fill)
        elif kind == "square":
            pen.rectangle(box, fill=fill)
        else:
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    return picture
