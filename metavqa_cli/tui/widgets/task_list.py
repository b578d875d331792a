"""The list of tasks."""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.message import Message
from textual.strip import Strip

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.task_list import Accuracies, TaskRow, cells, columns, heading
from metavqa_cli.tui.widgets.line_list import LineList


class TaskList(LineList):
    """Tasks as rows below a heading that stays, with a cursor that stays on its task when the order changes."""

    DEFAULT_CSS = """
    TaskList > .task-list--head { color: $text-muted; text-style: bold; }
    TaskList > .task-list--cursor { background: $primary; color: $text; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"task-list--head", "task-list--cursor"}

    class Highlighted(Message):
        """The cursor is on another task, or on none."""

        def __init__(self, row: TaskRow | None) -> None:
            super().__init__()
            self.row = row

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TaskList.Highlighted)

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.rows: Sequence[TaskRow] = ()
        self.methods: Sequence[Accuracies] = ()
        self._on: int | None = None

    @property
    def current(self) -> TaskRow | None:
        """The task under the cursor."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    def show(self, rows: Sequence[TaskRow], methods: Sequence[Accuracies], *, stay: bool = True) -> None:
        """Show these tasks in this order; the cursor stays on its task (unless ``stay`` is False: then it goes to the
        first), or goes to the first where that is gone."""
        self.rows, self.methods = rows, methods
        place = next((at for at, row in enumerate(rows) if row.number == self._on), 0) if stay else 0
        self.put_cursor(place)
        self.tell()
        self.refresh()

    def move_to(self, number: int) -> bool:
        """Put the cursor on the task at this place in the file; False where it is not shown."""
        place = next((at for at, row in enumerate(self.rows) if row.number == number), None)
        if place is not None:
            self.cursor = place
        return place is not None

    @property
    def count(self) -> int:
        return len(self.rows)

    def head(self, width: int) -> Strip:
        style = self.get_component_rich_style("task-list--head")
        text = f" {heading(columns(max(1, width - 1), len(self.methods)), self.look)}"
        return Strip([Segment(text, style)]).adjust_cell_length(width, style)

    def line(self, at: int, here: bool, width: int) -> Strip:
        style = self.get_component_rich_style("task-list--cursor") if here and self.has_focus else self.rich_style
        shown = columns(max(1, width - 1), len(self.methods))
        texts = cells(self.rows[at], shown, self.methods, self.look)
        line = f"{'>' if here else ' '}{' '.join(texts)}"
        return Strip([Segment(line, style)]).adjust_cell_length(width, style)

    def tell(self) -> None:
        current = self.current
        if (current.number if current else None) != self._on or current is None:
            self._on = current.number if current else None
            self.post_message(self.Highlighted(current))
