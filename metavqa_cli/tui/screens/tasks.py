"""The room Tasks: the questions of a dataset, their answers and images, and how well methods do on each."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from metavqa_cli.engine.contact import Pair, choose, pairs_of
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.filters import Filter, FilterError, parse
from metavqa_cli.tui.room import Pane, Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.task_feed import Book, TaskFeed, Wish, wish_of
from metavqa_cli.tui.task_list import (
    GRAMMAR,
    LETTERS,
    ORDERS,
    SPLITS,
    families_of,
    next_of,
    next_order,
    visible,
    with_accuracies,
)
from metavqa_cli.tui.task_methods import Method, shown_at_first
from metavqa_cli.tui.widgets.choose import ChooseOne, ChooseSome
from metavqa_cli.tui.widgets.picture import Gallery, cycle
from metavqa_cli.tui.widgets.task_details import TaskDetails
from metavqa_cli.tui.widgets.task_images import TaskImages
from metavqa_cli.tui.widgets.task_list import TaskList

ASKED_ABOUT = 8  # images of the task that Ask begins with
FILTER_HELP = (
    "Words of the question, field:text, comparisons: colour family:count answers>3 accuracy<50 -red | split:test. "
    f"Fields: {', '.join(GRAMMAR.fields)}. Enter keeps the filter, escape clears it."
)


class BookRead(Message):
    """The dataset as it is now; ``last`` of this reading."""

    def __init__(self, book: Book, last: bool) -> None:
        super().__init__()
        self.book, self.last = book, last


class TasksRoom(Room):
    """Owns which dataset, filter, order and methods; the panes only show."""

    NAME: ClassVar[RoomName] = "tasks"
    CSS_PATH = "tasks.tcss"
    HELP = (
        "The tasks of a dataset: a question with its answers and images. Columns a, b, c are what methods got right of "
        "a task's query pairs, in per cent: those of the runs selected in Runs, or of all evaluations and cells. A "
        "task with few query pairs can be best or worst by luck. The same without a dashboard: metavqa dataset show, "
        "metavqa eval tasks."
    )
    PANES: ClassVar[tuple[Pane, ...]] = (
        Pane("tasks-list", "Tasks", f"One line a task. Filter with /. {FILTER_HELP}"),
        Pane("tasks-details", "Task", "The highlighted task: its answers in the support and the query set, and how "
             "many query pairs each shown method judged rightly."),
        Pane("tasks-images", "Images", "Images of the highlighted task with their answers, support or query. Arrow "
             "keys move, more are read at the end, enter asks about the one under the cursor."),
    )  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("enter", "ask", "Ask"),
        Binding("g", "sweep", "γ sweep"),
        Binding("f", "family", "Family"),
        Binding("v", "split", "Split"),
        Binding("s", "sort", "Sort"),
        Binding("m", "methods", "Methods"),
        Binding("o", "dataset", "Dataset"),
        Binding("k", "pictures", "Pictures"),
        Binding("c", "copy", "Copy the question", show=False),
        Binding("escape", "clear", "Clear filter, family and split", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.wanted, self.order = Filter(), ORDERS[0]
        self.family: str | None = None
        self.split: str | None = None
        self.methods: tuple[Method, ...] = ()
        """Those that are shown; the list is ordered and filtered by the first."""
        self._keys: tuple[tuple[Any, ...], ...] = ()
        self._feed: TaskFeed | None = None
        self._wish, self._reading, self._read_wish = Wish(), False, Wish()
        self._chosen: str | None = None
        self._question: str | None = None

    def compose_room(self) -> Iterable[Widget]:
        with Container(id="tasks-body"):
            with Container(id="tasks-left"):
                yield TaskList(self.look, id="tasks-list")
                yield Static("", id="tasks-nothing", classes="hidden")
                yield Input(placeholder="filter: family:count answers>3", id="tasks-filter", classes="hidden")
                yield Static("", id="tasks-wrong", classes="hidden")
            with Container(id="tasks-side"):
                yield TaskDetails(self.look, id="tasks-details")
                yield TaskImages(self.look, id="tasks-images")

    def on_mount(self) -> None:
        self._feed = TaskFeed(self.dashboard.workspace)
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

    @property
    def settled(self) -> bool:
        return super().settled and not self._reading and not self.images.reading

    # Reading

    def show_snapshot(self, snapshot: Snapshot) -> None:
        app = self.dashboard
        self._wish = wish_of(self._chosen or app.dataset_wish, snapshot.views, app.selected)
        self._read()

    def _read(self) -> None:
        """Look at the dataset in a thread; one look at a time, so that a slow disk is not asked ever more."""
        if not self._reading and self._feed is not None:
            self._reading, self._read_wish = True, self._wish
            feed, wish = self._feed, self._wish
            beside(lambda: self._read_beside(feed, wish), "tasks")

    def _read_beside(self, feed: TaskFeed, wish: Wish) -> None:
        book = self.book
        for book in feed.read(wish):
            post(self, BookRead(book, last=False))
        post(self, BookRead(book, last=True))

    @on(BookRead)
    def take_book(self, message: BookRead) -> None:
        """Show what has changed, and look again if something else is wished by now."""
        if message.last:
            self._reading = False
            if self._wish != self._read_wish:
                self._read()
        before, self.book = self.book, message.book
        if self.book is not before:
            self._show_book(before)

    def _show_book(self, before: Book) -> None:
        book = self.book
        if book.dataset != before.dataset:
            self.family = self.split = None
        shown = book.trouble if book.rows else None  # without tasks it stands in place of the list
        self.trouble("dataset", shown)
        self.trouble("measured", "; ".join(book.problems[:3]) or None)
        self._choose_methods(self._keys)
        self.refresh_list(stay=book.dataset == before.dataset)
        if self._question is not None and book.rows:
            self._go_to(self._question)

    def _choose_methods(self, keys: tuple[tuple[Any, ...], ...]) -> None:
        """Show the methods with these keys; the usual ones where none of them is there."""
        known = {method.key: method for method in self.book.methods}
        self._keys = tuple(key for key in keys if key in known)
        shown = self._keys or shown_at_first(self.book.methods)
        self.methods = tuple(known[key] for key in shown)
        if not self.methods and self.order.measured:
            self.order = ORDERS[0]

    # Showing

    def refresh_list(self, *, stay: bool = True) -> None:
        """Show the list again: another dataset, filter, order or other methods."""
        book = self.book
        rows = with_accuracies(book.rows, self.methods[0].accuracies) if self.methods else book.rows
        shown = visible(rows, self.wanted, self.order, family=self.family, split=self.split)
        self.list.show(shown, [method.accuracies for method in self.methods], stay=stay)
        count = f"{len(shown):,} of {len(rows):,}" if len(shown) != len(rows) else f"{len(rows):,}"
        name = f" of {book.dataset}" if book.dataset else ""
        self.list.border_title = self.look.text(f"Tasks{name}: {count}")
        self.list.border_subtitle = self.look.text(self._arrangement())
        self._say_nothing(bool(shown), bool(rows))
        self._show_task()

    def _arrangement(self) -> str:
        by = f" by {LETTERS[0]}" if self.order.measured else ""
        parts = [f"{self.order.name}{by}", f"family {self.family}" if self.family else "", self.split or ""]
        return " · ".join(part for part in parts if part)

    def _say_nothing(self, shown: bool, rows: bool) -> None:
        words = "no task matches; escape shows all" if rows else self.book.trouble or "reading the dataset …"
        nothing = self.query_one("#tasks-nothing", Static)
        nothing.update(Text(self.look.text(words)))
        nothing.set_class(shown, "hidden")

    @on(TaskList.Highlighted)
    def _show_task(self) -> None:
        row, book = self.list.current, self.book
        task = None if row is None else book.tasks[row.number]
        self.query_one(TaskDetails).show(task, 0 if row is None else row.number, self.methods)
        self.images.show(task, book.places, book.no_images)

    # Filter and order

    def action_filter(self) -> None:
        """Type a filter; the list follows every letter."""
        line = self.query_one("#tasks-filter", Input)
        line.remove_class("hidden")
        line.focus()

    @on(Input.Changed, "#tasks-filter")
    def follow_filter(self, event: Input.Changed) -> None:
        """A filter that cannot be read yet leaves the list as it is, and says why."""
        wrong = self.query_one("#tasks-wrong", Static)
        try:
            self.wanted = parse(event.value, GRAMMAR)
        except FilterError as error:
            wrong.update(Text(f"! {self.look.text(str(error))}"))
            wrong.remove_class("hidden")
            return
        wrong.add_class("hidden")
        self.refresh_list(stay=False)

    @on(Input.Submitted, "#tasks-filter")
    def keep_filter(self) -> None:
        """Back to the list; the filter stays in sight."""
        line = self.query_one("#tasks-filter", Input)
        line.set_class(not line.value, "hidden")
        self.list.focus()

    def action_clear(self) -> None:
        """All tasks again."""
        line = self.query_one("#tasks-filter", Input)
        line.value, self.wanted, self.family, self.split = "", Filter(), None, None
        line.add_class("hidden")
        self.query_one("#tasks-wrong").add_class("hidden")
        self.list.focus()
        self.refresh_list()

    def action_family(self) -> None:
        """Only the next family, or all."""
        self.family = next_of(self.family, families_of(self.book.rows))
        self.refresh_list()

    def action_split(self) -> None:
        """Only the next split, or all."""
        self.split = next_of(self.split, SPLITS)
        self.refresh_list()

    def action_sort(self) -> None:
        """The next of the orders; the cursor goes to the first, which is why one sorts."""
        self.order = next_order(self.order, bool(self.methods))
        self.refresh_list(stay=False)

    # Choosing

    def action_methods(self) -> None:
        """Which methods are columns."""
        known = self.book.methods
        if not known:
            self.dashboard.say("nothing is measured on this dataset yet: `metavqa eval` measures its newest runs")
            return
        places = [known.index(method) for method in self.methods]
        options = [self.look.text(f"{method.mean:5.1f} %  {method.title}") for method in known]

        def take(chosen: tuple[int, ...] | None) -> None:
            if chosen is not None and self.book.methods is known:
                self._choose_methods(tuple(known[place].key for place in chosen))
                self.refresh_list()

        self.dashboard.push_screen(ChooseSome("Methods, with their accuracy over all test tasks", options, places,
                                              len(LETTERS)), take)  # fmt: skip

    def action_dataset(self) -> None:
        """Which dataset is shown."""
        names = self.book.datasets
        if not names:
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
        question = what.get("question")
        if question:
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
        row, book = self.list.current, self.book
        if row is not None:
            pairs = pairs_of(book.tasks[row.number], book.places, ["query"])
            self._ask(row.question, choose([pair for pair in pairs if _file(pair)], ASKED_ABOUT))

    @on(Gallery.Chosen)
    def ask_about(self) -> None:
        """Ask the highlighted question about the picture under the cursor."""
        row, pair = self.list.current, self.images.pair
        if row is None or pair is None:
            return
        if _file(pair) is None:
            self.dashboard.say(f"image {pair.image} is in a zip, or not there; Ask needs a file of its own", wrong=True)
            return
        self._ask(row.question, [pair])

    def _ask(self, question: str, pairs: "Iterable[Pair]") -> None:
        self.dashboard.visit("ask", question=question, images=[path for pair in pairs if (path := _file(pair))])

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


def _file(pair: Pair) -> Path | None:
    """The image's own file, where it has one."""
    return None if pair.place is None or pair.place.packed else pair.place.path


def make_room() -> Room:
    return TasksRoom()
