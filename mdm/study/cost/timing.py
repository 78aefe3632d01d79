"""Time repeated steps with torch.utils.benchmark, and say when other programs slowed the machine meanwhile."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.benchmark import Measurement, Timer, timer

LONGEST = 2  # times the seconds asked for: unsteady steps are repeated so long, in the hope of a steadier median
ENOUGH = 4  # steps that quartiles need
UNSTEADY = 0.25  # range between the quartiles, as a share of the median: from here on torch warns of its environment
SLOW = 1.3  # times the fastest matrix product: then something else used the machine
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
PRODUCT_SECONDS = 0.1
BUSY_LOAD = 0.5  # running programs per core of the machine, before a calibration begins

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """The timed steps, and the seconds of a matrix product beside them, which witnesses how fast the machine was."""

    steps: Measurement
    product: float

    @property
    def count(self) -> int:
        return len(self.steps.raw_times) * self.steps.number_per_run

    @property
    def spread(self) -> float:
        """Return the range between the quartiles, as a share of the median."""
        return self.steps.iqr / self.steps.median

    def disturbances(self, best_product: float) -> list[str]:
        """Say why it cannot be trusted, given the fastest matrix product of all measurements; [] if it can."""
        found = []
        if self.count < ENOUGH:
            found.append(f"only {self.count} of {ENOUGH} steps: a step took {self.steps.median:.1f} s")
        if not self.steps.meets_confidence(UNSTEADY):
            found.append(f"measurements of the same work differ by {self.spread:.0%}")
        if self.product > SLOW * best_product:
            found.append(f"a matrix product took {self.product / best_product:.1f} times as long as at its best")
        return found


def timing(step: Callable[[], Any], product: Callable[[], float], seconds: float, clock: Clock = timer) -> Timing:
    """Time `step` for `seconds`, or up to LONGEST times as long while it is unsteady, between two matrix products."""
    before = product()
    steps = measured(step, seconds, clock)
    return Timing(steps, (before + product()) / 2)


def measured(work: Callable[[], Any], seconds: float, clock: Clock = timer) -> Measurement:
    """Time `work` after a call that warms up (and compiles); torch's clock waits for a GPU to finish."""
    repeated = Timer("work()", globals={"work": work}, timer=clock, num_threads=torch.get_num_threads())
    longest = max(LONGEST * seconds, 1e-9)  # for torch, 0 would mean that there is no limit
    return repeated.adaptive_autorange(UNSTEADY, min_run_time=seconds, max_run_time=longest)


def product_operations(device: torch.device) -> int:
    """Return the arithmetic of the matrix product that speeds are compared with."""
    return 2 * MATRIX_SIDE[device.type] ** 3


def product_seconds(precision: str, device: torch.device) -> float:
    """Time that matrix product (the median)."""
    kind, side = torch.bfloat16 if precision == "bf16" else torch.float32, MATRIX_SIDE[device.type]
    a = torch.randn(side, side, device=device).to(kind)
    return measured(lambda: a @ a, PRODUCT_SECONDS).median


def load() -> str:
    """Describe what else runs on this machine, if it is much; "" on an idle one."""
    programs, cores = os.getloadavg()[0], os.cpu_count() or 1
    busy = programs > BUSY_LOAD * cores
    return f"{programs:.1f} programs wanted its {cores} cores in the minute before" if busy else ""
