"""Delete-a-group jackknife: the bias and the error of any statistic of a set of pictures, from the set itself.

The pictures fall into groups by their place, so that two runs that drew the same captions from the same noises leave
the same captions out: what they share cancels in their difference. Nothing is drawn at random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mdm.evaluate.intervals import student_quantile

GROUPS = 20


def groups_of(count: int) -> list[np.ndarray]:
    """Places 0..count-1 in GROUPS groups of equal size (by one); fewer groups where there are few pictures."""
    groups = min(GROUPS, count // 2)
    if groups < 2:
        raise ValueError(f"an interval needs at least 4 pictures, but got {count}; evaluate more pictures")
    # Neighbours in a list of captions may be alike: every group takes some from everywhere.
    return [np.arange(start, count, groups) for start in range(groups)]


@dataclass(frozen=True)
class Estimate:
    """A statistic of all pictures, and of all but each group in turn."""

    value: float
    without: np.ndarray

    @property
    def unbiased(self) -> float:
        """The value without the part of its bias that falls with the number of pictures."""
        count = len(self.without)
        return float(count * self.value - (count - 1) * self.without.mean())

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval."""
        return student_quantile(len(self.without) - 1) * standard_error(self.without)


def standard_error(without: np.ndarray) -> float:
    """Standard error of a statistic from its values without each group, [groups]."""
    count = len(without)
    return float(np.sqrt((count - 1) / count * np.square(without - without.mean()).sum()))


def jackknife(statistic: Callable[[np.ndarray], float], count: int) -> Estimate:
    """The statistic, a function of the places of pictures, over all `count` of them."""
    every = np.arange(count)
    without = [statistic(np.delete(every, group)) for group in groups_of(count)]
    return Estimate(statistic(every), np.array(without))
