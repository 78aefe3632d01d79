"""Where the time of training goes, in each process, and what to change where one waits."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from mdm.train.ranks import Ranks

STARVING = 0.1  # share of the time spent waiting for data from which on a warning is printed
SLOW = 1.25  # a process that computes so many times as long as the typical one holds all others up
LONG = 20.0  # seconds over which this is judged: short delays, and the very first batch, are not worth a word


class Stopwatch:
    """Adds up the seconds of what it is put around.

    On a GPU the loop runs ahead of the device: what counts is when the device gets there, so two marks are put into its
    queue, and read when somebody asks. Around the fetching of a batch they tell how long the device had nothing to do.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._seconds, self._taken = device.type == "cuda", 0.0, 0.0
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._on_gpu:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            yield
            after.record()
            self._marks.append((before, after))
        else:
            start = time.monotonic()
            yield
            self._seconds += time.monotonic() - start

    def seconds(self) -> float:
        """The sum up to now; on a GPU this waits until the device has reached the last mark."""
        if self._marks:
            self._marks[-1][1].synchronize()
            self._seconds += sum(before.elapsed_time(after) for before, after in self._marks) / 1000
            self._marks.clear()
        return self._seconds

    def take(self) -> float:
        before, self._taken = self._taken, self.seconds()
        return self._taken - before


class Bottlenecks:
    """Compares the processes at the end of ticks and says, once a slice, what holds them up."""

    def __init__(
        self, ranks: Ranks, decoding_threads: int, waits: Stopwatch | None = None, seconds: float = LONG
    ) -> None:
        self._ranks, self._threads, self._seconds = ranks, decoding_threads, seconds
        self.forward, self._waits = Stopwatch(ranks.device), waits or Stopwatch(ranks.device)
        self._began, self._told = 0.0, False
        self._waited = 0.0  # before the count began

    def waiting(self) -> AbstractContextManager[None]:
        return self._waits.running()

    def look(self) -> None:
        """At the end of a tick, in all processes together; the first one begins the count."""
        now = time.perf_counter()
        passed = now - self._began
        if self._began and self._ranks.all_max(int(passed < self._seconds))[0]:
            return
        waited = self._waits.seconds()
        facts, first = [(waited - self._waited) / passed, self.forward.take()], not self._began
        self._waited, self._began = waited, now
        waits, computing = zip(*self._ranks.all_gather(facts), strict=True)
        found = None if first else starving(waits, self._threads) or straggling(computing)
        if found and not self._told and self._ranks.first:
            print(f"warning: {found}", flush=True)
        self._told = self._told or bool(found)


def starving(waits: Sequence[float], threads: int) -> str | None:
    """What to say about the share of the time that each process waits for data, if there is something to say."""
    worst, typical = max(range(len(waits)), key=waits.__getitem__), sorted(waits)[(len(waits) - 1) // 2]
    if waits[worst] <= STARVING:
        return None
    if typical < waits[worst] / 2:
        return (
            f"process {worst} waits for data {waits[worst]:.0%} of the time, the typical one {typical:.0%}, and all "
            "wait for it: look at the disk of its machine and at what else runs there"
        )
    return (
        f"training waits for data {waits[worst]:.0%} of the time, with {threads or 'no'} decoding threads in each "
        "process: ask for more resources.cpus, store the data set at the resolution it is used at, or write "
        "train.decode: dct"
    )


def straggling(seconds: Sequence[float]) -> str | None:
    """What to say about the seconds that each process computes the same amount in."""
    slowest, typical = max(range(len(seconds)), key=seconds.__getitem__), sorted(seconds)[(len(seconds) - 1) // 2]
    if seconds[slowest] <= SLOW * typical:
        return None
    return (
        f"process {slowest} computes {seconds[slowest] / typical:.1f} times as long as the typical one, and all wait "
        "for it: look at the clock and temperature of its GPU, and whether another job runs on its machine"
    )
