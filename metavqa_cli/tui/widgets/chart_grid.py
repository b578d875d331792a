"""The charts of a room in a grid that scrolls, or one of them large; and the table of their lines."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.message import Message
from textual.widgets import Static

from metavqa_cli.tui.canvas import mark_of
from metavqa_cli.tui.curve_book import Line
from metavqa_cli.tui.curve_rows import grid_shape, lines_table
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.palette import color_of
from metavqa_cli.tui.widgets.chart import ChartView


def put(where: Static, content: str | Text) -> None:
    """Let this stand there. Every update lays out the whole screen anew, so there is none where it stands already."""
    if where.content != content:
        where.update(content)


class ChartGrid(VerticalScroll, can_focus=False, inherit_bindings=False):
    """``metrics`` are its charts, in order; ``large`` is the one that is shown alone, if any."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "Chart above", show=False),
        Binding("down", "step(1)", "Chart below", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
    ]

    class Resized(Message):
        """The charts have more or less room than before."""

    def __init__(self, look: Look, **how: Any) -> None:
        super().__init__(**how)
        self._look = look
        self.metrics: tuple[str, ...] = ()
        self.large: str | None = None
        self._columns = 1

    def on_resize(self) -> None:
        self.post_message(self.Resized())

    @property
    def charts(self) -> list[ChartView]:
        """All charts, in order."""
        return list(self.query_children(ChartView))

    def set_metrics(self, metrics: tuple[str, ...]) -> None:
        """Have a chart for each of these and no others; those that stay keep the focus and what they show."""
        if metrics == self.metrics:
            return
        self.metrics = metrics
        for view in self.charts:
            if view.metric not in metrics:
                view.remove()
        staying = {view.metric: view for view in self.charts}
        after: ChartView | None = None
        for metric in metrics:
            view = staying.get(metric) or ChartView(metric, self._look)
            if metric not in staying:
                self.mount(view, after=after) if after else self.mount(view, before=0 if self.children else None)
            after = view
        if self.large not in metrics:
            self.large = None

    def place(self, columns: int) -> None:
        """At most ``columns`` charts beside each other, as high as there is room."""
        shown = 1 if self.large else len(self.metrics)
        self._columns, heights = grid_shape(columns, shown, self.size.height)
        self.styles.grid_size_columns = self._columns
        self.styles.grid_rows = " ".join(map(str, heights))
        for view in self.charts:
            view.display = self.large in (None, view.metric)

    def in_sight(self) -> tuple[str, ...]:
        """The metrics of the charts that can be seen, some rows of them at least."""
        seen = Region(0, self.scroll_offset.y, self.size.width, self.size.height)
        return tuple(view.metric for view in self.charts if view.display and seen.overlaps(view.virtual_region))

    @property
    def focused(self) -> ChartView | None:
        """The chart that has the keyboard, or the large one."""
        return next((view for view in self.charts if view.has_focus or view.metric == self.large), None)

    def action_step(self, rows: int) -> None:
        """Go to the chart above or below; if one is large, to the one before or after it."""
        views, here = self.charts, self.focused
        place = -1 if here is None else views.index(here) + rows * self._columns
        if not 0 <= place < len(views):
            return
        if self.large is not None:
            self.large = views[place].metric
            views[place].display = True
            self.post_message(self.Resized())
        views[place].focus()


class LinesTable(VerticalScroll, inherit_bindings=False):
    """One row for each line of the charts: its mark, name, state, step, and its value at the cursor; below them what
    there is to note of these lines."""

    DEFAULT_CLASSES = "pane"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_up", "Scroll up", show=False),
        Binding("down", "scroll_down", "Scroll down", show=False),
    ]

    def __init__(self, look: Look, **how: Any) -> None:
        super().__init__(**how)
        self._look = look
        self._text = Static("", id="curves-table")
        self._notes = Static("", id="curves-notes", classes="muted hidden", markup=False)

    def compose(self) -> Any:
        yield self._text
        yield self._notes

    def note(self, notes: Sequence[str]) -> None:
        """Show these sentences, and in the border how many they are: they may have to be scrolled to."""
        put(self._notes, self._look.text("\n".join(f"! {said}" for said in notes)))
        self._notes.set_class(not notes, "hidden")
        self.border_title = "Lines" + (f" · {len(notes)} note{'s' * (len(notes) > 1)}" if notes else "")

    def show(self, lines: Sequence[Line], views: Mapping[str, RunView], metric: str | None, smoothing: bool) -> None:
        """Show the values of ``metric``."""
        head, rows = lines_table(lines, views, metric, smoothing, max(10, self.size.width - 2))
        table = Text.assemble((f"  {head}", "bold"), no_wrap=True, overflow="ellipsis")
        for line, row in zip(lines, rows, strict=True):
            color = color_of(line.number) if self._look.color else ""
            table.append(f"\n{mark_of(line.number, self._look.ascii)} ", color)
            table.append(self._look.text(row))
        put(self._text, table if lines else Text("no run is shown", "dim"))
