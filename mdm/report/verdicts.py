"""Executable claims: a sentence of the paper, an expression over our metrics, and a verdict with its numbers.

`reproduced` and `not reproduced` are only said when the interval of every comparison that matters excludes zero, and
when that interval is over at least three trainings on each side: the same recipe, trained with another seed or on
another computer, gives another network. With fewer the verdict says so, whatever the pictures say; otherwise it is
`inconclusive`. A number that was not measured makes it `not run`. A number that a paper measured is compared only under
the same protocol. Several claims are several chances to be wrong: the tally also counts the verdicts that stand after
Holm's correction.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from mdm.config import ProtocolConfig
from mdm.evaluate.metric_names import CERTAIN, EMM
from mdm.files.atomic import write_json
from mdm.report.comparisons import Comparison, decide, ratio
from mdm.report.crossing import comparable, crossings
from mdm.report.evidence import Evidence, read_evidence
from mdm.report.metrics import describe
from mdm.report.quantity import Measurement, Quantity, over_seeds
from mdm.report.reaches import undecided
from mdm.study.claims import Reference, parse, references
from mdm.study.runs import Claim
from mdm.study.study import Study

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"
NOT_REACHED = "not reached"  # of `reaches`: a training never becomes as good as the other at its best
ONE_TRAINING, NOT_COMPARABLE = "one training each: undecided", "not comparable"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_REACHED, ONE_TRAINING, NOT_COMPARABLE, NOT_RUN)
DECIDED = (REPRODUCED, NOT_REPRODUCED)
TRAININGS = 3  # on each side, for a verdict about how they were trained
LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
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
    #: p-value of the answer, and whether it stands beside the study's other claims
    chance: float = 1.0
    stands: bool = False

    def as_json(self) -> dict[str, Any]:
        words = ("name", "statement", "source", "expect", "protocol", "verdict", "sentence")
        return {key: getattr(self, key) for key in words} | {
            "p_value": self.chance,
            "stands_after_holm": self.stands,
            "missing": self.missing,
            "numbers": [
                {"metric": r.metric, "run": r.run, "protocol": r.protocol or self.protocol} | q.as_json() | _reach_of(r)
                for r, q in self.numbers.items()
            ],
            "comparisons": [
                {"text": c.text, "left": c.left.value, "right": c.right.value, "margin": c.margin.value,
                 "low": c.margin.low, "high": c.margin.high, "over": c.margin.over, "holds": c.holds}
                for c in self.comparisons
            ],
        }  # fmt: skip


def _reach_of(reference: Reference) -> dict[str, str | None]:
    return {"best_of": reference.best_of, "cost": reference.cost} if reference.best_of else {}


def judge(name: str, claim: Claim, evidence: Evidence) -> Verdict:
    protocol = evidence.protocol(claim.protocol)
    given = {"name": name, "statement": claim.statement, "source": claim.source,
             "expect": claim.expect, "protocol": protocol}  # fmt: skip
    found = {r: evidence.behind(r, protocol) for r in references(parse(claim.expect))}
    missing = [str(r) for r, parts in found.items() if not parts]
    outside = _outside(evidence, found)
    numbers = {r: over_seeds(parts) for r, parts in found.items() if parts and r not in outside}
    if missing:
        sentence = f"Not measured yet: {', '.join(missing)}."
        return Verdict(**given, verdict=NOT_RUN, sentence=sentence, missing=missing, numbers=numbers)
    if outside:
        never = any(r.best_of and math.inf in (part.value for part in found[r].values()) for r in outside)
        verdict = NOT_REACHED if never else INCONCLUSIVE
        return Verdict(**given, verdict=verdict, sentence=" ".join(outside.values()), numbers=numbers)
    if unlike := _unlike_grids(evidence, found):
        return Verdict(**given, verdict=INCONCLUSIVE, sentence=unlike, numbers=numbers)
    try:
        truth, chance, comparisons, numbers = decide(claim.expect, found.__getitem__)
    except ArithmeticError:
        sentence = "The expression divides by a measured zero, or takes the logarithm of what is not above zero."
        return Verdict(**given, verdict=INCONCLUSIVE, sentence=sentence, numbers=numbers)
    if chance > LEVEL:  # one of several comparisons was enough, and each was a chance to be wrong
        truth = None
    verdict = {True: REPRODUCED, False: NOT_REPRODUCED, None: INCONCLUSIVE}[truth]
    if not _comparable(claim, comparisons, evidence.study.protocols):
        verdict = NOT_COMPARABLE
    elif _fewest_trainings(numbers) < TRAININGS:
        verdict = ONE_TRAINING
    return Verdict(
        **given, verdict=verdict, sentence=_sentence(verdict, claim, comparisons, numbers), numbers=numbers,
        comparisons=comparisons, chance=chance if verdict in (*DECIDED, INCONCLUSIVE) else 1.0,
    )  # fmt: skip


def _outside(evidence: Evidence, found: Mapping[Reference, Mapping[int, Measurement]]) -> dict[Reference, str]:
    """What some trainings do not tell, because their curves end before or begin after it, and how that is said."""
    said = {r: undecided(r, evidence.reached) for r in found if r.best_of}
    for reference, parts in found.items():
        if not reference.best_of and any(math.isinf(part.value) for part in parts.values()):
            said[reference] = _outside_sentence(reference, parts)
    return {reference: sentence for reference, sentence in said.items() if sentence}


def _outside_sentence(reference: Reference, parts: Mapping[int, Measurement]) -> str:
    """Of a curve that some trainings never cross, which says on which side of the trained sizes the crossing lies."""
    said, onset = [], reference.metric != EMM
    after, before = ("after the end", "before the first snapshot") if onset else ("above", "below")
    what = " of the training" if onset else " the numbers of pictures that were trained on"
    for word, sign in ((after, 1), (before, -1)):
        seeds = [str(seed) for seed, part in parts.items() if part.value == sign * math.inf]
        if seeds:
            said.append(f"{word}{what} for seed {', '.join(seeds)}")
    if reference.metric != EMM:
        return f"{reference.plain} lies {' and '.join(said)}; train longer, or take earlier snapshots."
    return f"{reference.plain} lies outside of its grid, {' and '.join(said)}; train on more or fewer pictures."


def _unlike_grids(evidence: Evidence, found: Iterable[Reference]) -> str | None:
    """Of curves that cross in the same stretch, but were measured at other sizes there."""
    curves = {r.run: crossings(evidence.study.emm[r.run], evidence.rows) for r in found if r.metric == EMM}
    for (one, mine), (other, theirs) in combinations(curves.items(), 2):
        if not comparable(mine.values(), theirs.values()):
            return (
                f'emm["{one}"] and emm["{other}"] lie where the two were trained on different numbers of pictures, so '
                "lines between these differ as well; train both on the same."
            )
    return None


def _comparable(claim: Claim, comparisons: list[Comparison], protocols: Mapping[str, ProtocolConfig]) -> bool:
    """Whether the numbers in a claim were measured as all that they stand against: papers give plain distances."""
    if claim.number_from == "own" or not any(c.with_number for c in comparisons):
        return True
    beside = [reference for c in comparisons if c.with_number for reference in c.behind]
    return claim.number_from is not None and all(
        not reference.best_of
        and _name_of(protocols.get(reference.protocol or claim.protocol)) == claim.number_from
        and not reference.metric.endswith("_unbiased")
        for reference in beside
    )


def _name_of(protocol: ProtocolConfig | None) -> str | None:
    return f"{protocol.standard}/{protocol.resize}" if protocol and protocol.standard else None


def _fewest_trainings(numbers: Mapping[Reference, Quantity]) -> int:
    """Of the measurements that another training would change."""
    return min((len(q.seeds) for r, q in numbers.items() if r.metric not in CERTAIN), default=TRAININGS)


def _sentence(verdict: str, claim: Claim, comparisons: list[Comparison], numbers: Mapping[Reference, Quantity]) -> str:
    parts = [_comparison_sentence(c) for c in comparisons]
    parts += [_reaches_sentence(r, quantity) for r, quantity in numbers.items() if r.best_of]
    if verdict == INCONCLUSIVE:
        several = len(comparisons) > 1 and any(c.holds is not None for c in comparisons)
        parts.append(
            "One of several comparisons would have sufficed, and each was a chance: together they decide nothing."
            if several else "An interval that includes zero decides nothing either way."
        )  # fmt: skip
    if verdict == ONE_TRAINING:
        fewest = _fewest_trainings(numbers)
        trainings = "one training" if fewest == 1 else f"{fewest} trainings"
        parts.append(
            f"A side has {trainings}, and another training would give another number: that takes {TRAININGS} a side."
        )
    if verdict == NOT_COMPARABLE:
        source = f"under {claim.number_from}" if claim.number_from else "under a protocol that the claim does not name"
        parts.append(f"The number was measured {source}, ours under another protocol.")
    if any(q.exact and r.metric not in CERTAIN for r, q in numbers.items()):
        parts.append("A number without an interval counts as exact.")
    return " ".join(parts)


def _reaches_sentence(reference: Reference, quantity: Quantity) -> str:
    metric = describe(reference.metric).title
    return (
        f"'{reference.run}' reaches the best {metric} of '{reference.best_of}' after {quantity.text()} times as many "
        f"{reference.cost}."
    )


def _comparison_sentence(comparison: Comparison) -> str:
    word = {True: "it holds", False: "it is contradicted", None: "it stays open"}
    given = [(comparison.left_text, comparison.left), (comparison.right_text, comparison.right)]
    margin = f"by {comparison.margin.text(signed=True)}"
    if comparison.of_logarithms:
        given = [(ratio(side), quantity.raised()) for side, quantity in given]
        margin = f"by a factor of {comparison.margin.raised().text()}"
    sides = [side if quantity.exact else f"{side} = {quantity.text()}" for side, quantity in given]
    trainings = len(comparison.margin.seeds)
    over = f", over {trainings} pairs of trainings" if trainings > 1 and len(comparison.behind) > 1 else ""
    return (
        f"{sides[0]} should be {comparison.relation} {sides[1]}; "
        f"in that direction they differ {margin}{over}: {word[comparison.holds]}."
    )


def judge_all(study: Study, evidence: Evidence) -> list[Verdict]:
    """Every claim of the study, in its order, each knowing whether it stands beside the others."""
    found = [judge(name, claim, evidence) for name, claim in study.claims.items()]
    standing = holm({v.name: v.chance for v in found if v.verdict in (*DECIDED, INCONCLUSIVE)})
    return [replace(v, stands=v.name in standing and v.verdict in DECIDED) for v in found]


def holm(chances: Mapping[str, float]) -> set[str]:
    """The names whose p-values stay below LEVEL when all are looked at together (Holm 1979)."""
    standing: set[str] = set()
    for place, (name, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        if chance * (len(chances) - place) > LEVEL:
            break
        standing.add(name)
    return standing


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many claims came to which verdict, and how many of the decided ones stand after Holm's correction."""
    counts = [(sum(v.verdict == name for v in verdicts), name) for name in VERDICTS]
    listed = ", ".join(f"{count} {name}" for count, name in counts if count)
    decided, standing = sum(v.verdict in DECIDED for v in verdicts), sum(v.stands for v in verdicts)
    tried = sum(v.verdict in (*DECIDED, INCONCLUSIVE) for v in verdicts)
    note = f" ({standing} of the {decided} decided after Holm's correction for {tried} comparisons)" if decided else ""
    return f"{listed}{note}"


def write(study: Study, metrics_csv: Path, out: Path) -> list[Verdict]:
    """Write claims.json."""
    verdicts = judge_all(study, read_evidence(study, metrics_csv))
    write_json(out, {"study": study.name, "digest": study.digest, "claims": [v.as_json() for v in verdicts]})
    return verdicts
