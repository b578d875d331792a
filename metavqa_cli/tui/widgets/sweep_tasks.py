"""The list to choose a task from, with its accuracy at this γ and its change, and the line that filters it."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import cut
from metavqa_cli.tui.sweep_tasks import TaskLine, change_text

FAR = 1_000_000_000
HEAD = "     %  change  question"


class TaskLines(ScrollView, can_focus=True):
    """Tasks below a heading that stays; the cursor stays on its task when the order or the numbers change.

    Only the rows in sight are made, so ten thousand tasks cost what thirty do.
    """

    DEFAULT_CSS = """
    TaskLines { overflow-x: hidden; }
    TaskLines > .task-lines--head { color: $text-muted; text-style: bold; }
    TaskLines > .task-lines--cursor { background: $primary; color: $text; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"task-lines--head", "task-lines--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", f"move({-FAR})", "First task", show=False),
        Binding("end", f"move({FAR})", "Last task", show=False),
    ]

    class Highlighted(Message):
        """The cursor is on another task."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TaskLines.Highlighted)

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look
        self.lines: Sequence[TaskLine] = ()
        self.cursor = 0
        self.nothing = ""

    @property
    def current(self) -> TaskLine | None:
        """The task under the cursor."""
        return self.lines[self.cursor] if self.lines else None

    def show(self, lines: Sequence[TaskLine], question: str | None, nothing: str) -> None:
        """Show these tasks, with the cursor on the one that asks ``question``, or else where it was."""
        self.lines, self.nothing = lines, nothing
        place = next((at for at, line in enumerate(lines) if line.question == question), self.cursor)
        self.cursor = min(place, max(0, len(lines) - 1))
        self.virtual_size = Size(self.size.width, len(lines) + 1)
        self._reveal()
        self.refresh()

    def action_move(self, by: int) -> None:
        before, self.cursor = self.cursor, min(max(self.cursor + by, 0), max(0, len(self.lines) - 1))
        if self.cursor != before:
            self._reveal()
            self.refresh()
            self.post_message(self.Highlighted())

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 2))

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.lines) + 1)
        self._reveal()

    def on_click(self, event: Click) -> None:
        row = event.y + self.scroll_offset.y - 1
        if event.y > 0 and row < len(self.lines):
            self.action_move(row - self.cursor)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            style = self.get_component_rich_style("task-lines--head")
            return Strip([Segment(f" {HEAD}", style)]).adjust_cell_length(width, style)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self.lines):
            words = self.look.text(self.nothing) if not self.lines and y == 1 else ""
            return Strip([Segment(f" {words}", self.rich_style)]).adjust_cell_length(width, self.rich_style)
        here = at == self.cursor
        style = self.get_component_rich_style("task-lines--cursor") if here else self.rich_style
        return Strip([Segment(self._text(self.lines[at], here, width), style)]).adjust_cell_length(width, style)

    def _text(self, line: TaskLine, here: bool, width: int) -> str:
        numbers = f"{line.now:6.1f}  {change_text(line, self.look):>6}  "
        room = max(4, width - len(numbers) - 1)
        return f"{'>' if here else ' '}{numbers}{set_cell_size(cut(self.look.text(line.question), room), room)}"

    def _reveal(self) -> None:
        """Scroll just as far as brings the cursor into sight."""
        height, top = max(1, self.size.height - 1), self.scroll_offset.y
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)


class SweepTasks(Vertical):
    """The list, with a line below it to type words that its questions or families must have."""

    DEFAULT_CSS = """
    SweepTasks > TaskLines { height: 1fr; }
    SweepTasks > Input, SweepTasks > Input:focus { height: 1; border: none; padding: 0 1; }
    """

    class Filtered(Message):
        """Other words are to be found in the tasks."""

        def __init__(self, words: str) -> None:
            super().__init__()
            self.words = words

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.list = TaskLines(look)

    def compose(self) -> ComposeResult:
        yield self.list
        yield Input(placeholder="words of the question or family", classes="hidden")

    @property
    def line(self) -> Input:
        """Where words are typed."""
        return self.query_one(Input)

    def type(self) -> None:
        """Type words; the list follows every letter."""
        self.display = True
        self.line.remove_class("hidden")
        self.line.focus()

    def clear(self) -> None:
        """All tasks again."""
        had_keyboard = self.line.has_focus
        self.line.value = ""
        self.line.add_class("hidden")
        if had_keyboard:
            self.list.focus()

    @on(Input.Changed)
    def follow(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Filtered(event.value))

    @on(Input.Submitted)
    def keep(self, event: Input.Submitted) -> None:
        """Back to the list; the words stay in sight."""
        event.stop()
        self.line.set_class(not event.value, "hidden")
        self.list.focus()
