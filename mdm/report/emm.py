"""Shares of copies by number of training pictures, and where the curve of each training crosses its level: emm.csv."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm.report.collect import Row, write_csv
from mdm.report.crossing import crossings, places
from mdm.report.quantity import over_trainings
from mdm.study.runs import Emm
from mdm.study.study import Study


@dataclass(frozen=True)
class Line:
    """One training at one number of pictures; the fields are the columns of emm.csv. inf: outside of the grid."""

    name: str
    seed: int
    metric: str
    level: float
    num_images: int
    share: float
    half: float
    emm_last: float | None
    emm_first: float | None


@dataclass(frozen=True)
class Mean:
    """A point of the figure: the mean over trainings, and half of the 95 % interval over them if there are several."""

    num_images: int
    share: float
    half: float | None


def lines(curves: Iterable[Emm], rows: Sequence[Row]) -> Iterator[Line]:
    """Yield every place of every curve that is known; the crossings are those of all places of a training together."""
    for curve in curves:
        crossed = crossings(curve, rows)
        for seed, known in places(curve, rows).items():
            found = crossed.get(seed)
            ends = (found.last, found.first) if found else (None, None)
            for place in known:
                yield Line(
                    curve.name, seed, curve.metric, curve.level, place.pictures, place.share, place.half, *ends
                )  # fmt: skip


def means(curve: Emm, rows: Sequence[Row]) -> list[Mean]:
    """The curve over trainings, by rising number of pictures."""
    shares: dict[int, list[float]] = {}
    for known in places(curve, rows).values():
        for place in known:
            shares.setdefault(place.pictures, []).append(place.share)
    return [Mean(size, *over_trainings(shares[size])) for size in sorted(shares)]


def write(study: Study, rows: Sequence[Row], path: Path) -> None:
    """Write emm.csv."""
    write_csv(path, Line, lines(study.emm.values(), rows))
