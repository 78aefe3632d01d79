"""The worst pairs of each run for the page: what was drawn beside the training picture nearest to it."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mdm.report import audited
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.study.runs import Run


@dataclass(frozen=True)
class View:
    """One run: its sheet as a data URI, what was looked at, and the artifact that holds all of it."""

    run: str
    label: str
    uri: str
    facts: list[str]
    artifact: str


def views(evidence: Evidence, artifacts: Artifacts) -> list[View]:
    """Of each run the first training that was audited, in the study's order."""
    found: dict[str, View] = {}
    for run in evidence.study.runs:
        ref = run.audit.artifact if run.audit and run.name not in found else None
        path = artifacts.path(ref, audited.SHEET) if ref else None
        content = artifacts.json(ref, audited.FILE)
        if ref and path and content:
            found[run.name] = View(run.name, evidence.label(run.name), _uri(path), facts(run, content), ref)
    return list(found.values())


def facts(run: Run, content: dict) -> list[str]:
    """Sentences about each level, with copies by how often a training picture stands where any stands twice."""
    said = []
    for level in content["levels"]:
        twice = level["known"] - level["distinct"]
        repeated = f", {twice:,} of them repeated" if twice else ""
        said.append(
            f"{level['level']} px: {level['drawn']:,} drawn pictures against {level['known']:,} training pictures"
            f"{repeated}; the nearest is off by {level['nearest']:.1f} of 255 on average."
        )
        said += [_often(row) for row in level["multiplicity"] if twice]
    return [f"Seed {run.seed}.", *said]


def _often(row: dict) -> str:
    low, high = row["from"], row["to"]
    times = "once" if high == 1 else f"{low} times or more" if high is None else f"{low} to {high} times"
    counts = f"{row['pictures']:,} distinct, {row['copied']:,} of them copied, in {row['drawn']:,} drawn pictures"
    return f"Training pictures that stand {times}: {counts}."


def _uri(path: Path) -> str:
    """The sheet in 256 colours: a third of its size, and the page has a limit."""
    with Image.open(path) as sheet:
        stream = io.BytesIO()
        small = sheet.convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE)
        small.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
