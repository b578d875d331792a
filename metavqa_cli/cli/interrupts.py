"""Ctrl-C reaches the job wherever it falls."""

import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SOON_SECONDS = 0.01


class Insistent:
    """Within it, an interruption that falls into a finalizer comes again soon after.

    Python runs finalizers in the middle of anything, says on stderr what they raise, and goes on: the job would never
    learn that it was to stop.
    """

    def __enter__(self) -> None:
        self._over, self._usual = False, sys.unraisablehook
        sys.unraisablehook = self._meet

    def __exit__(self, *_: object) -> None:
        self._over, sys.unraisablehook = True, self._usual

    def _meet(self, met: "UnraisableHookArgs") -> None:
        if not issubclass(met.exc_type, KeyboardInterrupt):
            self._usual(met)
            return
        again = threading.Timer(SOON_SECONDS, self._interrupt)  # at once it would fall into this finalizer too
        again.daemon = True
        again.start()

    def _interrupt(self) -> None:
        if self._over:
            return
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:  # so that the main thread wakes, if it waits for something
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
