"""What runs score along their training: a row for each metric, against images, arithmetic and seconds.

Costs and distances that span a decade are drawn by their logarithm: curves that fall like powers are then told apart to
their ends, and "twice as soon" is as far everywhere. What real pictures get stands as a dotted line.
"""

import math
import statistics
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mdm.config.units import short
from mdm.evaluate.metric_names import FRECHET_DISTANCES, VIDEO_DISTANCES
from mdm.report import curves
from mdm.report.collect import Artifacts
from mdm.report.curves import Moment, Row
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.report.metrics import describe
from mdm.study.products import runs_of_group

COSTS = {
    "images": "training pictures", "gigaflops": "training compute (GFLOP)", "seconds": "training seconds (wall clock)",
}  # fmt: skip
DECADE = 10


def draw(evidence: Evidence, artifacts: Artifacts, group: str | None = None) -> Figure:
    """A line for each run (of a group of ablations), the mean over its trainings; a band where there are several."""
    chosen = runs_of_group(evidence.study, group) if group else evidence.run_names
    rows = [row for row in curves.collect(evidence.study, artifacts) if row.run in chosen]
    names, metrics = list(dict.fromkeys(row.run for row in rows)), curves.metrics(rows)
    if not metrics:
        return style.note("Nothing to draw yet: no snapshot of a training has been scored.")
    size = (10.2, 0.9 + 2.3 * len(metrics))
    drawn, grid = plt.subplots(len(metrics), len(COSTS), figsize=size, sharex="col", sharey="row", squeeze=False)
    for axes, metric in zip(grid, metrics, strict=True):
        for index, name in enumerate(names):
            moments, unit = curves.line(rows, name, metric), 100 if describe(metric).percent else 1
            for axis, cost in zip(axes, COSTS, strict=True):
                _line(axis, cost, moments, unit, style.series(index) | {"label": name})
        axes[0].set_ylabel(describe(metric).heading)
        _real_pictures(axes, rows, metric)
    _scales(grid, rows, metrics)
    for axis, (cost, label) in zip(grid[-1], COSTS.items(), strict=True):
        axis.set_xlabel(f"{label}\non {_machines(evidence, artifacts)}" if cost == "seconds" else label)
    drawn.align_ylabels(grid[:, 0])
    style.legend_below(drawn, grid.flat, names)
    return drawn


def _scales(grid: Any, rows: list[Row], metrics: list[str]) -> None:
    """Logarithms where numbers span a decade; numbers are written as on every axis here."""
    plain = FuncFormatter(lambda value, _: short(value))
    for column, cost in enumerate(COSTS):
        axis = grid[-1][column]
        if _decade([getattr(row, cost) for row in rows]):
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_formatter(plain)
    for axes, metric in zip(grid, metrics, strict=True):
        if metric.startswith((*FRECHET_DISTANCES, *VIDEO_DISTANCES)) and _decade(
            [row.value for row in rows if row.metric == metric]
        ):
            axes[0].set_yscale("log")
            axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes[0].yaxis.set_minor_formatter(NullFormatter())


def _decade(values: Iterable[float | None]) -> bool:
    found = [value for value in values if value is not None and not math.isnan(value)]
    return bool(found) and min(found) > 0 and max(found) >= DECADE * min(found)


def _real_pictures(axes: Iterable[Axes], rows: list[Row], metric: str) -> None:
    """What real pictures get by the same instrument; all runs of a protocol have the same."""
    ends = {f"{metric}_floor", f"{metric}_real"}
    values = [row.value for row in rows if row.metric in ends]
    # Without its bias a distance of real pictures lies about zero: no place on an axis of logarithms.
    drawn = [row.value for row in rows if row.metric == metric]
    if values and (statistics.fmean(values) > 0 or not _decade(drawn)):
        level = statistics.fmean(values) * (100 if describe(metric).percent else 1)
        for axis in axes:
            axis.axhline(level, color=style.INK, linestyle=":", linewidth=1.2, label="real pictures")


def _machines(evidence: Evidence, artifacts: Artifacts) -> str:
    """What counted the seconds: seconds of different machines do not compare."""
    refs = [stage.artifact for run in evidence.study.runs if run.points for stage in run.stages]
    found = [(artifacts.json(ref, "manifest.json") or {}).get("device") for ref in dict.fromkeys(refs)]
    names = sorted({str(name) for name in found if name})
    if len(names) > 1:
        return f"several machines, which do not compare: {', '.join(names)}"
    return names[0] if names else "a machine that was not noted"


def _line(axis: Axes, cost: str, moments: list[Moment], unit: float, look: dict[str, Any]) -> None:
    x, y = [getattr(m, cost) for m in moments], [unit * m.value for m in moments]
    axis.plot(x, y, **look)
    halves = [math.nan if m.half is None else unit * m.half for m in moments]  # no band where one training is known
    low, high = ([a + sign * half for a, half in zip(y, halves, strict=True)] for sign in (-1, 1))
    axis.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
