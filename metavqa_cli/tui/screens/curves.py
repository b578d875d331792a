"""The room Curves: the training curves of the selected runs, live, in a grid of charts with one axis of steps."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.axes import Window
from metavqa_cli.tui.beside import post
from metavqa_cli.tui.canvas import FINE, mark_of
from metavqa_cli.tui.chart import layout_of
from metavqa_cli.tui.curve_book import CurvesPicture, Wish
from metavqa_cli.tui.curve_help import HELP, PANES
from metavqa_cli.tui.curve_reader import CurveReader, CurvesDrawn
from metavqa_cli.tui.curve_rows import ShownRuns, chart_title, chart_values, nothing_words, runs_to_show, status
from metavqa_cli.tui.curve_wishes import NEXT_SPREAD, all_logs, cursor_moved, panned, smoothed_more, zoomed
from metavqa_cli.tui.room import Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.widgets.chart import Pictured
from metavqa_cli.tui.widgets.chart_grid import ChartGrid, LinesTable, put

MOST_CHARTS = 60
COLUMNS = {"-narrow": 1, "-usual": 2, "-wide": 3}


class CurvesRoom(Room):
    """Owns the wish (what is to be drawn); a thread beside the screen meets it, the charts only paint."""

    NAME: ClassVar[RoomName] = "curves"
    CSS_PATH = "curves.tcss"
    AUTO_FOCUS = ""  # the first chart gets the keyboard when it comes
    HELP, PANES = HELP, PANES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "log", "Log"),
        Binding("Y", "log_all", "Log axis for all charts", show=False),
        Binding("s", "smooth", "Smooth"),
        Binding("b", "band", "Band"),
        Binding("plus,equals_sign", "zoom(1)", "Zoom", key_display="+ -"),
        Binding("minus", "zoom(-1)", "Zoom out", show=False, key_display="-"),
        Binding("left", "pan(-1)", "Earlier steps", show=False),
        Binding("right", "pan(1)", "Later steps", show=False),
        Binding("0", "whole", "All steps", show=False),
        Binding("comma", "cursor(-1)", "Cursor", key_display=", ."),
        Binding("full_stop", "cursor(1)", "Cursor right", show=False, key_display="."),
        Binding("less_than_sign", "cursor(-10)", "Cursor ten columns left", show=False, key_display="<"),
        Binding("greater_than_sign", "cursor(10)", "Cursor ten columns right", show=False, key_display=">"),
        Binding("p,space", "pause", "Pause"),
        Binding("enter", "enlarge", "Large"),
        Binding("escape", "back", "Back to the grid, or no cursor", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.wish, self.picture = Wish(), CurvesPicture()
        self.shown_runs = ShownRuns(())
        self._reader: CurveReader | None = None
        self._placing = False  # whether charts came or went that have no place yet
        self._focused_metric: str | None = None

    def compose_room(self) -> Iterable[Widget]:
        # Kept, not asked for by name: newer curves may come while the screen is being taken down.
        self.status = Static("", id="curves-status", markup=False)
        self.nothing = Static("", id="curves-nothing", classes="hidden", markup=False)
        self.grid, self.table = ChartGrid(self.look, id="curves-charts"), LinesTable(self.look, id="curves-lines")
        return self.status, self.nothing, self.grid, self.table

    def on_mount(self) -> None:
        self._reader = CurveReader(self.dashboard.workspace, lambda picture: post(self, CurvesDrawn(picture)))
        self.watch(self.grid, "scroll_y", self._scrolled, init=False)
        if self._shown is not None:
            self.show_snapshot(self._shown)

    def on_unmount(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def on_screen_suspend(self) -> None:
        if self._reader is not None:
            self._reader.rest(True)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self._reader is not None:
            self._reader.rest(False)

    @property
    def metric(self) -> str | None:
        """That of the chart that had the keyboard last, the first one before that."""
        names = self.picture.names
        return self._focused_metric if self._focused_metric in names else next(iter(names), None)

    @property
    def settled(self) -> bool:
        """Whether the curves are drawn as wished, of all that the logs hold."""
        if self._reader is None:  # a snapshot may come before there is one; it has not been asked for anything yet
            return False
        drawn = self.picture.number == self.wish.number and not self.picture.behind
        return super().settled and drawn and not self._placing

    # Showing

    def show_snapshot(self, snapshot: Snapshot) -> None:
        if self._reader is None:
            return  # nothing is there to show it on; when it is, it is shown
        closely = self.wish.paused or self.wish.window is not None or self.wish.cursor is not None
        kept = self.shown_runs if closely else None
        self.shown_runs = runs_to_show(self.dashboard.selected, snapshot.views, kept)
        if self.shown_runs.runs != self.wish.runs:
            self._ask(replace(self.wish, runs=self.shown_runs.runs, window=None, cursor=None, paused=False))
        self._show_words()

    def on_curves_drawn(self, message: CurvesDrawn) -> None:
        before, self.picture = self.picture, message.picture
        if self.picture.number == self.wish.number and self.wish.window is not None:
            self.wish = replace(self.wish, window=self.picture.window)
        for number in range(max(len(before.troubles), len(self.picture.troubles))):
            told = self.picture.troubles[number : number + 1]
            self.trouble(f"curves {number}", told[0] if told else None)
        if self.picture.names != before.names:
            self._placing = True
            self.grid.set_metrics(self.picture.names[:MOST_CHARTS])
            more = len(self.picture.names) - MOST_CHARTS
            self.trouble("many", f"{more} more metrics have no chart; see `metavqa runs curves`" if more > 0 else None)
            self.call_after_refresh(self._place_charts)
        self._show_charts()
        self._show_words()

    def _show_charts(self) -> None:
        """Paint the charts whose data have come, with the cursor where it is now."""
        picture, window = self.picture, self.picture.window
        marks = [mark_of(line.number, self.look.ascii) for line in picture.lines]
        for view in self.grid.charts:
            data = picture.charts.get(view.metric)
            if data is None or window is None:
                continue
            log, steps = view.metric in picture.logs, (window.start, window.stop)
            values = chart_values(view.metric, picture.lines, marks, max(0, view.size.width - 4))
            pictured = Pictured(data.curves, steps, log, self.wish.cursor, "no point in sight")
            view.show(pictured, self.look.text(chart_title(view.metric, data, log)), values)

    def _show_words(self) -> None:
        picture, wish = self.picture, self.wish
        views = {view.id: view for view in self.dashboard.snapshot.views}
        put(self.status, status(picture, self.shown_runs, wish.weight, wish.spread, wish.paused))
        self.table.note(picture.notes)
        self.table.show(picture.lines, views, self.metric, wish.weight > 0)
        where = "newest values" if wish.cursor is None else f"at step {wish.cursor:,.0f}"
        title = chart_title(self.metric, None, False) if self.metric else ""
        self.table.border_subtitle = Text(self.look.text(f"{title}, {where}") if title else "")
        root = str(self.dashboard.workspace.root)
        put(self.nothing, self.look.text(nothing_words(bool(wish.runs), self.settled, root)))
        self.nothing.set_class(bool(picture.names), "hidden")

    # What is wished

    def _ask(self, wish: Wish) -> None:
        """Wish for something else, and show at once what of it can be."""
        if self._reader is not None and wish != self.wish:
            self.wish = replace(wish, number=self.wish.number + 1)
            self._reader.wish(self.wish)
            self._show_charts()
            if self.shown_runs.newer is not None:  # which may be shown now
                self.show_snapshot(self.dashboard.snapshot)
            self._show_words()

    def on_chart_view_sized(self) -> None:
        self._show_charts()

    def on_chart_grid_resized(self) -> None:
        self._place_charts()

    def on_descendant_focus(self) -> None:
        self._focused_metric = self.grid.focused.metric if self.grid.focused else self._focused_metric
        self._show_words()

    def _place_charts(self) -> None:
        """Give the charts their places, and see which are in sight then."""
        self.grid.place(next((COLUMNS[name] for name in COLUMNS if self.has_class(name)), 2))
        if self.focused is None and self.grid.charts:
            next(view for view in self.grid.charts if view.display).focus()
        self.call_after_refresh(self._look_round)

    def _scrolled(self) -> None:
        self.call_after_refresh(self._look_round)

    def _look_round(self) -> None:
        """Wish for the charts that can be seen, in the width that they have."""
        self._placing = False
        seen = self.grid.in_sight()
        width = max((view.size.width for view in self.grid.charts if view.metric in seen), default=0)
        if seen and width:
            self._ask(replace(self.wish, metrics=seen, columns=layout_of(width, 10).width * FINE.across))
        self._show_charts()

    # Keys

    def _in_window(self, change: Callable[[Wish, Window, int], Wish], amount: int) -> None:
        window = self.wish.window or self.picture.window
        if window is not None:
            self._ask(change(self.wish, window, amount))

    def action_zoom(self, direction: int) -> None:
        self._in_window(zoomed, direction)

    def action_pan(self, direction: int) -> None:
        self._in_window(panned, direction)

    def action_cursor(self, columns: int) -> None:
        self._in_window(cursor_moved, columns)

    def action_whole(self) -> None:
        self._ask(replace(self.wish, window=None))

    def action_log(self) -> None:
        if self.metric is not None:
            self._ask(replace(self.wish, logs=self.wish.logs ^ {self.metric}))

    def action_log_all(self) -> None:
        self._ask(all_logs(self.wish, self.picture.names))

    def action_smooth(self) -> None:
        self._ask(smoothed_more(self.wish))

    def action_band(self) -> None:
        self._ask(replace(self.wish, spread=NEXT_SPREAD[self.wish.spread]))

    def action_pause(self) -> None:
        self._ask(replace(self.wish, paused=not self.wish.paused))

    def action_enlarge(self) -> None:
        if self.metric is not None:
            self.grid.large = self.metric
            self._place_charts()

    def action_pane(self, number: int) -> None:
        super().action_pane(number)
        self.set_class(not self.grid.display, "-no-charts")

    def action_back(self) -> None:
        if self.grid.large is None:
            self._ask(replace(self.wish, cursor=None))
        else:
            self.grid.large = None
            self._place_charts()


def make_room() -> Room:
    return CurvesRoom()
