"""Why the optimum copies, in numbers: the weights of training pictures by noise, and what the best denoiser loses."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mdm.report import theory
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.report.theory import Theory

SMALLEST = 1e-5  # of the losses shown


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """Left: a line for each known picture; right: a line for each set, and the best linear denoiser of the smallest."""
    found = theory.read(evidence.study, artifacts)
    if found is None:
        return style.note("Nothing to draw yet: the optimal denoiser has not been asked.")
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
    _weights(left, found)
    _losses(right, found)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_xlabel("noise σ (falls to the right, as in sampling)")
    style.legend_below(drawn, [left, right])
    return drawn


def _weights(axis: Axes, found: Theory) -> None:
    sigmas = [answer["sigma"] for answer in found.answers]
    by_picture = list(zip(*(answer["weights"] for answer in found.answers), strict=True))
    for place, weights in enumerate(by_picture[1:]):
        label = {} if place else {"label": "another training picture"}
        axis.plot(sigmas, weights, color=style.FAINT, linewidth=0.9, **label)
    look = style.series(0) | {"label": "the training picture in the noise"}
    axis.plot(sigmas, by_picture[0], **look)
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("weight in the best answer")


def _losses(axis: Axes, found: Theory) -> None:
    for index, (count, losses) in enumerate(found.curve["optimal"].items(), start=1):
        look = style.series(index) | {"marker": "", "label": f"best denoiser of {count} pictures"}
        kept = [(x, y) for x, y in zip(found.curve["sigmas"], losses, strict=True) if y > SMALLEST]
        axis.plot(*zip(*kept, strict=True), **look) if kept else None
    fewest = min(found.curve["optimal"], key=int)
    label = f"best linear denoiser of {fewest} pictures"
    axis.plot(found.curve["sigmas"], found.curve["linear"], color=style.INK, linestyle=":", linewidth=1.4, label=label)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5f}".rstrip("0").rstrip(".")))
    axis.set_ylim(bottom=SMALLEST)
    axis.set_ylabel("mean squared error\u00a0↓")
