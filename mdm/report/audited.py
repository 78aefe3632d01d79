"""What the audits of a run found, as the report shows it: metrics, what is missing yet, and the worst pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mdm.evaluate.metric_names import LARGEST, at_level
from mdm.study.runs import Run

FILE, SHEET = "audit.json", "worst.png"
Read = Callable[[str | None, str], Any | None]  # artifact and file -> its content, None where it is not there


def parts(run: Run, read: Read) -> Iterator[tuple[str, Any]]:
    """The audit of a run's end, and the largest share of copies among all of its snapshots once these are known."""
    if run.audit:
        yield run.audit.artifact, read(run.audit.artifact, FILE)
    found = [read(audit.artifact, FILE) for audit in run.audits]
    if run.points and found and all(found):
        yield run.audits[-1].artifact, {"metrics": largest([part["metrics"] for part in found])}


def largest(audits: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each level the largest share of copies, under a name of its own."""
    best: dict[str, dict[str, Any]] = {}
    for row in (row for rows in audits for row in rows):
        family, _, side = row["metric"].rpartition("_")
        if family == "copied" and row["value"] > best.get(side, {"value": -1})["value"]:
            best[side] = row
    return [{**row, "metric": at_level(LARGEST, side)} for side, row in best.items()]


def absent(run: Run, read: Read) -> Iterator[tuple[str, str]]:
    """Audits that are not there, and what they are of."""
    for audit in run.audits:
        if read(audit.artifact, FILE) is None:
            yield audit.artifact, f"audit of stage {audit.stage} at {audit.images} images"
