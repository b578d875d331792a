"""The room γ sweep without its keys: what it reads, and how its panes show where a person stands."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.beside import post
from metavqa_cli.tui.newest import Newest
from metavqa_cli.tui.room import Pane, Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.sweep_data import curves_title, reading, sampler_words
from metavqa_cli.tui.sweep_feed import Board, SweepFeed, being_measured, wish_of
from metavqa_cli.tui.sweep_help import HELP, NOT_SWEPT, PANES
from metavqa_cli.tui.sweep_live import LiveGamma
from metavqa_cli.tui.sweep_state import State
from metavqa_cli.tui.sweep_tasks import JudgedImage, tasks_words
from metavqa_cli.tui.widgets.sweep_answers import SweepAnswers, SweepPictures
from metavqa_cli.tui.widgets.sweep_plot import SweepPlot
from metavqa_cli.tui.widgets.sweep_tasks import SweepTasks, TaskLines

PROBLEMS = 2  # that are said in full


class BoardRead(Message):
    """What was measured, as it is now: the answer to the look with this ``number``."""

    def __init__(self, board: Board, number: int) -> None:
        super().__init__()
        self.board, self.number = board, number


class SweepShow(Room):
    """Owns the state, and has the panes show it. What keys do to it is in ``screens.sweep``."""

    NAME: ClassVar[RoomName] = "sweep"
    HELP = HELP
    PANES: ClassVar[tuple[Pane, ...]] = PANES

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.images: list[JudgedImage] = []
        """What is shown of the chosen task."""
        self._reader, self._asked, self._took = Newest("sweep"), 0, 0
        self._feed: SweepFeed | None = None
        self._live: LiveGamma | None = None
        self._chosen: str | None = None
        self._wanted: str | None = None
        self._measuring = ""

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
        read = 0 < self._asked == self._took
        return super().settled and read and not self.query_one(SweepPictures).reading

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
        running = being_measured(snapshot.views, self.board.dataset)
        self._measuring = f"{running} cell{'s' * (running != 1)} being measured" if running else ""
        self._subtitle()
        self._read()

    def _read(self) -> None:
        """Look at the files in a thread; one look at a time, so that a slow disk is not asked ever more."""
        app, feed = self.dashboard, self._feed
        if feed is not None:
            self._asked += 1
            wish = wish_of(self._chosen or app.dataset_wish, app.snapshot.views, self.state.family)
            self._reader.do(lambda number=self._asked: post(self, BoardRead(feed.read(wish), number)))  # type: ignore[misc]

    @on(BoardRead)
    def take_board(self, message: BoardRead) -> None:
        """Show what has changed."""
        self._took = message.number
        if message.board is not self.board:
            problems = message.board.problems
            more = f"; and {len(problems) - PROBLEMS} more" if len(problems) > PROBLEMS else ""
            self.trouble("measured", "; ".join(problems[:PROBLEMS]) + more if problems else None)
            self.trouble("dataset", message.board.trouble)
            self.go(replace(self.state, board=message.board))
            self._tell_unmeasured()

    # Showing

    def end_live(self, state: State) -> State:
        """``state`` with what was measured alone; nothing more is generated."""
        if self._live is not None:
            self._live.end()
        self.trouble("live", None)
        return replace(state, live=None, model=None, drawn=None)

    def go(self, state: State) -> None:
        """Show the room as it is from here. A live γ ends with the curve or the dataset that it is of."""
        if state.live is not None and state.of != self.state.of:
            state = self.end_live(state)
            self.dashboard.say("the live γ was of another curve or dataset; l begins again with this one")
        before, self.state = self.state, state
        if state.family != before.family:
            self._read()
        sweep, here = state.board.sweep, state.here
        nothing = NOT_SWEPT.format(state.board.dataset) if sweep else state.board.trouble or "reading …"
        self.query_one(SweepPlot).show(sweep, state.choice, state.line, nothing)
        words = reading(sweep, state.curve, here) if sweep else []
        self.query_one("#sweep-words", Static).update(Text("\n".join(map(self.look.text, words))))
        self.query_one("#sweep-curves").border_title = Text(self.look.text(curves_title(state.board.dataset, sweep)))
        self._subtitle()
        self._show_tasks()

    def _subtitle(self) -> None:
        """What is being measured, and how the curve that is scrubbed was drawn."""
        sweep, choice = self.state.board.sweep, self.state.choice
        parts = [self._measuring, sampler_words(sweep, choice) if sweep else ""]
        self.query_one("#sweep-curves").border_subtitle = Text(self.look.text(" · ".join(filter(None, parts))))

    def _show_tasks(self) -> None:
        state, tasks = self.state, self.tasks
        lines = state.task_lines()
        tasks.list.show(lines, state.question, "no task matches; escape shows all" if state.here else "")
        whole = len(state.board.swept.tasks) if state.board.swept else 0
        tasks.border_title = f"Tasks: {len(lines)}{f' of {whole}' if len(lines) < whole else ''}"
        tasks.border_subtitle = Text(self.look.text(tasks_words(state.here, state.there, state.order)))
        self._show_task()

    @on(TaskLines.Highlighted)
    def take_task(self) -> None:
        """The cursor of the list went to another task."""
        if (line := self.tasks.list.current) is not None:
            self.state = self.state.at_task(line.question)
        self._show_task()

    def _show_task(self) -> None:
        line, live = self.tasks.list.current, self._live
        if line is not None and self.state.question is None:
            self.state = self.state.at_task(line.question)  # so that it stays when the order changes
        head, self.images = self.state.judged(line, live.state if live else "")
        self.query_one(SweepAnswers).show(head, self.images, self.state.since)
        task = (self.board.dataset, line.question) if line else None
        self.query_one(SweepPictures).show(task, self.images, self.board.places)
        swept, model, gamma = self.board.swept, self.state.model, self.state.live
        if live is not None and line is not None and swept is not None and model is not None and gamma is not None:
            live.ask(model, swept.tasks[line.number], gamma)
