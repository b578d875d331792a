"""The list of tasks: only the rows in sight are made, so ten thousand tasks cost what thirty do."""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.task_list import Accuracies, TaskRow, cells, columns, heading

FAR = 1_000_000_000


class TaskList(ScrollView, can_focus=True):
    """Tasks as rows below a heading that stays, with a cursor that stays on its task when the order changes."""

    DEFAULT_CSS = """
    TaskList { overflow-x: hidden; }
    TaskList > .task-list--head { color: $text-muted; text-style: bold; }
    TaskList > .task-list--cursor { background: $primary; color: $text; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"task-list--head", "task-list--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", f"move({-FAR})", "First", show=False),
        Binding("end", f"move({FAR})", "Last", show=False),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

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
        self.set_reactive(TaskList.cursor, place)
        self._measure()
        self._tell()
        self.refresh()

    def move_to(self, number: int) -> bool:
        """Put the cursor on the task at this place in the file; False where it is not shown."""
        place = next((at for at, row in enumerate(self.rows) if row.number == number), None)
        if place is not None:
            self.cursor = place
        return place is not None

    def validate_cursor(self, value: int) -> int:
        return min(max(value, 0), max(0, len(self.rows) - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        self._refresh_row(before)
        self._refresh_row(now)
        self._reveal()
        self._tell()

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_page(self, by: int) -> None:
        self.cursor += by * max(1, self.size.height - 2)

    def on_resize(self) -> None:
        self._measure()

    def on_click(self, event: Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (row := offset.y - 1) >= 0 and row + self.scroll_offset.y < len(self.rows):
            self.cursor = row + self.scroll_offset.y

    def render_line(self, y: int) -> Strip:
        width = self._width
        shown = columns(max(1, width - 1), len(self.methods))  # of this moment: a scroll bar may have come since
        if y == 0:
            style = self.get_component_rich_style("task-list--head")
            return Strip([Segment(f" {heading(shown, self.look)}", style)]).adjust_cell_length(width, style)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        here = at == self.cursor
        style = self.get_component_rich_style("task-list--cursor") if here and self.has_focus else self.rich_style
        texts = cells(self.rows[at], shown, self.methods, self.look)
        line = f"{'>' if here else ' '}{' '.join(texts)}"
        return Strip([Segment(line, style)]).adjust_cell_length(width, style)

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width  # size counts the scrollbar

    def _measure(self) -> None:
        self.virtual_size = Size(self._width, len(self.rows) + 1)
        self._reveal()

    def _refresh_row(self, row: int) -> None:
        self.refresh(Region(0, row + 1 - self.scroll_offset.y, self.size.width, 1))

    def _reveal(self) -> None:
        """Scroll just as far as brings the cursor into sight."""
        height = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)

    def _tell(self) -> None:
        current = self.current
        if (current.number if current else None) != self._on or current is None:
            self._on = current.number if current else None
            self.post_message(self.Highlighted(current))
