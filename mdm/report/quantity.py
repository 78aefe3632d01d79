"""A measured number with its interval, and what can be computed from several.

A number has two kinds of error. *Pictures*: other captions and noises would have given other pictures, and other real
ones would stand beside them; a jackknife over groups of captions and one over groups of real pictures know how much.
*Trainings*: another seed would have given another network, and so does the same seed on another computer; only several
trainings tell. All seeds of a study draw the same captions from the same noises and are compared with the same real
pictures, so that the first kind does not average out over seeds: groups are left out of all of them at once.

With k trainings the half-width is Student's with k - 1 degrees of freedom on the spread of the trainings, and Student's
on the jackknife, added in quadrature. That is a little too wide, because the spread of the trainings holds a share of
the captions' error already. Two runs are compared seed by seed, and picture by picture if they drew the same captions.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Self

import numpy as np

from mdm.config.units import decimals, exact, number
from mdm.evaluate.intervals import NORMAL_QUANTILE, mean_with_interval, standard_error, student_quantile

PICTURES, TRAININGS = "pictures of one training", "trainings"
NORMAL = math.inf  # degrees of freedom of an error that is known


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def below(self) -> float:
        return self.value - self.low

    @property
    def above(self) -> float:
        return self.high - self.value

    @property
    def exact(self) -> bool:
        """True when no uncertainty is known: a count, or a number that came without an interval."""
        return self.low == self.value == self.high


@dataclass(frozen=True)
class Measurement(Interval):
    """One score of one training: its own interval, and its values without each group of captions.

    `without_real`: its values without each group of the real pictures beside them, which all runs share.
    """

    without: tuple[float, ...] = ()
    #: what was drawn: measurements of one set share captions and noises
    drawn: str = ""
    #: the same whatever the weights turn out to be: no training can change it
    certain: bool = False
    without_real: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quantity(Interval):
    """A value with its 95 % interval, the values of the seeds behind it, and what the interval is over."""

    seeds: tuple[float, ...] = ()
    #: independent parts of the error: standard error and degrees of freedom
    errors: tuple[tuple[float, float], ...] = ()
    #: on the side with the fewest
    trainings: int = 1

    @property
    def over(self) -> str:
        return "" if self.exact else TRAININGS if self.trainings > 1 else PICTURES

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, when there are several."""
        return statistics.stdev(self.seeds) if len(self.seeds) > 1 else None

    @property
    def chance(self) -> float:
        """Two-sided p-value of zero: the level at which the interval just reaches it; 0 of what is counted."""
        if self.exact:
            return 0.0
        if not self.value:
            return 1.0
        low, high = 0.0, 1.0  # levels of confidence whose interval excludes zero, or does not
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if half_width(self.errors, middle) < abs(self.value) else (low, middle)
        return 1 - low

    def scaled(self, factor: float) -> Self:
        """The same quantity in another (positive) unit."""
        return replace(
            self, value=self.value * factor, low=self.low * factor, high=self.high * factor,
            seeds=tuple(seed * factor for seed in self.seeds),
            errors=tuple((error * factor, freedom) for error, freedom in self.errors),
        )  # fmt: skip

    def raised(self) -> Self:
        """Of a logarithm: the number itself (a geometric mean over seeds), or of a difference the ratio."""
        value, low, high, *seeds = map(math.exp, (self.value, self.low, self.high, *self.seeds))
        return replace(self, value=value, low=low, high=high, seeds=tuple(seeds), errors=())

    def text(self, signed: bool = False) -> str:
        """`27.4 [26.8, 28.0]`, rounded to two digits of its uncertainty."""
        places = decimals(self.value, (self.high - self.low) / 2)
        shown = exact(self.value) if self.exact else number(self.value, places)
        if signed and self.value > 0:
            shown = f"+{shown}"
        return shown if self.exact else f"{shown} [{number(self.low, places)}, {number(self.high, places)}]"

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "seeds": list(self.seeds), "over": self.over}


def half_width(errors: Iterable[tuple[float, float]], level: float = 0.95) -> float:
    """Half of the interval at a level of confidence: Student's half-widths of independent errors in quadrature."""
    return math.hypot(*(error * student_quantile(freedom, level) for error, freedom in errors if error))


def measured(
    value: float, low: float | None, high: float | None, without: Iterable[float] = (), drawn: str = "",
    certain: bool = False, without_real: Iterable[float] = (),
) -> Measurement:  # fmt: skip
    """One score of one seed; absent bounds mean an exact number."""
    absent = low is None or high is None or math.isnan(low) or math.isnan(high)
    ends = (value, value) if absent else (low, high)
    return Measurement(value, *ends, tuple(without), drawn, certain, tuple(without_real))


def over_trainings(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of one value for each training, and half of its 95 % interval (Student) where there are several."""
    if len(values) < 2:
        return values[0], None
    mean, low, _ = mean_with_interval(np.array(values))
    return mean, mean - low


def logarithm(part: Measurement) -> Measurement:
    """The natural logarithm of a score above zero; its own interval to first order."""
    if min((part.value, *part.without, *part.without_real)) <= 0:
        raise ArithmeticError(f"{part.value} has no logarithm, or has none without some captions")
    value = math.log(part.value)
    low, high = value - part.below / part.value, value + part.above / part.value
    left, real = (tuple(map(math.log, side)) for side in (part.without, part.without_real))
    return replace(part, value=value, low=low, high=high, without=left, without_real=real)


def alone(part: Measurement) -> Quantity:
    """One training, with the interval that its own pictures give (for a share: Wilson's, which is not symmetric)."""
    return Quantity(part.value, part.low, part.high, (part.value,), tuple(_errors([Term(1.0, {0: part})])))


def over_seeds(parts: Mapping[int, Measurement]) -> Quantity:
    """The mean over trainings, by seed."""
    if len(parts) == 1:
        return alone(next(iter(parts.values())))
    return combined(statistics.fmean(part.value for part in parts.values()), [Term(1.0, parts)])


@dataclass(frozen=True)
class Term:
    """A measurement that a number depends on: the derivative by its mean over seeds, and its trainings by seed."""

    slope: float
    parts: Mapping[int, Measurement] = field(default_factory=dict)

    @property
    def certain(self) -> bool:
        return all(part.certain for part in self.parts.values())


def combined(value: float, terms: Iterable[Term]) -> Quantity:
    """The interval of a function of measurements, to first order; each is one term, so that a - a is exactly 0."""
    terms = [term for term in terms if term.slope]
    errors = tuple(_errors(terms))
    half = half_width(errors)
    seeds = by_seed(terms)
    centre = sum(term.slope * statistics.fmean(part.value for part in term.parts.values()) for term in terms)
    shown = tuple(seed + value - centre for seed in seeds)
    trainings = min((len(term.parts) for term in terms if not term.certain), default=1)
    return Quantity(value, value - half, value + half, shown, errors, trainings)


def by_seed(terms: list[Term]) -> tuple[float, ...]:
    """The number for each seed, if all measurements have the same seeds."""
    seeds = {frozenset(term.parts) for term in terms}
    if len(seeds) != 1:
        return ()
    return tuple(sum(term.slope * term.parts[seed].value for term in terms) for seed in sorted(*seeds))


def _errors(terms: list[Term]) -> Iterable[tuple[float, float]]:
    yield from _between_trainings(terms)
    drawn = [term for term in terms if all(part.without for part in term.parts.values())]
    for captions in dict.fromkeys(_drawn(term) for term in drawn):
        together = [term for term in drawn if _drawn(term) == captions]
        yield _over_captions(together)
        if compared := [term for term in together if all(part.without_real for part in term.parts.values())]:
            yield _left_out(compared, attrgetter("without_real"))
    for term in terms:
        if term not in drawn:
            yield _own_error(term), NORMAL


def _between_trainings(terms: list[Term]) -> Iterable[tuple[float, float]]:
    """Seed by seed among measurements of the same seeds; other sets of seeds are other trainings, added by Welch.

    What no training changes has no part in it, however often it was counted; nothing where a side was trained once.
    """
    together: dict[frozenset[int], list[Term]] = {}
    for term in terms:
        if not term.certain:
            together.setdefault(frozenset(term.parts), []).append(term)
    if not together or min(map(len, together)) < 2:
        return
    numbers = [by_seed(same) for same in together.values()]
    shares = [(statistics.variance(found) / len(found), len(found) - 1) for found in numbers]
    if total := sum(share for share, _ in shares):
        freedom = total**2 / sum(share**2 / free for share, free in shares)
        yield math.sqrt(total), shares[0][1] if len(shares) == 1 else freedom


def _drawn(term: Term) -> tuple[str, int]:
    part = next(iter(term.parts.values()))
    return part.drawn, len(part.without)


def _over_captions(terms: list[Term]) -> tuple[float, float]:
    """The jackknife of the whole sum: each group of captions is left out of all measurements and seeds at once."""
    error, freedom = _left_out(terms, attrgetter("without"))
    if error < 1e-12:  # shares that no group changes: the jackknife knows nothing, each interval of its own does
        return math.hypot(*(_own_error(term) for term in terms)), NORMAL
    return error, freedom


def _left_out(terms: list[Term], side: Callable[[Measurement], tuple[float, ...]]) -> tuple[float, float]:
    """Standard error of the whole sum, from each group left out of all measurements and seeds, and its freedom."""
    sides = [(term.slope, zip(*map(side, term.parts.values()), strict=True)) for term in terms]
    means = [[slope * statistics.fmean(group) for group in groups] for slope, groups in sides]
    without = [sum(group) for group in zip(*means, strict=True)]
    return standard_error(np.array(without)), len(without) - 1


def _own_error(term: Term) -> float:
    """Standard error from the intervals the measurements came with; all share the captions, so a mean has it too."""
    halves = [max(part.below, part.above) for part in term.parts.values()]
    return abs(term.slope) * statistics.fmean(halves) / NORMAL_QUANTILE
