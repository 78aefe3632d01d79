"""Copies by number of training pictures: a curve for each name, the level that counts, and published points."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mdm.config.units import short
from mdm.report.collect import Artifacts
from mdm.report.emm import means
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.study.runs import Emm


def draw(evidence: Evidence, _artifacts: Artifacts) -> Figure:
    """The mean over trainings with a band over them where there are several; published points are hollow."""
    curves = list(evidence.study.emm.values())
    if not any(means(curve, evidence.rows) for curve in curves):
        return style.note("Nothing to draw yet: no audit of these runs has been made.")
    drawn, axis = plt.subplots(figsize=(6.4, 3.8))
    for level in sorted({curve.level for curve in curves}):
        axis.axhline(100 * level, color=style.INK, linestyle=":", linewidth=1.2)
    for index, curve in enumerate(curves):
        _curve(axis, evidence, curve, index)
    axis.set_xscale("log")
    sizes = sorted({size for curve in curves for size in curve.sizes.values()})
    axis.set_xticks(sizes)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(-4, 104)
    axis.set_xlabel("training pictures")
    axis.set_ylabel("copies among drawn pictures\u00a0(%)")
    style.legend_below(drawn, [axis], [curve.title for curve in curves])
    return drawn


def _curve(axis: Axes, evidence: Evidence, curve: Emm, index: int) -> None:
    look = style.series(index)
    if curve.targets:
        hollow = {"color": look["color"], "marker": look["marker"], "markerfacecolor": "none", "linewidth": 0.8}
        x, y = zip(*sorted(curve.targets), strict=True)
        axis.plot(x, y, linestyle=":", label=f"{curve.title}, {curve.source}", alpha=0.7, **hollow)
    if points := means(curve, evidence.rows):
        x, y = [point.num_images for point in points], [100 * point.share for point in points]
        axis.plot(x, y, **look, label=curve.title)
        halves = [100 * (point.half or 0.0) for point in points]
        if any(halves):  # no band where one training is known
            low, high = ([a + sign * b for a, b in zip(y, halves, strict=True)] for sign in (-1, 1))
            axis.fill_between(
                x,
                [max(0.0, v) for v in low],
                [min(100.0, v) for v in high],
                color=look["color"],
                alpha=0.18,
                linewidth=0,
            )
