"""Progress of long work on pictures: a bar on a terminal, a line every few seconds in a log file."""

import sys
from typing import TextIO

from tqdm import tqdm

LOG_SECONDS = 5.0


class _Lines:
    """A log file to tqdm, which would write all states of a bar into one line."""

    def __init__(self, log: TextIO) -> None:
        self._log, self.flush = log, log.flush

    def write(self, text: str) -> None:
        if state := text.strip():
            self._log.write(f"{state}\n")


def progress(task: str, total: int, done: int = 0) -> tqdm:
    """A bar over `total` pictures; `done` of them were found on disk and say nothing about the speed."""
    live = sys.stderr.isatty()
    bar = " |{bar}|" if live else ","
    return tqdm(
        desc=task, total=total, initial=done, unit=" pictures",
        bar_format=f"{{desc}} {{n_fmt}}/{{total_fmt}}{{unit}}{bar} {{rate_noinv_fmt}}, {{remaining}} left{{postfix}}",
        file=sys.stderr if live else _Lines(sys.stderr), mininterval=0.1 if live else LOG_SECONDS, miniters=1,
    )  # fmt: skip
