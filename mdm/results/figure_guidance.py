"""The guidance curve: agreement with the caption against distance from real pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdm.results import style
from mdm.results.collect import Artifacts, Evidence
from mdm.results.metrics import describe, shown
from mdm.results.quantity import Quantity


@dataclass(frozen=True)
class Point:
    """Two scores of one network at one guidance weight."""

    weight: float
    x: Quantity
    y: Quantity


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """CLIP score against Fréchet distance; one line per trained network, a point per guidance weight."""
    protocol = evidence.protocol()
    pair = metric_pair(evidence, protocol)
    found = points_by_network(evidence, artifacts, protocol, pair) if pair else {}
    if not found:
        return style.note("Nothing to draw yet: no network has been scored at two guidance weights.")
    drawn, axis = plt.subplots(figsize=(6.4, 4.2))
    for index, (label, points) in enumerate(found.items()):
        xs, ys = ([getattr(p, side) for p in points] for side in ("x", "y"))
        _errorbar(axis, xs, ys, f"{label}, guidance as labelled", style.series(index))
        for point in points:
            axis.annotate(
                f"{point.weight:g}", (point.x.value, point.y.value), xytext=(6, 5), textcoords="offset points"
            )
    axis.set_xlabel(describe(pair[0]).heading)
    axis.set_ylabel(describe(pair[1]).heading)
    style.legend_below(drawn, [axis])
    return drawn


def summary(evidence: Evidence, artifacts: Artifacts) -> str:
    """What the points say, in a sentence for each network: the score may peak between the weights."""
    protocol = evidence.protocol()
    pair = metric_pair(evidence, protocol)
    found = points_by_network(evidence, artifacts, protocol, pair) if pair else {}
    sentences = []
    for label, points in found.items():
        best = {side: sorted(points, key=lambda p: getattr(p, side).value) for side in ("x", "y")}
        values = ", ".join(f"{p.y.text()} at {p.weight:g}" for p in points)
        unsure = best["y"][-1].y.low <= best["y"][0].y.high
        sentences.append(
            f"{label}: {describe(pair[1]).title} {values}; highest at weight {best['y'][-1].weight:g}"
            f"{' (but the intervals of all overlap)' if unsure else ''}, "
            f"{describe(pair[0]).title} lowest at {best['x'][0].weight:g}."
        )
    return " ".join(sentences)


def _errorbar(axis: Axes, xs: list[Quantity], ys: list[Quantity], label: str, look: dict[str, Any]) -> None:
    bars = [[[q.below for q in side], [q.above for q in side]] for side in (xs, ys)]
    axis.errorbar([q.value for q in xs], [q.value for q in ys], xerr=bars[0], yerr=bars[1], label=label,
                  elinewidth=0.9, capsize=2, **look)  # fmt: skip


def metric_pair(evidence: Evidence, protocol: str | None) -> tuple[str, str] | None:
    """A Fréchet distance and a CLIP score (or, without one, the alignment) to draw against each other."""
    names = evidence.metrics(protocol)
    distance = next((n for n in names if n.startswith(("fd", "fid"))), None)
    agreement = next((n for n in names if n == "clip_score" or n.startswith("clip_score_")), None)
    agreement = agreement or next((n for n in names if n.startswith("alignment")), None)
    return (distance, agreement) if distance and agreement else None


def points_by_network(
    evidence: Evidence, artifacts: Artifacts, protocol: str | None, pair: tuple[str, str]
) -> dict[str, list[Point]]:
    """Points by network (named after its first run), for networks scored at two or more weights."""
    found: dict[str, dict[float, Point]] = {}
    names: dict[str, str] = {}
    for name in evidence.run_names:
        run = evidence.runs[name]
        weight = artifacts.guidance(run, protocol)
        x, y = (shown(metric, evidence.quantity(metric, name, protocol)) for metric in pair)
        if weight is None or x is None or y is None:
            continue
        network = run.stages[-1].artifact
        names.setdefault(network, name)
        found.setdefault(network, {}).setdefault(weight, Point(weight, x, y))
    return {
        names[network]: [points[w] for w in sorted(points)]
        for network, points in found.items()
        if len(points) > 1
    }
