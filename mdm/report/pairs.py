"""Which runs are compared with which, and their paired differences: differences.csv beside metrics.csv."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from mdm.report.quantity import Quantity, measured
from mdm.study.claims import parse, references
from mdm.study.study import Study


@dataclass(frozen=True)
class Difference:
    """run - against under one protocol and seed, picture by picture."""

    run: str
    against: str
    seed: int
    metric: str
    value: float
    low: float
    high: float
    protocol: str


COLUMNS = tuple(f.name for f in fields(Difference))


def wanted(study: Study) -> list[tuple[str, str]]:
    """(run, against) of every ablation, and of every two runs whose like metrics one claim compares."""
    pairs = [(run.name, study.ablations[run.ablation].against) for run in study.runs if run.ablation in study.ablations]
    for claim in study.claims.values():
        asked = references(parse(claim.expect))
        pairs += [(a.run, b.run) for i, a in enumerate(asked) for b in asked[i + 1 :] if a.metric == b.metric]
    found: dict[tuple[str, str], None] = {}
    for own, other in pairs:
        if own != other and (other, own) not in found:
            found[own, other] = None
    return list(found)


def collect(study: Study, results: Path) -> list[Difference]:
    """Every difference whose two sides are measured."""
    return [difference for pair in wanted(study) for difference in _of_pair(study, results, *pair)]


def _of_pair(study: Study, results: Path, own: str, other: str) -> Iterator[Difference]:
    from mdm.evaluate.pairs import paired

    others = {(run.seed, e.protocol): e for run in study.runs if run.name == other for e in run.evaluations}
    for run in study.runs:
        for mine in run.evaluations if run.name == own else ():
            theirs = others.get((run.seed, mine.protocol))
            if theirs is None or theirs.reference != mine.reference:
                continue
            for row in paired(results, mine.features, theirs.features, mine.reference) or ():
                numbers = (row["value"], row["low"], row["high"])
                yield Difference(own, other, run.seed, row["metric"], *numbers, mine.protocol)


class Pairs:
    """Looks paired differences up, either way round."""

    def __init__(self, found: list[Difference]) -> None:
        self._parts: dict[tuple[str, str, str, str], dict[int, Quantity]] = {}
        for d in found:
            for key, sign in (((d.run, d.against), 1), ((d.against, d.run), -1)):
                low, high = sorted((sign * d.low, sign * d.high))
                parts = self._parts.setdefault((d.metric, *key, d.protocol), {})
                parts[d.seed] = measured(sign * d.value, low, high)

    def by_seed(self, metric: str, run: str, against: str, protocol: str) -> dict[int, Quantity]:
        """run - against of each seed, {} where nothing was paired."""
        return self._parts.get((metric, run, against, protocol), {})
