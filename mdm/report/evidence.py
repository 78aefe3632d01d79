"""What was measured, looked up by metric, run and protocol, and combined over seeds."""

from __future__ import annotations

from pathlib import Path

from mdm.report.collect import DIFFERENCES, Row, read_differences, read_metrics
from mdm.report.metrics import EVALUATION, describe, position
from mdm.report.pairs import Difference, Pairs
from mdm.report.quantity import Quantity, difference, measured, over_seeds
from mdm.study.study import Study


def read_evidence(study: Study, metrics_csv: Path) -> Evidence:
    """What was measured, and what could be compared picture by picture."""
    return Evidence(study, read_metrics(metrics_csv), read_differences(metrics_csv.with_name(DIFFERENCES)))


class Evidence:
    """Looks numbers up: one quantity per metric, run and protocol, combined over seeds."""

    def __init__(self, study: Study, rows: list[Row], differences: list[Difference] | None = None) -> None:
        self.study = study
        self._pairs = Pairs(differences or [])
        self.rows = rows
        self.runs = {run.name: run for run in reversed(study.runs)}  # the first seed's entry stands for a run
        self.run_names = list(dict.fromkeys(run.name for run in study.runs))
        self._parts: dict[tuple[str, str, str], dict[int, Row]] = {}
        for row in rows:  # rows stand in the order of stages: the last stage wins
            self._parts.setdefault((row.metric, row.run, row.protocol), {})[row.seed] = row

    def protocol(self, name: str | None = None) -> str | None:
        """The named protocol, or the study's first."""
        return name or next(iter(self.study.protocols), None)

    def rows_of(self, metric: str, run: str, protocol: str | None = "") -> list[Row]:
        """The final row of each seed; metrics of training belong to no protocol."""
        found = self._parts.get((metric, run, protocol or "")) or self._parts.get((metric, run, ""), {})
        return list(found.values())

    def quantity(self, metric: str, run: str, protocol: str | None = "") -> Quantity | None:
        """The number over all seeds that have it, None when there is none."""
        rows = self.rows_of(metric, run, protocol)
        return over_seeds(measured(r.value, r.low, r.high) for r in rows) if rows else None

    def difference(self, metric: str, run: str, against: str, protocol: str | None) -> tuple[Quantity, bool] | None:
        """run - against, and whether it is paired; pairs count only if they cover the seeds of both runs."""
        own, other = (self.rows_of(metric, name, protocol) for name in (run, against))
        if not own or not other:
            return None
        parts = self._pairs.by_seed(metric, run, against, protocol or "")
        if parts.keys() == {r.seed for r in own} == {r.seed for r in other}:
            return over_seeds(parts.values()), True
        return difference(*(self.quantity(metric, name, protocol) for name in (run, against))), False

    def metrics(self, protocol: str | None, kind: str = EVALUATION, main: bool | None = None) -> list[str]:
        """Names of the metrics of a kind that were measured under a protocol, in the order of columns."""
        names = {r.metric for r in self.rows if r.protocol in ("", protocol)}
        chosen = [n for n in names if describe(n).kind == kind and main in (None, describe(n).main)]
        return sorted(chosen, key=position)

    def label(self, run: str) -> str:
        """What the run is called in tables and figures."""
        return self.runs[run].label or run

    def runs_of(self, ablation: str) -> list[str]:
        """Names of the runs that belong to an ablation."""
        return [name for name in self.run_names if self.runs[name].ablation == ablation]

    def protocol_of(self, runs: list[str]) -> str | None:
        """The first protocol under which one of the runs was scored: an ablation may leave some out."""
        scored = {row.protocol for row in self.rows if row.run in runs}
        return next((p for p in self.study.protocols if p in scored), self.protocol())

    def seeds(self, run: str) -> list[int]:
        """The seeds a run was given."""
        return sorted({r.seed for r in self.study.runs if r.name == run})

    def protocols(self) -> list[str]:
        """The protocols with at least one number, in the study's order."""
        seen = {r.protocol for r in self.rows}
        return [p for p in self.study.protocols if p in seen]
