"""A window over a room with a list: one of several, or any number of them in an order."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from metavqa_cli.schema.text import neutral


class ChooseOne(ModalScreen[str | None]):
    """One of ``options``. Returns it; None for escape."""

    DEFAULT_CSS = """
    ChooseOne { align: center middle; }
    ChooseOne OptionList { height: auto; max-height: 20; margin: 1 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, title: str, options: Sequence[str], now: str | None) -> None:
        super().__init__()
        self.heading, self.options, self.now = title, tuple(options), now

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(neutral(self.heading), "bold"))
            yield OptionList(*(Option(Text(neutral(option, one_line=True))) for option in self.options))
            yield Static(Text("enter chooses, escape leaves it as it is"), classes="muted")

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = self.options.index(self.now) if self.now in self.options else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self.options[event.option_index])


class ChooseSome(ModalScreen[tuple[int, ...] | None]):
    """Any of ``options``: space takes one or leaves it, enter puts the highlighted one first and is done.

    Returns the places of the chosen ones, in order; None for escape.
    """

    DEFAULT_CSS = """
    ChooseSome { align: center middle; }
    ChooseSome OptionList { height: auto; max-height: 20; margin: 1 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("space", "turn", "Take or leave"),
    ]

    def __init__(self, title: str, options: Sequence[str], chosen: Sequence[int], most: int) -> None:
        super().__init__()
        self.heading, self.options, self.chosen, self.most = title, tuple(options), list(chosen), most

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(neutral(self.heading), "bold"))
            yield OptionList(*(Option(self._line(at)) for at in range(len(self.options))))
            yield Static(
                Text(f"space takes or leaves one, at most {self.most}; enter: done, the highlighted one first"),
                classes="muted",
            )

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = self.chosen[0] if self.chosen else 0

    def action_turn(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is None:
            return
        if at in self.chosen:
            self.chosen.remove(at)
        elif len(self.chosen) < self.most:
            self.chosen.append(at)
        else:
            self.notify(f"{self.most} are chosen; leave one first", severity="warning")
        for place in range(len(self.options)):
            self.query_one(OptionList).replace_option_prompt_at_index(place, self._line(place))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        first = event.option_index
        self.dismiss((first, *(at for at in self.chosen if at != first))[: self.most])

    def _line(self, at: int) -> Text:
        mark = f"[{self.chosen.index(at) + 1}]" if at in self.chosen else "[ ]"
        return Text(f"{mark} {neutral(self.options[at], one_line=True)}", no_wrap=True, overflow="ellipsis")
