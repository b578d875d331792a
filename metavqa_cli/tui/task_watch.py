"""Reads a dataset beside the screen: one look at a time, so that a slow disk is not asked ever more."""

from textual.message import Message
from textual.message_pump import MessagePump

from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.task_feed import Book, TaskFeed, Wish


class BookRead(Message):
    """The dataset as it is now; ``last`` of this look."""

    def __init__(self, book: Book, last: bool) -> None:
        super().__init__()
        self.book, self.last = book, last


class TaskWatch:
    """Posts ``BookRead`` to ``target`` for every look; ``finished`` is to be called with the last one of a look."""

    def __init__(self, feed: TaskFeed, target: MessagePump) -> None:
        self._feed, self._target = feed, target
        self._wanted, self._asked = Wish(), Wish()
        self.reading = False

    def look(self, wish: Wish) -> None:
        """Look at the dataset: now, or, with the newest wish, when the look that is going on has ended."""
        self._wanted = wish
        if not self.reading:
            self.reading, self._asked = True, wish
            beside(lambda: self._read(wish), "tasks")

    def finished(self) -> None:
        """The look has ended; if something else is wished by now, the next begins."""
        self.reading = False
        if self._wanted != self._asked:
            self.look(self._wanted)

    def _read(self, wish: Wish) -> None:
        book = Book()
        try:
            for book in self._feed.read(wish):  # the tasks at once, what was measured on them when it has been read
                post(self._target, BookRead(book, last=False))
        except Exception as error:  # whatever a damaged file leads a reader to: it is said, and the next look comes
            book = self._feed.give_up(error)
        post(self._target, BookRead(book, last=True))
