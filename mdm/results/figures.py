"""The figures of a study, registered by name, as SVG and PNG: equal numbers give equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mdm.manifest import write_atomic
from mdm.results import curves, gallery, style
from mdm.results.collect import Artifacts, Evidence, read_metrics
from mdm.results.instruments import CHANCE, REAL, factor, frame
from mdm.results.metrics import describe, short, shown
from mdm.results.names import figure_names
from mdm.results.quantity import Quantity

Draw = Callable[[Evidence, Artifacts], Figure]
FIGURES: dict[str, Draw] = {}
NOTHING = "Nothing to draw yet: "


def figure(name: str) -> Callable[[Draw], Draw]:
    """Register a figure under its file name."""

    def register(draw: Draw) -> Draw:
        FIGURES[name] = draw
        return draw

    return register


def write(study: Any, name: str, metrics_csv: Path, results: Path, out: Path) -> list[Path]:
    """Write one figure into a folder and return its files (`samples-RUN` is a PNG only)."""
    if name not in figure_names(study):
        raise ValueError(f"there is no figure {name!r}; the study has {', '.join(figure_names(study))}")
    evidence, artifacts = Evidence(study, read_metrics(metrics_csv)), Artifacts(results)
    if name.startswith("samples-"):
        path = Path(out) / f"{name}.png"
        write_atomic(path, gallery.sheet(evidence, artifacts, name.removeprefix("samples-")))
        return [path]
    with style.drawing(name):
        drawn = draw(name, evidence, artifacts)
        files = {"svg": style.as_svg(drawn), "png": style.as_png(drawn)}
        for extension, content in files.items():
            write_atomic(Path(out) / f"{name}.{extension}", content)
    return [Path(out) / f"{name}.{extension}" for extension in files]


def draw(name: str, evidence: Evidence, artifacts: Artifacts) -> Figure:
    """The matplotlib figure of a name, inside `style.drawing`."""
    if name.startswith("ablation-"):
        return ablation_group(evidence, name.removeprefix("ablation-"))
    return FIGURES[name](evidence, artifacts)


@figure("training-curves")
def training_curves(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """Rows: resolutions; left: loss against training pictures, right: against seconds."""
    lines, kind = curves.training(evidence, artifacts)
    if not lines:
        return style.note(NOTHING + "no stage has been trained.")
    resolutions = sorted({line.resolution for line in lines})
    drawn, grid = plt.subplots(
        len(resolutions), 2, figsize=(8.4, 0.9 + 2.1 * len(resolutions)), sharey="row", squeeze=False
    )
    names = list(dict.fromkeys(line.label for line in lines))
    for axes, resolution in zip(grid, resolutions, strict=True):
        for line in [line for line in lines if line.resolution == resolution]:
            look = style.series(names.index(line.label)) | {
                "markersize": 3,
                "markevery": max(1, len(line.losses) // 8),
            }
            shown_label = line.label if line.first_seed else "_"
            for axis, x in zip(axes, (line.images, line.seconds), strict=True):
                axis.plot(x, line.losses, label=shown_label, alpha=1.0 if line.first_seed else 0.45, **look)
        axes[0].set_ylabel(f"{kind}, {resolution} px")
        axes[0].set_yscale("log")
        for axis in axes:
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        _plain_log(axes[0])
    grid[-1, 0].set_xlabel("training pictures")
    grid[-1, 1].set_xlabel("training seconds (wall clock)")
    _legend_below(drawn, grid.flat, names)
    return drawn


@figure("guidance")
def guidance(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """CLIP score against Fréchet distance; one line per trained network, a point per guidance weight."""
    protocol = evidence.protocol()
    pair = curves.guidance_metrics(evidence, protocol)
    found = curves.guidance(evidence, artifacts, protocol, pair) if pair else {}
    if not found:
        return style.note(NOTHING + "no network has been scored at two guidance weights.")
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
    axis.legend(loc="best")
    return drawn


def _errorbar(axis: Axes, xs: list[Quantity], ys: list[Quantity], label: str, look: dict[str, Any]) -> None:
    bars = [[[q.below for q in side], [q.above for q in side]] for side in (xs, ys)]
    axis.errorbar([q.value for q in xs], [q.value for q in ys], xerr=bars[0], yerr=bars[1], label=label,
                  elinewidth=0.9, capsize=2, **look)  # fmt: skip


@figure("alignment")
def alignment(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """A group of bars per factor, framed by chance and by the judge's accuracy on real pictures."""
    metrics = [m for m in evidence.metrics(evidence.protocol()) if m.startswith("alignment")]
    runs = [
        r for r in evidence.run_names if any(evidence.quantity(m, r, evidence.protocol()) for m in metrics)
    ]
    if not metrics or not runs:
        return style.note(NOTHING + "no run has been judged.")
    drawn, axis = plt.subplots(figsize=(8.4, 3.8))
    width = 0.8 / len(runs)
    drawn.set_figwidth(max(8.4, 0.13 * len(runs) * len(metrics)))
    for index, run in enumerate(runs):
        values = [
            (i, shown(m, evidence.quantity(m, run, evidence.protocol()))) for i, m in enumerate(metrics)
        ]
        values = [(i, q) for i, q in values if q]
        places = [i - 0.4 + width * (index + 0.5) for i, _ in values]
        intervals = [[q.below for _, q in values], [q.above for _, q in values]]
        whiskers = {"elinewidth": 0.9, "ecolor": style.INK, "capsize": min(2.0, 30 * width)}
        look = {"color": style.series(index)["color"], "hatch": style.hatch(index), "edgecolor": style.INK}
        heights = [q.value for _, q in values]
        axis.bar(
            places, heights, width * 0.9, yerr=intervals, error_kw=whiskers, label=run, linewidth=0.4, **look
        )
    _frames(axis, evidence, metrics)
    axis.set_xticks(range(len(metrics)), [factor(m) for m in metrics])
    axis.set_ylim(0, 103)
    axis.set_ylabel("share as asked (%)")
    axis.set_xlim(-0.6, len(metrics) - 0.4)
    axis.grid(axis="x", visible=False)
    _legend_below(drawn, [axis])
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


def ablation_group(evidence: Evidence, group: str, only: str | None = None) -> Figure:
    """A panel per main metric: each run a dot with its interval, the run compared with as a band."""
    chosen = [a for a in evidence.study.ablations.values() if a.group == group and only in (None, a.name)]
    runs = [run for ablation in chosen for run in evidence.runs_of(ablation.name)]
    protocol = evidence.protocol_of(runs)
    runs = list(dict.fromkeys([*(a.against for a in chosen), *runs]))
    metrics = [
        m
        for m in evidence.metrics(protocol, main=True)
        if any(evidence.quantity(m, r, protocol) for r in runs)
    ]
    if not metrics:
        return style.note(NOTHING + f"no run of {only or group} has been scored.")
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
            axis.annotate(
                "not run", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8
            )
            continue
        look = style.series(0 if reference else 1)
        bars = [[quantity.below], [quantity.above]]
        axis.errorbar(
            [quantity.value], [place], xerr=bars, color=look["color"], marker=look["marker"], capsize=2.5
        )
        if reference and references.count(True) == 1:
            axis.axvspan(quantity.low, quantity.high, color=look["color"], alpha=0.10, linewidth=0)


def _plain_log(axis: Axes) -> None:
    """Numbers rather than powers of ten: losses span one decade or two."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _legend_below(drawn: Figure, axes: Iterable[Axes], order: Sequence[str] = ()) -> None:
    """One legend under all panels, each name once; names in `order` come first."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    drawn.tight_layout(h_pad=1.2, w_pad=1.8)
    columns = max(1, min(len(handles), int(drawn.get_figwidth() / 1.9)))
    labels = sorted(handles, key=lambda label: order.index(label) if label in order else len(order))
    drawn.legend(
        [handles[label] for label in labels],
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=columns,
    )
