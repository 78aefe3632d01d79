"""How much earlier a run is as good as another at its best: from two curves along training, one number per seed.

The other run's best moment is that of its snapshots with the best score. Between two snapshots a curve is taken for a
line over the logarithm of what training had cost, and where the run's own line first reaches that score is the number,
divided by what the other had spent at its best. So 0.5 says: as good after half of it. Plain distances, which fall like
powers, are taken by their logarithms too: lines between scores themselves would come late. Curves are not smoothed, and
nothing is guessed outside of them: a training that never gets there is "not reached", one that is there at its first
snapshot already is only known to have been earlier. Trainings are compared in pairs of one seed, which have the same
noises, and every group of captions and of real pictures is left out of both curves at once.

Where a training never ends as well as the other's best there is no number; so where two methods are alike, one that is
there stands by luck. Of equal methods k pairs all have one in one study of 2^k, and its interval then lies below 1 in a
fifth of cases for k = 3: "sooner" is said of equals in some 3 % of all studies, but near 1 intervals cover too little.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm.evaluate.metric_names import FRECHET_DISTANCES, VIDEO_DISTANCES
from mdm.report.collect import Artifacts, write_csv
from mdm.report.crossing import first_reached
from mdm.report.curves import spent
from mdm.report.metrics import describe
from mdm.report.quantity import Measurement, Quantity, logarithm, over_seeds
from mdm.study.claims import Reference
from mdm.study.runs import Run
from mdm.study.study import Study

REACHED, NOT_REACHED = "reached", "not reached"
EARLIER, BARELY = "before its first snapshot", "only with some of the pictures"
PLAIN = (*FRECHET_DISTANCES, *VIDEO_DISTANCES, "fid_published")
SMALLEST = 1e-12  # of a distance, so that it has a logarithm
REACHES = "reaches.csv"  # stands beside metrics.csv


@dataclass(frozen=True)
class Moment:
    """A point of one training's curve: its score (see `score`), and that without each group of pictures."""

    cost: float
    score: float
    without: tuple[float, ...] = ()
    without_real: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reached:
    """One pair of trainings; the fields are the columns of reaches.csv."""

    metric: str
    run: str
    best_of: str
    cost: str
    seed: int
    state: str
    ratio: float | None  # of costs, where it is reached between two snapshots
    at: float | None
    best: float
    best_at: float
    first: float  # the cost of the run's first snapshot, and at its end
    last: float
    without: str = ""
    without_real: str = ""


def best(curve: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The cost and the score of the best moment, the first of equals."""
    return max(curve, key=lambda moment: (moment[1], -moment[0]))


def ratio(own: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """Cost at which a curve first reaches the best of the other, over the cost of that."""
    cost, level = best(other)
    return first_reached(own, level) / cost


def pair(reference: Reference, seed: int, own: Sequence[Moment], other: Sequence[Moment]) -> Reached:
    """Two whole curves, in the order of training."""
    value = ratio(_plain(own), _plain(other))
    sides = _left_out(own, other, "without"), _left_out(own, other, "without_real")
    state = REACHED if math.isfinite(value) else NOT_REACHED if value > 0 else EARLIER
    if state == REACHED and not all(map(math.isfinite, (*sides[0], *sides[1]))):
        state = BARELY
    cost, level = best(_plain(other))
    inside, known = math.isfinite(value), state == REACHED
    return Reached(
        reference.metric, reference.run, str(reference.best_of), str(reference.cost), seed, state,
        value if inside else None, value * cost if inside else None, _value(reference.metric, level), cost,
        own[0].cost, own[-1].cost, *(" ".join(map(repr, side)) if known else "" for side in sides),
    )  # fmt: skip


def _plain(curve: Iterable[Moment]) -> list[tuple[float, float]]:
    return [(moment.cost, moment.score) for moment in curve]


def _left_out(own: Sequence[Moment], other: Sequence[Moment], side: str) -> list[float]:
    """The ratio without each group of pictures; none where a moment does not tell."""
    counts = {len(getattr(moment, side)) for moment in (*own, *other)}
    if len(counts) != 1:
        return []
    curves = [[[(m.cost, getattr(m, side)[k]) for m in curve] for curve in (own, other)] for k in range(*counts)]
    return [ratio(*curve) for curve in curves]


def score(metric: str, value: float) -> float:
    """A value as what is interpolated: larger is better, and plain distances by their logarithm."""
    if describe(metric).better != "lower":
        return value
    return -math.log(max(value, SMALLEST)) if metric in PLAIN else -value


def _value(metric: str, reached: float) -> float:
    """The value behind a score."""
    if describe(metric).better != "lower":
        return reached
    return math.exp(-reached) if metric in PLAIN else -reached


def collect(study: Study, artifacts: Artifacts) -> Iterator[Reached]:
    """Every pair of trainings that claims ask for and whose curves are whole."""
    runs = {(run.name, run.seed): run for run in study.runs}
    for reference in study.reaches:
        for name, seed in runs:
            if name == reference.run and (reference.best_of, seed) in runs:
                both = [runs[name, seed], runs[str(reference.best_of), seed]]
                own, other = (_curve(artifacts, run, reference) for run in both)
                if own and other:
                    yield pair(reference, seed, own, other)


def _curve(artifacts: Artifacts, run: Run, reference: Reference) -> list[Moment]:
    """The curve of one training by its cost; empty while a moment of it is missing."""
    found, metric = [], reference.metric
    for point in run.points:
        cost, scores = spent(artifacts, run, point), artifacts.json(point.evaluation.scores, "scores.json")
        rows = [row for row in scores["metrics"] if row["metric"] == metric] if scores else []
        if not cost or cost[str(reference.cost)] is None or not rows or rows[0]["value"] is None:
            return []
        sides = (tuple(score(metric, v) for v in rows[0].get(key) or ()) for key in ("without", "without_real"))
        found.append(Moment(float(cost[str(reference.cost)] or 0), score(metric, rows[0]["value"]), *sides))
    return sorted(found, key=lambda moment: moment.cost)


def parts(reference: Reference, rows: Iterable[Reached]) -> dict[int, Measurement]:
    """The ratio of each seed as a measurement; infinite where a curve does not tell it."""
    found = {}
    for row in rows:
        if (row.metric, row.run, row.best_of, row.cost) == _key(reference):
            value = {NOT_REACHED: math.inf, EARLIER: -math.inf}.get(row.state, row.ratio)
            sides = [tuple(map(float, (text or "").split())) for text in (row.without, row.without_real)]
            number = math.inf if value is None else value
            found[row.seed] = Measurement(number, number, number, sides[0], "along", without_real=sides[1])
    return found


def _key(reference: Reference) -> tuple[str, str, str, str]:
    return reference.metric, reference.run, str(reference.best_of), str(reference.cost)


def over_pairs(known: Mapping[int, Measurement]) -> Quantity | None:
    """The geometric mean over pairs of trainings, whose logarithms spread alike; None where a pair is outside."""
    if not known or any(math.isinf(part.value) for part in known.values()):
        return None
    return over_seeds({seed: logarithm(part) for seed, part in known.items()}).raised()


def states(reference: Reference, rows: Iterable[Reached]) -> dict[str, list[Reached]]:
    """The pairs of a comparison by what became of them."""
    found: dict[str, list[Reached]] = {}
    for row in rows:
        if (row.metric, row.run, row.best_of, row.cost) == _key(reference):
            found.setdefault(row.state, []).append(row)
    return found


def undecided(reference: Reference, rows: Iterable[Reached]) -> str:
    """What keeps a comparison from being a number, training by training; empty where nothing does."""
    said, found = [], states(reference, rows)
    for state in (NOT_REACHED, EARLIER, BARELY):
        if pairs := found.get(state):
            seeds = ", ".join(str(row.seed) for row in pairs)
            said.append(f"with seed {seeds} it is {WORDS[state]}{_bound(state, pairs)}")
    text = f"'{reference.run}' against the best {describe(reference.metric).title} of '{reference.best_of}'"
    return f"{text}: {'; '.join(said)}." if said else ""


WORDS = {
    NOT_REACHED: "not reached in all of its training", EARLIER: "better at its first snapshot already",
    BARELY: "reached only with some of the pictures, so that this decides nothing",
}  # fmt: skip


def _bound(state: str, pairs: Sequence[Reached]) -> str:
    """What is known all the same: the ratio is more than all of its training, or less than its first snapshot."""
    if state == NOT_REACHED:
        return f", which is {min(row.last / row.best_at for row in pairs):.2g} times as much or more"
    if state == EARLIER:
        return f", after {max(row.first / row.best_at for row in pairs):.2g} times as much or less; add earlier ones"
    return ""


def write(study: Study, results: Path, path: Path) -> None:
    """Write reaches.csv."""
    write_csv(path, Reached, collect(study, Artifacts(results)))
