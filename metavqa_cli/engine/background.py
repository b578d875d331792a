"""Work that reports how far it is by calling back, watched as events."""

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Generic, TypeVar

from metavqa_cli.schema.events import Event, ProgressMade

T = TypeVar("T")


class Outcome(Generic[T]):
    """What the work returned, or raised."""

    value: T
    error: BaseException | None = None


def watched(work: Callable[[Callable[[str, int, int], None]], T], unit: str) -> Generator[Event, None, T]:
    """Run ``work(progress)`` beside, yield its ``progress(what, done, total)`` as events, and return what it returns.

    Its exception is raised here. When the watcher is interrupted the work is left to end by itself: it must be of a
    kind that may be cut anywhere, like reading.
    """
    events: SimpleQueue[Event | None] = SimpleQueue()
    outcome: Outcome[T] = Outcome()

    def run() -> None:
        try:
            outcome.value = work(lambda what, done, total: events.put(ProgressMade(what, done, total, unit)))
        except BaseException as error:
            outcome.error = error
        finally:
            events.put(None)

    threading.Thread(target=run, daemon=True).start()
    while (event := events.get()) is not None:
        yield event
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
