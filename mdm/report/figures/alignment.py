"""Alignment by factor: bars per run between what guessing and what real pictures reach."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.report.metrics import shown
from mdm.report.tables.instruments import CHANCE, REAL, factor, frame


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """A group of bars per factor, framed by chance and by the judge's accuracy on real pictures."""
    metrics = [m for m in evidence.metrics(evidence.protocol()) if m.startswith("alignment")]
    runs = [r for r in evidence.run_names if any(evidence.quantity(m, r, evidence.protocol()) for m in metrics)]
    if not metrics or not runs:
        return style.note("Nothing to draw yet: no run has been judged.")
    drawn, axis = plt.subplots(figsize=(8.4, 3.8))
    width = 0.8 / len(runs)
    drawn.set_figwidth(max(8.4, 0.13 * len(runs) * len(metrics)))
    for index, run in enumerate(runs):
        values = [(i, shown(m, evidence.quantity(m, run, evidence.protocol()))) for i, m in enumerate(metrics)]
        values = [(i, q) for i, q in values if q]
        places = [i - 0.4 + width * (index + 0.5) for i, _ in values]
        intervals = [[q.below for _, q in values], [q.above for _, q in values]]
        whiskers = {"elinewidth": 0.9, "ecolor": style.INK, "capsize": min(2.0, 30 * width)}
        look = {"color": style.series(index)["color"], "hatch": style.hatch(index), "edgecolor": style.INK}
        heights = [q.value for _, q in values]
        axis.bar(places, heights, width * 0.9, yerr=intervals, error_kw=whiskers, label=run, linewidth=0.4, **look)
    _frames(axis, evidence, metrics)
    axis.set_xticks(range(len(metrics)), [factor(m) for m in metrics])
    axis.set_ylim(0, 103)
    axis.set_ylabel("share as asked (%)")
    axis.set_xlim(-0.6, len(metrics) - 0.4)
    axis.grid(axis="x", visible=False)
    style.legend_below(drawn, [axis])
    return drawn


def _frames(axis: Axes, evidence: Evidence, metrics: list[str]) -> None:
    """A solid line for real pictures and a dotted one for guessing over each group of bars."""
    for ends, label, line in ((REAL, "judge on real pictures", "-"), (CHANCE, "guessing", ":")):
        levels = [(i, shown(m, frame(evidence, m, evidence.protocol(), ends))) for i, m in enumerate(metrics)]
        levels = [(i, q.value) for i, q in levels if q]
        if levels:
            left, right = [i - 0.44 for i, _ in levels], [i + 0.44 for i, _ in levels]
            look = {"colors": style.INK, "linestyles": line, "linewidth": 1.6, "label": label}
            axis.hlines([value for _, value in levels], left, right, **look)
