"""Series behind the curves: losses along a run's stages, and scores along guidance weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mdm.results.collect import Artifacts, Evidence
from mdm.results.metrics import shown
from mdm.results.quantity import Quantity

SMOOTHING = 40  # a noisy training loss is averaged over this share (1/40) of its points


@dataclass
class Line:
    """The loss of one run and seed at one resolution along all its stages."""

    label: str
    resolution: int
    first_seed: bool
    images: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Point:
    """Two scores of one network at one guidance weight."""

    weight: float
    x: Quantity
    y: Quantity


def training(evidence: Evidence, artifacts: Artifacts) -> tuple[list[Line], str]:
    """A line per network, seed and resolution: validation loss if all curves have it, else training loss."""
    histories = {s.artifact: artifacts.history(s.artifact) for run in evidence.study.runs for s in run.stages}
    validated = [any(line.get("validation") for line in h) for h in histories.values() if h]
    on_validation = bool(validated) and all(validated)
    lines: list[Line] = []
    seen: set[str] = set()
    for run in evidence.study.runs:
        if run.stages[-1].artifact not in seen:  # a guidance sweep shares one training: draw it once
            seen.add(run.stages[-1].artifact)
            first = run.seed == evidence.runs[run.name].seed
            lines += _run_lines(run, first, histories, on_validation)
    return lines, "validation loss" if on_validation else "training loss"


def _run_lines(
    run: Any, first_seed: bool, histories: dict[str, list[Any]], on_validation: bool
) -> list[Line]:
    lines: dict[int, Line] = {}
    images, seconds = 0.0, 0.0
    for stage in run.stages:
        history = histories[stage.artifact]
        points = (
            _validation(history)
            if on_validation
            else _smoothed(history, sorted(stage.resolutions, reverse=True))
        )
        for at_images, at_seconds, losses in points:
            for resolution, loss in losses.items():
                line = lines.setdefault(resolution, Line(run.name, resolution, first_seed))
                line.images.append(images + at_images)
                line.seconds.append(seconds + at_seconds)
                line.losses.append(loss)
        images += stage.num_images
        seconds += history[-1]["seconds"] if history else 0.0
    return list(lines.values())


def _validation(history: list[dict[str, Any]]) -> Iterator[tuple[float, float, dict[int, float]]]:
    for line in history:
        if line.get("validation"):
            yield line["images"], line["seconds"], {int(r): v for r, v in line["validation"].items()}


def _smoothed(
    history: list[dict[str, Any]], resolutions: list[int]
) -> Iterator[tuple[float, float, dict[int, float]]]:
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


def _of_level(losses: Any, level: int, resolution: int) -> float | None:
    """A level's loss from {"64": x} or from a list, highest resolution first."""
    return losses.get(str(resolution)) if isinstance(losses, dict) else losses[level]


def guidance_metrics(evidence: Evidence, protocol: str | None) -> tuple[str, str] | None:
    """A Fréchet distance and a CLIP score (or, without one, the alignment) to draw against each other."""
    names = evidence.metrics(protocol)
    distance = next((n for n in names if n.startswith(("fd", "fid"))), None)
    agreement = next((n for n in names if n == "clip_score" or n.startswith("clip_score_")), None)
    agreement = agreement or next((n for n in names if n.startswith("alignment")), None)
    return (distance, agreement) if distance and agreement else None


def guidance(
    evidence: Evidence, artifacts: Artifacts, protocol: str | None, pair: tuple[str, str]
) -> dict[str, list[Point]]:
    """Points by network (named after its first run), for networks scored at two or more weights."""
    found: dict[str, dict[float, Point]] = {}
    names: dict[str, str] = {}
    for name in evidence.run_names:
        run = evidence.runs[name]
        weight = artifacts.guidance(run, protocol)
        x, y = (shown(metric, evidence.quantity(metric, name, protocol)) for metric in pair)
        if weight is None or x is None or y is None:
            continue
        network = run.stages[-1].artifact
        names.setdefault(network, name)
        found.setdefault(network, {}).setdefault(weight, Point(weight, x, y))
    return {
        names[network]: [points[w] for w in sorted(points)]
        for network, points in found.items()
        if len(points) > 1
    }
