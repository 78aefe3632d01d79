"""Executable claims: a sentence of the paper, an expression over our metrics, and a verdict with its numbers.

`reproduced` and `not reproduced` are only said when the interval of every comparison that matters excludes
zero; otherwise the verdict is `inconclusive`. A number that was not measured makes it `not run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm.report.comparisons import Comparison, Pairing, decide
from mdm.report.quantity import Quantity
from mdm.study.claims import ExpressionError, Reference, check_expression, parse, references
from mdm.study.runs import Claim
from mdm.study.study import Study

if TYPE_CHECKING:
    from mdm.report.evidence import Evidence

__all__ = ["ExpressionError", "Verdict", "check_expression", "judge", "judge_all", "write"]

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)


@dataclass(frozen=True)
class Verdict:
    """What became of one claim."""

    name: str
    statement: str
    source: str
    expect: str
    protocol: str | None
    verdict: str
    sentence: str
    numbers: dict[Reference, Quantity] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain JSON."""
        plain = {
            k: getattr(self, k) for k in ("name", "statement", "source", "expect", "protocol", "verdict", "sentence")
        }
        return plain | {
            "missing": self.missing,
            "numbers": [
                {"metric": r.metric, "run": r.run, "protocol": r.protocol or self.protocol} | q.as_json()
                for r, q in self.numbers.items()
            ],
            "comparisons": [
                {"text": c.text, "left": c.left.value, "right": c.right.value, "margin": c.margin.value,
                 "low": c.margin.low, "high": c.margin.high, "paired": c.paired, "holds": c.holds}
                for c in self.comparisons
            ],
        }  # fmt: skip


def judge(name: str, claim: Claim, evidence: Evidence) -> Verdict:
    """Evaluate one claim on what was measured."""
    given = {"name": name, "statement": claim.statement, "source": claim.source,
             "expect": claim.expect, "protocol": evidence.protocol(claim.protocol)}  # fmt: skip
    found = {
        r: evidence.quantity(r.metric, r.run, r.protocol or given["protocol"]) for r in references(parse(claim.expect))
    }
    missing = [str(r) for r, q in found.items() if q is None]
    if missing:
        sentence = f"Not measured yet: {', '.join(missing)}."
        return Verdict(**given, verdict=NOT_RUN, sentence=sentence, missing=missing,
                       numbers={r: q for r, q in found.items() if q})  # fmt: skip
    try:
        truth, comparisons, numbers = decide(claim.expect, found.__getitem__, _pairing(evidence, given["protocol"]))
    except ZeroDivisionError:
        return Verdict(
            **given, verdict=INCONCLUSIVE, sentence="The expression divides by a measured zero.", numbers=found
        )
    verdict = {True: REPRODUCED, False: NOT_REPRODUCED, None: INCONCLUSIVE}[truth]
    return Verdict(**given, verdict=verdict, sentence=_sentence(verdict, comparisons, numbers),
                   numbers=numbers, comparisons=comparisons)  # fmt: skip


def _pairing(evidence: Evidence, protocol: str | None) -> Pairing:
    """Looks up what two measurements of one metric differ by, picture by picture."""

    def paired(own: Reference, other: Reference) -> Quantity | None:
        where = [r.protocol or protocol for r in (own, other)]
        if own.metric != other.metric or where[0] != where[1]:
            return None
        found = evidence.difference(own.metric, own.run, other.run, where[0])
        return found[0] if found and found[1] else None

    return paired


def _sentence(verdict: str, comparisons: list[Comparison], numbers: Mapping[Reference, Quantity]) -> str:
    parts = [_comparison_sentence(c) for c in comparisons]
    undecided = verdict == INCONCLUSIVE
    fewest = min(len(q.seeds) for q in numbers.values())
    if undecided:
        parts.append("An interval that includes zero decides nothing either way.")
    if fewest == 1:
        parts.append("At least one side is a single seed: its interval covers the drawn pictures, not other trainings.")
    if any(q.exact for q in numbers.values()):
        parts.append("A number without an interval counts as exact.")
    return " ".join(parts)


def _comparison_sentence(comparison: Comparison) -> str:
    word = {True: "it holds", False: "it is contradicted", None: "it stays open"}
    sides = [
        side if quantity.exact else f"{side} = {quantity.text()}"
        for side, quantity in ((comparison.left_text, comparison.left), (comparison.right_text, comparison.right))
    ]
    return (
        f"{sides[0]} should be {comparison.relation} {sides[1]}; "
        f"in that direction they differ by {comparison.margin.text(signed=True)}"
        f"{', picture by picture' if comparison.paired else ''}: {word[comparison.holds]}."
    )


def judge_all(study: Study, evidence: Evidence) -> list[Verdict]:
    """Every claim of the study, in its order."""
    return [judge(name, claim, evidence) for name, claim in study.claims.items()]


def write(study: Study, metrics_csv: Path, out: Path) -> list[Verdict]:
    """Write claims.json."""
    from mdm.files.atomic import write_json
    from mdm.report.evidence import read_evidence

    verdicts = judge_all(study, read_evidence(study, metrics_csv))
    write_json(out, {"study": study.name, "digest": study.digest, "claims": [v.as_json() for v in verdicts]})
    return verdicts
