"""The table of how early runs are as good as others at their best."""

from mdm.config.units import large
from mdm.report.evidence import Evidence
from mdm.report.metrics import describe
from mdm.report.reaches import EARLIER, NOT_REACHED, REACHED, over_pairs, states
from mdm.report.tables.render import Cell, Column, Table
from mdm.study.claims import Reference

CAPTION = (
    "After how many times what the other run had spent at its best a run is as good as that: 0.5 is twice as soon. "
    "Read off straight lines between snapshots over the logarithm of the cost; brackets: 95 % over pairs of trainings "
    "and over pictures. Where a pair is never as good, or is so at its first snapshot already, only a bound is known. "
    "Of methods that are alike a number stands by luck, and too low: near 1 an interval covers less than it says."
)
COLUMNS = (
    ("run", "Run", False), ("best_of", "Reaches the best of", False), ("metric", "By", False),
    ("cost", "Counted in", False), ("spent", "There at", True), ("ratio", "Times as much", True),
    ("pairs", "Pairs", False),
)  # fmt: skip


def reaches_table(evidence: Evidence) -> Table:
    """Rows = the comparisons that claims ask for."""
    rows = [_row(evidence, reference) for reference in evidence.study.reaches]
    return Table("reaches", "How early as good", CAPTION, [Column(*each) for each in COLUMNS], rows)


def _row(evidence: Evidence, reference: Reference) -> dict[str, Cell]:
    known, found = over_pairs(evidence.behind(reference, None)), states(reference, evidence.reached)
    at = [row.at for row in found.get(REACHED, []) if row.at is not None]
    counts = [f"{len(rows)} {state}" for state, rows in found.items()]
    return {
        "run": Cell(reference.run), "best_of": Cell(str(reference.best_of)),
        "metric": Cell(describe(reference.metric).title), "cost": Cell(str(reference.cost)),
        "spent": Cell(large(sum(at) / len(at)) if at else "\u2014"),
        "ratio": Cell(quantity=known) if known and list(found) == [REACHED] else Cell(_bound(evidence, reference)),
        "pairs": Cell(", ".join(counts) or "not measured yet"),
    }  # fmt: skip


def _bound(evidence: Evidence, reference: Reference) -> str:
    """What is known where a pair has no number."""
    found = states(reference, evidence.reached)
    if never := found.get(NOT_REACHED):
        return f"above {min(row.last / row.best_at for row in never):.2g}"
    if early := found.get(EARLIER):
        return f"below {max(row.first / row.best_at for row in early):.2g}"
    return "\u2014"
