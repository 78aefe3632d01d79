"""Loss beyond the optimum by noise level: every training's numbers (`excess.csv`), and lines over trainings."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm.report.collect import Artifacts, digest_of, write_csv
from mdm.report.quantity import over_trainings
from mdm.study.study import Study


@dataclass(frozen=True)
class Row:
    """One training, level and noise bin; the fields are the columns of excess.csv."""

    run: str
    seed: int
    level: int
    log_snr: float
    optimum: float
    excess: float
    loss: float
    digest: str


@dataclass(frozen=True)
class Point:
    """A point of a line: the mean over trainings, and half of the 95 % interval over them where there are several."""

    log_snr: float
    value: float
    half: float | None


def collect(study: Study, artifacts: Artifacts) -> Iterator[Row]:
    """Yield every number that is there so far."""
    for run in study.runs:
        found = artifacts.json(run.excess, "excess.json")
        for one in found["bins"] if found else ():
            yield Row(run.name, run.seed, **one, digest=digest_of(run.excess))


def line(rows: Iterable[Row], run: str, level: int) -> list[Point]:
    """The excess of one run and level, by rising ln(SNR)."""
    by_bin: dict[float, list[float]] = {}
    for row in rows:
        if (row.run, row.level) == (run, level):
            by_bin.setdefault(row.log_snr, []).append(row.excess)
    return [_point(log_snr, by_bin[log_snr]) for log_snr in sorted(by_bin)]


def _point(log_snr: float, values: Sequence[float]) -> Point:
    return Point(log_snr, *over_trainings(values))


def optima(rows: Iterable[Row], level: int) -> list[list[tuple[float, float]]]:
    """Lines of what is unavoidable at a level; more than one where runs see other noises or other levels with it."""
    of_runs: dict[str, dict[float, float]] = {}
    for row in rows:
        if row.level == level:
            of_runs.setdefault(row.digest, {})[row.log_snr] = row.optimum
    # Runs that are asked the same have the same optimum, up to rounding.
    different = {tuple(f"{value:.3g}" for value in found.values()): found for found in of_runs.values()}
    return [sorted(found.items()) for found in different.values()]


def write(study: Study, results: Path, path: Path) -> None:
    """Write excess.csv."""
    write_csv(path, Row, collect(study, Artifacts(results)))
