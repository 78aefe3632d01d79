"""The guidance curve: agreement with the caption against distance from real pictures."""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.report.metrics import describe, shown
from mdm.report.quantity import Quantity, alone, measured
from mdm.study.products import has_agreement, has_distance
from mdm.study.study import Study

WEIGHT = "Guidance weight"


@dataclass(frozen=True)
class Point:
    """What one network scored at one guidance weight; x is that weight itself if only one metric is measured."""

    weight: float
    x: Quantity
    y: Quantity


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """Agreement against Fréchet distance, or what is measured of them against the weight; a line per network."""
    protocol = evidence.protocol()
    axes = metric_axes(evidence, protocol)
    found = points_by_network(evidence, artifacts, protocol, axes) if axes else {}
    if not found:
        return style.note("Nothing to draw yet: no network has been scored at two guidance weights.")
    drawn, axis = plt.subplots(figsize=(6.4, 4.2))
    for index, (label, points) in enumerate(found.items()):
        xs, ys = ([getattr(p, side) for p in points] for side in ("x", "y"))
        words = f"{label}, guidance as labelled" if axes[0] else label
        _errorbar(axis, xs, ys, words, style.series(index))
        for point in points if axes[0] else []:
            axis.annotate(
                f"{point.weight:g}", (point.x.value, point.y.value), xytext=(6, 5), textcoords="offset points"
            )
    axis.set_xlabel(describe(axes[0]).heading if axes[0] else WEIGHT)
    axis.set_ylabel(describe(axes[1]).heading)
    style.legend_below(drawn, [axis])
    return drawn


def caption(study: Study) -> str:
    """What the figure shows, by what the study measures."""
    against = "Agreement with the caption against the Fréchet distance, both as our small instruments see them; each "
    point = "point is one guidance weight (its number) of one trained network, bars are 95 % intervals. "
    alone = " at each guidance weight, as our small instruments see it; a line per trained network, bars are 95 % "
    limit = (
        "More guidance need not mean more agreement: beyond some weight pictures leave what the "
        "instruments were trained on, and the score may fall again."
    )
    if not has_agreement(study):
        return f"The Fréchet distance{alone}intervals. Lower is better."
    if not has_distance(study):
        return f"Agreement with the caption{alone}intervals. Higher is better. {limit}"
    return f"{against}{point}Up and to the left is better. {limit}"


def summary(evidence: Evidence, artifacts: Artifacts) -> str:
    """What the points say, in a sentence for each network: the score may peak between the weights."""
    protocol = evidence.protocol()
    axes = metric_axes(evidence, protocol)
    found = points_by_network(evidence, artifacts, protocol, axes) if axes else {}
    sentences = []
    for label, points in found.items():
        values = ", ".join(f"{p.y.text()} at {p.weight:g}" for p in points)
        parts = [f"{label}: {describe(axes[1]).title} {values}; {_best(axes[1], points)}"]
        if axes[0]:
            lowest = min(points, key=lambda p: p.x.value)
            parts.append(f"{describe(axes[0]).title} lowest at {lowest.weight:g}")
        sentences.append(f"{', '.join(parts)}.")
    return " ".join(sentences)


def _best(metric: str, points: list[Point]) -> str:
    """At which weight the metric is best."""
    ordered = sorted(points, key=lambda p: p.y.value)
    unsure = " (but the intervals of all overlap)" if ordered[-1].y.low <= ordered[0].y.high else ""
    if describe(metric).better == "lower":
        return f"lowest at weight {ordered[0].weight:g}{unsure}"
    return f"highest at weight {ordered[-1].weight:g}{unsure}"


def _errorbar(axis: Axes, xs: list[Quantity], ys: list[Quantity], label: str, look: dict[str, Any]) -> None:
    bars = [[[q.below for q in side], [q.above for q in side]] for side in (xs, ys)]
    axis.errorbar([q.value for q in xs], [q.value for q in ys], xerr=bars[0], yerr=bars[1], label=label,
                  elinewidth=0.9, capsize=2, **look)  # fmt: skip


def metric_axes(evidence: Evidence, protocol: str | None) -> tuple[str | None, str] | None:
    """A Fréchet distance and a CLIP score (or, without one, the alignment); None and the other if one is missing."""
    names = evidence.metrics(protocol)
    distance = next((n for n in names if n.startswith(("fd", "fid"))), None)
    agreement = next((n for n in names if n == "clip_score" or n.startswith("clip_score_")), None)
    agreement = agreement or next((n for n in names if n.startswith("alignment")), None)
    if distance and agreement:
        return distance, agreement
    alone = agreement or distance
    return (None, alone) if alone else None


def points_by_network(
    evidence: Evidence, artifacts: Artifacts, protocol: str | None, axes: tuple[str | None, str]
) -> dict[str, list[Point]]:
    """Points by network (named after its first run), for networks scored at two or more weights."""
    found: dict[str, dict[float, Point]] = {}
    names: dict[str, str] = {}
    for name in evidence.run_names:
        run = evidence.runs[name]
        weight = artifacts.guidance(run, protocol)
        if weight is None:
            continue
        x, y = (
            shown(m, evidence.quantity(m, name, protocol)) if m else alone(measured(weight, None, None)) for m in axes
        )
        if x is None or y is None:
            continue
        network = run.stages[-1].artifact
        names.setdefault(network, name)
        found.setdefault(network, {}).setdefault(weight, Point(weight, x, y))
    return {names[network]: [points[w] for w in sorted(points)] for network, points in found.items() if len(points) > 1}
