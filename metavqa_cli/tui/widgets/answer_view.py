"""Results beside each other: the newest, and those that are pinned."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from metavqa_cli.tui.answer_text import ResultLines, wrapped
from metavqa_cli.tui.ask_history import Shown
from metavqa_cli.tui.look import Look

NARROWEST = 36  # columns of a result beside others; with fewer they stand one above the other
NOTHING = (
    "Type a question above; the nearest training questions propose its answers.\n\n"
    "Choose images: space in the list of files, or d for the images of the dataset.\n\n"
    "Enter in the question generates a classifier for it and shows it to the images."
)


class AnswerView(ScrollView, can_focus=True):
    """One result. Its lines are made when it or its width changes, and drawn as they come into sight."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look
        self.shown: Shown | None = None
        self.lines: Sequence[Text] = []

    def show(self, shown: Shown | None) -> None:
        """Show a result, or how to get one."""
        if shown is None or self.shown is None or shown.result is not self.shown.result:
            self.scroll_home(animate=False)
        self.shown = shown
        self._lay_out()

    def on_resize(self, event: Resize) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        width, shown = self.scrollable_content_region.width, self.shown
        if shown is None:
            self.lines, self.border_title = wrapped(Text(NOTHING, "dim"), max(1, width)), ""
        else:
            brief = self.has_class("beside")
            self.lines = ResultLines(shown.result, width, self.look, shown.before, brief=brief)
            pin = "pinned " if shown.pinned else ""
            self.border_title = f"{pin}{shown.result.number}: γ {shown.result.gamma:g}"
        self.virtual_size = Size(width, len(self.lines))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        at, width = y + self.scroll_offset.y, self.size.width
        segments = self.lines[at].render(self.app.console) if at < len(self.lines) else []
        return Strip(segments).adjust_cell_length(width).apply_style(self.rich_style)


class Answers(Container):
    """Up to three results, side by side where there is room."""

    MOST: ClassVar[int] = 3

    def __init__(self, look: Look, *, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.shown: tuple[Shown, ...] = ()

    def compose(self) -> ComposeResult:
        for _ in range(self.MOST):
            yield AnswerView(self.look)

    def on_mount(self) -> None:
        self.show(())

    @property
    def views(self) -> list[AnswerView]:
        return list(self.query(AnswerView))

    def show(self, shown: Sequence[Shown]) -> None:
        """Show these results, from the left or the top."""
        self.shown = tuple(shown[: self.MOST])
        for number, view in enumerate(self.views):
            view.display = number < max(1, len(self.shown))
            view.set_class(len(self.shown) > 1, "beside")
            view.show(self.shown[number] if number < len(self.shown) else None)
        self._arrange()

    def on_resize(self, event: Resize) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """As many beside each other as have room; the last one takes what is left of its line."""
        count = max(1, len(self.shown))
        columns = min(count, max(1, self.size.width // NARROWEST))
        self.styles.grid_size_columns = columns
        for number, view in enumerate(self.views[:count], 1):
            view.styles.column_span = columns - (count - 1) % columns if number == count else 1
