"""The list of runs."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.run_rows import Flags, cells, columns, heading
from metavqa_cli.tui.widgets.line_list import LineList

NO_FLAGS = Flags()


class RunList(LineList):
    """Runs as rows, with a cursor that stays on its run when the order changes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "run-list--head", "run-list--cursor", "run-list--muted", "run-list--running", "run-list--failed",
        "run-list--stale", "run-list--interrupted", "run-list--finished",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "move(-1)", "Up", show=False),
        Binding("j", "move(1)", "Down", show=False),
    ]

    class Highlighted(Message):
        """The cursor is on another run, or on none."""

        def __init__(self, view: RunView | None) -> None:
            super().__init__()
            self.view = view

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.views: Sequence[RunView] = ()
        self.flags: Mapping[str, Flags] = {}
        self._on: str | None = None

    @property
    def current(self) -> RunView | None:
        """The run under the cursor."""
        return self.views[self.cursor] if 0 <= self.cursor < len(self.views) else None

    def show(self, views: Sequence[RunView], flags: Mapping[str, Flags]) -> None:
        """Show these runs in this order; the cursor stays on its run, or near its place if that is gone."""
        before = self.current
        changed = [view.id for view in views] != [view.id for view in self.views]
        self.views, self.flags = tuple(views), dict(flags)
        if changed:
            self.put_cursor(next((row for row, view in enumerate(views) if view.id == self._on), self.cursor))
        if self.current != before or changed:
            self.tell()
        self.refresh()

    @property
    def count(self) -> int:
        return len(self.views)

    def head(self, width: int) -> Strip:
        style = self.get_component_rich_style("run-list--head")
        return Strip([Segment(heading(columns(width), self.look), style)]).adjust_cell_length(width, style)

    def line(self, at: int, here: bool, width: int) -> Strip:
        view, shown = self.views[at], columns(width)
        base = self.get_component_rich_style("run-list--cursor") if here and self.has_focus else self.rich_style
        segments: list[Segment] = []
        for cell in cells(view, self.flags.get(view.id, NO_FLAGS), shown, self.look, here=here):
            segments += [Segment(cell.text, base + self._tone(cell.tone, here)), Segment(" ", base)]
        return Strip(segments).adjust_cell_length(width, base)

    def _tone(self, tone: str, here: bool) -> Style:
        if not tone or (here and self.has_focus):
            return Style.null()
        return Style(color=self.get_component_rich_style(f"run-list--{tone}").color)

    def tell(self) -> None:
        current = self.current
        self._on = current.id if current else None
        self.post_message(self.Highlighted(current))
