"""The room Ask: a typed question becomes a classifier, tested at once on images; results are kept and compared."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from metavqa_cli.engine.request import Request
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.tui.ask_keys import BINDINGS, HELP, PANES, WITHOUT_INPUT
from metavqa_cli.tui.asking import Cancelled, Status
from metavqa_cli.tui.proposer import BookRead, Proposed, Proposer
from metavqa_cli.tui.results import stepped
from metavqa_cli.tui.room import Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot
from metavqa_cli.tui.task_feed import TaskFeed, wish_of
from metavqa_cli.tui.widgets.choose import ChooseOne
from metavqa_cli.tui.widgets.image_chooser import ImageChooser
from metavqa_cli.tui.widgets.model_state import ModelState
from metavqa_cli.tui.widgets.picture import cycle
from metavqa_cli.tui.widgets.question_form import QuestionForm
from metavqa_cli.tui.widgets.result_desk import ResultDesk


class AskRoom(Room):
    """Sends requests to the thread of ``Dashboard.asking`` and shows what comes back; owns the history."""

    NAME: ClassVar[RoomName] = "ask"
    CSS_PATH = "ask.tcss"
    HELP, PANES, BINDINGS = HELP, PANES, BINDINGS

    def __init__(self) -> None:
        super().__init__()
        self.model: str | None = None
        self._known_ldms: frozenset[str] = frozenset()
        self._heard = Status()  # of the model, which may already stand elsewhere

    def compose_room(self) -> Iterable[Widget]:
        yield QuestionForm(self.look, id="ask-question-pane")
        with Horizontal(id="ask-body"):
            yield ImageChooser(self.look, id="ask-images")
            yield ResultDesk(id="ask-desk")

    def on_mount(self) -> None:
        for pane in self.PANES:
            widget = self.query_one(f"#{pane.id}")
            widget.border_title = pane.title
            widget.add_class("pane")
        self.form.field("question").focus()

    @property
    def form(self) -> QuestionForm:
        return self.query_one(QuestionForm)

    @property
    def images(self) -> ImageChooser:
        return self.query_one(ImageChooser)

    @property
    def desk(self) -> ResultDesk:
        return self.query_one(ResultDesk)

    @property
    def state(self) -> ModelState:
        return self.query_one(ModelState)

    @cached_property
    def proposer(self) -> Proposer:
        return Proposer(self, self.dashboard.asking, TaskFeed(self.dashboard.workspace))

    @property
    def settled(self) -> bool:
        if not self.is_mounted:
            return False
        waits = self.proposer.waiting or self.form.waiting or self.images.waiting
        loads = self._heard.state in ("cold", "loading") or self._heard != self.dashboard.asking.status
        return super().settled and not (waits or loads or self.state.is_generating)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that type in a field are not offered there."""
        if action in WITHOUT_INPUT and isinstance(self.focused, Input):
            return False
        if action not in ("leave", "cancel"):
            return True
        generating = any(state.is_generating for state in self.query(ModelState))  # none while the room is made
        return generating or (action == "leave" and isinstance(self.focused, Input))

    # Entering

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.call_after_refresh(self._load)  # after the first paint, which goes without torch

    def _load(self) -> None:
        """Another room may have had another run loaded, or failed to: what is asked here is asked of this room's."""
        status = self.dashboard.asking.status
        if status.state != "failed" or status.run != self.model:
            self.dashboard.asking.load(self.model)

    def welcome(self, question: str = "", images: Sequence[Path] = (), **what: Any) -> None:
        if question:
            self.form.set_request(Request(question))
        if images:
            self.images.set_chosen(Path(image).absolute() for image in images)
        self.form.field("question").focus()

    def show_snapshot(self, snapshot: Snapshot) -> None:
        status = self.dashboard.asking.status
        ldms = frozenset(view.id for view in snapshot.views if view.kind == "ldm" and view.state == "finished")
        if status.state == "failed" and ldms != self._known_ldms:
            self.dashboard.asking.load(self.model)
        self._known_ldms = ldms
        gone = status.state == "ready" and snapshot.view(status.run or "") is None
        self.trouble("run", f"the run {status.run} is gone; what is loaded of it still answers" if gone else None)
        loaded = snapshot.view(status.run or "")
        dataset = self.dashboard.dataset_wish if loaded is None else loaded.dataset
        self.proposer.read(wish_of(dataset, snapshot.views, ()))

    def on_book_read(self, message: BookRead) -> None:
        self.trouble("dataset", message.book.trouble if message.book.tasks else None)
        if self.proposer.take_book(message.book):
            self.proposer.ask_for(self.form.question)

    # The model

    def on_model_state_changed(self, message: ModelState.Changed) -> None:
        status = self._heard = message.status
        failed = status.state == "failed"
        self.trouble("model", f"{status.reason} (r: try again)" if failed else None)
        if status.state == "ready":
            self.model = self.model or status.run
            self.proposer.ask_for(self.form.question)

    def action_model(self) -> None:
        """Choose which HyperLDM answers."""
        ids = [view.id for view in reversed(self.dashboard.snapshot.views) if view.id in self._known_ldms]
        if ids:
            now = self.dashboard.asking.status.run
            self.app.push_screen(ChooseOne("Which HyperLDM answers?", ids, now), self._choose_model)

    def _choose_model(self, run: str | None) -> None:
        if run is not None:
            self.model = run
            self.dashboard.asking.load(run)

    def action_again(self) -> None:
        self.dashboard.asking.load(self.model)

    # Proposals

    @on(QuestionForm.Typed)
    def _typed(self, event: QuestionForm.Typed) -> None:
        self.proposer.ask_for(event.question)

    def on_proposed(self, message: Proposed) -> None:
        if self.proposer.is_newest(message):
            found = message.found
            self.trouble("proposal", str(found) if isinstance(found, Exception) else None)
            self.form.propose(None if isinstance(found, Exception) else found)
            self._show_task()

    def _show_task(self) -> None:
        book = self.proposer.book
        nothing = book.trouble or book.no_images or "type a question: images of the nearest one come here"
        self.images.show_task(self.proposer.task_of(self.form.question, self.form.proposal), book.places, nothing)

    def on_image_chooser_found(self, message: ImageChooser.Found) -> None:
        self.trouble("images", message.wrong)

    # Asking

    @on(QuestionForm.Asked)
    def action_ask(self) -> None:
        """Ask what is typed, about the images that are chosen."""
        try:
            request = self.form.request()
        except MetaVQAError as error:
            self.trouble("ask", str(error))
            return
        self.state.generate(request, list(self.images.chosen))
        self.refresh_bindings()

    def on_model_state_generated(self, message: ModelState.Generated) -> None:
        value = message.value
        if isinstance(value, Cancelled):
            self.dashboard.say("cancelled; what was there before stays")
        elif isinstance(value, Exception):
            self.trouble("ask", None if self.dashboard.asking.status.state == "failed" else str(value))
        else:
            self.trouble("ask", None)
            self.desk.add(value)
        self.refresh_bindings()

    def action_change(self, what: str, direction: int) -> None:
        """Ask again, with one choice changed."""
        result = self.desk.current
        if result is not None:
            try:
                self.form.put(stepped(result, self.form.choices, what, direction))
            except MetaVQAError as error:
                self.trouble("ask", str(error))
                return
            self.action_ask()

    def action_cancel(self) -> None:
        self.state.cancel()

    def action_leave(self) -> None:
        """Out of a field to the results; from there, cancel."""
        if isinstance(self.focused, Input):
            self.desk.focus_answers()
        else:
            self.action_cancel()

    # Results

    @on(ResultDesk.BroughtBack)
    def _brought_back(self, event: ResultDesk.BroughtBack) -> None:
        self.form.set_request(event.result.request)
        self.images.set_chosen(event.result.files)

    def action_desk(self, what: Literal["pin", "save", "copy"]) -> None:
        """Do something with the result in front."""
        getattr(self.desk, what)()

    # Other keys

    def action_proposed(self) -> None:
        self.form.give_back()

    def action_next_list(self) -> None:
        self.images.next_tab()

    def action_pictures(self) -> None:
        cycle(self.app)


def make_room() -> Room:
    return AskRoom()
