"""A chart on the screen: it paints what it was shown, in the size that it has."""

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from metavqa_cli.tui.chart import Curve, Row, chart
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.palette import color_of


@dataclass(frozen=True)
class Pictured:
    """What a chart shows. ``note`` is what it says when no curve has a point in sight."""

    curves: tuple[Curve, ...] = ()
    window: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    cursor: float | None = None
    note: str = ""


class ChartView(Widget, can_focus=True):
    """One metric. Its border says which, and the values at the cursor."""

    DEFAULT_CLASSES = "pane"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"chart--axis", "chart--cursor"}
    DEFAULT_CSS = """
    ChartView > .chart--axis { color: $text-muted; }
    ChartView > .chart--cursor { color: $accent; }
    """

    def __init__(self, metric: str, look: Look, **how: Any) -> None:
        super().__init__(**how)
        self.metric, self._look = metric, look
        self.pictured = Pictured()
        self._painted: tuple[Pictured | None, object, list[Strip]] = (None, None, [])

    class Sized(Message):
        """A chart has another width: other words fit into its border."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ChartView.Sized)

    def on_resize(self) -> None:
        self.post_message(self.Sized())

    def show(self, pictured: Pictured, title: str, values: str) -> None:
        """Paint ``pictured``, with these words in the border."""
        self.border_title, self.border_subtitle = Text(title), Text(values)
        if pictured != self.pictured:
            self.pictured = pictured
            self.refresh()

    def rows(self) -> list[Row]:
        """What is painted, as text with the names of styles."""
        shown, size = self.pictured, self.size
        return chart(
            shown.curves, size.width, size.height, shown.window,
            log=shown.log, ascii=self._look.ascii, cursor=shown.cursor, note=shown.note,
        )  # fmt: skip

    def render_line(self, y: int) -> Strip:
        pictured, how, strips = self._painted
        if pictured is not self.pictured or how != (self.size, self.app.theme):
            strips = [self._strip(row) for row in self.rows()]
            self._painted = (self.pictured, (self.size, self.app.theme), strips)
        return strips[y] if y < len(strips) else Strip.blank(self.size.width, self.rich_style)

    def _strip(self, row: Row) -> Strip:
        return Strip([Segment(text, self._style(style)) for text, style in row], sum(len(text) for text, _ in row))

    def _style(self, name: str) -> Style:
        what, _, line = name.partition(" ")
        if what in ("axis", "note"):
            return self.get_component_rich_style("chart--axis", partial=True)
        if what == "cursor":
            return self.get_component_rich_style("chart--cursor", partial=True)
        if line and self._look.color:
            return Style(color=color_of(int(line)), dim=what == "band")
        return Style(dim=what == "band")
