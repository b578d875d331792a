"""Work beside the screen of which only the newest matters: typing and pointing are faster than reading."""

import threading
from collections.abc import Callable

from metavqa_cli.tui.beside import beside


class Newest:
    """One thread at a time; of the works that come while it is busy, the newest is done next and the others never.

    A work that fails ends its thread with the error, as threads do; those that come after it are done all the same.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._next: Callable[[], None] | None = None
        self._running = False

    @property
    def busy(self) -> bool:
        return self._running

    def do(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the thread, now or as soon as it is free, unless something newer comes before."""
        with self._lock:
            self._next = work
            if self._running:
                return
            self._running = True
        beside(self._work, self._name)

    def _work(self) -> None:
        while True:
            with self._lock:
                work, self._next = self._next, None
                if work is None:
                    self._running = False
                    return
            try:
                work()
            except BaseException:
                beside(self._work, self._name)
                raise
