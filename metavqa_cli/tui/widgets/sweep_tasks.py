"""The list to choose a task from, with its accuracy at this γ and its change, and the line that filters it."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.strip import Strip
from textual.widgets import Input

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import cut
from metavqa_cli.tui.sweep_tasks import TaskLine, change_text
from metavqa_cli.tui.widgets.line_list import LineList

HEAD = "     %  change  question"


class TaskLines(LineList):
    """Tasks; the cursor stays on its task when the order or the numbers change."""

    DEFAULT_CSS = """
    TaskLines > .task-lines--head { color: $text-muted; text-style: bold; }
    TaskLines > .task-lines--cursor { background: $primary; color: $text; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"task-lines--head", "task-lines--cursor"}

    class Highlighted(Message):
        """The cursor is on another task."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TaskLines.Highlighted)

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look
        self.lines: Sequence[TaskLine] = ()
        self.nothing = ""

    @property
    def current(self) -> TaskLine | None:
        """The task under the cursor."""
        return self.lines[self.cursor] if self.lines else None

    def show(self, lines: Sequence[TaskLine], question: str | None, nothing: str) -> None:
        """Show these tasks, with the cursor on the one that asks ``question``, or else where it was."""
        self.lines, self.nothing = lines, nothing
        place = next((at for at, line in enumerate(lines) if line.question == question), self.cursor)
        self.put_cursor(place)
        self.refresh()

    @property
    def count(self) -> int:
        return len(self.lines)

    def tell(self) -> None:
        self.post_message(self.Highlighted())

    def head(self, width: int) -> Strip:
        style = self.get_component_rich_style("task-lines--head")
        return Strip([Segment(f" {HEAD}", style)]).adjust_cell_length(width, style)

    def line(self, at: int, here: bool, width: int) -> Strip:
        style = self.get_component_rich_style("task-lines--cursor") if here else self.rich_style
        return Strip([Segment(self._text(self.lines[at], here, width), style)]).adjust_cell_length(width, style)

    def empty(self, y: int, width: int) -> Strip:
        words = self.look.text(self.nothing) if not self.lines and y == 1 else ""
        return Strip([Segment(f" {words}", self.rich_style)]).adjust_cell_length(width, self.rich_style)

    def _text(self, line: TaskLine, here: bool, width: int) -> str:
        numbers = f"{line.now:6.1f}  {change_text(line, self.look):>6}  "
        room = max(4, width - len(numbers) - 1)
        return f"{'>' if here else ' '}{numbers}{set_cell_size(cut(self.look.text(line.question), room), room)}"


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
