"""What was measured, looked up by metric, run and protocol, and combined over seeds."""

from pathlib import Path

from mdm.evaluate.metric_names import CERTAIN, EMM
from mdm.report import reaches
from mdm.report.collect import GROUPS, Left, Row, read_rows
from mdm.report.metrics import AUDIT, EVALUATION, describe, position
from mdm.report.quantity import Measurement, Quantity, Term, combined, measured, over_seeds
from mdm.report.reaches import REACHES, Reached
from mdm.study.claims import Reference
from mdm.study.study import Study


class Evidence:
    """Looks numbers up: one quantity per metric, run and protocol, combined over seeds."""

    def __init__(
        self, study: Study, rows: list[Row], groups: list[Left] | None = None, reached: list[Reached] | None = None
    ) -> None:
        self.study, self.reached = study, reached or []
        self._left = {(g.metric, g.run, g.seed, g.protocol): g for g in groups or ()}
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
        # A curve over sizes may be called like a run, and has no stages.
        last = self.runs[run].stages[-1].name if run in self.runs and metric != EMM else None
        # Of a run that is still at an earlier stage nothing is known: half a training looks like a cheap one.
        return [row for row in found.values() if last in (None, row.stage)]

    def behind(self, reference: Reference, protocol: str | None) -> dict[int, Measurement]:
        """What a claim refers to, by seed."""
        if reference.best_of:
            return reaches.parts(reference, self.reached)
        return self.parts(reference.metric, reference.run, reference.protocol or protocol)

    def parts(self, metric: str, run: str, protocol: str | None = "") -> dict[int, Measurement]:
        return {row.seed: self._measurement(row) for row in self.rows_of(metric, run, protocol)}

    def _measurement(self, row: Row) -> Measurement:
        left = self._left.get((row.metric, row.run, row.seed, row.protocol))
        certain = row.metric in CERTAIN
        if left is None:
            return measured(row.value, row.low, row.high, certain=certain)
        sides = (tuple(map(float, text.split())) for text in (left.without, left.without_real))
        return measured(row.value, row.low, row.high, next(sides), left.drawn, certain, next(sides))

    def quantity(self, metric: str, run: str, protocol: str | None = "") -> Quantity | None:
        """The number over all seeds that have it, None when there is none."""
        parts = self.parts(metric, run, protocol)
        return over_seeds(parts) if parts else None

    def difference(self, metric: str, run: str, against: str, protocol: str | None) -> Quantity | None:
        """run - against: seed by seed if both have the same seeds, and picture by picture."""
        own, other = (self.parts(metric, name, protocol) for name in (run, against))
        if not own or not other:
            return None
        value = over_seeds(own).value - over_seeds(other).value
        return combined(value, [Term(1.0, own), Term(-1.0, other)])

    def metrics(self, protocol: str | None, kind: str = EVALUATION, main: bool | None = None) -> list[str]:
        """Names of the metrics of a kind that were measured under a protocol, in the order of columns."""
        names = {r.metric for r in self.rows if r.protocol in ("", protocol)}
        chosen = [n for n in names if describe(n).kind == kind and main in (None, self._is_main(n, names))]
        if kind == EVALUATION and main and not chosen:  # pictures that are compared with nothing but training pictures
            return self.metrics(protocol, AUDIT, main)
        return sorted(chosen, key=position)

    def _is_main(self, name: str, names: set[str]) -> bool:
        """A biased number is not, where the one without bias was measured too."""
        return describe(name).main and f"{name}_unbiased" not in names

    def label(self, run: str) -> str:
        return self.runs[run].label or run

    def runs_of(self, ablation: str) -> list[str]:
        return [name for name in self.run_names if self.runs[name].ablation == ablation]

    def protocol_of(self, runs: list[str]) -> str | None:
        """The first protocol under which one of the runs was scored: an ablation may leave some out."""
        scored = {row.protocol for row in self.rows if row.run in runs}
        return next((p for p in self.study.protocols if p in scored), self.protocol())

    def trainings(self, run: str) -> int:
        """How many of its trainings were scored so far, or are to be where none was."""
        scored = {row.seed for row in self.rows if row.run == run and row.protocol}
        return len(scored or {r.seed for r in self.study.runs if r.name == run})

    def protocols(self) -> list[str]:
        """The protocols with at least one number, in the study's order."""
        seen = {r.protocol for r in self.rows}
        return [p for p in self.study.protocols if p in seen]


def read_evidence(study: Study, metrics_csv: Path) -> Evidence:
    """What was measured, with the values without each group of pictures that stand beside it."""
    reached = read_rows(metrics_csv.with_name(REACHES), Reached) if study.reaches else []
    return Evidence(study, read_rows(metrics_csv, Row), read_rows(metrics_csv.with_name(GROUPS), Left), reached)
