"""A small invented study and its results tree: they test the report, their numbers say nothing of MDM."""

from __future__ import annotations

import colorsys
import json
import math
import random
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mdm.config.recipe import SamplesRecipe, StageRecipe
from mdm.config.recipe_measured import FeaturesRecipe
from mdm.files.artifact import digest
from mdm.files.atomic import write_json
from mdm.report import collect
from mdm.report.page.page import Sources
from mdm.study.runs import Ablation, Call, Claim, Emm, Evaluation, Run, Stage

LITERATURE = Path(__file__).resolve().parents[2] / "config" / "literature.csv"
HOSTILE = '<script>window.hacked = 1</script> & "two" red circles <img src=x onerror="window.hacked=2">'
# factor: (guessing, the judge on real pictures)
FACTORS = {
    "colour": (0.13, 0.99), "shape": (0.13, 0.97), "binding": (0.05, 0.95), "count": (0.26, 0.93),
    "relation": (0.2, 0.9),
}  # fmt: skip
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRESSIVE = ((16,), (16, 64), (16, 64, 256))
# name: (Fréchet distance, alignment, CLIP score, seeds, stages; None: those of base)
INVENTED = {
    "base": (18.2, 0.71, 31.2, (0, 1, 2), PROGRESSIVE),
    "no-progressive": (24.9, 0.58, 29.4, (0, 1, 2), PROGRESSIVE[2:]),
    "single-scale": (31.7, 0.44, 27.9, (0, 1, 2), ((256,),)),
    "two-levels": (19.0, 0.69, 31.0, (0,), ((16,), (16, 256))),
    "guidance=1": (21.4, 0.55, 28.8, (0,), None),
    "guidance=2": (18.5, 0.66, 30.4, (0, 1, 2), None),
    "guidance=6": (22.3, 0.75, 32.6, (0, 1, 2), None),
    "shared-noise": (20.0, 0.69, 30.9, (0,), PROGRESSIVE),
}
ABSENT = ("shared-noise",)
NUM_IMAGES, NUM_DRAWN, GROUPS_OF_CAPTIONS = 256, 12, 20
BUDGET_IMAGES = 96_000
SPEED = {16: 900.0, 64: 210.0, 256: 48.0}
PARAMETERS = {16: 5_900_000, 64: 6_300_000, 256: 6_450_000}


@dataclass(frozen=True)
class Protocol:
    description: str
    num_images: int
    judge: str | None = "judge"
    clip: str | None = "clip"
    inception: str | None = None
    standard: str | None = None
    resize: str = "clean"


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
    call: Call = field(default_factory=lambda: Call("fixture", {}))
    emm: dict[str, Emm] = field(default_factory=dict)
    theory: str | None = None
    reaches: list[str] = field(default_factory=list)


ABLATIONS = (
    ("no-progressive", "Without progressive training", "training",
     "Does starting from the low resolutions help when the total number of pictures is equal?"),
    ("shared-noise", "One noise for all levels", "training", "Should the levels see the same noise?"),
    ("single-scale", "Without nesting", "nesting", "Is a plain U-Net at the target resolution as good?"),
    ("two-levels", "Two levels instead of three", "nesting", "Does the middle level pay?"),
    ("guidance", "Guidance weight", "sampling", "Where does guidance trade variety for agreement?"),
)  # fmt: skip
GROUPS = {"training": "How it is trained", "nesting": "How it is nested", "sampling": "How it is sampled"}
CHANGES = {
    "no-progressive": {"stages": ("3 stages", "1 stage")},
    "shared-noise": {"diffusion.shared_noise": (False, True)},
    "single-scale": {"stages.full.resolutions": ([16, 64, 256], [256])},
    "two-levels": {"stages.full.resolutions": ([16, 64, 256], [16, 256])},
}
# One claim for each verdict, and one with two comparisons.
CLAIMS = (
    Claim("progressive", "Progressive training gives better pictures than training from scratch.",
          "section 4.3, figure 4", 'fd_judge["base"] < fd_judge["no-progressive"]', "zero-shot"),
    Claim("nesting", "The nested network beats a plain model of equal budget.", "section 4.3",
          'fd_judge["single-scale"] - fd_judge["base"] > 5'
          ' and alignment["base"] > alignment["single-scale"]', "zero-shot", "own"),
    Claim("levels", "Three levels converge better than two.", "figure 8b",
          'fd_judge["base"] < fd_judge["two-levels"]', "zero-shot"),
    Claim("guidance", "The strongest guidance has the lowest Fréchet distance.", "not in the paper",
          'fd_judge["guidance=6"] < fd_judge["guidance=2"]', "zero-shot"),
    Claim("noise", "Sharing the noise of all levels is worse.", "not in the paper",
          'fd_judge["base"] < fd_judge["shared-noise"]', "zero-shot"),
    Claim("weaker", "Half the guidance has a lower Fréchet distance.", "not in the paper",
          'fd_judge["guidance=2"] < fd_judge["base"]', "zero-shot"),
    Claim("number", "The Fréchet distance is below that of the paper.", "table 1",
          'fd_judge["base"] < 35.5', "zero-shot", "coco-30k-one/tf1"),
)  # fmt: skip
ABSTRACT = """Every number on this page is invented: the page is a test of the report.

A real study says here what was asked, what was trained, and on what."""


def make_study(title: str = "Matryoshka Diffusion, rebuilt small (fixture)", **instruments: str | None) -> Study:
    """The study, without any file; `judge=None` measures without a judge."""
    ablations = {
        n: Ablation(n, title, question, group, "base", {}, {}, [0], []) for n, title, group, question in ABLATIONS
    }
    question = "Does one network that denoises several resolutions at once train better than one at full size?"
    runs = [run for name in INVENTED for run in _runs(name)]
    protocols = {"zero-shot": Protocol("captions of pairs that training never showed", NUM_IMAGES, **instruments)}
    claims = {claim.name: claim for claim in CLAIMS}
    return Study("fixture", title, question, ABSTRACT, "f1c2d3e4a5b6", runs, ablations, GROUPS, protocols, claims)


def _runs(name: str) -> list[Run]:
    *_, seeds, stages = INVENTED[name]
    ablation, _, value = name.partition("=")
    titles = {a[0]: a[1] for a in ABLATIONS}
    label = titles.get(ablation, name) + (f" = {value}" if value else "")
    diff = {"sample.guidance": (4, float(value))} if value else CHANGES.get(name, {})
    return [
        Run(name, seed, label, None if name == "base" else ablation, float(value) if value else None, diff,
            _stages(name if stages else "base", seed), [_evaluation(name, seed)])
        for seed in seeds
    ]  # fmt: skip


def _stages(name: str, seed: int) -> list[Stage]:
    levels = INVENTED[name][-1]
    made = []
    for index, resolutions in enumerate(levels):
        shared = levels == PROGRESSIVE and index < 2  # the first two stages belong to every progressive run
        recipe = {"levels": resolutions, "seed": seed, "run": "" if shared else name}
        artifact = f"train/r{resolutions[-1]}-{digest(recipe)}"
        made.append(Stage(f"r{resolutions[-1]}", artifact, resolutions, BUDGET_IMAGES // len(levels)))
    return made


def _evaluation(name: str, seed: int) -> Evaluation:
    key = digest([name, seed])
    samples, features, scores = (f"{kind}/zero-shot-{key}" for kind in ("samples", "features", "scores"))
    return Evaluation("zero-shot", samples, features, "features/zero-shot-real", scores)


def write_tree(study: Study, root: Path, absent: tuple[str, ...] = ABSENT, captions: tuple[str, ...] = ()) -> Sources:
    """Write the results of all runs but `absent`, collect them, and return what a report needs."""
    results = root / "results"
    retrieval = {"metric": "clip_retrieval_100", "value": 0.62, "low": 0.58, "high": 0.66, "n": 512}
    write_json(results / "clip/clip-bbbb/manifest.json", {"metrics": [retrieval]})
    for run in study.runs:
        if run.name in absent:
            continue
        for index, stage in enumerate(run.stages):
            _write_stage(results / stage.artifact, run, index)
        _write_samples(results / run.evaluations[0].samples, run, captions)
        _write_scores(results, run, study.protocols["zero-shot"])
    sources = Sources(results, results / "metrics.csv", results / "missing.json", LITERATURE)
    collect.write(study, results, sources.metrics_csv, sources.missing_json)
    return sources


def _write_stage(folder: Path, run: Run, index: int) -> None:
    stage, parent = run.stages[index], run.stages[index - 1].artifact if index else None
    luck, speed = random.Random(stage.artifact), SPEED[stage.resolutions[-1]]
    lines = []
    for step in range(1, 61):
        images = stage.num_images * step // 60
        losses = {str(r): _loss(run, index, r, step) * (0.97 + 0.06 * luck.random()) for r in stage.resolutions}
        line = {"images": images, "seconds": round(images / speed, 2), "loss": sum(losses.values()),
                "losses": losses, "images_per_second": speed * (0.97 + 0.06 * luck.random())}  # fmt: skip
        lines.append(line | ({"validation": {r: v * 1.04 for r, v in losses.items()}} if step % 4 == 0 else {}))
    levels = [{"resolution": 16, "channels": [32], "resnets": [1], "middle": True}]
    recipe = StageRecipe(
        seed=run.seed, model={"levels": levels}, num_images=stage.num_images, diffusion={}, start_from="ema",
        train={"batch_images": 8, "learning_rate": 1e-3, "ema_halflife_images": 100}, parent=parent, class_label=None,
        data="data/scenes-train-5ca1ab1e0000", text=None, validation=None, validation_text=None,
    ).plain()  # fmt: skip
    write_json(folder / "recipe.json", recipe)
    write_json(folder / "manifest.json", {
        "recipe": recipe, "images": stage.num_images, "seconds": round(stage.num_images / speed, 1),
        "parameters": PARAMETERS[stage.resolutions[-1]], "device": "cpu (2 cores)",
        "git": {"commit": COMMIT, "dirty": False}, "packages": {}, "parent": parent,
    })  # fmt: skip
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _loss(run: Run, index: int, resolution: int, step: int) -> float:
    """Falls with the pictures seen since the level was added, over all stages."""
    before = sum(stage.num_images for stage in run.stages[:index] if resolution in stage.resolutions)
    share = (before + run.stages[index].num_images * step / 60) / BUDGET_IMAGES
    return INVENTED[run.name][0] / 6 * (0.05 + 0.4 * math.exp(-5 * share)) / resolution**0.5


def _write_scores(results: Path, run: Run, protocol: Protocol) -> None:
    extractors = {"judge": "judge/judge-aaaa", "clip": "clip/clip-bbbb"}
    extractors = {name: made for name, made in extractors.items() if getattr(protocol, name)}
    evaluation, luck = run.evaluations[0], random.Random(f"{run.name} {run.seed}")
    distance, agreement, clip, *_ = INVENTED[run.name]
    rows = [
        ("fd_judge", distance + luck.uniform(-0.4, 0.4), 1.1), ("fd_judge_floor", 3.1, 0.4),
        ("kid_judge", distance / 400, 0.003), ("clip_score", clip + luck.uniform(-0.1, 0.1), 0.4),
        ("clip_score_real", 34.0, 0.3), ("alignment", agreement, 0.03), ("alignment_chance", 0.02, 0.01),
        ("alignment_real", 0.84, 0.03),
    ]  # fmt: skip
    for index, (factor, (chance, real)) in enumerate(FACTORS.items()):
        value = min(0.94, agreement + 0.16 - 0.07 * index + luck.uniform(-0.02, 0.02))
        names = {"": value, "_chance": chance, "_real": real}
        rows += [(f"alignment_{factor}{end}", share, min(0.04, 1 - share)) for end, share in names.items()]
    rows = [row for row in rows if ("clip" if row[0].startswith("clip") else "judge") in extractors]
    metrics = [_score(run, *row) for row in rows]
    recorded = {"description": "256 pictures for the first captions of data/scenes-new-77, against 512 real ones"}
    features = FeaturesRecipe(images=evaluation.samples, num_images=NUM_IMAGES, resolution=256, extractors=extractors)
    write_json(results / evaluation.features / "recipe.json", features.plain())
    write_json(results / evaluation.scores / "scores.json", {"metrics": metrics, "protocol": recorded})


def _score(run: Run, name: str, value: float, half: float) -> dict[str, object]:
    """A row of scores; captions that are hard are so for all runs."""
    row = {"metric": name, "value": value, "low": value - half, "high": value + half, "n": NUM_IMAGES}
    if name.endswith("_chance"):
        return row
    shared, own = random.Random(name), random.Random(f"{name} {run.name} {run.seed}")
    parts = [shared.gauss(0, 1) + 0.3 * own.gauss(0, 1) for _ in range(GROUPS_OF_CAPTIONS)]
    # 2.093 times the error that the jackknife finds in these is `half`.
    size = half / 2.093 * GROUPS_OF_CAPTIONS**0.5 / (GROUPS_OF_CAPTIONS - 1) / statistics.stdev(parts)
    return row | {"without": [value + size * (part - statistics.fmean(parts)) for part in parts]}


def _write_samples(folder: Path, run: Run, captions: tuple[str, ...]) -> None:
    sample = {"sampler": "ddim", "steps": 50, "guidance": run.value if run.value is not None else 4.0}
    recipe = SamplesRecipe(
        train=run.stages[-1].artifact, sample=sample, seed=0, num_images=NUM_IMAGES, prompts="data/scenes-new-77",
        text=None,
    )  # fmt: skip
    write_json(folder / "recipe.json", recipe.plain())
    cost = {"seconds": 93.0, "num_images": NUM_IMAGES, "network_evaluations_per_image": 100.0}
    write_json(folder / "manifest.json", cost)
    said, drawn = [], []
    for index in range(NUM_DRAWN):
        luck = random.Random(index)  # the same prompt for every run
        hue, kind = luck.randrange(8) / 8, luck.choice(("circle", "square", "triangle"))
        said.append(f"{luck.choice(('two', 'three', 'four'))} {kind}s in hue {hue:.2f} on a quiet background")
        drawn.append(_picture(hue, kind, luck, random.Random(f"{run.name} {index}"), INVENTED[run.name][1]))
    said[: len(captions)] = captions
    arrays = {f"images_{r}": np.stack([_reduced(p, r) for p in drawn]) for r in run.stages[-1].resolutions}
    labels = np.array(["{}"] * NUM_DRAWN)
    np.savez(folder / "images.npz", ids=np.arange(NUM_DRAWN), captions=np.array(said), labels=labels, **arrays)


def _reduced(picture: Image.Image, resolution: int) -> np.ndarray:
    return np.asarray(picture.resize((resolution, resolution), Image.Resampling.BOX))


def _colour(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))


def _picture(hue: float, kind: str, luck: random.Random, noise: random.Random, agreement: float) -> Image.Image:
    picture = Image.new("RGB", (256, 256), _colour(luck.random(), 0.12, 0.92))
    pen = ImageDraw.Draw(picture)
    for _ in range(luck.choice((2, 3, 4))):
        x, y, r = luck.randrange(50, 206), luck.randrange(50, 206), luck.randrange(22, 46)
        fill = _colour(hue if noise.random() < agreement + 0.2 else noise.random(), 0.75, 0.8)
        box = (x - r, y - r, x + r, y + r)
        if kind == "circle":
            pen.ellipse(box, fill=fill)
        elif kind == "square":
            pen.rectangle(box, fill=fill)
        else:
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    return picture
