"""The next batch is made while the last one is used."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes the next item in a thread; whoever asks for one image counter will ask for the one `step` further on."""

    def __init__(self, make: Callable[[int], Made], step: int) -> None:
        self._make, self._step = make, step
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._next: tuple[int, Future[Made]] | None = None

    def at(self, images_seen: int) -> Made:
        """Return make(images_seen), which is ready if it was the expected one."""
        found, following = self._taken(images_seen), images_seen + self._step
        self._next = (following, self._thread.submit(self._make, following))
        return found

    def _taken(self, images_seen: int) -> Made:
        if self._next is None:
            return self._make(images_seen)
        (number, future), self._next = self._next, None
        made = future.result()  # waited for in any case: one maker at a time, and no error of it may vanish
        return made if number == images_seen else self._make(images_seen)
