"""When copying begins along a training, and when its pictures are as good as they get: pictures shown until then.

Copying begins where half of what is drawn are copies; pictures are good where their distance is within a tenth of the
best that the training ever reaches. Between two snapshots a curve is taken for a line over the logarithm of the
pictures shown. Nothing is guessed outside: what is never reached is infinite, what the first snapshot has already is
minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mdm.evaluate.intervals import Estimate
from mdm.evaluate.metric_names import COPYING_ONSET, DISTANCES, at_level, quality_onset
from mdm.report.crossing import first_reached
from mdm.study.runs import Run

HALF, TENTH = 0.5, math.log(1.1)
Read = Callable[[str | None, str], Any | None]  # artifact and file -> its content, None where it is not there


def copying(images: Sequence[float], shares: Sequence[float]) -> float:
    """Where half of what is drawn are copies."""
    return first_reached(list(zip(images, shares, strict=True)), HALF)


def quality(images: Sequence[float], distances: Sequence[float]) -> float:
    """Where a distance is within a tenth of its smallest."""
    falling = [-math.log(max(distance, 1e-12)) for distance in distances]
    return first_reached(list(zip(images, falling, strict=True)), max(falling) - TENTH)


def parts(run: Run, read: Read) -> Iterator[tuple[str, dict[str, Any]]]:
    """The onsets of a run whose curves are whole: an artifact that the last of each belongs to, and its rows."""
    if not run.points:
        return
    audits = [(_shown(run, a.stage, a.images), read(a.artifact, "audit.json")) for a in run.audits]
    if audits and all(found for _, found in audits):
        yield run.audits[-1].artifact, {"metrics": list(_rows(audits, _copied, copying))}
    measured = [p for p in run.points if p.evaluation.scores]
    scores = [(_shown(run, p.stage, p.images), read(p.evaluation.scores, "scores.json")) for p in measured]
    if scores and all(found for _, found in scores):
        yield str(measured[-1].evaluation.scores), {"metrics": list(_rows(scores, _distance, quality))}


def _copied(metric: str) -> str | None:
    family, _, side = metric.rpartition("_")
    return at_level(COPYING_ONSET, side) if family == "copied" and side.isdecimal() else None


def _distance(metric: str) -> str | None:
    return next((quality_onset(network) for network, names in DISTANCES.items() if metric == names[0]), None)


def _shown(run: Run, stage: str, images: int) -> int:
    """Pictures shown up to a moment, those of earlier stages among them."""
    names = [one.name for one in run.stages]
    return sum(one.num_images for one in run.stages[: names.index(stage)]) + images


def _rows(
    moments: Sequence[tuple[int, Any]], named: Callable[[str], str | None],
    onset: Callable[[Sequence[float], Sequence[float]], float],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """An onset for each metric that has one, with what it is without each group of drawn pictures."""
    ordered = sorted(moments, key=lambda moment: moment[0])
    images = [float(count) for count, _ in ordered]
    tables = [{row["metric"]: row for row in found["metrics"]} for _, found in ordered]
    for metric in tables[-1]:
        name, rows = named(metric), [table.get(metric) for table in tables]
        if name is None or not all(row and row["value"] is not None for row in rows):
            continue
        value = onset(images, [row["value"] for row in rows if row])
        groups = {len(row.get("without") or ()) for row in rows if row}
        count = groups.pop() if len(groups) == 1 else 0
        without = [onset(images, [row["without"][k] for row in rows if row]) for k in range(count)]
        yield {"metric": name, "value": value, **_interval(value, without), "n": rows[-1]["n"] if rows[-1] else 0}


def _interval(value: float, without: Sequence[float]) -> dict[str, Any]:
    """Student's interval over drawn pictures, where all their groups tell an onset."""
    if not without or not all(map(math.isfinite, (value, *without))):
        return {"low": None, "high": None}
    half = Estimate(value, np.array(without)).half_width
    return {"low": value - half, "high": value + half, "without": list(without)}
