"""Rows of scores, and 95 % intervals: of proportions, of means, and by delete-a-group jackknife of any statistic.

The pictures fall into groups by their place, so that two runs that drew the same captions from the same noises leave
the same captions out: what they share cancels in their difference. Nothing is drawn at random.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NORMAL_QUANTILE = 1.959963984540054  # two-sided 95 %
GROUPS = 20


def metric(
    name: str, value: float, low: float, high: float, n: int, without: Iterable[float] | None = None,
    without_real: Iterable[float] = (),
) -> dict[str, Any]:  # fmt: skip
    """One row of scores.json: n pictures are behind the value; `without`: the value without each group of them.

    `without_real`: the value without each group of the real pictures that they were compared with.
    """
    row = {"metric": name, "value": float(value), "low": float(low), "high": float(high), "n": int(n)}
    for key, parts in (("without", without), ("without_real", [*without_real] or None)):
        if parts is not None:
            row[key] = [float(part) for part in parts]
    return row


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson score interval of a proportion: stays inside [0, 1] and is honest at 0 and at n."""
    if n == 0:
        return 0.0, 1.0
    square = NORMAL_QUANTILE**2
    share = successes / n
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = NORMAL_QUANTILE / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # At 0 and n the formula is exactly 0 and 1; rounding must not put the bound past the proportion.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def proportion(name: str, correct: np.ndarray, without: Iterable[float] | None = None) -> dict[str, Any]:
    """The share of true entries with its Wilson interval."""
    n = len(correct)
    successes = int(np.count_nonzero(correct))
    return metric(name, successes / n if n else math.nan, *wilson(successes, n), n, without)


def student_quantile(freedom: float, level: float = 0.95) -> float:
    from scipy.special import stdtrit  # 0.3 s, which a job without such an interval need not spend

    return float(stdtrit(freedom, (1 + level) / 2))  # two-sided


def mean_with_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of independent values [n] with its Student interval (n >= 2)."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, but got {len(values)}; evaluate more pictures")
    mean = float(values.mean())
    half = student_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def groups_of(count: int) -> list[np.ndarray]:
    """Places 0..count-1 in GROUPS groups of equal size (by one); fewer groups where there are few pictures."""
    groups = min(GROUPS, count // 2)
    if groups < 2:
        raise ValueError(f"an interval needs at least 4 pictures, but got {count}; evaluate more pictures")
    # Neighbours in a list of captions may be alike: every group takes some from everywhere.
    return [np.arange(start, count, groups) for start in range(groups)]


@dataclass(frozen=True)
class Estimate:
    """A statistic of all pictures, and of all but each group in turn; likewise of the real ones beside them, if any."""

    value: float
    without: np.ndarray
    without_real: np.ndarray = field(default_factory=lambda: np.array([]))

    @property
    def _sides(self) -> list[np.ndarray]:
        return [side for side in (self.without, self.without_real) if len(side)]

    @property
    def unbiased(self) -> float:
        """The value without the part of its bias that falls with the number of pictures."""
        return float(self.value - sum((len(side) - 1) * (side.mean() - self.value) for side in self._sides))

    @property
    def half_width(self) -> float:
        return math.hypot(*(student_quantile(len(side) - 1) * standard_error(side) for side in self._sides))


def standard_error(without: np.ndarray) -> float:
    """Standard error of a statistic from its values without each group, [groups]."""
    count = len(without)
    return float(np.sqrt((count - 1) / count * np.square(without - without.mean()).sum()))


def jackknife(statistic: Callable[[np.ndarray], float], count: int) -> Estimate:
    """The statistic, a function of the places of pictures, over all `count` of them."""
    every = np.arange(count)
    without = [statistic(np.delete(every, group)) for group in groups_of(count)]
    return Estimate(statistic(every), np.array(without))


def jackknife_both(
    statistic: Callable[[np.ndarray, np.ndarray], float], one: np.ndarray, other: np.ndarray
) -> Estimate:
    """The statistic of two sets of values, and without each group of either."""
    without_one = [statistic(np.delete(one, group), other) for group in groups_of(len(one))]
    without_other = [statistic(one, np.delete(other, group)) for group in groups_of(len(other))]
    return Estimate(statistic(one, other), np.array(without_one), np.array(without_other))


def over_prompts(row: dict[str, Any], per_prompt: int, share: bool = False) -> dict[str, Any]:
    """A row whose interval takes pictures for independent, with one that takes prompts for it where they have several.

    The values without each group are without whole prompts. `share`: a proportion, whose interval stays in [0, 1].
    """
    if per_prompt == 1:
        return row
    value, prompts, without = row["value"], row["n"] // per_prompt, row.get("without")
    if share and (without is None or value in (0, 1)):  # as if each prompt were one picture
        low, high = wilson(round(value * prompts), prompts)
    else:
        half = Estimate(value, np.array(without)).half_width
        low, high = (max(0.0, value - half), min(1.0, value + half)) if share else (value - half, value + half)
    return {**row, "low": low, "high": high}
