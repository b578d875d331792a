"""The pane that tells one task in words and bars."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from metavqa_cli.tasks.taskset import Task
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
        width = max(10, self.scrollable_content_region.width)
        self.query_one(Static).update("" if self._shown is None else details(*self._shown, width, self.look))
