"""Loss beyond the optimum by noise level: a panel for each level of the nest."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mdm.evaluate.metric_names import LOG_SNRS
from mdm.report import excess
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.excess import Point, Row
from mdm.report.figures import style

DECADES = 1e-4  # of the highest value: where the optimum is practically nothing, it would flatten all else


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """A line for each run, the mean over its trainings; a band where there are several."""
    rows = list(excess.collect(evidence.study, artifacts))
    if not rows:
        return style.note("Nothing to draw yet: no loss beyond the optimum has been measured.")
    names, levels = list(dict.fromkeys(row.run for row in rows)), sorted({row.level for row in rows}, reverse=True)
    drawn, grid = plt.subplots(1, len(levels), figsize=(1.4 + 3.2 * len(levels), 3.6), sharey=True, squeeze=False)
    for axis, level in zip(grid[0], levels, strict=True):
        _panel(axis, level, rows, names)
    grid[0, 0].set_ylabel("squared error beyond the optimum\u00a0↓")
    style.legend_below(drawn, grid.flat, names)
    return drawn


def _panel(axis: Axes, level: int, rows: list[Row], names: list[str]) -> None:
    floor = DECADES * max(row.loss for row in rows)
    for index, name in enumerate(names):
        if points := excess.line(rows, name, level):
            _line(axis, points, floor, style.series(index) | {"label": name})
    for found in excess.optima(rows, level):
        kept = [(x, y) for x, y in found if y > floor]
        axis.plot(*zip(*kept, strict=True), color=style.INK, linestyle=":", linewidth=1.2) if kept else None
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xticks(LOG_SNRS)
    axis.set_title(f"{level} px")
    axis.set_xlabel("ln(SNR), unshifted")


def _line(axis: Axes, points: list[Point], floor: float, look: dict[str, Any]) -> None:
    x, y = [point.log_snr for point in points], [max(point.value, floor) for point in points]
    axis.plot(x, y, **look)
    halves = [point.half or 0.0 for point in points]
    if any(halves):  # no band where one training is known
        low, high = ([max(a + sign * b, floor) for a, b in zip(y, halves, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
