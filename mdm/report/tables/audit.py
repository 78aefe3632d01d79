"""The table of the audit: a row for each run and level, a column for each way to tell a copy."""

import math

from mdm.evaluate.metric_names import OF_LEVELS, TEXT_SIGNAL, at_level
from mdm.report.evidence import Evidence
from mdm.report.metrics import AUDIT, describe, shown
from mdm.report.tables.render import Cell, Column, Table

CAPTION = (
    "Share of drawn pictures that copy a training picture, at every level. Copies: nearer to one training picture than "
    "a third of the distance to any other (exactly, in whole numbers; a picture that stands twice in the training set "
    "can never count); among distinct pictures: the same where each is asked once. Calibrated: nearer than half the "
    "mean distance to the 50 nearest. Authentic: the nearest training picture has another one that is nearer to it. "
    "Pictures shown until half are copies: read off straight lines between snapshots."
)


def audit_table(evidence: Evidence) -> Table:
    """Rows = run x level, highest level first; runs without an audit are left out."""
    rows, used = [], set()
    whole = [name for name in evidence.metrics("", AUDIT) if name == TEXT_SIGNAL or name.startswith("similarity")]
    for run in evidence.run_names:
        sides = evidence.runs[run].stages[-1].resolutions if evidence.runs[run].audits else ()
        for side in sorted(map(int, sides), reverse=True):
            found = {n: _cell(evidence, at_level(n, side), run) for n in OF_LEVELS}
            cells = {n: cell for n, cell in found.items() if cell}
            used |= cells.keys()
            rows.append({"run": Cell(run), "level": Cell(f"{side} px"), **cells})
    for run in evidence.run_names if whole else ():
        found = {n: evidence.quantity(n, run) for n in whole}
        cells = {n: Cell(quantity=shown(n, q)) for n, q in found.items() if q}
        if cells:
            rows.append({"run": Cell(run), "level": Cell("all"), **cells})
    names = [*(name for name in OF_LEVELS if name in used), *whole]
    columns = [Column("run", "Run"), Column("level", "Level"), *(Column(n, describe(n).heading, True) for n in names)]
    return Table("audit", "Copies of training pictures", CAPTION, columns, rows)


def _cell(evidence: Evidence, name: str, run: str) -> Cell | None:
    """A number, or in words that some trainings have none: their curves end before it or begin after it."""
    values = [row.value for row in evidence.rows_of(name, run)]
    if any(map(math.isinf, values)):
        return Cell("before the first snapshot" if -math.inf in values else "after the end")
    quantity = evidence.quantity(name, run)
    return Cell(quantity=shown(name, quantity)) if quantity else None
