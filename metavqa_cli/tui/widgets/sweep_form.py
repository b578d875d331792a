"""The form that starts a γ sweep."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.widgets import Footer, Input, Label, Select, Static

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.sweep_command import GUIDED, SweepWish, check, sweeping
from metavqa_cli.tui.widgets.command_form import YES_NO, CommandForm

FIELDS = {
    "methods": ("methods", f"one or more, with commas, of {', '.join(GUIDED[:4])} ..."),
    "gammas": ("γ", "FROM:TO:STEP, or a list: 0,1,1.5"),
    "seeds": ("seeds", "how many (5), or which ones (0,3)"),
    "descriptors": ("questions known", "as configured; shares: 0.1,0.5,1"),
    "dataset": ("dataset", "as configured"),
    "overrides": ("overrides", "KEY=VALUE ..., e.g. ldm.epochs=20"),
}


class SweepForm(CommandForm):
    """Every choice is seen at once in the command line that will run."""

    DEFAULT_CSS: ClassVar[str] = "SweepForm { align: center middle; }"

    def __init__(self, presets: Sequence[str], look: Look, wish: SweepWish | None = None) -> None:
        super().__init__(look)
        self.presets, self.first = tuple(presets), wish or SweepWish()

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog form"):
            yield Static(Text("Start a γ sweep", "bold"))
            with Grid(classes="fields"):
                for name, (words, hint) in FIELDS.items():
                    yield Label(words)
                    yield Input(getattr(self.first, name), placeholder=hint, id=name)
                yield Label("preset")
                yield Select([(name, name) for name in self.presets], value=self.first.preset, allow_blank=False,
                             id="preset")  # fmt: skip
                yield Label("goes on after quitting")
                yield Select(YES_NO, value=False, allow_blank=False, id="outlives")
            yield from self.compose_line()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#gammas").focus()

    @property
    def wish(self) -> SweepWish:
        """What is filled in now."""
        typed = {name: self.query_one(f"#{name}", Input).value for name in FIELDS}
        return SweepWish(**typed, preset=str(self.query_one("#preset", Select).value))

    def command(self) -> tuple[str, ...]:
        return sweeping(self.wish)

    def check(self) -> str:
        return check(self.wish)
