"""The form that starts a training: every choice is seen at once in the command line that will run."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Footer, Input, Label, Select, Static

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.tui.commands import CHOICES, Wish, check, training
from metavqa_cli.tui.jobs import command_line
from metavqa_cli.tui.look import Look

Started = tuple[tuple[str, ...], bool]
CHOICE_LABELS = {"--on": "generator", "--objective": "objective", "--method": "method", "": "-"}
YES_NO = (("yes", True), ("no", False))  # in words: a switch says it by its place and colour alone
FIELDS = ("gamma", "seed", "dataset", "overrides")
HINTS = {"gamma": "guidance scale; empty: validated", "seed": "empty: as configured", "dataset": "empty: as configured",
         "overrides": "KEY=VALUE ..., e.g. ldm.epochs=20"}  # fmt: skip


class JobForm(ModalScreen[Started | None]):
    """Returns the arguments to start and whether the job goes on when the dashboard is closed; None for escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "Start", priority=True),
        Binding("ctrl+y", "copy", "Copy the command", priority=True),
        Binding("escape", "dismiss(None)", "Cancel"),
    ]

    def __init__(self, presets: Sequence[str], look: Look, wish: Wish | None = None) -> None:
        super().__init__()
        self.presets, self.look, self.first = tuple(presets), look, wish or Wish()
        self.args: tuple[str, ...] | None = None
        """What would be started now; None while it cannot be told (an open quote)."""
        self.line = ""
        """The same as it is typed."""

    def compose(self) -> ComposeResult:
        first = self.first
        with VerticalScroll(classes="dialog form"):
            yield Static(Text("Start a training", "bold"))
            with Grid(classes="fields"):
                yield Label("train")
                yield Select([(kind, kind) for kind in CHOICES], value=first.kind, allow_blank=False, id="kind")
                yield Label("generator", id="choice-label")
                yield Select(self._choices(first.kind), value=first.choice, allow_blank=False, id="choice")
                yield Label("preset")
                yield Select([(name, name) for name in self.presets], value=first.preset, allow_blank=False,
                             id="preset")  # fmt: skip
                for name in FIELDS:
                    yield Label("γ" if name == "gamma" else name, id=f"{name}-label")
                    yield Input(getattr(first, name), placeholder=HINTS[name], id=name)
                for name, words, value in (("with-parents", "also make its parents", first.with_parents),
                                           ("outlives", "goes on after quitting", False)):  # fmt: skip
                    yield Label(words)
                    yield Select(YES_NO, value=value, allow_blank=False, id=name)
            yield Static("", id="line")
            yield Static("", id="wrong")
            with Horizontal(classes="buttons"):
                yield Button("ctrl+s: start", id="start", variant="primary")
                yield Button("ctrl+y: copy", id="copy")
                yield Button("esc: cancel", id="cancel")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#kind").focus()
        self._show_line()

    @property
    def wish(self) -> Wish:
        """What is filled in now."""
        select = {name: str(self.query_one(f"#{name}", Select).value) for name in ("kind", "choice", "preset")}
        typed = {name: self.query_one(f"#{name}", Input).value for name in FIELDS}
        return Wish(**select, **typed, with_parents=self.query_one("#with-parents", Select).value is True)

    @on(Select.Changed, "#kind")
    def offer_choices(self, event: Select.Changed) -> None:
        """Each kind of training has choices of its own."""
        kind = str(event.value)
        select = self.query_one("#choice", Select)
        kept = select.value if select.value in CHOICES[kind][1] else ""
        select.set_options(self._choices(kind))
        select.value = kept
        self.query_one("#choice-label", Label).update(CHOICE_LABELS[CHOICES[kind][0]])
        for part in ("#gamma", "#gamma-label"):
            self.query_one(part).set_class(kind != "ldm", "hidden")
        self._show_line()

    @on(Select.Changed, "#choice, #preset, #with-parents")
    @on(Input.Changed)
    def _show_line(self) -> None:
        wish, self.args, wrong = self.wish, None, ""
        try:
            self.args = training(wish)
            check(wish)
        except MetaVQAError as error:
            wrong = str(error)
        self.line = command_line(self.args) if self.args else ""
        self.query_one("#line", Static).update(Text(self.look.text(f"$ {self.line}") if self.line else ""))
        self.query_one("#wrong", Static).update(Text(self.look.text(f"! {wrong}") if wrong else ""))
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

    def _choices(self, kind: str) -> list[tuple[str, str]]:
        return [(choice or "as configured", choice) for choice in CHOICES[kind][1]]
