"""The paper's Table 1 with the status of every number, beside our rows, which are not comparable with it."""

import csv
from pathlib import Path
from typing import Any

from mdm.evaluate.metric_names import FRECHET_DISTANCES
from mdm.files.atomic import ArtifactError
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.metrics import describe
from mdm.report.tables.render import Cell, Column, Table

COLUMNS = ("table", "dataset", "model", "guidance", "metric", "value", "source", "status")
STATUSES = {
    "verified": "number and place read in a source",
    "secondary": "number read where others tell of the source, not in the source",
    "value-verified": "number read in its own paper; that the table lists it is remembered",
    "remembered": "from memory, no source reached",
    "digitised": "measured off a figure",
}
TABLES = ("1", "since")  # the paper's Table 1, and what came after it
NOT_COMPARABLE = (
    "Our rows are measured under protocols of ours, those of small studies on another data set at a far smaller scale: "
    "they are NOT comparable with the others, which themselves were measured in several ways."
)


def read_literature(path: Path) -> list[dict[str, str]]:
    """The rows of literature.csv, every status checked."""
    with Path(path).open(newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ArtifactError(f"{path} has the columns {reader.fieldnames}; write exactly {', '.join(COLUMNS)}")
        rows = list(reader)
    for line, row in enumerate(rows, 2):
        if row["status"] not in STATUSES:
            raise ArtifactError(f"{path}:{line}: status {row['status']!r}; write one of {', '.join(STATUSES)}")
    return rows


def literature_table(evidence: Evidence, artifacts: Artifacts, path: Path) -> Table:
    """Literature rows first, ours below."""
    rows = [row for row in read_literature(path) if row["table"] in TABLES]
    listed = [{key: Cell(row[key] or "—") for key in COLUMNS if key != "table"} for row in rows]
    own = [_own(evidence, artifacts, run, metric) for run in evidence.run_names for metric in FRECHET_DISTANCES]
    own = [row for row in own if row]
    columns = [
        Column("dataset", "Data set"), Column("model", "Model"), Column("guidance", "Guidance"),
        Column("metric", "Metric"), Column("value", "Value", True), Column("status", "Status"),
        Column("source", "Source"),
    ]  # fmt: skip
    used = {row["status"].text for row in listed}
    notes = [f"{status}: {meaning}." for status, meaning in STATUSES.items() if status in used]
    classes = ["literature"] * len(listed) + ["ours"] * len(own)
    title = "The paper's Table 1, later work and our numbers"
    return Table("literature", title, NOT_COMPARABLE, columns, listed + own, notes, classes)


def _own(evidence: Evidence, artifacts: Artifacts, run: str, metric: str) -> dict[str, Any] | None:
    protocol = evidence.protocol()
    quantity = evidence.quantity(metric, run, protocol)
    if quantity is None:
        return None
    weight = artifacts.guidance(evidence.runs[run], protocol)
    words = {"dataset": f"this study, {protocol}", "model": run, "metric": describe(metric).title}
    words |= {"status": "measured here", "source": "metrics.csv"}
    words["guidance"] = "—" if weight is None else f"{weight:g}"
    return {key: Cell(word) for key, word in words.items()} | {"value": Cell(quantity=quantity)}
