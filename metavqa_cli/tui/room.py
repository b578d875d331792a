"""What all rooms of the dashboard have in common: the line of rooms, troubles said in place, panes, help, footer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Static

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.snapshot import Snapshot

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard

RoomName = Literal["runs", "curves", "sweep", "ask", "tasks"]
ROOMS: dict[RoomName, tuple[str, str]] = {  # function key and title
    "runs": ("f2", "Runs"),
    "curves": ("f3", "Curves"),
    "sweep": ("f4", "γ sweep"),
    "ask": ("f5", "Ask"),
    "tasks": ("f6", "Tasks"),
}


@dataclass(frozen=True)
class Pane:
    """A part of a room that its number key hides and shows; ``help`` is what ``?`` says when it has the focus."""

    id: str
    title: str
    help: str


class Room(Screen[None]):
    """One of the five rooms. A subclass names itself, its panes and its keys, and fills ``compose_room``.

    ``show_snapshot`` is called with every newer snapshot while the room is in front, and when it comes to the front.
    """

    NAME: ClassVar[RoomName]
    PANES: ClassVar[tuple[Pane, ...]] = ()
    HELP: ClassVar[str] = ""
    """What the room is for, in a few sentences, and which command shows the same without a dashboard."""
    LESS_NEEDED: ClassVar[tuple[str, ...]] = ()
    """Actions whose keys a narrow footer leaves out, so that help and quit are in sight; ``?`` tells them all."""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-usual"), (140, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n + 1), f"pane({n})", f"Pane {n + 1}", show=False) for n in range(4)),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._troubles: dict[str, str] = {}
        self._shown: Snapshot | None = None

    @property
    def dashboard(self) -> "Dashboard":
        return cast("Dashboard", self.app)

    @property
    def look(self) -> Look:
        return self.dashboard.look

    def compose(self) -> ComposeResult:
        yield Static(self._line_of_rooms(), id="rooms")
        yield Static("", id="troubles", classes="hidden")
        yield from self.compose_room()
        yield Footer(show_command_palette=False)

    def compose_room(self) -> Iterable[Widget]:
        """The panes between the line of rooms and the footer."""
        raise NotImplementedError(type(self).__name__)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Bring what is shown up to date."""

    @property
    def settled(self) -> bool:
        """Whether everything that the room is fetching for what it shows has come (``tui --once`` waits for it)."""
        return self._shown is not None

    def take(self, snapshot: Snapshot) -> None:
        """A newer snapshot, from the dashboard. Ignored while the room has no widgets (not yet, or no longer)."""
        if snapshot.read_at and self.query("#rooms"):
            self.trouble("workspace", snapshot.trouble)
            self._shown = snapshot
            self.show_snapshot(snapshot)

    def welcome(self, **what: Any) -> None:
        """The room was entered with a wish (``Dashboard.visit``)."""

    def on_screen_resume(self) -> None:
        self.take(self.dashboard.snapshot)  # even one that was shown: the selection may be another
        self.dashboard.fulfil(self.NAME)

    def trouble(self, of: str, sentence: str | None) -> None:
        """Say in place what is wrong with ``of`` (a name of the caller's choice), or that it is mended (None)."""
        before = dict(self._troubles)
        if sentence:
            self._troubles[of] = self.look.text(sentence)
        else:
            self._troubles.pop(of, None)
        if self._troubles != before and self.is_mounted:
            line = self.query_one("#troubles", Static)
            line.update(Text("\n".join(f"! {said}" for said in self._troubles.values())))
            line.set_class(not self._troubles, "hidden")

    @property
    def troubles(self) -> Mapping[str, str]:
        """What is wrong now, by what it is about."""
        return self._troubles

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        found = super().active_bindings
        if self.has_class("-narrow"):
            for key, active in found.items():
                if active.node is self and active.binding.action.partition("(")[0] in self.LESS_NEEDED:
                    found[key] = active._replace(binding=replace(active.binding, show=False))
        return found

    def on_resize(self) -> None:
        self.refresh_bindings()

    def action_pane(self, number: int) -> None:
        """Hide or show a pane. The last one that is left stays."""
        if number >= len(self.PANES):
            return
        pane = self.query_one(f"#{self.PANES[number].id}")
        visible = [one for one in self.PANES if self.query_one(f"#{one.id}").display]
        if pane.display and len(visible) == 1:
            self.notify("this is the last pane; show another one first", severity="warning")
            return
        pane.display = not pane.display
        if not pane.display and self.focused is not None and pane in self.focused.ancestors_with_self:
            self.focus_next()

    def focused_pane(self) -> Pane | None:
        """The pane that has the keyboard."""
        around = [] if self.focused is None else [widget.id for widget in self.focused.ancestors_with_self]
        return next((pane for pane in self.PANES if pane.id in around), None)

    def _line_of_rooms(self) -> Text:
        """All rooms with their keys, this one reversed and in brackets."""
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, (key, title) in ROOMS.items():
            here = name == self.NAME
            line.append(f"[{key.upper()} {title}]" if here else f" {key.upper()} {title} ", "reverse" if here else "")
            line.append(" ")
        return line
