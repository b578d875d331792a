"""The list of runs: only the rows in sight are made, so ten thousand runs cost what thirty do."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.run_rows import Column, Flags, cells, columns, heading

NO_FLAGS = Flags()


class RunList(ScrollView, can_focus=True):
    """Runs as rows, with a cursor that stays on its run when the order changes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "run-list--head", "run-list--cursor", "run-list--muted", "run-list--running", "run-list--failed",
        "run-list--stale", "run-list--interrupted", "run-list--finished",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "move(-1000000)", "First", show=False),
        Binding("end", "move(1000000)", "Last", show=False),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

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
            self.virtual_size = Size(self.size.width, len(views) + 1)
            place = next((row for row, view in enumerate(views) if view.id == self._on), None)
            self.set_reactive(RunList.cursor, min(self.cursor, max(0, len(views) - 1)) if place is None else place)
            self._reveal()
        if self.current != before or changed:
            self._tell()
        self.refresh()

    def watch_cursor(self, before: int, now: int) -> None:
        self.refresh_row(before)
        self.refresh_row(now)
        self._reveal()
        self._tell()

    def validate_cursor(self, value: int) -> int:
        return min(max(value, 0), max(0, len(self.views) - 1))

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_page(self, by: int) -> None:
        self.cursor += by * max(1, self.size.height - 2)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.views) + 1)
        self._reveal()

    def on_click(self, event: Click) -> None:
        place = event.get_content_offset(self)
        if place is not None and 0 < place.y <= len(self.views) - self.scroll_offset.y:
            self.cursor = place.y + self.scroll_offset.y - 1

    def render_line(self, y: int) -> Strip:
        """Line 0 is the heading, which stays; the runs scroll beneath it."""
        shown = columns(self.size.width)  # of this moment: a scroll bar takes room as well
        if y == 0:
            style = self.get_component_rich_style("run-list--head")
            return self._strip([Segment(heading(shown, self.look), style)], style)
        row = y - 1 + self.scroll_offset.y
        if row >= len(self.views):
            return Strip.blank(self.size.width, self.rich_style)
        return self._row(row, shown)

    def _row(self, row: int, shown: Sequence[Column]) -> Strip:
        view, here = self.views[row], row == self.cursor
        base = self.get_component_rich_style("run-list--cursor") if here and self.has_focus else self.rich_style
        segments: list[Segment] = []
        for cell in cells(view, self.flags.get(view.id, NO_FLAGS), shown, self.look, here=here):
            segments += [Segment(cell.text, base + self._tone(cell.tone, here)), Segment(" ", base)]
        return self._strip(segments, base)

    def refresh_row(self, row: int) -> None:
        """Paint a row again, if it is in sight."""
        self.refresh(Region(0, row + 1 - self.scroll_offset.y, self.size.width, 1))

    def _tone(self, tone: str, here: bool) -> Style:
        if not tone or (here and self.has_focus):
            return Style.null()
        return Style(color=self.get_component_rich_style(f"run-list--{tone}").color)

    def _strip(self, segments: list[Segment], style: Style) -> Strip:
        return Strip(segments).adjust_cell_length(self.size.width, style)

    def _reveal(self) -> None:
        height = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)

    def _tell(self) -> None:
        current = self.current
        self._on = current.id if current else None
        self.post_message(self.Highlighted(current))
