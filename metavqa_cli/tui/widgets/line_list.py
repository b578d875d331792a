"""A list below a heading that stays: only the lines in sight are made, so ten thousand cost what thirty do."""

from abc import abstractmethod
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

FAR = 1_000_000_000


class LineList(ScrollView, can_focus=True):
    """A cursor on one of ``count`` lines, moved by keys and clicks and kept in sight.

    A subclass draws the heading and the lines, and tells where the cursor is (``tell``).
    """

    DEFAULT_CSS = "LineList { overflow-x: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", f"move({-FAR})", "First", show=False),
        Binding("end", f"move({FAR})", "Last", show=False),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many lines there are."""

    @abstractmethod
    def head(self, width: int) -> Strip:
        """The heading, ``width`` cells wide."""

    @abstractmethod
    def line(self, at: int, here: bool, width: int) -> Strip:
        """The line ``at``, on which the cursor is if ``here``."""

    @abstractmethod
    def tell(self) -> None:
        """The cursor is on another line, or there are others."""

    def empty(self, y: int, width: int) -> Strip:
        """Below the last line, ``y`` lines below the heading."""
        return Strip.blank(width, self.rich_style)

    def put_cursor(self, at: int) -> None:
        """Move the cursor without telling; what is shown is another already."""
        self.set_reactive(LineList.cursor, min(max(at, 0), max(0, self.count - 1)))
        self.measure()

    def measure(self) -> None:
        """The lines have another number or width."""
        self.virtual_size = Size(self.size.width, self.count + 1)
        self._reveal()

    def validate_cursor(self, value: int) -> int:
        return min(max(value, 0), max(0, self.count - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        for at in (before, now):
            self.refresh(Region(0, at + 1 - self.scroll_offset.y, self.size.width, 1))
        self._reveal()
        self.tell()

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_page(self, by: int) -> None:
        self.cursor += by * max(1, self.size.height - 2)

    def on_resize(self) -> None:
        self.measure()

    def on_click(self, event: Click) -> None:
        place = event.get_content_offset(self)
        if place is not None and 0 < place.y <= self.count - self.scroll_offset.y:
            self.cursor = place.y + self.scroll_offset.y - 1

    def render_line(self, y: int) -> Strip:
        """Line 0 is the heading, which stays; the others scroll beneath it, as wide as a scroll bar leaves them now."""
        width = self.scrollable_content_region.width
        if y == 0:
            return self.head(width)
        at = y - 1 + self.scroll_offset.y
        return self.line(at, at == self.cursor, width) if at < self.count else self.empty(y, width)

    def _reveal(self) -> None:
        """Scroll just as far as brings the cursor into sight."""
        height, top = max(1, self.size.height - 1), self.scroll_offset.y
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)
