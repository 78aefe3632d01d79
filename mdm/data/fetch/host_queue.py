"""Work shared among threads, politely: few requests at a time to one host, a pause between them, back-off.

The heap has a host once per free lane; threads take the earliest, so a slow or resting host delays no other.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from mdm.data.rows import Row


@dataclass(order=True)
class Task:
    """One thing to do, not before its time; `attempt` counts from 0."""

    ready: float
    order: int
    host: str = field(compare=False)
    item: Row = field(compare=False)
    attempt: int = field(default=0, compare=False)


class HostQueue:
    """Tasks by host; every task taken must be given back by `done`."""

    def __init__(self, items: Iterable[tuple[str, Row]], lanes: int, pause: float) -> None:
        self._pause = pause
        self._numbers = itertools.count()
        self._tasks: dict[str, list[Task]] = {}
        self._condition = threading.Condition()
        self._busy, self._stopped = 0, False
        for host, item in items:
            self._tasks.setdefault(host, []).append(Task(0.0, next(self._numbers), host, item))
        hosts = (host for host, tasks in self._tasks.items() for _ in tasks[:lanes])
        self._turns = [(0.0, next(self._numbers), host) for host in hosts]
        heapq.heapify(self._turns)

    def take(self) -> Task | None:
        """Wait for the next task until its time has come; None when all is done."""
        with self._condition:
            while not self._stopped and (self._turns or self._busy):
                wait = self._turns[0][0] - time.monotonic() if self._turns else None
                if wait is None or wait > 0:
                    self._condition.wait(wait)
                    continue
                _, _, host = heapq.heappop(self._turns)
                if self._tasks[host]:
                    self._busy += 1
                    return heapq.heappop(self._tasks[host])
            self._condition.notify_all()
            return None

    def done(self, task: Task, again_in: float | None = None) -> None:
        """Give a task back: it is finished, or is to be tried again after so many seconds."""
        with self._condition:
            self._busy -= 1
            now, waiting = time.monotonic(), self._tasks[task.host]
            if again_in is not None:
                order = next(self._numbers)
                heapq.heappush(waiting, Task(now + again_in, order, task.host, task.item, task.attempt + 1))
            if waiting:
                ready = max(now + self._pause, waiting[0].ready)
                heapq.heappush(self._turns, (ready, next(self._numbers), task.host))
            self._condition.notify_all()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
