"""The pane that tells one task in words and bars."""

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.answer_text import wrapped
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.task_details import details
from metavqa_cli.tui.task_methods import Method


class TaskDetails(VerticalScroll, can_focus=True):
    """Question, answers and accuracies of the highlighted task, folded anew when the pane becomes narrower."""

    DEFAULT_CSS = "TaskDetails { padding: 0 1; } TaskDetails > Static { height: auto; }"

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self._shown: tuple[Task, int, tuple[Method, ...]] | None = None
        self._height = 0

    def compose(self) -> ComposeResult:
        yield Static("")

    def show(self, task: Task | None, number: int, methods: Sequence[Method]) -> None:
        """Show the task at this place in the file; None: nothing."""
        other = self._shown is None or task is not self._shown[0]
        self._shown = None if task is None else (task, number, tuple(methods))
        if other:
            self.scroll_home(animate=False)
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        """The pane is filled up with empty lines: the screen is laid out anew, which takes long, only for a task that
        needs more."""
        width, height = max(10, self.scrollable_content_region.width), self.scrollable_content_region.height
        lines = [] if self._shown is None else wrapped(details(*self._shown, width, self.look), width)
        lines += [Text()] * (height - len(lines))
        self.query_one(Static).update(Text("\n").join(lines), layout=len(lines) != self._height)
        self._height = len(lines)
