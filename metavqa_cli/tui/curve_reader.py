"""The one thread in which curves are read and reduced. At most four pictures a second, fewer where one takes long;
what a key asks for comes sooner."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from textual.message import Message

from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.beside import beside
from metavqa_cli.tui.curve_book import CurveBook, CurvesPicture, Wish

PICTURE_SECONDS = 0.25  # between two pictures of growing curves
WISH_SECONDS = 0.05  # between two answers to keys
READ_SECONDS = 0.05  # of reading before the next look at what is wished
BREATH_SECONDS = 0.001  # that the screen gets after each slice of a log
SHARE = 4  # a picture may take this part of the time: one that takes long is made less often


class CurvesDrawn(Message):
    """Newer curves are there. Older ones that wait in the queue are of no use."""

    def __init__(self, picture: CurvesPicture) -> None:
        super().__init__()
        self.picture = picture

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, CurvesDrawn)


class CurveReader:
    """Makes the pictures that are wished and hands them to ``deliver``, in its own thread, until it is closed."""

    def __init__(self, workspace: Workspace, deliver: Callable[[CurvesPicture], None]) -> None:
        self._book, self._deliver = CurveBook(workspace), deliver
        self._wish = Wish()
        self._wake = threading.Event()
        self._last = CurvesPicture()
        self._closed = self._resting = self._changed = self._failed = False
        self._answered = self._wish.number
        self._next_answer = self._next_picture = 0.0
        self._idle = PICTURE_SECONDS
        self._thread = beside(self._run, "curve reader")

    def wish(self, wish: Wish) -> None:
        """From now on pictures of this; an older wish that was not met yet is void."""
        self._wish = wish
        self._wake.set()

    def rest(self, resting: bool) -> None:
        """While nobody looks, nothing is read."""
        self._resting = resting
        self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        while not self._closed:
            if not self._resting:
                self._guarded_turn(self._wish)
            self._wake.wait(self._pause())
            self._wake.clear()

    def _guarded_turn(self, wish: Wish) -> None:
        """A turn; one that fails leaves the last picture, with a sentence, until another does not."""
        try:
            self._turn(wish)
            self._failed = False
        except Exception as error:  # whatever the files hold: without this thread nothing would ever be drawn again
            said = f"the curves stand still ({error!r}); select other runs in Runs (F2) to go on without this one"
            self._failed = self._changed = True  # a sound picture is owed
            self._answered = wish.number
            self._next_answer = self._next_picture = time.monotonic() + PICTURE_SECONDS
            self._deliver(replace(self._last, number=wish.number, behind=False, troubles=(said,)))

    def _turn(self, wish: Wish) -> None:
        self._book.follow(wish.runs)
        begun = time.monotonic()
        self._changed |= self._book.read(enough=lambda: self._had_enough(begun))
        now = time.monotonic()
        self._idle = max(PICTURE_SECONDS, SHARE * (now - begun))
        due = self._next_answer if wish.number != self._answered else self._next_picture
        if now >= due and (self._changed or wish.number != self._answered):
            self._last = picture = self._book.picture(wish)
            took = time.monotonic() - now
            self._changed, self._answered = False, wish.number
            self._next_answer = now + max(WISH_SECONDS, 2 * took)
            self._next_picture = now + max(PICTURE_SECONDS, SHARE * took)
            self._deliver(picture)

    def _had_enough(self, begun: float) -> bool:
        if self._book.behind:
            time.sleep(BREATH_SECONDS)
        return time.monotonic() - begun > READ_SECONDS or self._wake.is_set()

    def _pause(self) -> float | None:
        """Seconds until there is something to do without being woken; None: never."""
        if self._resting:
            return None
        now = time.monotonic()
        if self._book.behind and not self._failed:
            return BREATH_SECONDS
        if self._wish.number != self._answered:
            return max(0.0, self._next_answer - now)
        return max(0.0, self._next_picture - now) if self._changed else self._idle
