"""From features to metrics, each with an interval. Only numpy: seconds, not the start-up of torch, decide."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mdm.config.instruments import ScoreSettings
from mdm.config.recipe import ScoresRecipe
from mdm.evaluate.alignment import alignment
from mdm.evaluate.frechet import frechet_floor, frechet_with_interval
from mdm.evaluate.intervals import mean_with_interval, metric
from mdm.evaluate.kid import kernel_distance
from mdm.evaluate.metric_names import DISTANCES
from mdm.evaluate.protocol import Protocol
from mdm.evaluate.statistics import GaussianStatistics
from mdm.files.artifact import Making
from mdm.files.atomic import read_json, write_json


class Side:
    """One features artifact: arrays, statistics and manifest."""

    def __init__(self, folder: Path) -> None:
        self.manifest = read_json(folder / "manifest.json")
        self.arrays = load_file(folder / "features.safetensors")
        self._statistics = load_file(folder / "statistics.safetensors")

    def statistics(self, name: str) -> GaussianStatistics:
        return GaussianStatistics.from_tensors(self._statistics, name)

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays prefix.key by key."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.arrays.items() if k.startswith(f"{prefix}.")}


def score(recipe_path: str | Path) -> None:
    """Write scores.json and manifest.json of a scores recipe."""
    making = Making(recipe_path, ScoresRecipe)
    recipe, settings = making.recipe, making.recipe.settings
    generated, reference = (Side(making.root / features) for features in (recipe.features, recipe.reference))
    protocol = Protocol.between(generated.manifest, reference.manifest)
    metrics = [row for part in PARTS for row in part(generated, reference, settings)]
    write_json(making.folder / "scores.json", {"metrics": metrics, "protocol": protocol.as_json()})
    for row in metrics:
        print("{metric:28} {value:10.4f}  [{low:.4f}, {high:.4f}]  n = {n}".format(**row))
    making.finish({"protocol": protocol.describe()})


def distances(generated: Side, reference: Side, settings: ScoreSettings) -> Iterator[dict[str, Any]]:
    """Fréchet distance, its floor on real pictures, and kernel distance, in every feature space."""
    for name, (frechet, kernel) in DISTANCES.items():
        if name not in generated.arrays:
            continue
        seen, real = generated.arrays[name], reference.arrays[name]
        found = frechet_with_interval(seen, reference.statistics(name), settings.seed, settings.frechet_resamples)
        yield metric(frechet, *found, len(seen))
        floor = frechet_floor(real, len(seen), settings.seed, settings.floor_splits)
        yield metric(f"{frechet}_floor", *floor, min(len(real) // 2, len(seen)))
        yield metric(kernel, *kernel_distance(seen, real, settings.seed), len(seen))


def captions(generated: Side, reference: Side, _settings: ScoreSettings) -> Iterator[dict[str, Any]]:
    """CLIP score of the pictures, and of real pictures with their own captions."""
    for name, side in (("clip_score", generated), ("clip_score_real", reference)):
        if "clip.score" in side.arrays:
            values = side.arrays["clip.score"]
            yield metric(name, *mean_with_interval(values), len(values))


def answers(generated: Side, _reference: Side, settings: ScoreSettings) -> Iterator[dict[str, Any]]:
    """What the judge reads against what the captions say, beside guessing and the judge's own accuracy."""
    read = generated.group("judge")
    if not read:
        return
    on_real: Mapping[str, dict[str, Any]] = {row["metric"]: row for row in generated.manifest["judge_on_real"]}
    for row in alignment(read, generated.group("labels"), settings.chance_shifts):
        yield row
        if row["metric"] in on_real and not row["metric"].endswith("_chance"):
            yield {**on_real[row["metric"]], "metric": f"{row['metric']}_real"}


PARTS = (distances, captions, answers)
