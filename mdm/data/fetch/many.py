"""The addresses of a shard, many at a time: fetched, decoded and cut by threads, handed over as they are done."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mdm.data.fetch.host_queue import HostQueue
from mdm.data.fetch.one import FetchError, Limits, fetch
from mdm.data.pictures.failures import TRANSIENT, Failure
from mdm.data.rows import Outcomes, Picture, Row

LONGEST_WAIT = 120.0
Result = tuple[str, Picture | str] | BaseException | None
Bring = Callable[[Row], Picture | Failure]
Prepare = Callable[[bytes], Picture | Failure]


@dataclass(frozen=True)
class Politeness:
    """How many addresses are asked at a time, of them at one host, and how long a host is left alone."""

    threads: int
    per_host: int
    host_pause_seconds: float
    retries: int
    backoff_seconds: float

    def wait(self, error: FetchError, attempt: int) -> float | None:
        """Return the seconds before an address is asked again, None where that is of no use."""
        if error.failure not in TRANSIENT or attempt >= self.retries:
            return None
        return max(self.backoff_seconds * 2**attempt, min(error.wait, LONGEST_WAIT))


def pictures(rows: list[Row], limits: Limits, politeness: Politeness, prepare: Prepare) -> Outcomes:
    """Yield each row's picture, prepared from what its address answers, or the reason why there is none."""
    work = HostQueue(((_host(row), row) for row in rows), politeness.per_host, politeness.host_pause_seconds)
    results: queue.Queue[Result] = queue.Queue(2 * politeness.threads)

    def bring(row: Row) -> Picture | Failure:
        return prepare(fetch(row.columns["url"], limits))

    shared = (work, results, politeness, bring)
    threads = [threading.Thread(target=_run, args=shared, daemon=True) for _ in rows[: politeness.threads]]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        _end(work, results, threads)


def _end(work: HostQueue, results: queue.Queue[Result], threads: list[threading.Thread]) -> None:
    """Let threads end after their current request, and wait for them; none may wait for a place in the queue."""
    work.stop()
    for thread in threads:
        while thread.is_alive():
            try:
                results.get(timeout=0.05)
            except queue.Empty:
                continue


def _host(row: Row) -> str:
    """Return what requests are counted by; addresses that are none share a lane."""
    try:
        return urlsplit(row.columns["url"].strip()).hostname or ""
    except ValueError:
        return ""


def _run(work: HostQueue, results: queue.Queue[Result], politeness: Politeness, bring: Bring) -> None:
    """Work in one thread until there is nothing left; an error of this program ends the whole shard."""
    try:
        while (task := work.take()) is not None:
            again = None
            try:
                outcome = bring(task.item)
            except FetchError as error:
                outcome, again = error.failure, politeness.wait(error, task.attempt)
            work.done(task, again)
            if again is None:
                results.put((task.item.key, outcome))
        results.put(None)
    except BaseException as error:
        results.put(error)
