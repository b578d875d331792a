"""Ask."""

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.room import Pane, Room, RoomName


class AskRoom(Room):
    NAME: ClassVar[RoomName] = "ask"
    PANES: ClassVar[tuple[Pane, ...]] = (Pane("ask-main", "Ask", "Help of the pane."),)

    def compose_room(self) -> Iterable[Widget]:
        yield Static("ask", id="ask-main", classes="pane")


def make_room() -> Room:
    return AskRoom()
