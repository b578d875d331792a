"""The room Tasks: the questions of a dataset, their answers and images, and how well methods do on each."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from textual import on
from textual.containers import Container
from textual.widget import Widget

from metavqa_cli.tui.filters import Filter
from metavqa_cli.tui.room import Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.task_feed import Book, TaskFeed, plain_file, query_files, wish_of
from metavqa_cli.tui.task_keys import BINDINGS, HELP, LESS_NEEDED, PANES
from metavqa_cli.tui.task_list import LETTERS, ORDERS, SPLITS, Arrangement, families_of, next_of, next_order
from metavqa_cli.tui.task_methods import Keys, Method, chosen
from metavqa_cli.tui.task_watch import BookRead, TaskWatch
from metavqa_cli.tui.widgets.choose import ChooseOne, ChooseSome
from metavqa_cli.tui.widgets.filter_line import FilterLine
from metavqa_cli.tui.widgets.picture import Gallery, cycle
from metavqa_cli.tui.widgets.task_browser import TaskBrowser
from metavqa_cli.tui.widgets.task_details import TaskDetails
from metavqa_cli.tui.widgets.task_images import TaskImages
from metavqa_cli.tui.widgets.task_list import TaskList

ASKED_ABOUT = 8  # images of the task that Ask begins with


class TasksRoom(Room):
    """Owns which dataset, filter, order and methods; the panes only show."""

    NAME: ClassVar[RoomName] = "tasks"
    CSS_PATH = "tasks.tcss"
    HELP, PANES, BINDINGS, LESS_NEEDED = HELP, PANES, BINDINGS, LESS_NEEDED

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.arrangement = Arrangement()
        self.methods: tuple[Method, ...] = ()
        """Those that are shown; the list is ordered and filtered by the first."""
        self._keys: Keys = ()
        self._chosen: str | None = None
        self._question: str | None = None

    def compose_room(self) -> Iterable[Widget]:
        with Container(id="tasks-body"):
            yield TaskBrowser(self.look, "tasks-left", "tasks-list")
            with Container(id="tasks-side"):
                yield TaskDetails(self.look, id="tasks-details")
                yield TaskImages(self.look, id="tasks-images")

    def on_mount(self) -> None:
        for pane in self.PANES:
            widget = self.query_one(f"#{pane.id}")
            widget.border_title = pane.title
            widget.add_class("pane")
        self.list.focus()

    @property
    def list(self) -> TaskList:
        return self.query_one(TaskList)

    @property
    def images(self) -> TaskImages:
        return self.query_one(TaskImages)

    @cached_property
    def watch_tasks(self) -> TaskWatch:
        """What reads the dataset."""
        return TaskWatch(TaskFeed(self.dashboard.workspace), self)

    @property
    def settled(self) -> bool:
        return super().settled and not self.watch_tasks.reading and not self.images.reading

    # Reading

    def show_snapshot(self, snapshot: Snapshot) -> None:
        dataset = self._chosen or self.dashboard.dataset_wish
        self.watch_tasks.look(wish_of(dataset, snapshot.views, self.dashboard.selected))

    @on(BookRead)
    def take_book(self, message: BookRead) -> None:
        """Show what has changed."""
        if message.last:
            self.watch_tasks.finished()
        before, self.book = self.book, message.book
        if self.book is not before:
            self._show_book(before)

    def _show_book(self, before: Book) -> None:
        book = self.book
        if book.dataset != before.dataset:
            self.arrangement = replace(self.arrangement, family=None, split=None)
        self.trouble("dataset", book.trouble if book.rows else None)  # without tasks it stands in place of the list
        self.trouble("measured", "; ".join(book.problems[:3]) or None)
        self._choose_methods(self._keys)
        self.refresh_list(stay=book.dataset == before.dataset)
        if self._question is not None and book.rows:
            self._go_to(self._question)

    def _choose_methods(self, keys: Keys) -> None:
        """Show the methods with these keys; the usual ones where none of them is there."""
        self._keys, self.methods = chosen(self.book.methods, keys)
        if not self.methods and self.arrangement.order.measured:
            self.arrangement = replace(self.arrangement, order=ORDERS[0])

    # Showing

    def refresh_list(self, *, stay: bool = True) -> None:
        """Show the list again: another dataset, filter, order or other methods."""
        self.query_one(TaskBrowser).show(self.book, self.arrangement, self.methods, stay=stay)
        self._show_task()

    @on(TaskList.Highlighted)
    def _show_task(self) -> None:
        row, book = self.list.current, self.book
        task = None if row is None else book.tasks[row.number]
        self.query_one(TaskDetails).show(task, 0 if row is None else row.number, self.methods)
        self.images.show(task, book.places, book.no_images)

    # Filter and order

    def action_filter(self) -> None:
        """Type a filter; the list follows every letter."""
        self.query_one(TaskBrowser).open_filter()

    @on(FilterLine.Changed)
    def follow_filter(self, message: FilterLine.Changed) -> None:
        """Show what is wanted now, from the first."""
        if message.wanted != self.arrangement.wanted:
            self._arrange(stay=False, wanted=message.wanted)

    def action_clear(self) -> None:
        """All tasks again."""
        self.query_one(TaskBrowser).clear_filter()
        self._arrange(wanted=Filter(), family=None, split=None)

    def _arrange(self, *, stay: bool = True, **changes: Any) -> None:
        self.arrangement = replace(self.arrangement, **changes)
        self.refresh_list(stay=stay)

    def action_family(self) -> None:
        """Only the next family, or all."""
        self._arrange(family=next_of(self.arrangement.family, families_of(self.book.rows)))

    def action_split(self) -> None:
        """Only the next split, or all."""
        self._arrange(split=next_of(self.arrangement.split, SPLITS))

    def action_sort(self) -> None:
        """The next of the orders; the cursor goes to the first, which is why one sorts."""
        self._arrange(stay=False, order=next_order(self.arrangement.order, bool(self.methods)))

    # Choosing

    def action_methods(self) -> None:
        """Which methods are columns."""
        if not (known := self.book.methods):
            self.dashboard.say("nothing is measured on this dataset yet: `metavqa eval` measures its newest runs")
            return
        places = [known.index(method) for method in self.methods]
        options = [self.look.text(f"{method.mean:5.1f} %  {method.title}") for method in known]

        def take(wanted: tuple[int, ...] | None) -> None:
            if wanted is not None:
                self._choose_methods(tuple(known[place].key for place in wanted))
                self.refresh_list()

        self.dashboard.push_screen(ChooseSome("Methods, with their accuracy over all test tasks", options, places,
                                              len(LETTERS)), take)  # fmt: skip

    def action_dataset(self) -> None:
        """Which dataset is shown."""
        if not (names := self.book.datasets):
            self.dashboard.say("there is no dataset to choose: `metavqa dataset build` makes one")
            return

        def take(name: str | None) -> None:
            if name is not None:
                self._chosen = name
                self.show_snapshot(self.dashboard.snapshot)

        self.dashboard.push_screen(ChooseOne("Dataset", names, self.book.dataset), take)

    # Ways on

    def welcome(self, **what: Any) -> None:
        """``question``: highlight its task, now or when the dataset has come."""
        if question := what.get("question"):
            self._question = str(question)
            if self.book.rows:
                self._go_to(self._question)

    def _go_to(self, question: str) -> None:
        """Highlight a question's task, though a filter hides it; say it when the dataset does not ask it."""
        self._question = None
        number = next((row.number for row in self.book.rows if row.question == question), None)
        if number is None:
            self.dashboard.say(f"the dataset {self.book.dataset!r} does not ask {question!r}", wrong=True)
            return
        if not self.list.move_to(number):
            self.action_clear()
            self.list.move_to(number)

    def action_ask(self) -> None:
        """Ask the highlighted question about some query images of its task."""
        if (row := self.list.current) is not None:
            self.dashboard.visit("ask", question=row.question, images=query_files(self.book, row.number, ASKED_ABOUT))

    @on(Gallery.Chosen)
    def ask_about(self) -> None:
        """Ask the highlighted question about the picture under the cursor."""
        row, pair = self.list.current, self.images.pair
        if row is None or pair is None:
            return
        if (path := plain_file(pair)) is None:
            self.dashboard.say(f"image {pair.image} is in a zip, or not there; Ask needs a file of its own", wrong=True)
            return
        self.dashboard.visit("ask", question=row.question, images=[path])

    def action_sweep(self) -> None:
        """The γ sweep with the highlighted task."""
        if (row := self.list.current) is not None:
            self.dashboard.visit("sweep", question=row.question)

    def action_pictures(self) -> None:
        """The next way of drawing pictures."""
        cycle(self.app)

    def action_copy(self) -> None:
        """The question, for a command in a shell."""
        if (row := self.list.current) is not None:
            self.dashboard.copy(row.question)

    def action_pane(self, number: int) -> None:
        """Hide or show a pane; the others take its room."""
        super().action_pane(number)
        side = self.query_one("#tasks-side")
        side.display = any(child.display for child in side.children)
        self.query_one("#tasks-left").display = self.list.display


def make_room() -> Room:
    return TasksRoom()
