"""A measured number with its interval, over seeds, and what can be computed from it.

Intervals: each score comes with a 95 % interval of its own (which pictures happened to be drawn). Over
several seeds the value is the mean; its half-width is the larger of the pooled half-width of the seeds and
1.96 standard errors of the mean over seeds. Differences add half-widths in quadrature, side by side, so that
asymmetric intervals stay asymmetric. With one seed the interval says nothing about other seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mdm.config.units import decimals, exact, number

NORMAL_QUANTILE = 1.959963984540054


@dataclass(frozen=True)
class Quantity:
    """A value with its 95 % interval and the values of the seeds behind it."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

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

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, when there are several."""
        return statistics.stdev(self.seeds) if len(self.seeds) > 1 else None

    def scaled(self, factor: float) -> Quantity:
        """The same quantity in another (positive) unit."""
        return Quantity(self.value * factor, self.low * factor, self.high * factor,
                        tuple(s * factor for s in self.seeds))  # fmt: skip

    def text(self, signed: bool = False) -> str:
        """`27.4 [26.8, 28.0]`, rounded to two digits of its uncertainty."""
        places = decimals(self.value, (self.high - self.low) / 2)
        shown = exact(self.value) if self.exact else number(self.value, places)
        if signed and self.value > 0:
            shown = f"+{shown}"
        return shown if self.exact else f"{shown} [{number(self.low, places)}, {number(self.high, places)}]"

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "seeds": list(self.seeds)}


def measured(value: float, low: float | None, high: float | None) -> Quantity:
    """One score of one seed; absent bounds mean an exact number."""
    absent = low is None or high is None or math.isnan(low) or math.isnan(high)
    return Quantity(value, value, value, (value,)) if absent else Quantity(value, low, high, (value,))


def over_seeds(parts: Iterable[Quantity]) -> Quantity:
    """The mean of single-seed quantities with the interval described above."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    count, values = len(parts), [p.value for p in parts]
    mean = statistics.fmean(values)
    between = NORMAL_QUANTILE * statistics.stdev(values) / math.sqrt(count)
    below = math.hypot(*(p.below for p in parts)) / count
    above = math.hypot(*(p.above for p in parts)) / count
    return Quantity(mean, mean - max(below, between), mean + max(above, between), tuple(values))


def propagated(value: float, slopes: Mapping[Any, float], quantities: Mapping[Any, Quantity]) -> Quantity:
    """The interval of a function of independent quantities, to first order.

    `slopes` holds the partial derivative by each quantity. A quantity used twice has one slope, so that
    `a - a` is exactly 0.
    """
    below = above = 0.0
    for key, slope in slopes.items():
        down, up = quantities[key].below, quantities[key].above
        below += (slope * (down if slope > 0 else up)) ** 2
        above += (slope * (up if slope > 0 else down)) ** 2
    return Quantity(value, value - math.sqrt(below), value + math.sqrt(above))


def difference(own: Quantity, other: Quantity) -> Quantity:
    """own - other, half-widths added in quadrature."""
    return propagated(own.value - other.value, {0: 1.0, 1: -1.0}, {0: own, 1: other})
