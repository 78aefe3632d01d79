"""What runs score along their training: a row for each metric, against images, arithmetic and seconds."""

import math
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mdm.config.units import short
from mdm.report import curves
from mdm.report.collect import Artifacts
from mdm.report.curves import Moment
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.report.metrics import describe

COSTS = {
    "images": "training pictures", "gigaflops": "training compute (GFLOP)", "seconds": "training seconds (wall clock)",
}  # fmt: skip


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """A line for each run, the mean over its trainings; a band where there are several."""
    rows = list(curves.collect(evidence.study, artifacts))
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
    for axis, label in zip(grid[-1], COSTS.values(), strict=True):
        axis.set_xlabel(label)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    drawn.align_ylabels(grid[:, 0])
    style.legend_below(drawn, grid.flat, names)
    return drawn


def _line(axis: Axes, cost: str, moments: list[Moment], unit: float, look: dict[str, Any]) -> None:
    x, y = [getattr(m, cost) for m in moments], [unit * m.value for m in moments]
    axis.plot(x, y, **look)
    halves = [math.nan if m.half is None else unit * m.half for m in moments]  # no band where one training is known
    low, high = ([a + sign * half for a, half in zip(y, halves, strict=True)] for sign in (-1, 1))
    axis.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
