"""One line that says how far long work is: rewritten on a terminal, a few lines in a log file."""

from __future__ import annotations

import sys
import time

LOG_LINES = 10


class Progress:
    """Counts units of work and tells rate and remaining time on stderr."""

    def __init__(self, task: str, total: int, unit: str, done: int = 0) -> None:
        self._task, self._total, self._unit = task, total, unit
        self._done = self._before = done  # work found on disk says nothing about the rate
        self._start = time.monotonic()
        self._told = self._line()

    def advance(self, amount: int, note: str = "") -> None:
        """Count finished work; `note` ends the line."""
        self._done += amount
        finished = self._done >= self._total
        if sys.stderr.isatty():
            print(f"\r{self._text(note)}", end="\n" if finished else "", file=sys.stderr, flush=True)
        elif finished or self._line() > self._told:
            print(self._text(note), file=sys.stderr, flush=True)
        self._told = self._line()

    def _line(self) -> int:
        return self._done * LOG_LINES // max(1, self._total)

    def _text(self, note: str) -> str:
        seconds = max(1e-6, time.monotonic() - self._start)
        rate = (self._done - self._before) / seconds
        left = max(0, self._total - self._done) / rate if rate else 0.0
        text = f"{self._task} {self._done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left"
        return f"{text}, {note}" if note else text
