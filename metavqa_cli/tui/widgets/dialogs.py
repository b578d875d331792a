"""Small windows over a room: a question with its answers, and the help."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class Confirm(ModalScreen[str | None]):
    """A question whose answers are keys. Returns the key of the answer; None for escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, question: str, answers: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.question, self.answers = question, tuple(answers)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self.question), classes="question")
            with Horizontal(classes="buttons"):
                for key, words in self.answers:
                    yield Button(Text(f"{key}: {words}"), id=f"answer-{key}")
                yield Button(Text("esc: cancel"), id="cancel")

    def on_mount(self) -> None:
        self.query_one("#cancel", Button).focus()  # enter by mistake changes nothing

    def on_key(self, event: Key) -> None:
        if event.key in {key for key, _ in self.answers}:
            event.stop()
            self.dismiss(event.key)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or ""
        self.dismiss(name.removeprefix("answer-") if name.startswith("answer-") else None)


class Help(ModalScreen[None]):
    """What the focused pane is, and every key that works there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss(None)", "Close"),
    ]

    def __init__(self, title: str, paragraphs: Sequence[str], keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.heading, self.paragraphs, self.keys = title, tuple(paragraphs), tuple(keys)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog help"):
            yield Static(Text(self.heading, "bold"))
            for paragraph in self.paragraphs:
                yield Static(Text(f"\n{paragraph}"))
            width = max((len(key) for key, _ in self.keys), default=0)
            yield Static(Text("\n" + "\n".join(f"{key:>{width}}  {does}" for key, does in self.keys)))
            yield Static(Text("\nescape closes this"))

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
