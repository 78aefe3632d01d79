"""The table of EMM: up to how many training pictures each curve of the study copies them."""

import math
from collections.abc import Iterable

from mdm.config.units import number
from mdm.evaluate.metric_names import EMM
from mdm.report.crossing import Crossing, crossings
from mdm.report.evidence import Evidence
from mdm.report.metrics import describe
from mdm.report.tables.render import Cell, Column, Table
from mdm.study.runs import Emm

CAPTION = (
    "Number of training pictures up to which at least the given share of what is drawn are copies, by a straight line "
    "between neighbouring sizes; where a curve falls through the share more than once, the last place counts. "
    "Brackets: 95 % over trainings. Where a training is outside of the sizes that were tried, it is said on which side."
)
COLUMNS = (
    ("curve", "Curve", False), ("metric", "Of", False), ("level", "Share", False), ("sizes", "Sizes trained", False),
    ("emm", "EMM", True),
)  # fmt: skip


def emm_table(evidence: Evidence) -> Table:
    """Rows = curves of the study."""
    rows = []
    for curve in evidence.study.emm.values():
        found, known = crossings(curve, evidence.rows), evidence.quantity(EMM, curve.name)
        inside = known is not None and all(math.isfinite(one.last) for one in found.values())
        rows.append({
            "curve": Cell(curve.title), "metric": Cell(describe(curve.metric).title),
            "level": Cell(f"{curve.level:.0%}"), "sizes": Cell(", ".join(number(n, 0) for n in curve.sizes.values())),
            "emm": Cell(quantity=known) if inside else Cell(_outside(curve, found.values())),
        })  # fmt: skip
    return Table("emm", "How many pictures are copied", CAPTION, [Column(*each) for each in COLUMNS], rows)


def _outside(curve: Emm, found: Iterable[Crossing]) -> str:
    """On which side of the sizes that were trained the trainings are."""
    last = [one.last for one in found]
    sides = [f"below {min(curve.sizes.values()):,}"] * (-math.inf in last)
    sides += [f"above {max(curve.sizes.values()):,}"] * (math.inf in last)
    return " or ".join(sides) or "\u2014"
