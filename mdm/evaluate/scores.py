"""From features to metrics, each with an interval. Only numpy: seconds, not the start-up of torch, decide."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mdm.config.instruments import PublishedConfig, ScoreSettings
from mdm.config.recipe_measured import ScoresRecipe
from mdm.evaluate.alignment import alignment
from mdm.evaluate.clip_scores import clip_distances, consistency, video_distances
from mdm.evaluate.composition import composition
from mdm.evaluate.frechet import Reference
from mdm.evaluate.intervals import jackknife, mean_with_interval, metric, over_prompts
from mdm.evaluate.kid import kernel_estimate
from mdm.evaluate.metric_names import DISTANCES, detail
from mdm.evaluate.protocol import Protocol
from mdm.evaluate.published import published_reference, published_said
from mdm.evaluate.scores_besides import Rows, Side, frechet_rows, measured_besides, said_besides
from mdm.evaluate.scores_besides import row as _row
from mdm.evaluate.spectrum import relative_detail
from mdm.files.artifact import Making
from mdm.files.atomic import read_json, write_json


def score(recipe_path: str | Path) -> None:
    """Write scores.json and manifest.json of a scores recipe."""
    making = Making(recipe_path, ScoresRecipe)
    recipe, settings = making.recipe, making.recipe.settings
    generated, reference = (Side(making.root / features) for features in (recipe.features, recipe.reference))
    floor = Side(making.root / recipe.floor) if recipe.floor else None
    generated.prompt_after_prompt(per_prompt := _per_prompt(making.root / generated.manifest["images"]))
    protocol = Protocol.between(generated.manifest, reference.manifest)
    metrics = [row for part in PARTS for row in part(generated, reference, floor, settings)]
    if "composition" in recipe.metrics:
        metrics += compositions(generated, reference, per_prompt)
    more, left_out = measured_besides(recipe.metrics, generated, reference, floor, settings)
    metrics += more
    protocol = replace(protocol, besides=said_besides(recipe.metrics, generated, reference, settings) or None)
    if recipe.published:
        metrics += published_rows(generated, recipe.published)
        protocol = replace(protocol, published=published_said(recipe.published))
    said = {"left_out": left_out} if left_out else {}
    write_json(making.folder / "scores.json", {"metrics": metrics, "protocol": protocol.as_json(), **said})
    for row in left_out:
        print("{metric:28} {why}".format(**row))
    for row in metrics:
        print("{metric:28} {value:10.4f}  [{low:.4f}, {high:.4f}]  n = {n}".format(**row))
    making.finish({"protocol": protocol.describe()})


def distances(generated: Side, reference: Side, floor: Side | None, _: ScoreSettings) -> Rows:
    """Fréchet and kernel distance in every feature space, and what real pictures get, as many and measured alike."""
    for name, (frechet, kernel) in DISTANCES.items():
        if name not in generated.arrays:
            continue
        real = reference.arrays[name]
        everything = reference.statistics(name)
        fixed = Reference.of(everything) if everything else Reference.of_pictures(real)
        for side, end in ((generated, ""), (floor, "_floor")):
            if side is not None:
                yield from frechet_rows(frechet, side.arrays[name], fixed, end)
        yield _row(kernel, kernel_estimate(generated.arrays[name], real), len(generated.arrays[name]))


def compositions(generated: Side, reference: Side, per_prompt: int) -> Rows:
    """What the judge reads by GenEval's tasks, and what it reads in real pictures."""
    for side, times, end in ((generated, per_prompt, ""), (reference, 1, "_real")):
        yield from composition(side.group("judge"), side.group("labels"), times, end)


def _per_prompt(images: Path) -> int:
    """How many of the pictures were drawn for each caption; real ones have their own."""
    path = images / "recipe.json"
    return int(read_json(path).get("per_prompt", 1)) if path.is_file() else 1


def published_rows(generated: Side, published: PublishedConfig) -> Rows:
    """FID against statistics that others made of their reference."""
    yield from frechet_rows("fid_published", generated.arrays["inception"], published_reference(published), "")


def captions(generated: Side, reference: Side, _floor: Side | None, _: ScoreSettings) -> Rows:
    """CLIP score of the pictures, and of real pictures with their own captions."""
    for name, side in (("clip_score", generated), ("clip_score_real", reference)):
        if "clip.score" in side.arrays:
            values = side.arrays["clip.score"].astype(np.float64)
            estimate = jackknife(lambda rows, values=values: float(values[rows].mean()), len(values))
            found = metric(name, *mean_with_interval(values), len(values), estimate.without)
            yield over_prompts(found, side.per_prompt)


def answers(generated: Side, _reference: Side, _floor: Side | None, settings: ScoreSettings) -> Rows:
    """What the judge reads against what the captions say, beside guessing and the judge's own accuracy."""
    read = generated.group("judge")
    if not read:
        return
    on_real: Mapping[str, dict[str, Any]] = {row["metric"]: row for row in generated.manifest["judge_on_real"]}
    for row in alignment(read, generated.group("labels"), settings.chance_shifts, generated.per_prompt):
        yield row
        if row["metric"] in on_real and not row["metric"].endswith("_chance"):
            yield {**on_real[row["metric"]], "metric": f"{row['metric']}_real"}


def details(generated: Side, reference: Side, _floor: Side | None, _: ScoreSettings) -> Iterator[dict[str, Any]]:
    """Fine detail of every level that was drawn, as a multiple of that of real pictures of its size."""
    drawn, real = generated.group("spectrum"), reference.group("spectrum")
    for side in sorted(drawn.keys() & real.keys(), key=int, reverse=True):
        yield _row(detail(side), relative_detail(drawn[side], real[side]), len(drawn[side]))


PARTS = (distances, clip_distances, video_distances, captions, consistency, answers, details)
