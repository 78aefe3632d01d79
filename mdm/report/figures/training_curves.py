"""Training curves: the loss of each level against pictures and against seconds, stages of a run joined."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mdm.config.sizes import Size, in_order, parse_size
from mdm.config.units import short
from mdm.evaluate.intervals import student_quantile
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.figures import style
from mdm.study.runs import Run

SMOOTHING = 40  # a noisy training loss is averaged over this share (1/40) of its points


@dataclass
class Line:
    """The loss of one run and seed at one resolution along all its stages."""

    label: str
    resolution: Size
    first_seed: bool
    images: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    ends: list[tuple[int, float]] = field(default_factory=list)  # last point of a stage, half-width of its 95 %


def draw(evidence: Evidence, artifacts: Artifacts) -> Figure:
    """Rows: resolutions; left: loss against training pictures, right: against seconds."""
    lines, kind = training(evidence, artifacts)
    if not lines:
        return style.note("Nothing to draw yet: no stage has been trained.")
    resolutions = in_order({line.resolution for line in lines})
    drawn, grid = plt.subplots(
        len(resolutions), 2, figsize=(8.4, 0.9 + 2.1 * len(resolutions)), sharey="row", squeeze=False
    )
    names = list(dict.fromkeys(line.label for line in lines))
    for axes, resolution in zip(grid, resolutions, strict=True):
        for line in [line for line in lines if line.resolution == resolution]:
            look = style.series(names.index(line.label)) | {"markersize": 3, "markevery": max(1, len(line.losses) // 8)}
            shown_label = line.label if line.first_seed else "_"
            for axis, x in zip(axes, (line.images, line.seconds), strict=True):
                _ends(axis, x, line, look["color"])
                axis.plot(x, line.losses, label=shown_label, alpha=1.0 if line.first_seed else 0.45, **look)
        axes[0].set_ylabel(f"{kind}, {resolution} px")
        axes[0].set_yscale("log")
        for axis in axes:
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        _plain_log(axes[0])
    grid[-1, 0].set_xlabel("training pictures")
    grid[-1, 1].set_xlabel("training seconds (wall clock)")
    style.legend_below(drawn, grid.flat, names)
    return drawn


def _ends(axis: Axes, x: list[float], line: Line, colour: str) -> None:
    """Bars at the ends of stages: how far such a measurement moves with other noise."""
    for point, half in line.ends:
        axis.errorbar(x[point], line.losses[point], yerr=half, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.5)


def _plain_log(axis: Axes) -> None:
    """Numbers rather than powers of ten: losses span one decade or two."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def training(evidence: Evidence, artifacts: Artifacts) -> tuple[list[Line], str]:
    """A line per network, seed and resolution: validation loss if all curves have it, else training loss."""
    histories = {s.artifact: artifacts.history(s.artifact) for run in evidence.study.runs for s in run.stages}
    validated = [any(line.get("validation") for line in h) for h in histories.values() if h]
    on_validation = bool(validated) and all(validated)
    lines: list[Line] = []
    seen: set[str] = set()
    for run in evidence.study.runs:
        if run.stages[-1].latents:  # losses on codes are of another scale than those on pictures
            continue
        if run.stages[-1].artifact not in seen:  # a guidance sweep shares one training: draw it once
            seen.add(run.stages[-1].artifact)
            first = run.seed == evidence.runs[run.name].seed
            lines += _run_lines(run, first, histories, on_validation)
    return lines, "validation loss" if on_validation else "training loss"


def _run_lines(run: Run, first_seed: bool, histories: dict[str, list[Any]], on_validation: bool) -> list[Line]:
    lines: dict[Size, Line] = {}
    images, seconds = 0.0, 0.0
    for stage in run.stages:
        history = histories[stage.artifact]
        points = _validation(history) if on_validation else _smoothed(history, stage.resolutions[::-1])
        for at_images, at_seconds, losses in points:
            for resolution, loss in losses.items():
                line = lines.setdefault(resolution, Line(run.name, resolution, first_seed))
                line.images.append(images + at_images)
                line.seconds.append(seconds + at_seconds)
                line.losses.append(loss)
        draws = history[-1].get("validation_draws", {}) if history and on_validation else {}
        for resolution, values in draws.items():
            line = lines[parse_size(resolution)]
            line.ends.append((len(line.losses) - 1, student_quantile(len(values) - 1) * statistics.stdev(values)))
        images += stage.num_images
        seconds += history[-1]["seconds"] if history else 0.0
    return list(lines.values())


def _validation(history: list[dict[str, Any]]) -> Iterator[tuple[float, float, dict[Size, float]]]:
    for line in history:
        if line.get("validation"):
            yield line["images"], line["seconds"], {parse_size(r): v for r, v in line["validation"].items()}


def _smoothed(
    history: list[dict[str, Any]], resolutions: Sequence[Size]
) -> Iterator[tuple[float, float, dict[Size, float]]]:
    """Running means of the per-level training losses; levels stand highest first."""
    window = max(1, len(history) // SMOOTHING)
    for end in range(window, len(history) + 1, window):
        part = history[end - window : end]
        means = {}
        for level, resolution in enumerate(resolutions):
            found = [_of_level(line["losses"], level, resolution) for line in part]
            values = [value for value in found if value is not None]  # mixed batches may skip a level
            if values:
                means[resolution] = sum(values) / len(values)
        yield part[-1]["images"], part[-1]["seconds"], means


def _of_level(losses: Any, level: int, resolution: Size) -> float | None:
    """A level's loss from {"64": x} or from a list, highest resolution first."""
    return losses.get(str(resolution)) if isinstance(losses, dict) else losses[level]
