"""How long training waits for its next batch, measured where the waiting is: in the loop, or on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Waiting:
    """Adds up the seconds between the end of a step and the moment its successor's batch is there.

    On a GPU the loop runs ahead of the device: what counts is how long the device had nothing to do, so two marks
    are put into its queue, and read when somebody asks.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._seconds = device.type == "cuda", 0.0
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def for_batch(self) -> Iterator[None]:
        """Around whatever fetches the next batch and sends it to the device."""
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
        for before, after in self._marks:
            after.synchronize()
            self._seconds += before.elapsed_time(after) / 1000
        self._marks.clear()
        return self._seconds
