"""Ablations: each run a dot with its interval, a panel per main metric."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.report.metrics import describe, shown
from mdm.report.quantity import Quantity


def draw(evidence: Evidence, group: str, only: str | None = None) -> Figure:
    """A panel per main metric: each run a dot with its interval, the run compared with as a band."""
    chosen = [a for a in evidence.study.ablations.values() if a.group == group and only in (None, a.name)]
    runs = [run for ablation in chosen for run in evidence.runs_of(ablation.name)]
    protocol = evidence.protocol_of(runs)
    runs = list(dict.fromkeys([*(a.against for a in chosen), *runs]))
    metrics = [m for m in evidence.metrics(protocol, main=True) if any(evidence.quantity(m, r, protocol) for r in runs)]
    if not metrics:
        return style.note(f"Nothing to draw yet: no run of {only or group} has been scored.")
    drawn, grid = plt.subplots(1, len(metrics), figsize=(1.3 + 2.6 * len(metrics), 0.9 + 0.36 * len(runs)),
                               sharey=True, squeeze=False)  # fmt: skip
    for axis, metric in zip(grid[0], metrics, strict=True):
        _dots(axis, [shown(metric, evidence.quantity(metric, r, protocol)) for r in runs],
              [r in {a.against for a in chosen} for r in runs])  # fmt: skip
        axis.set_title(describe(metric).heading, fontsize=8.5)
        axis.locator_params(axis="x", nbins=5)
    grid[0, 0].set_yticks(range(len(runs)), runs)
    grid[0, 0].set_ylim(len(runs) - 0.5, -0.5)
    drawn.tight_layout(w_pad=2.0)
    return drawn


def _dots(axis: Axes, quantities: list[Quantity | None], references: list[bool]) -> None:
    for place, (quantity, reference) in enumerate(zip(quantities, references, strict=True)):
        if quantity is None:
            axis.annotate("not run", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
            continue
        look = style.series(0 if reference else 1)
        bars = [[quantity.below], [quantity.above]]
        axis.errorbar([quantity.value], [place], xerr=bars, color=look["color"], marker=look["marker"], capsize=2.5)
        if reference and references.count(True) == 1:
            axis.axvspan(quantity.low, quantity.high, color=look["color"], alpha=0.10, linewidth=0)
