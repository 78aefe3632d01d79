"""Metrics that a protocol asks for by name: those of neighbours in feature space, and the Inception Score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mdm.config.instruments import ScoreSettings
from mdm.evaluate.frechet import GaussianStatistics, Reference, frechet_estimate
from mdm.evaluate.inception_score import inception_score
from mdm.evaluate.intervals import Estimate, jackknife, metric
from mdm.evaluate.manifold import density_coverage, expected_coverage, precision_recall
from mdm.evaluate.metric_names import ASKED, DISTANCES, INCEPTION_SCORE
from mdm.evaluate.smallest import too_few
from mdm.files.atomic import read_json

Rows = Iterator[dict[str, Any]]
LOGITS = "inception.logits"


class Side:
    """What was seen in one set of pictures, and what its manifest says of them."""

    per_prompt = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = read_json(folder / "manifest.json")
        self.arrays = load_file(folder / "features.safetensors")

    def prompt_after_prompt(self, per_prompt: int) -> None:
        """Let pictures of one prompt stand apart: all prompts once, then all of them again.

        Groups of intervals take every twentieth row, and the number of prompts is a multiple of that: so every group
        holds whole prompts, whose pictures are not independent.
        """
        count, self.per_prompt = self.manifest["num_images"], per_prompt
        order = np.arange(count).reshape(-1, per_prompt).T.ravel()
        self.arrays = {key: array[order] if len(array) == count else array for key, array in self.arrays.items()}

    def statistics(self, name: str) -> GaussianStatistics | None:
        """Those of all pictures, where the features of some were not kept."""
        if self.manifest["num_images"] <= len(self.arrays[name]):
            return None
        return GaussianStatistics.from_tensors(load_file(self._folder / "statistics.safetensors"), name)

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays prefix.key by key."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.arrays.items() if k.startswith(f"{prefix}.")}


def row(name: str, estimate: Estimate, n: int, value: float | None = None) -> dict[str, Any]:
    """One row of scores.json, with the jackknife's interval around the value (or around another one of its bias)."""
    value, half = estimate.value if value is None else value, estimate.half_width
    return metric(name, value, value - half, value + half, n, estimate.without, estimate.without_real)


# Pictures for each dimension in which real features vary, from which on the jackknife knows the bias of a Fréchet
# distance: with 2 its interval covers 62 % of simulated truths, with 4 91 %, with 6 97 %.
ENOUGH = 6


def frechet_rows(name: str, seen: np.ndarray, reference: Reference, end: str) -> Rows:
    """The plain distance, as papers give it, and the one without the bias of the numbers of pictures on both sides."""
    estimate, fewest = frechet_estimate(seen, reference), min(len(seen), reference.count)
    yield row(f"{name}{end}", estimate, len(seen))
    if fewest > seen.shape[1] and fewest >= ENOUGH * reference.dimension:
        yield row(f"{name}_unbiased{end}", estimate, len(seen), estimate.unbiased)


def measured_besides(
    asked: Sequence[str], generated: Side, reference: Side, floor: Side | None, settings: ScoreSettings
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of the metrics asked for, and those that have no number here: each with the reason."""
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for group, families in ASKED.items():
        for network in DISTANCES if group in asked else ():
            if network not in generated.arrays:
                continue
            drawn, real = _both(group, generated, reference.arrays[network], network, settings)
            names = [f"{family}_{network}" for family in families]
            if why := too_few(names[0], len(drawn), len(real)):
                left_out += [{"metric": name, "why": why} for name in names]
                continue
            others = floor.arrays[network] if floor else None
            rows += _among_each_other(group, names, drawn, real, others, settings)
    if INCEPTION_SCORE in asked:
        for name, side in ((INCEPTION_SCORE, generated), (f"{INCEPTION_SCORE}_real", reference)):
            found = _sureness(name, side)
            (rows if "value" in found else left_out).append(found)
    return rows, left_out


def spread(features: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, from everywhere in their order."""
    return features[np.linspace(0, len(features) - 1, min(len(features), most)).astype(int)]


def _both(
    group: str, generated: Side, real: np.ndarray, network: str, settings: ScoreSettings
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The features that are compared; coverage depends on how many there are of either kind, so equally many."""
    drawn = generated.arrays[network]
    most, most_real = settings.most_drawn, settings.most_real
    if group == "density_coverage":
        most = most_real = min(len(drawn), len(real), most, most_real)
    if generated.per_prompt > 1:  # the first rows: a choice among all would tear pictures of one prompt apart
        return drawn[:most], spread(real, most_real)
    return spread(drawn, most), spread(real, most_real)


def _among_each_other(
    group: str, names: Sequence[str], drawn: np.ndarray, real: np.ndarray, others: np.ndarray | None,
    settings: ScoreSettings,
) -> Rows:  # fmt: skip
    """Both metrics of a group; what other real pictures get, as many; and what as many can be expected to get."""
    if group == "density_coverage":
        same, nearest, measure = len(drawn), settings.coverage_nearest, density_coverage
        for name, value in zip(names, (1.0, expected_coverage(same, nearest)), strict=True):
            yield metric(f"{name}_real", value, value, value, same)
    else:
        nearest, measure = settings.precision_nearest, precision_recall
    for side, end in ((drawn, ""), (others, "_floor")):
        if side is None or len(side) < len(drawn):
            continue
        for name, estimate in zip(names, measure(spread(side, len(drawn)), real, nearest), strict=True):
            yield row(f"{name}{end}", estimate, len(drawn))


def _sureness(name: str, side: Side) -> dict[str, Any]:
    """The Inception Score of one side, or why it has none."""
    if LOGITS not in side.arrays:
        return {"metric": name, "why": "the file of Inception weights has no classifier (its last layer, `output`)"}
    logits = side.arrays[LOGITS]
    if why := too_few(name, len(logits)):
        return {"metric": name, "why": why}
    return row(name, jackknife(lambda places: inception_score(logits[places]), len(logits)), len(logits))


def said_besides(asked: Sequence[str], generated: Side, reference: Side, settings: ScoreSettings) -> str:
    """What else the numbers depend on: pictures of a caption, real pictures that were kept, neighbours and limits."""
    parts, kept = [], min((len(array) for array in reference.arrays.values()), default=0)
    if generated.per_prompt > 1:
        parts.append(f"{generated.per_prompt} pictures of each caption")
    if kept < reference.manifest["num_images"]:
        parts.append(f"of the real pictures all count for Fréchet distances and the first {kept} for all else")
    nearest = {"precision_recall": settings.precision_nearest, "density_coverage": settings.coverage_nearest}
    for group in sorted(nearest.keys() & set(asked)):
        words = " and ".join(ASKED[group])
        parts.append(
            f"{words} by the {nearest[group]} nearest of at most {settings.most_drawn} drawn and "
            f"{settings.most_real} real pictures"
        )
    return "".join(f"; {part}" for part in parts)
