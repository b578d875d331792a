"""The line in which a filter is typed, and what is wrong with it."""

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from metavqa_cli.tui.filters import Filter, FilterError, Grammar, parse
from metavqa_cli.tui.look import Look


class FilterLine(Vertical):
    """Hidden until ``open``; stays in sight while it filters. A filter that cannot be read yet changes nothing."""

    DEFAULT_CSS = """
    FilterLine { height: auto; display: none; }
    FilterLine > Input { height: 3; }
    FilterLine > Static { height: auto; color: $text-warning; padding: 0 1; }
    """

    class Changed(Message):
        """Another filter is wanted."""

        def __init__(self, wanted: Filter) -> None:
            super().__init__()
            self.wanted = wanted

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, FilterLine.Changed)

    class Left(Message):
        """Enter was pressed: the keyboard goes back to the list."""

    def __init__(self, look: Look, grammar: Grammar, example: str) -> None:
        super().__init__()
        self.look, self.grammar, self.example = look, grammar, example

    def compose(self) -> ComposeResult:
        yield Input(placeholder=f"filter: {self.example}")
        yield Static("", classes="hidden")

    @property
    def text(self) -> str:
        return self.query_one(Input).value

    def open(self) -> None:
        """Begin to type."""
        self.display = True
        self.query_one(Input).focus()

    def clear(self) -> None:
        """No filter; out of sight."""
        self.query_one(Input).value = ""
        self._wrong("")
        self.display = False

    @on(Input.Changed)
    def follow(self, event: Input.Changed) -> None:
        """Every letter counts."""
        event.stop()
        try:
            wanted = parse(event.value, self.grammar)
        except FilterError as error:
            self._wrong(f"! {self.look.text(str(error))}")
            return
        self._wrong("")
        self.post_message(self.Changed(wanted))

    @on(Input.Submitted)
    def leave(self, event: Input.Submitted) -> None:
        """Keep what is typed; an empty line goes out of sight."""
        event.stop()
        self.display = bool(self.text)
        self.post_message(self.Left())

    def _wrong(self, words: str) -> None:
        self.query_one(Static).update(Text(words))
        self.query_one(Static).set_class(not words, "hidden")
