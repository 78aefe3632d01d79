"""Speeds of repeated steps that say how far they can be trusted: other programs on the machine slow single steps."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

ROUNDS = 3  # short measurements of each work, a matrix product before each
LONGEST = 2  # times the seconds asked for: then no further measurement is begun
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
PRODUCTS = 3
UNSTEADY = 0.3  # measurements of the same that differ by more were disturbed
BUSY_LOAD = 0.5  # running programs per core of the machine, before a calibration begins

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Seconds of a step (median of all), of the steps of each measurement, and of the matrix products beside them."""

    seconds: float
    steps: int
    rounds: tuple[float, ...]
    product: float

    @property
    def spread(self) -> float:
        """By what share the slowest measurement took longer than the fastest."""
        return max(self.rounds) / min(self.rounds) - 1

    def disturbances(self, best_product: float) -> list[str]:
        """Why it cannot be trusted, given the fastest matrix product of all measurements; [] if it can."""
        found = []
        if len(self.rounds) < ROUNDS:
            found.append(f"only {len(self.rounds)} of {ROUNDS} measurements: a step took {self.seconds:.1f} s")
        if self.spread > UNSTEADY:
            found.append(f"measurements of the same work differ by {self.spread:.0%}")
        if self.product > (1 + UNSTEADY) * best_product:
            found.append(f"a matrix product took {self.product / best_product:.1f} times as long as at its best")
        return found


def timing(
    step: Callable[[], None], product: Callable[[], float], seconds: float, clock: Clock = time.perf_counter
) -> Timing:
    """Of short measurements after a step that warms up (and compiles); slow steps leave some of them out."""
    step()
    begin, products, rounds = clock(), [], []
    while len(rounds) < ROUNDS and (not rounds or clock() - begin < LONGEST * seconds):
        products.append(product())
        rounds.append(times := [duration(step, clock)])
        while sum(times) < seconds / ROUNDS:
            times.append(duration(step, clock))
    steps = [one for times in rounds for one in times]
    medians = tuple(statistics.median(times) for times in rounds)
    return Timing(statistics.median(steps), len(steps), medians, statistics.median(products))


def duration(work: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Seconds that work takes."""
    start = clock()
    work()
    return clock() - start


def waiting(work: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """The work with a wait for its end: a GPU returns before it has computed."""

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return whole


def product_operations(device: torch.device) -> int:
    """Arithmetic of the matrix product that speeds are compared with."""
    return 2 * MATRIX_SIDE[device.type] ** 3


def product_seconds(precision: str, device: torch.device) -> float:
    """Seconds of that matrix product: the median of several."""
    kind, side = torch.bfloat16 if precision == "bf16" else torch.float32, MATRIX_SIDE[device.type]
    a = torch.randn(side, side, device=device).to(kind)
    multiply = waiting(lambda: a @ a, device)
    multiply()
    return statistics.median(duration(multiply) for _ in range(PRODUCTS))


def load() -> str:
    """What else runs on this machine, if it is much; "" on an idle one."""
    programs, cores = os.getloadavg()[0], os.cpu_count() or 1
    return (
        f"{programs:.1f} programs wanted its {cores} cores in the minute before" if programs > BUSY_LOAD * cores else ""
    )
