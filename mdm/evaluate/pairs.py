"""Two runs that drew the same captions from the same noises, compared picture by picture.

What both share (a hard caption, an unlucky noise) cancels in the difference, so its interval is narrower than that
of two independent measurements. Only numpy, like the scores.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdm.evaluate.alignment import correct
from mdm.evaluate.frechet import Reference, resamples_for
from mdm.evaluate.intervals import NORMAL_QUANTILE, mean_with_interval, metric
from mdm.evaluate.metric_names import DISTANCES, FACTORS
from mdm.evaluate.scores import Side
from mdm.evaluate.statistics import GaussianStatistics
from mdm.files.artifact import digest
from mdm.files.atomic import read_json, write_json

VERSION, SEED = 1, 0
FILES = ("manifest.json", "features.safetensors", "statistics.safetensors")


def paired(root: Path, own: str, other: str, reference: str) -> list[dict[str, Any]] | None:
    """Rows metric, value, low, high, n of own - other, for features artifacts; None where they cannot be paired.

    Kept in results/pairs under the digest of what they are made from: a page must not bootstrap anew.
    """
    recipe = {"kind": "pairs", "version": VERSION, "seed": SEED, "own": own, "other": other, "reference": reference}
    kept = root / "pairs" / f"{digest(recipe)}.json"
    if kept.is_file():
        return read_json(kept)["metrics"]
    if not all((root / ref / name).is_file() for ref in (own, other, reference) for name in FILES):
        return None
    sides = [Side(root / ref) for ref in (own, other, reference)]
    asked = [(side.manifest["prompts"], side.manifest["num_images"]) for side in sides[:2]]
    if asked[0] != asked[1] or asked[0][0] is None:
        return None
    metrics = list(differences(*sides))
    write_json(kept, {"recipe": recipe, "metrics": metrics})
    return metrics


def differences(own: Side, other: Side, reference: Side) -> Iterator[dict[str, Any]]:
    """own - other for every score that is a function of single pictures or of their features."""
    for name, (frechet, _) in DISTANCES.items():
        if name in own.arrays and name in other.arrays:
            prepared, pair = Reference.of(reference.statistics(name)), (own.arrays[name], other.arrays[name])
            yield metric(frechet, *frechet_difference(*pair, prepared, SEED), len(pair[0]))
    if "clip.score" in own.arrays and "clip.score" in other.arrays:
        gain = own.arrays["clip.score"].astype(np.float64) - other.arrays["clip.score"]
        yield metric("clip_score", *mean_with_interval(gain), len(gain))
    yield from _alignments(own, other)


def _alignments(own: Side, other: Side) -> Iterator[dict[str, Any]]:
    answers, labels = [side.group("judge") for side in (own, other)], own.group("labels")
    for factor in (None, *FACTORS) if all(answers) else ():
        outcomes = [correct(read, labels, factor) for read in answers]
        if len(outcomes[0]):
            name = f"alignment_{factor}" if factor else "alignment"
            yield metric(name, *share_difference(*outcomes), len(outcomes[0]))


def share_difference(own: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Difference of two shares over the same pictures, bool [n] each, with the interval of Agresti and Min (2005).

    Half a picture is added to each cell of the 2 x 2 table, so that runs which never disagree are not called equal
    with certainty.
    """
    n, only_own, only_other = len(own), int((own & ~other).sum()), int((other & ~own).sum())
    value, size = (only_own - only_other) / n, n + 2
    centre = (only_own - only_other) / size
    half = NORMAL_QUANTILE * math.sqrt((only_own + only_other + 1) / size - centre**2) / math.sqrt(size)
    return value, min(value, max(-1.0, centre - half)), max(value, min(1.0, centre + half))


def frechet_difference(
    own: np.ndarray, other: np.ndarray, reference: Reference, seed: int
) -> tuple[float, float, float]:
    """Difference of two Fréchet distances from one reference; features [N, D] of the same N captions.

    Both are resampled by the same draws. As for a single distance, the spread of the resamples is used and not
    their level.
    """
    own, other = own.astype(np.float64), other.astype(np.float64)

    def gap(rows: np.ndarray) -> float:
        first, second = (reference.distance(GaussianStatistics.of(side[rows])) for side in (own, other))
        return first - second

    count, width = own.shape
    generator = np.random.default_rng([seed, count])
    value = gap(np.arange(count))
    gaps = [gap(generator.integers(0, count, count)) for _ in range(resamples_for(width))]
    low, high = np.quantile(gaps, [0.025, 0.975]) - np.mean(gaps)
    return value, min(value, value + low), max(value, value + high)
