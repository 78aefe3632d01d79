"""The tables of a study, built from metrics.csv. Runs stand under their names: titles belong to the report."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mdm.manifest import ArtifactError, write_atomic
from mdm.results.collect import Artifacts, Evidence, read_metrics
from mdm.results.instruments import factors
from mdm.results.metrics import describe, duration, large
from mdm.results.names import table_names
from mdm.results.quantity import Quantity, difference
from mdm.results.render import FORMATS, Cell, Column, Table

LITERATURE_COLUMNS = ("table", "dataset", "model", "guidance", "metric", "value", "source", "status")
STATUSES = {
    "verified": "number and place read in a source",
    "value-verified": "number read in its own paper; that the table lists it is remembered",
    "remembered": "from memory, no source reached",
    "digitised": "measured off a figure",
}
SPEEDS = ("images_per_second", "sample_images_per_second", "network_evaluations_per_image")
NOT_COMPARABLE = (
    "Our rows are another data set and a far smaller scale: they are NOT comparable with the literature."
)


def build(study: Any, name: str, evidence: Evidence, results: Path, literature_csv: Path) -> Table:
    """One table by its name."""
    if name.startswith("ablation-"):
        return ablation_table(evidence, name.removeprefix("ablation-"))
    builders = {
        "main": lambda: main_table(evidence),
        "alignment": lambda: alignment_table(evidence, results),
        "metrics": lambda: metrics_table(evidence),
        "cost": lambda: cost_table(evidence, results),
        "literature": lambda: literature_table(evidence, literature_csv),
    }
    if name not in builders:
        raise ValueError(f"there is no table {name!r}; the study has {', '.join(table_names(study))}")
    return builders[name]()


def write(study: Any, metrics_csv: Path, results: Path, literature_csv: Path, out: Path) -> list[str]:
    """Write every table as CSV, Markdown and LaTeX into a folder."""
    evidence = Evidence(study, read_metrics(metrics_csv))
    for name in table_names(study):
        table = build(study, name, evidence, results, literature_csv)
        for extension, render in FORMATS.items():
            write_atomic(Path(out) / f"{name}.{extension}", render(table))
    return table_names(study)


def shown(metric: str, quantity: Quantity | None) -> Quantity | None:
    """The quantity in the unit of its column (shares as per cent)."""
    return quantity.scaled(100) if quantity and describe(metric).percent else quantity


def metric_columns(metrics: list[str]) -> list[Column]:
    return [Column(m, describe(m).heading, True) for m in metrics]


def _values(evidence: Evidence, run: str, protocol: str | None, metrics: list[str]) -> dict[str, Cell]:
    found = {m: shown(m, evidence.quantity(m, run, protocol)) for m in metrics}
    return {m: Cell(quantity=q) for m, q in found.items() if q}


def _by_protocol(evidence: Evidence, name: str, title: str, caption: str, metrics: Any) -> Table:
    """Rows = protocol x run, columns = metrics; runs without a number keep a row of dashes."""
    protocols = evidence.protocols() or [p for p in [evidence.protocol()] if p]
    columns = list(dict.fromkeys(m for p in protocols for m in metrics(p)))
    several = [Column("protocol", "Protocol")] if len(protocols) > 1 else []
    rows = []
    for protocol in protocols:
        for run in evidence.run_names:
            images = sum(stage.num_images for stage in evidence.runs[run].stages)
            fixed = {"run": Cell(run), "protocol": Cell(protocol), "images": Cell(large(images))}
            rows.append(fixed | _values(evidence, run, protocol, columns))
    notes = ["Brackets: 95 % interval. With several seeds the value is their mean."]
    return Table(name, title, caption, [Column("run", "Run"), *several, Column("images", "Training pictures"),
                                        *metric_columns(columns)], rows, notes)  # fmt: skip


def main_table(evidence: Evidence) -> Table:
    """Run x main metrics."""
    caption = f"Every run under protocol {', '.join(evidence.protocols()) or evidence.protocol()}; arrows show the better direction."
    return _by_protocol(evidence, "main", "Main results", caption, lambda p: evidence.metrics(p, main=True))


def metrics_table(evidence: Evidence) -> Table:
    """Run x every metric."""
    caption = "Every metric that was measured on sampled pictures, for every run."
    return _by_protocol(evidence, "metrics", "All metrics", caption, evidence.metrics)


def alignment_table(evidence: Evidence, results: Path) -> Table:
    """Run x factor, framed by what chance and real pictures reach."""
    known = factors(evidence, Artifacts(results))
    metrics = [m for m in evidence.metrics(evidence.protocol()) if m.startswith("alignment")]
    rows = [
        {"run": Cell(run)} | _values(evidence, run, evidence.protocol(), metrics)
        for run in evidence.run_names
    ]
    frames = {"real pictures": lambda f: f.real, "chance": lambda f: f.chance}
    for title, pick in frames.items():
        values = {m: shown(m, pick(known[m])) for m in metrics if m in known}
        rows.append({"run": Cell(title)} | {m: Cell(quantity=q) for m, q in values.items() if q})
    return Table("alignment", "Alignment by factor", "Share of pictures whose factor, as read by the judge network, is what "
                 "the caption asked for; last rows: the judge on real pictures, and guessing.",
                 [Column("run", "Run"), *metric_columns(metrics)], rows,
                 row_classes=["run"] * len(evidence.run_names) + ["frame"] * len(frames))  # fmt: skip


def change_mark(metric: str, delta: Quantity) -> str:
    """better, worse or unclear; "" when no direction is better."""
    direction = {"lower": -1, "higher": 1}.get(describe(metric).better)
    if direction is None:
        return ""
    low, high = sorted((direction * delta.low, direction * delta.high))
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def delta_cell(evidence: Evidence, metric: str, run: str, against: str, protocol: str | None) -> Cell | None:
    """run - against with its interval and whether that is better."""
    own, other = (evidence.quantity(metric, name, protocol) for name in (run, against))
    if own is None or other is None:
        return None
    delta = difference(own, other)
    return Cell(quantity=shown(metric, delta), mark=change_mark(metric, delta), signed=True)


def settings_text(diff: dict[str, Any]) -> str:
    """`path: base → own`, one per changed setting."""
    return "; ".join(f"{path}: {base} → {own}" for path, (base, own) in diff.items()) or "—"


def ablation_table(evidence: Evidence, group: str, only: str | None = None) -> Table:
    """One block per ablation: the run compared with, then each run and its difference."""
    protocol = evidence.protocol()
    metrics = evidence.metrics(protocol, main=True)
    rows, classes = [], []
    for ablation in evidence.study.ablations.values():
        if ablation.group != group or only not in (None, ablation.name):
            continue
        runs = [r for r in evidence.run_names if evidence.runs[r].ablation == ablation.name]
        for run in [ablation.against, *runs]:
            row = {"ablation": Cell(ablation.name), "run": Cell(run)} | _values(
                evidence, run, protocol, metrics
            )
            row["change"] = Cell("the run compared with" if run == ablation.against
                                 else settings_text(evidence.runs[run].settings_diff))  # fmt: skip
            deltas = {} if run == ablation.against else {
                f"{m}_change": delta_cell(evidence, m, run, ablation.against, protocol) for m in metrics
            }  # fmt: skip
            rows.append(row | {k: c for k, c in deltas.items() if c})
            classes.append("against" if run == ablation.against else "run")
    several = [Column("ablation", "Ablation"), Column("run", "Run"), Column("change", "Changed settings")]
    columns = [Column("run", "Run")] if only else several  # an ablation's own page lists its settings beside
    for metric in metrics:
        columns += [Column(metric, describe(metric).heading, True), Column(f"{metric}_change", "Δ", True)]
    caption = f"{f'Ablation {only}' if only else f'Ablations of group {group}'} under protocol {protocol}. Δ: difference from the run compared with."
    notes = ["A change is better or worse when its 95 % interval excludes zero, otherwise unclear."]
    return Table(
        f"ablation-{only or group}",
        f"Ablation: {only}" if only else f"Ablations: {group}",
        caption,
        columns,
        rows,
        notes,
        classes,
    )


def read_literature(path: Path) -> list[dict[str, str]]:
    """The rows of literature.csv, every status checked."""
    with open(path, newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != LITERATURE_COLUMNS:
            raise ArtifactError(f"{path} needs exactly the columns {', '.join(LITERATURE_COLUMNS)}")
        rows = list(reader)
    for line, row in enumerate(rows, 2):
        if row["status"] not in STATUSES:
            raise ArtifactError(
                f"{path}:{line}: status {row['status']!r}; write one of {', '.join(STATUSES)}"
            )
    return rows


def literature_table(evidence: Evidence, path: Path) -> Table:
    """The paper's Table 1 with the status of every number, beside our rows."""
    keys = ("dataset", "model", "guidance", "metric")
    listed = [r for r in read_literature(path) if r["table"] == "1"]
    rows = [
        {k: Cell(r[k] or "—") for k in (*keys, "status", "source")} | {"value": Cell(r["value"])}
        for r in listed
    ]
    protocol = evidence.protocol()
    for run in evidence.run_names:
        for metric in [m for m in evidence.metrics(protocol, main=True) if m.startswith(("fd", "fid"))]:
            if quantity := evidence.quantity(metric, run, protocol):
                words = {"dataset": f"this study ({protocol})", "model": run, "metric": describe(metric).title,
                         "status": "measured here", "source": "metrics.csv"}  # fmt: skip
                rows.append({k: Cell(v) for k, v in words.items()} | {"value": Cell(quantity=quantity)})
    titles = ("Data set", "Model", "Guidance", "Metric")
    columns = [*(Column(k, t) for k, t in zip(keys, titles, strict=True)), Column("value", "Value", True),
               Column("status", "Status"), Column("source", "Source")]  # fmt: skip
    notes = [
        f"{status}: {meaning}."
        for status, meaning in STATUSES.items()
        if any(r["status"] == status for r in listed)
    ]
    classes = ["literature"] * len(listed) + ["ours"] * (len(rows) - len(listed))
    return Table(
        "literature", "The paper's Table 1 and our numbers", NOT_COMPARABLE, columns, rows, notes, classes
    )


def cost_table(evidence: Evidence, results: Path) -> Table:
    """What each run cost from an empty network on; shared stages are counted in every run that uses them."""
    artifacts, rows = Artifacts(results), []
    for run in evidence.run_names:
        manifest = artifacts.json(evidence.runs[run].stages[-1].artifact, "manifest.json")
        rows.append(row := {"run": Cell(run)})
        if manifest is None:  # the cost of half a run would read like a cheap run
            row["device"] = Cell("not trained")
            continue
        row["device"] = Cell(str(manifest.get("device", "—")))
        for metric, form in (("train_images", large), ("parameters", large), ("train_seconds", duration)):
            if quantity := evidence.quantity(metric, run):
                row[metric] = Cell(form(quantity.value), quantity)
        for metric in SPEEDS:
            if quantity := evidence.quantity(metric, run, evidence.protocol()):
                row[metric] = Cell(f"{quantity.value:.3g}", quantity)
    names = ("train_images", "train_seconds", "parameters", *SPEEDS)
    columns = [
        Column("run", "Run"),
        *(Column(m, describe(m).title, True) for m in names),
        Column("device", "Device"),
    ]
    caption = ("Cost of each run (mean over seeds). Stages that runs share were trained once but count in each; "
               "speeds are wall clock on the device named.")  # fmt: skip
    return Table("cost", "Cost", caption, columns, rows)
