"""The addresses of a shard, many at a time: fetched, decoded and cut by threads, handed over as they are done."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mdm.data.fetch.host_queue import HostQueue, Task
from mdm.data.fetch.one import FetchError, Limits, fetch
from mdm.data.pictures.clips import ClipSettings, prepare_as
from mdm.data.pictures.failures import TRANSIENT
from mdm.data.rows import Picture, Row

if TYPE_CHECKING:
    from mdm.data.sources.addresses import AddressSettings

LONGEST_WAIT = 120.0
Result = tuple[str, Picture | str] | BaseException | None


def pictures(rows: list[Row], settings: AddressSettings) -> Iterator[tuple[str, Picture | str]]:
    """Each row's picture or the reason why there is none."""
    work = HostQueue(((_host(row), row) for row in rows), settings.per_host, settings.host_pause_seconds)
    results: queue.Queue[Result] = queue.Queue(2 * settings.threads)
    threads = [
        threading.Thread(target=_run, args=(work, results, settings), daemon=True)
        for _ in range(min(settings.threads, len(rows)))
    ]
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


def _end(work: HostQueue[Row], results: queue.Queue[Result], threads: list[threading.Thread]) -> None:
    """Threads end with what they are at; nobody waits for a place in the queue."""
    work.stop()
    for thread in threads:
        while thread.is_alive():
            try:
                results.get(timeout=0.05)
            except queue.Empty:
                continue


def _host(row: Row) -> str:
    """What requests are counted by; addresses that are none share a lane."""
    try:
        return urlsplit(row.columns["url"].strip()).hostname or ""
    except ValueError:
        return ""


def _run(work: HostQueue[Row], results: queue.Queue[Result], settings: AddressSettings) -> None:
    """One thread, until there is nothing left; an error of this program ends the whole shard."""
    try:
        networks = [ip_network(network) for network in settings.allowed_networks]
        types = ("video/", "image/") if isinstance(settings, ClipSettings) else ("image/",)
        limits = Limits(settings.timeout_seconds, settings.max_bytes, networks, types)
        while (task := work.take()) is not None:
            _one(task, work, results, settings, limits)
        results.put(None)
    except BaseException as error:
        results.put(error)


def _one(
    task: Task[Row], work: HostQueue[Row], results: queue.Queue[Result], settings: AddressSettings, limits: Limits
) -> None:
    row, again = task.item, None
    try:
        outcome = prepare_as(fetch(row.columns["url"], limits), settings)
    except FetchError as error:
        outcome = error.failure
        if error.failure in TRANSIENT and task.attempt < settings.retries:
            again = max(settings.backoff_seconds * 2**task.attempt, min(error.wait, LONGEST_WAIT))
    work.done(task, again)
    if again is None:
        results.put((row.key, outcome))
