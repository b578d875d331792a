"""The form that starts a training: every choice is seen at once in the command line that will run."""

from collections.abc import Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.widgets import Footer, Input, Label, Select, Static

from metavqa_cli.tui.commands import CHOICES, Wish, check, training
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.widgets.command_form import YES_NO, CommandForm

CHOICE_LABELS = {"--on": "generator", "--objective": "objective", "--method": "method", "": "-"}
FIELDS = ("gamma", "seed", "dataset", "overrides")
HINTS = {"gamma": "guidance scale; empty: validated", "seed": "empty: as configured", "dataset": "empty: as configured",
         "overrides": "KEY=VALUE ..., e.g. ldm.epochs=20"}  # fmt: skip


class JobForm(CommandForm):
    """A training: what is trained, on what, and with which values."""

    def __init__(self, presets: Sequence[str], look: Look, wish: Wish | None = None) -> None:
        super().__init__(look)
        self.presets, self.first = tuple(presets), wish or Wish()

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
            yield from self.compose_line()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#kind").focus()

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

    def command(self) -> tuple[str, ...]:
        return training(self.wish)

    def check(self) -> str:
        check(self.wish)
        return ""

    def _choices(self, kind: str) -> list[tuple[str, str]]:
        return [(choice or "as configured", choice) for choice in CHOICES[kind][1]]
