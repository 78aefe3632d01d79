"""A bar on a terminal; in a log file lines that `mdm run` and people read, and not many of them."""

from __future__ import annotations

import io
import sys

import pytest

from mdm.evaluate.progress import LOG_SECONDS, progress
from mdm.study.run.view import COUNTER


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless the test moves it."""
    clock = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    return clock


def work(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, now: list[float], seconds: float) -> str:
    """Draw 48 pictures beside 48 that were there, `seconds` for each."""
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("sampling", 96, done=48) as bar:
        for picture in range(48):
            now[0] += seconds
            bar.set_postfix_str(f"loss {picture}", refresh=False)
            bar.update(1)
    return stream.getvalue()


def test_a_log_has_a_line_every_few_seconds_and_the_last(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    log = work(monkeypatch, io.StringIO(), now, 1.0)
    lines = log.splitlines()
    assert COUNTER.findall(lines[0]) == ["48/96 pictures"] and COUNTER.findall(lines[-1]) == ["96/96 pictures"]
    assert len(COUNTER.findall(log)) == len(lines) and log.endswith("\n") and "\r" not in log
    assert 5 <= len(lines) <= 2 + 48 / LOG_SECONDS
    assert "1.00 pictures/s, 00:00 left, loss 47" in lines[-1]  # what was found on disk took no time


def test_quick_work_leaves_two_lines(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    assert len(work(monkeypatch, io.StringIO(), now, 0.001).splitlines()) == 2


def test_a_terminal_shows_a_bar_in_one_line(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    shown = work(monkeypatch, Terminal(), now, 1.0)
    assert shown.count("\r") > 40 and shown.count("\n") == 1
    assert "sampling 72/96 pictures |" in shown and "|" in shown.split("\r")[-1]
