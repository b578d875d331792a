"""What is asked: the question, its answers and template, and how the latent is drawn. Empty means "as proposed"."""

from collections.abc import Mapping
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Label, Static

from metavqa_cli.engine.request import Request
from metavqa_cli.schema.text import neutral
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.results import FIELDS, Proposal, read_request
from metavqa_cli.tui.widgets.model_state import ModelState

PAUSE_SECONDS = 0.15  # without typing, after which the question is looked up
TITLES = {"gamma": "γ", "samples": "samples", "sampler": "sampler", "steps": "steps", "seed": "seed"}


class Field(Input):
    """A line of text that is asked with when enter is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "Ask")]


class QuestionForm(Vertical):
    """Fields of text. What a person typed stays; what was proposed is replaced by a newer proposal."""

    class Typed(Message):
        """The question is another one, and has been for a moment."""

        def __init__(self, question: str) -> None:
            super().__init__()
            self.question = question

    class Asked(Message):
        """Enter was pressed in one of the fields."""

    DERIVED: ClassVar[tuple[str, ...]] = ("answers", "template")

    def __init__(self, look: Look, *, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.proposal: Proposal | None = None
        self._put = dict.fromkeys(self.DERIVED, "")
        self._timer: Timer | None = None
        self._looked_up = ""

    def compose(self) -> ComposeResult:
        yield from self._row("question", "What color is the car?")
        yield from self._row("answers", "as proposed: red,blue,green")
        yield from self._row("template", "as proposed: the car is {}")
        with Horizontal(classes="field"):
            for name in FIELDS:
                yield Label(TITLES[name], classes="first" if name == FIELDS[0] else "")
                yield Field(id=f"ask-{name}", compact=True, classes="choice", placeholder="own")
        yield Static(id="ask-near")
        yield ModelState(id="ask-state")

    def _row(self, name: str, placeholder: str) -> ComposeResult:
        with Horizontal(classes="field"):
            yield Label(name, classes="first")
            yield Field(placeholder=placeholder, id=f"ask-{name}", compact=True)

    def field(self, name: str) -> Input:
        return self.query_one(f"#ask-{name}", Input)

    def text(self, name: str) -> str:
        """What stands in a field."""
        return self.field(name).value.strip()

    @property
    def question(self) -> str:
        return self.text("question")

    @property
    def waiting(self) -> bool:
        """Whether the question is still to be looked up."""
        return self.question != self._looked_up

    # Typing

    @on(Input.Changed, "#ask-question")
    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(PAUSE_SECONDS, self._look_up)

    def _look_up(self) -> None:
        self._looked_up = self.question
        self.post_message(self.Typed(self.question))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Asked())

    # Proposals

    def is_own(self, name: str) -> bool:
        """Whether the person wrote what stands in ``answers`` or ``template``."""
        return self.text(name) not in ("", self._put[name])

    def propose(self, proposal: Proposal | None) -> None:
        """Put a proposal where the person wrote nothing of their own."""
        self.proposal = proposal
        for name, text in self._proposed().items():
            own = self.is_own(name)
            self._put[name] = text
            if not own:
                self.field(name).value = text
        self.query_one("#ask-near", Static).update(near_text(proposal, self.look))

    def give_back(self) -> None:
        """Replace what the person wrote by what is proposed."""
        for name, text in self._proposed().items():
            self.field(name).value = text

    def _proposed(self) -> Mapping[str, str]:
        found = self.proposal
        return {
            "answers": neutral(",".join(found.answers), one_line=True) if found else "",
            "template": neutral(found.template, one_line=True) if found else "",
        }

    # Requests

    def request(self) -> Request:
        """What is asked. ``UsageError`` names the field that cannot be used."""
        own = {name: self.text(name) if self.is_own(name) else None for name in self.DERIVED}
        return read_request(self.question, own["answers"], own["template"], self.choices)

    @property
    def choices(self) -> dict[str, str]:
        """What is typed for γ, samples, sampler, steps and seed."""
        return {name: self.text(name) for name in FIELDS}

    def put(self, texts: Mapping[str, str]) -> None:
        """Put texts into fields."""
        for name, text in texts.items():
            self.field(name).value = text

    def set_request(self, request: Request) -> None:
        """Put an earlier request back."""
        if self.proposal is not None and self.proposal.question.strip() != request.question:
            self.propose(None)
        self.field("question").value = neutral(request.question, one_line=True)
        own = {"answers": ",".join(request.answers) if request.answers else "", "template": request.template or ""}
        for name, text in own.items():
            self.field(name).value = text or self._put[name]
        for name in FIELDS:
            value = getattr(request, name)
            self.field(name).value = "" if value is None or (name == "seed" and not value) else f"{value}"

    def on_model_state_loaded(self, event: ModelState.Loaded) -> None:
        """Say in the empty fields what the run does by itself."""
        if isinstance(event.value, dict):
            for name, text in event.value.items():
                self.field(name).placeholder = text


def near_text(proposal: Proposal | None, look: Look) -> Text:
    """The nearest training questions with their similarities, one a line."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if proposal is None or not proposal.nearest:
        return text.append("no training question is near" if proposal and proposal.question else "", "dim")
    how = "near by its words" if proposal.by_words else "near for the model"
    for number, one in enumerate(proposal.nearest):
        text.append(f"{how if not number else '':<18} " if not number else "\n" + " " * 19, "dim")
        text.append(f"{one.similarity:.2f} ").append(look.text(one.question))
    return text
