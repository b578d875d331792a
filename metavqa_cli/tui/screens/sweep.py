"""The room γ sweep: accuracy against γ, and for one task what is answered to its images at each γ."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.room import Pane, Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.sweep_choices import choose_dataset, choose_methods, fill_in_sweep
from metavqa_cli.tui.sweep_data import curves_title, reading, shares
from metavqa_cli.tui.sweep_feed import Board, SweepFeed, Wish, being_measured, wish_of
from metavqa_cli.tui.sweep_help import HELP, NOT_SWEPT, PANES
from metavqa_cli.tui.sweep_state import State
from metavqa_cli.tui.sweep_tasks import ORDERS, JudgedImage
from metavqa_cli.tui.widgets.picture import Gallery, cycle
from metavqa_cli.tui.widgets.sweep_answers import SweepAnswers, SweepPictures
from metavqa_cli.tui.widgets.sweep_plot import SweepPlot
from metavqa_cli.tui.widgets.sweep_tasks import SweepTasks, TaskLines

if TYPE_CHECKING:
    pass

ASKED_ABOUT = 8  # images of the task that Ask begins with
PROBLEMS = 2  # that are said in full


class BoardRead(Message):
    """What was measured, as it is now."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self.board = board


class SweepRoom(Room):
    """Owns the state; the panes only show."""

    NAME: ClassVar[RoomName] = "sweep"
    CSS_PATH = "sweep.tcss"
    HELP = HELP
    PANES: ClassVar[tuple[Pane, ...]] = PANES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,comma,less_than_sign", "scrub(-1)", "γ", key_display="←→"),
        Binding("right,full_stop,greater_than_sign", "scrub(1)", "γ up", show=False),
        Binding("up", "task(-1)", "Task", key_display="↑↓"),
        Binding("down", "task(1)", "Next task", show=False),
        Binding("n", "new", "Sweep"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("f", "family(1)", "Family"),
        Binding("F", "family(-1)", "The family before", show=False),
        Binding("m", "methods", "Methods"),
        Binding("b", "band", "Bands"),
        Binding("s", "sort", "Sort"),
        Binding("enter", "ask", "Ask"),
        Binding("d", "descriptors", "Share of the questions that was known", show=False),
        Binding("o", "dataset", "Dataset", show=False),
        Binding("k", "pictures", "Picture renderer", show=False),
        Binding("c", "copy", "Copy the question", show=False),
        Binding("escape", "clear", "Clear filter and family", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.images: list[JudgedImage] = []
        """What is shown of the chosen task."""
        self._feed: SweepFeed | None = None
        self._chosen: str | None = None
        self._wish, self._read_wish = Wish(), Wish()
        self._reading = self._read_once = False
        self._measuring = ""
        self._wanted: str | None = None

    def compose_room(self) -> Iterable[Widget]:
        with Horizontal(id="sweep-body"):
            with Vertical(id="sweep-left"):
                with Vertical(id="sweep-curves"):
                    yield SweepPlot(self.look, id="sweep-plot")
                    yield Static("", id="sweep-words")
                yield SweepTasks(self.look, id="sweep-tasks")
            with Vertical(id="sweep-right"):
                yield SweepAnswers(self.look, id="sweep-answers")
                yield SweepPictures(self.look, id="sweep-pictures")

    def on_mount(self) -> None:
        self._feed = SweepFeed(self.dashboard.workspace)
        for pane in self.PANES:
            widget = self.query_one(f"#{pane.id}")
            widget.border_title = pane.title
            widget.add_class("pane")
        self.query_one(SweepPlot).focus()

    @property
    def tasks(self) -> SweepTasks:
        return self.query_one(SweepTasks)

    @property
    def board(self) -> Board:
        """What was measured."""
        return self.state.board

    @property
    def settled(self) -> bool:
        return super().settled and self._read_once and not self._reading and not self.query_one(SweepPictures).reading

    def welcome(self, **what: Any) -> None:
        """Entered with the ``question`` of a test task to look at."""
        self._wanted = what.get("question")
        self.tasks.clear()
        self.go(replace(self.state, question=self._wanted, words="", family=""))
        self._tell_unmeasured()

    def _tell_unmeasured(self) -> None:
        """Say so, once, when the wanted question is not one that was measured."""
        if self._wanted is not None and self.board.swept is not None:
            if self._wanted not in {task.question for task in self.board.swept.tasks}:
                self.dashboard.say(
                    f"only test tasks are measured, and {self._wanted!r} is none of {self.board.dataset}"
                )
            self._wanted = None

    # Reading

    def show_snapshot(self, snapshot: Snapshot) -> None:
        self._wish = wish_of(self._chosen or self.dashboard.dataset_wish, snapshot.views, self.state.family)
        running = being_measured(snapshot.views, self.board.dataset)
        self._measuring = f"{running} cell{'s' * (running != 1)} being measured" if running else ""
        self._subtitle()
        self._read()

    def _read(self) -> None:
        """Look at the files in a thread; one look at a time, so that a slow disk is not asked ever more."""
        if not self._reading and self._feed is not None:
            self._reading, self._read_wish = True, self._wish
            feed, wish = self._feed, self._wish
            beside(lambda: post(self, BoardRead(feed.read(wish))), "sweep")

    @on(BoardRead)
    def take_board(self, message: BoardRead) -> None:
        """Show what has changed, and look again if something else is wished by now."""
        self._reading, self._read_once = False, True
        if self._wish != self._read_wish:
            self._read()
        if message.board is not self.board:
            problems = message.board.problems
            more = f"; and {len(problems) - PROBLEMS} more" if len(problems) > PROBLEMS else ""
            self.trouble("measured", "; ".join(problems[:PROBLEMS]) + more if problems else None)
            self.trouble("dataset", message.board.trouble)
            self.go(replace(self.state, board=message.board))
            self._tell_unmeasured()

    # Showing

    def go(self, state: State) -> None:
        """Show the room as it is from here."""
        before, self.state = self.state, state
        if state.family != before.family:
            self._wish = replace(self._wish, family=state.family)
            self._read()
        sweep, here = state.board.sweep, state.here
        nothing = NOT_SWEPT.format(state.board.dataset) if sweep else state.board.trouble or "reading …"
        self.query_one(SweepPlot).show(sweep, state.choice, here.gamma if here else None, nothing)
        words = reading(sweep, state.curve, here) if sweep else []
        self.query_one("#sweep-words", Static).update(Text("\n".join(map(self.look.text, words))))
        self.query_one("#sweep-curves").border_title = self.look.text(curves_title(state.board.dataset, sweep))
        self._subtitle()
        self._show_tasks()

    def _subtitle(self) -> None:
        """What is being measured, and how the curve that is scrubbed was drawn."""
        curve = self.state.curve
        parts = [self._measuring, (curve.sampler or "") if curve else ""]
        self.query_one("#sweep-curves").border_subtitle = self.look.text(" · ".join(filter(None, parts)))

    def _show_tasks(self) -> None:
        state, tasks = self.state, self.tasks
        lines = state.task_lines()
        tasks.list.show(lines, state.question, "no task matches; escape shows all" if state.here else "")
        whole = len(state.board.swept.tasks) if state.board.swept else 0
        tasks.border_title = f"Tasks: {len(lines)}{f' of {whole}' if len(lines) < whole else ''}"
        tasks.border_subtitle = ORDERS[state.order]
        self._show_task()

    @on(TaskLines.Highlighted)
    def take_task(self) -> None:
        """The cursor of the list went to another task."""
        if (line := self.tasks.list.current) is not None:
            self.state = replace(self.state, question=line.question)
        self._show_task()

    def _show_task(self) -> None:
        line = self.tasks.list.current
        if line is not None and self.state.question is None:
            self.state = replace(self.state, question=line.question)  # so that it stays when the order changes
        head, self.images = self.state.judged(line)
        there = self.state.there
        self.query_one(SweepAnswers).show(head, self.images, there.gamma if there else None)
        task = (self.board.dataset, line.question) if line else None
        self.query_one(SweepPictures).show(task, self.images, self.board.places)

    # Doing

    def action_scrub(self, by: int) -> None:
        """The line to the next measured γ of the curve."""
        self.go(self.state.scrubbed(by))

    def action_task(self, by: int) -> None:
        """The next task of the list, wherever the keyboard is."""
        self.tasks.list.action_move(by)

    def action_family(self, by: int) -> None:
        """The curves and the tasks of the next family only, or of all."""
        self.go(self.state.next_family(by))

    def action_band(self) -> None:
        """What the bands are: spread over seeds, interval over tasks, or nothing."""
        self.go(self.state.next_band())

    def action_sort(self) -> None:
        """The next order of the tasks."""
        self.go(self.state.next_order())

    def action_descriptors(self) -> None:
        """Only curves of methods that knew this share of the questions, or all."""
        if self.board.sweep is None or len(shares(self.board.sweep)) < 2:
            self.dashboard.say("all that was measured knew the same share of the questions")
        else:
            self.go(self.state.next_share())

    def action_methods(self) -> None:
        """Which curves are drawn, and which is scrubbed."""
        choose_methods(self.dashboard, self.state, self.go)

    def action_dataset(self) -> None:
        """Another dataset of the workspace."""

        def take(name: str) -> None:
            self._chosen = name
            self.show_snapshot(self.dashboard.snapshot)

        choose_dataset(self.dashboard, self.board, take)

    def action_new(self) -> None:
        """The form that starts a sweep."""
        fill_in_sweep(self.dashboard, self.board)

    def action_ask(self) -> None:
        """Ask the question of the task about some of its query images."""
        if (line := self.tasks.list.current) is not None:
            places = [self.board.places.get(one.image) for one in self.images]
            images = [place.path for place in places if place is not None and not place.packed][:ASKED_ABOUT]
            self.dashboard.visit("ask", question=line.question, images=images)

    @on(Gallery.Chosen)
    def ask_about(self, message: Gallery.Chosen) -> None:
        """Ask about the picture under the cursor."""
        self.action_ask()

    def action_copy(self) -> None:
        """The question, for a command in a shell."""
        if (line := self.tasks.list.current) is not None:
            self.dashboard.copy(line.question)

    def action_pictures(self) -> None:
        """The next way to draw pictures."""
        cycle(self.app)

    def action_filter(self) -> None:
        """Type words that the tasks must have."""
        self.tasks.type()

    @on(SweepTasks.Filtered)
    def take_words(self, message: SweepTasks.Filtered) -> None:
        """Only tasks with these words."""
        self.state = replace(self.state, words=message.words)
        self._show_tasks()

    def action_clear(self) -> None:
        """All tasks of all families again."""
        self.tasks.clear()
        self.go(replace(self.state, words="", family=""))


def make_room() -> Room:
    return SweepRoom()
