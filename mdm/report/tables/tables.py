"""The tables of a study, built from metrics.csv. Runs stand under their names, without titles."""

from pathlib import Path
from typing import Any

from mdm.config.units import duration, large
from mdm.files.atomic import write_atomic
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence, read_evidence
from mdm.report.metrics import describe, shown
from mdm.report.quantity import Quantity
from mdm.report.tables.audit import audit_table
from mdm.report.tables.emm import emm_table
from mdm.report.tables.instruments import frame_rows
from mdm.report.tables.literature import literature_table
from mdm.report.tables.reaches import reaches_table
from mdm.report.tables.render import FORMATS, Cell, Column, Table
from mdm.report.verdicts import TRAININGS
from mdm.study.products import table_names
from mdm.study.study import Study

SPEEDS = ("images_per_second", "sample_images_per_second", "network_evaluations_per_image")
# Of cascades, and of runs on codes: what their other columns do not say.
BASELINES = {"low_psnr": "{:.3g}".format, "autoencoder_parameters": large, "autoencoder_gigaflops": large}
MAIN = "Every run under protocol {protocols}; arrows show the better direction."
METRICS = "Every metric that was measured of trained networks and their pictures, for every run."


def build(study: Study, name: str, evidence: Evidence, results: Path, literature_csv: Path) -> Table:
    if name.startswith("ablation-"):
        return ablation_table(evidence, name.removeprefix("ablation-"))
    builders = {
        "main": lambda: _by_protocol(evidence, name, "Main results", MAIN, main=True),
        "alignment": lambda: alignment_table(evidence),
        "metrics": lambda: _by_protocol(evidence, name, "All metrics", METRICS, main=None),
        "audit": lambda: audit_table(evidence),
        "emm": lambda: emm_table(evidence),
        "reaches": lambda: reaches_table(evidence),
        "cost": lambda: cost_table(evidence, results),
        "literature": lambda: literature_table(evidence, Artifacts(results), literature_csv),
    }
    if name not in builders:
        raise ValueError(f"there is no table {name!r}; the study has {', '.join(table_names(study))}")
    return builders[name]()


def write(study: Study, metrics_csv: Path, results: Path, literature_csv: Path, out: Path) -> list[str]:
    evidence = read_evidence(study, metrics_csv)
    for name in table_names(study):
        table = build(study, name, evidence, results, literature_csv)
        for extension, render in FORMATS.items():
            write_atomic(Path(out) / f"{name}.{extension}", render(table))
    return table_names(study)


def metric_columns(metrics: list[str]) -> list[Column]:
    return [Column(m, describe(m).heading, True) for m in metrics]


def _values(evidence: Evidence, run: str, protocol: str | None, metrics: list[str]) -> dict[str, Cell]:
    found = {m: shown(m, evidence.quantity(m, run, protocol)) for m in metrics}
    return {m: Cell(quantity=q) for m, q in found.items() if q}


def _by_protocol(evidence: Evidence, name: str, title: str, caption: str, main: bool | None) -> Table:
    """Rows = protocol x run, columns = metrics; runs without a number keep a row of dashes."""
    protocols = evidence.protocols() or [p for p in [evidence.protocol()] if p]
    metrics = list(dict.fromkeys(m for p in protocols for m in evidence.metrics(p, main=main)))
    rows, classes = [], []
    for protocol in protocols:
        names = [r for r in evidence.run_names if protocol in (e.protocol for e in evidence.runs[r].evaluations)]
        pictures = {r: sum(stage.num_images for stage in evidence.runs[r].stages) for r in names}
        runs = [{"run": Cell(r), "images": Cell(large(images))} for r, images in pictures.items()]
        runs = [row | _values(evidence, row["run"].text, protocol, metrics) for row in runs]
        frames = frame_rows(evidence, metrics, protocol)
        rows += [row | {"protocol": Cell(protocol)} for row in runs + frames]
        classes += ["run"] * len(runs) + ["frame"] * len(frames)
    several = [Column("protocol", "Protocol")] if len(protocols) > 1 else []
    columns = [Column("run", "Run"), *several, Column("images", "Pictures shown"), *metric_columns(metrics)]
    notes = [interval_note(evidence)]
    if "frame" in classes:
        distance = any(m.startswith(("fd", "fid")) for m in metrics)
        apart = " (Fréchet distance: as many of them against the rest)" if distance else ""
        notes.append(f"Real pictures: what they reach with the same instrument{apart}.")
    caption = caption.format(protocols=", ".join(protocols) or evidence.protocol())
    return Table(name, title, caption, columns, rows, notes, classes)


def interval_note(evidence: Evidence) -> str:
    """What the brackets of the study's numbers run over."""
    counts = sorted({evidence.trainings(run) for run in evidence.run_names})
    if counts == [1]:
        return "Brackets: 95 % interval over the pictures of one training; other trainings would differ by more."
    numbers = " or ".join(map(str, counts)) if len(counts) < 3 else f"{counts[0]} to {counts[-1]}"
    return f"Brackets: 95 % interval over trainings and pictures, of the mean of {numbers} trainings" + (
        " (of one training: over its pictures alone)." if counts[0] == 1 else "."
    )


def alignment_table(evidence: Evidence) -> Table:
    """Run x factor, framed by what guessing and real pictures reach."""
    protocol = evidence.protocol()
    metrics = [m for m in evidence.metrics(protocol) if m.startswith("alignment")]
    rows = [{"run": Cell(run)} | _values(evidence, run, protocol, metrics) for run in evidence.run_names]
    frames = frame_rows(evidence, metrics, protocol)
    caption = (
        "Share of pictures whose factor, as read by the judge network, is what the caption asked for; "
        "last rows: the judge on real pictures, and guessing."
    )
    columns = [Column("run", "Run"), *metric_columns(metrics)]
    classes = ["run"] * len(rows) + ["frame"] * len(frames)
    return Table("alignment", "Alignment by factor", caption, columns, rows + frames, row_classes=classes)


def change_mark(metric: str, delta: Quantity) -> str:
    """better, worse or unclear; "" when no direction is better, or when nobody trained often enough to say."""
    direction = {"lower": -1, "higher": 1}.get(describe(metric).better)
    if direction is None or delta.trainings < TRAININGS:
        return ""
    low, high = sorted((direction * delta.low, direction * delta.high))
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def delta_cell(evidence: Evidence, metric: str, run: str, against: str, protocol: str | None) -> Cell | None:
    """run - against with its interval and whether that is better."""
    delta = evidence.difference(metric, run, against, protocol)
    if delta is None:
        return None
    return Cell(quantity=shown(metric, delta, difference=True), mark=change_mark(metric, delta), signed=True)


def changed_settings(diff: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Each changed setting as words by its dotted path; sections are opened down to what differs in them."""
    found: dict[str, tuple[str, str]] = {}
    for path, (base, own) in diff.items():
        if isinstance(base, dict) and isinstance(own, dict):
            inner = {f"{path}.{k}": (base.get(k), own.get(k)) for k in base | own if base.get(k) != own.get(k)}
            found |= changed_settings(inner)
        else:
            found[path] = (plain(base), plain(own))
    return found


def plain(value: Any) -> str:
    """A setting as a person writes it: no quotes and braces, `true`, and a dash for nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(plain(inner) for inner in value)}]"
    words = {None: "—", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def settings_text(diff: dict[str, Any]) -> str:
    """`path: base → own`, one per changed setting."""
    return "; ".join(f"{path}: {base} → {own}" for path, (base, own) in changed_settings(diff).items()) or "—"


def ablation_table(evidence: Evidence, group: str, only: str | None = None) -> Table:
    """One block per ablation: the run compared with, then each run and its difference."""
    chosen = [a for a in evidence.study.ablations.values() if a.group == group and only in (None, a.name)]
    protocol = evidence.protocol_of([r for a in chosen for r in evidence.runs_of(a.name)])
    metrics = evidence.metrics(protocol, main=True)
    rows, classes = [], []
    for ablation in chosen:
        for run in [ablation.against, *evidence.runs_of(ablation.name)]:
            reference = run == ablation.against
            change = "the run compared with" if reference else settings_text(evidence.runs[run].settings_diff)
            cells = {"ablation": Cell(ablation.name), "run": Cell(run), "change": Cell(change)}
            cells |= _values(evidence, run, protocol, metrics)
            for metric in metrics if not reference else ():
                if delta := delta_cell(evidence, metric, run, ablation.against, protocol):
                    cells[f"{metric}_change"] = delta
            rows.append(cells)
            classes.append("against" if reference else "run")
    # On an ablation's own page its name and its settings stand beside the table.
    fixed = [Column("ablation", "Ablation"), Column("run", "Run"), Column("change", "Changed settings")]
    columns = fixed[1:2] if only else fixed
    for metric in metrics:
        columns += [Column(metric, describe(metric).heading, True), Column(f"{metric}_change", "Δ", True)]
    caption = (
        f"Under protocol {protocol}. Δ: difference from the run compared with, seed by seed and picture by picture "
        "(same caption, same noise)."
    )
    notes = [
        f"A change is better or worse when its interval is over at least {TRAININGS} trainings a side and excludes "
        "zero, otherwise unclear; without a mark nobody trained so often.",
        interval_note(evidence),
    ]
    title = f"Result of {only}" if only else f"Ablations: {group}"
    return Table(f"ablation-{only or group}", title, caption, columns, rows, notes, classes)


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
        forms = {"train_images": large, "train_gigaflops": large, "parameters": large, "train_seconds": duration}
        for metric, form in forms.items():
            if quantity := evidence.quantity(metric, run):
                row[metric] = Cell(form(quantity.value), quantity)
        for metric, form in BASELINES.items():
            if quantity := evidence.quantity(metric, run, evidence.protocol()):
                row[metric] = Cell(form(quantity.value), quantity)
        for metric in SPEEDS:
            if quantity := evidence.quantity(metric, run, evidence.protocol()):
                row[metric] = Cell(f"{quantity.value:.3g}", quantity)
    measured = [metric for metric in BASELINES if any(metric in row for row in rows)]
    names = ("train_images", "train_gigaflops", "train_seconds", "parameters", *measured, *SPEEDS)
    columns = [Column("run", "Run"), *(Column(m, describe(m).title, True) for m in names), Column("device", "Device")]
    caption = (
        "Cost of each run (mean over seeds). Stages that runs share were trained once but count in each; "
        "speeds are wall clock on the device named."
    )
    return Table("cost", "Cost", caption, columns, rows)
