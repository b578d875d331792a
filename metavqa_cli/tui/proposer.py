"""Proposals for a question as it is typed: of the model when it is loaded, else by the words of known questions."""

from functools import partial

from textual.message import Message
from textual.message_pump import MessagePump

from metavqa_cli.schema.errors import JobError
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.asking import Asking, Cancelled, sentence
from metavqa_cli.tui.beside import post
from metavqa_cli.tui.newest import Newest
from metavqa_cli.tui.results import Proposal, propose, propose_by_words
from metavqa_cli.tui.task_feed import Book, TaskFeed, Wish


class Proposed(Message):
    """What is proposed for the question of this number, or why nothing is."""

    def __init__(self, number: int, found: "Proposal | Exception | None") -> None:
        super().__init__()
        self.number, self.found = number, found


class BookRead(Message):
    """The dataset as it is now."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book


class Proposer:
    """Asks for proposals and reads the dataset in threads; answers come as messages to ``room``, the newest counts."""

    def __init__(self, room: MessagePump, asking: Asking, feed: TaskFeed) -> None:
        self.room, self.asking, self.feed = room, asking, feed
        self.book = Book()
        self._number = 0
        self._proposal_waits = self._book_waits = False
        self._words, self._books = Newest("words"), Newest("dataset")

    @property
    def waiting(self) -> bool:
        """Whether a proposal or the dataset is still to come."""
        return self._proposal_waits or self._book_waits

    def read(self, wish: Wish) -> None:
        """Read the dataset, if it has changed."""
        self._book_waits = True
        self._books.do(lambda: post(self.room, BookRead(self._read(wish))))

    def _read(self, wish: Wish) -> Book:
        try:
            return next(self.feed.read(wish))
        except Exception as error:  # whatever a damaged file leads a reader to: it is said, and typing goes on
            return self.feed.give_up(error)

    def take_book(self, book: Book) -> bool:
        """A dataset was read; whether its tasks are others than before."""
        before, self.book, self._book_waits = self.book, book, False
        return book.tasks is not before.tasks

    def ask_for(self, question: str) -> None:
        """Have a proposal made for ``question``; for none, nothing is proposed."""
        self._number += 1
        number, self._proposal_waits = self._number, True
        if not question:
            post(self.room, Proposed(number, None))
        elif self.asking.status.state == "ready":
            self.asking.submit(partial(propose, question=question), partial(self._back, number), "proposal")
        else:
            self._words.do(partial(self._by_words, number, question, self.book.tasks))

    def _by_words(self, number: int, question: str, tasks: tuple[Task, ...]) -> None:
        try:
            found: Proposal | Exception = propose_by_words(question, tasks)
        except Exception as error:
            found = JobError(sentence(error))
        self._back(number, found)

    def _back(self, number: int, found: "Proposal | Exception") -> None:
        if not isinstance(found, Cancelled):
            post(self.room, Proposed(number, found))

    def is_newest(self, message: Proposed) -> bool:
        """Whether this is what was asked for last."""
        if message.number != self._number:
            return False
        self._proposal_waits = False
        return True

    def task_of(self, question: str, proposal: Proposal | None) -> Task | None:
        """The task with this question, else with the nearest one."""
        tasks = {task.question: task for task in self.book.tasks}
        near = proposal.nearest[0].question if proposal and proposal.nearest else ""
        return tasks.get(question) or tasks.get(near)
