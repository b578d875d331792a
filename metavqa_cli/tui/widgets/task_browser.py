"""The list of tasks with its filter, and what is said where there is nothing to list."""

from collections.abc import Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.task_feed import Book
from metavqa_cli.tui.task_list import GRAMMAR, Arrangement, with_accuracies
from metavqa_cli.tui.task_methods import Method
from metavqa_cli.tui.widgets.filter_line import FilterLine
from metavqa_cli.tui.widgets.task_list import TaskList


class TaskBrowser(Vertical):
    """Shows the tasks of a ``Book`` as an ``Arrangement`` wants them."""

    DEFAULT_CSS = """
    TaskBrowser > TaskList { height: 1fr; }
    TaskBrowser > .nothing { padding: 0 2; color: $text-muted; height: auto; }
    """

    def __init__(self, look: Look, id: str, list_id: str) -> None:
        super().__init__(id=id)
        self.look, self._list_id = look, list_id

    def compose(self) -> ComposeResult:
        yield TaskList(self.look, id=self._list_id)
        yield Static("", classes="nothing hidden")
        yield FilterLine(self.look, GRAMMAR, "colour family:count answers>3")

    @property
    def list(self) -> TaskList:
        return self.query_one(TaskList)

    def show(self, book: Book, arrangement: Arrangement, methods: Sequence[Method], *, stay: bool) -> None:
        """Show the tasks; without ``stay`` the cursor goes to the first."""
        rows = with_accuracies(book.rows, methods[0].accuracies) if methods else book.rows
        shown = arrangement.of(rows)
        self.list.show(shown, [method.accuracies for method in methods], stay=stay)
        count = f"{len(shown):,} of {len(rows):,}" if len(shown) != len(rows) else f"{len(rows):,}"
        name = f" of {book.dataset}" if book.dataset else ""
        self.list.border_title = Text(self.look.text(f"Tasks{name}: {count}"))
        self.list.border_subtitle = Text(self.look.text(arrangement.words))
        words = "no task matches; escape shows all" if rows else book.trouble or "reading the dataset …"
        nothing = self.query_one(".nothing", Static)
        nothing.update(Text(self.look.text(words)))
        nothing.set_class(bool(shown), "hidden")

    def open_filter(self) -> None:
        """Begin to type a filter."""
        self.query_one(FilterLine).open()

    def clear_filter(self) -> None:
        """No filter; the keyboard goes to the list."""
        self.query_one(FilterLine).clear()
        self.list.focus()

    @on(FilterLine.Left)
    def back_to_list(self) -> None:
        """The filter stays, the keyboard goes to the list."""
        self.list.focus()
