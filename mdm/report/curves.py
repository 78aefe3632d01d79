"""Curves over training: what the snapshots of a run score, against the images, the arithmetic and the seconds before.

`curves.csv` has a row for each number of each training; a line of a figure is their mean over trainings.
"""

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdm.report import audited
from mdm.report.collect import Artifacts, digest_of, write_csv
from mdm.report.metrics import AUDIT, EVALUATION, describe, position
from mdm.report.quantity import over_trainings
from mdm.study.claims import COSTS
from mdm.study.runs import Point, Run
from mdm.study.study import Study


@dataclass(frozen=True)
class Row:
    """One number of one training at one moment; the fields are the columns of curves.csv."""

    run: str
    stage: str
    seed: int
    metric: str
    value: float
    low: float | None
    high: float | None
    protocol: str
    images: int
    gigaflops: float | None
    seconds: float
    digest: str


@dataclass(frozen=True)
class Moment:
    """A point of a line: means over trainings, and half of the 95 % interval over them where there are several."""

    images: float
    gigaflops: float
    seconds: float
    value: float
    half: float | None
    trainings: int


def collect(study: Study, artifacts: Artifacts) -> Iterator[Row]:
    """Yield every number along training that is there so far."""
    for run in study.runs:
        audits = {(audit.stage, audit.images): audit.artifact for audit in run.audits}
        for point in run.points:
            cost, audit = spent(artifacts, run, point), audits.get((point.stage, point.images))
            for ref, name in (point.evaluation.scores, "scores.json"), (audit, audited.FILE):
                scores = artifacts.json(ref, name)
                for score in scores["metrics"] if ref and scores and cost else ():
                    if score["value"] is not None:
                        yield Row(
                            run.name, point.stage, run.seed, score["metric"], score["value"], score.get("low"),
                            score.get("high"), point.evaluation.protocol, **cost, digest=digest_of(ref),
                        )  # fmt: skip


def spent(artifacts: Artifacts, run: Run, point: Point) -> dict[str, float | None] | None:
    """What training had cost until then, with all stages before; None while a part of it is not known."""
    names = [stage.name for stage in run.stages]
    before = [stage.artifact for stage in run.stages[: names.index(point.stage)]]
    manifests = [artifacts.json(ref, "manifest.json") for ref in (*before, point.weights)]
    if not all(manifests):
        return None
    # Stages of an older commit did not count their arithmetic.
    images, gigaflops, seconds = (sum(m.get(cost, math.nan) for m in manifests) for cost in COSTS)
    return {
        "images": images, "gigaflops": None if math.isnan(gigaflops) else round(gigaflops, 3),
        "seconds": round(seconds, 3),
    }  # fmt: skip


def metrics(rows: Iterable[Row]) -> list[str]:
    """Name what a figure shows of these rows, in the order of columns; a distance without bias goes before a biased."""
    names = {row.metric for row in rows}
    shown = [n for n in names if describe(n).main and describe(n).kind in (EVALUATION, AUDIT)]
    main = [n for n in shown if f"{n}_unbiased" not in names]
    return sorted(main, key=position)


def line(rows: Iterable[Row], run: str, metric: str) -> list[Moment]:
    """Return the mean over trainings of a metric along a run, in the order of training."""
    moments: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if (row.run, row.metric) == (run, metric):
            moments.setdefault((row.stage, row.images), []).append(row)
    return [_moment(found) for found in sorted(moments.values(), key=lambda found: found[0].images)]


def _moment(rows: list[Row]) -> Moment:
    value, half = over_trainings([row.value for row in rows])
    gigaflops = [math.nan if row.gigaflops is None else row.gigaflops for row in rows]
    seconds = statistics.fmean(row.seconds for row in rows)
    return Moment(rows[0].images, statistics.fmean(gigaflops), seconds, value, half, len(rows))


def write(study: Study, results: Path, path: Path) -> None:
    """Write curves.csv."""
    write_csv(path, Row, collect(study, Artifacts(results)))
