"""Seconds that depend on nobody else, measured where they pass: in the loop, or on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
        """Around what is measured."""
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
        """The seconds since this was last asked."""
        before, self._taken = self._taken, self.seconds()
        return self._taken - before
