"""What forms that start a command have in common: the exact line is shown as it grows, started or copied by a key."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Select, Static

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.tui.look import Look

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard

Started = tuple[tuple[str, ...], bool]
YES_NO = (("yes", True), ("no", False))  # in words: a switch says it by its place and colour alone


class CommandForm(ModalScreen[Started | None]):
    """Returns the arguments to start and whether the job goes on when the dashboard is closed; None for escape.

    A subclass composes the fields (one a ``Select`` of ``YES_NO`` with the id ``outlives``) and then ``line()``.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "Start", priority=True),
        Binding("ctrl+y", "copy", "Copy the command", priority=True),
        Binding("escape", "dismiss(None)", "Cancel"),
    ]

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look
        self.args: tuple[str, ...] | None = None
        """What would be started now; None while it cannot be told (an open quote)."""
        self.line = ""
        """The same as it is typed."""

    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """The arguments that what is filled in means. ``MetaVQAError`` when that cannot be told."""

    @abstractmethod
    def check(self) -> str:
        """A remark on what is filled in. ``MetaVQAError`` that says what is wrong with it."""

    def compose_line(self) -> ComposeResult:
        """The command line, the remark or what is wrong, and the buttons."""
        yield Static("", id="line")
        yield Static("", id="wrong")
        yield Static("", id="remark", classes="muted")
        with Horizontal(classes="buttons"):
            yield Button("ctrl+s: start", id="start", variant="primary")
            yield Button("ctrl+y: copy", id="copy")
            yield Button("esc: cancel", id="cancel")

    def on_mount(self) -> None:
        self.show_line()

    @on(Input.Changed)
    @on(Select.Changed)
    def show_line(self) -> None:
        """The line follows every letter."""
        self.args, remark, wrong = None, "", ""
        try:
            self.args = self.command()
            remark = self.check()
        except MetaVQAError as error:
            wrong = str(error)
        self.line = cast("Dashboard", self.app).jobs.line(self.args) if self.args else ""
        for name, words in (("line", f"$ {self.line}" if self.line else ""), ("remark", remark),
                            ("wrong", f"! {wrong}" if wrong else "")):  # fmt: skip
            self.query_one(f"#{name}", Static).update(Text(self.look.text(words)))
        self.query_one("#start", Button).disabled = bool(wrong)

    def action_start(self) -> None:
        """Start, unless something is wrong with the command."""
        if self.args and not self.query_one("#start", Button).disabled:
            self.dismiss((self.args, self.query_one("#outlives", Select).value is True))

    def action_copy(self) -> None:
        """The command line, for a shell or a script."""
        if self.line:
            self.app.copy_to_clipboard(self.line)
            self.notify(self.look.text(f"copied: {self.line}"), markup=False)

    @on(Button.Pressed)
    def press(self, event: Button.Pressed) -> None:
        """The buttons do what the keys do."""
        if event.button.id == "start":
            self.action_start()
        elif event.button.id == "copy":
            self.action_copy()
        else:
            self.dismiss(None)
