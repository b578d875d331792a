"""The room Runs: every run of the workspace, what it is, how it differs from others, and the jobs started here."""

from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui import run_deeds
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.filters import RUNS, Filter
from metavqa_cli.tui.room import Room, RoomName
from metavqa_cli.tui.run_help import BINDINGS, HELP, NOTHING, PANES, READING
from metavqa_cli.tui.run_rows import ORDERS, damage, flags_of, visible
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.widgets.filter_line import FilterLine
from metavqa_cli.tui.widgets.run_details import Differences, JobList, RunDetails
from metavqa_cli.tui.widgets.run_list import RunList


class RunsRoom(Room):
    """Owns what is selected; the list, details, differences and jobs only show."""

    NAME: ClassVar[RoomName] = "runs"
    CSS_PATH = "runs.tcss"
    HELP = HELP
    PANES = PANES
    BINDINGS = BINDINGS
    LESS_NEEDED = ("resume", "sort", "flag")

    def __init__(self) -> None:
        super().__init__()
        self.wanted: Filter = Filter()
        self.order, self.turned, self.only_marked = 0, False, False

    def compose_room(self) -> Iterable[Widget]:
        with Horizontal(id="runs-body"):
            with Vertical(id="runs-left"):
                yield RunList(self.look, id="runs-list")
                yield Static("", id="runs-nothing", classes="hidden")
                yield FilterLine(self.look, RUNS, "kind:ldm accuracy>50")
            with Vertical(id="runs-right"):
                yield RunDetails(id="runs-details")
                yield Differences(id="runs-differences")
                yield JobList(id="runs-jobs")

    def on_mount(self) -> None:
        for pane in self.PANES:
            widget = self.query_one(f"#{pane.id}")
            widget.border_title = pane.title
            widget.add_class("pane")
        self.list.focus()
        self.refresh_list()

    @property
    def list(self) -> RunList:
        return self.query_one(RunList)

    @property
    def settled(self) -> bool:
        return super().settled and not self.query_one(Differences).waiting

    # Showing

    def show_snapshot(self, snapshot: Snapshot) -> None:
        app = self.dashboard
        known = {view.id for view in snapshot.views} | {*snapshot.damaged}
        if snapshot.trouble is None:
            app.selected = tuple(run for run in app.selected if run in known)
        self.trouble("damaged", damage(snapshot.damaged))
        self.refresh_list()

    def refresh_list(self) -> None:
        """Show the list again: other runs, another filter, another order or other flags."""
        app, views = self.dashboard, self.dashboard.snapshot.views
        pinned, marked = app.listed("pinned"), set(app.listed("marked"))
        wanted: Callable[[RunView], bool] = self.wanted
        if self.only_marked:
            wanted = lambda view: view.id in marked and self.wanted(view)  # noqa: E731
        shown = visible(views, wanted, ORDERS[self.order], turned=self.turned, pinned=pinned)
        self.list.show(shown, flags_of(app.selected, pinned, marked))
        self.list.border_title = "Runs" if len(shown) == len(views) else f"Runs: {len(shown)} of {len(views)}"
        turned = ", turned" if self.turned else ""
        self.list.border_subtitle = f"{ORDERS[self.order][0]}{turned}{', only marked' if self.only_marked else ''}"
        self._explain_emptiness(len(shown), len(views))
        self._show_details()

    def _explain_emptiness(self, shown: int, known: int) -> None:
        root, snapshot = self.dashboard.workspace.root, self.dashboard.snapshot
        words = f"no run matches; escape shows all {known}" if known else NOTHING.format(root)
        if not snapshot.read_at:
            words = READING.format(root)
        nothing = self.query_one("#runs-nothing", Static)
        nothing.update(Text(self.look.text(words)))
        nothing.set_class(bool(shown) or (snapshot.trouble is not None and not known), "hidden")

    def action_pane(self, number: int) -> None:
        """Hide or show a pane; the other side takes the room of a side without any."""
        super().action_pane(number)
        self.query_one("#runs-left").display = self.list.display
        self.query_one("#runs-right").display = any(self.query_one(f"#{pane.id}").display for pane in self.PANES[1:])

    @on(RunList.Highlighted)
    def _show_details(self) -> None:
        snapshot, app = self.dashboard.snapshot, self.dashboard
        self.query_one(RunDetails).show(self.list.current, snapshot.views, self.look)
        self.query_one(Differences).show(app.selected, snapshot, self.look)
        self.query_one(JobList).show(app.jobs.all, app.clock(), self.look)

    # Filter, order, flags

    @property
    def filter_line(self) -> FilterLine:
        return self.query_one(FilterLine)

    def action_filter(self) -> None:
        """Type a filter; the list follows every letter."""
        self.filter_line.open()

    @on(FilterLine.Changed)
    def follow_filter(self, message: FilterLine.Changed) -> None:
        """The list follows every letter that makes sense."""
        self.wanted = message.wanted
        self.refresh_list()

    @on(FilterLine.Left)
    def keep_filter(self) -> None:
        """Back to the list; the filter stays in sight."""
        self.list.focus()

    def action_clear(self) -> None:
        """First the filter goes, then the selection."""
        if self.filter_line.display or self.only_marked:
            self.wanted, self.only_marked = Filter(), False
            self.filter_line.clear()
            self.list.focus()
        else:
            self.dashboard.selected = ()
        self.refresh_list()

    def action_sort(self) -> None:
        """The next of the orders."""
        self.order = (self.order + 1) % len(ORDERS)
        self.refresh_list()

    def action_turn(self) -> None:
        """The order turned around."""
        self.turned = not self.turned
        self.refresh_list()

    def action_only_marked(self) -> None:
        """Only marked runs, or all."""
        self.only_marked = not self.only_marked
        self.refresh_list()

    def action_select(self) -> None:
        """Take the highlighted run into the selection, or out of it; the cursor goes on."""
        if (view := self.list.current) is not None:
            chosen = self.dashboard.selected
            others = tuple(run for run in chosen if run != view.id)
            self.dashboard.selected = others if view.id in chosen else (*others, view.id)
            self.list.action_move(1)
            self.refresh_list()

    def action_select_all(self) -> None:
        """Take all runs that are shown into the selection; when they are in it already, out of it."""
        shown, before = [view.id for view in self.list.views], self.dashboard.selected
        more = tuple(run for run in shown if run not in before)
        self.dashboard.selected = (*before, *more) if more else tuple(run for run in before if run not in {*shown})
        self.refresh_list()

    def action_flag(self, of: str) -> None:
        """Pin or mark the highlighted run, or take that back."""
        if (view := self.list.current) is not None:
            self.dashboard.toggle(of, view.id)
            self.refresh_list()

    def action_copy(self) -> None:
        """The id, for a command in a shell."""
        if (view := self.list.current) is not None:
            self.dashboard.copy(view.id)

    # Doing

    def action_open(self) -> None:
        """The curves of the selected runs; of the highlighted one, which is selected then, if none is."""
        if (view := self.list.current) is not None and not self.dashboard.selected:
            self.dashboard.selected = (view.id,)
        self.dashboard.visit("curves")

    def action_new(self) -> None:
        """The form that starts a training."""
        run_deeds.new(self, self.list.current)

    def action_stop(self) -> None:
        """Stop the highlighted run; from the pane of jobs, one of those that run."""
        running = self.dashboard.jobs.running()
        if self.focused is self.query_one(JobList) and running:
            run_deeds.stop_one_of(self, running)
        elif (view := self.list.current) is not None:
            run_deeds.stop(self, view)

    def action_resume(self) -> None:
        """Go on with the highlighted run, in a job."""
        if (view := self.list.current) is not None:
            run_deeds.resume(self, view)

    def action_delete(self) -> None:
        """Remove the highlighted run, after asking."""
        if (view := self.list.current) is not None:
            run_deeds.delete(self, view)

    @on(run_deeds.Done)
    def tell(self, message: run_deeds.Done) -> None:
        """How it ended."""
        self.dashboard.say(message.sentence, wrong=message.wrong)
        self.dashboard.look_now()


def make_room() -> Room:
    return RunsRoom()
