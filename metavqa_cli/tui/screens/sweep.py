"""The room γ sweep: accuracy against γ, and for one task what is answered to its images at each γ."""

from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.binding import BindingType

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.tui.room import Room
from metavqa_cli.tui.sweep_choices import choose_dataset, choose_methods, fill_in_sweep
from metavqa_cli.tui.sweep_data import shares
from metavqa_cli.tui.sweep_help import BINDINGS
from metavqa_cli.tui.sweep_live import LiveGamma, LiveRead, model_of
from metavqa_cli.tui.sweep_show import SweepShow
from metavqa_cli.tui.widgets.picture import Gallery, cycle
from metavqa_cli.tui.widgets.sweep_tasks import SweepTasks

ASKED_ABOUT = 8  # images of the task that Ask begins with


class SweepRoom(SweepShow):
    """What keys do."""

    CSS_PATH = "sweep.tcss"
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS
    LESS_NEEDED = ("band", "sort", "live")

    def action_scrub(self, by: int) -> None:
        """The line to the next measured γ of the curve."""
        self.go(self.state.scrubbed(by))

    def action_live(self) -> None:
        """Generate the task's classifier at any γ, or only what was measured again."""
        state = self.state
        if state.live is not None:
            self.go(self.end_live(state))
            return
        try:
            model = model_of(state.curve, state.here)
        except MetaVQAError as error:
            self.dashboard.say(str(error), wrong=True)
            return
        self._live = self._live or LiveGamma(self.dashboard.asking, self)
        self.go(replace(state, live=state.line, model=model, drawn=None))

    @on(LiveRead)
    def take_live(self, message: LiveRead) -> None:
        """Show what was generated for the task, or say why nothing was."""
        drawn, state = message.outcome, self.state
        if state.live is None or state.model is None:
            return
        if isinstance(drawn, Exception):
            self.trouble("live", f"live γ: {drawn}; l shows what was measured")
        elif drawn is not None and (drawn.question, drawn.run) == (state.question, state.model.run):
            self.trouble("live", None)
            self.state = replace(state, drawn=drawn)
        self._show_task()

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
        self.go(replace(self.end_live(self.state), words="", family=""))


def make_room() -> Room:
    return SweepRoom()
