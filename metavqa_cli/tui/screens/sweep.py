"""Sweep."""

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.room import Pane, Room, RoomName


class SweepRoom(Room):
    NAME: ClassVar[RoomName] = "sweep"
    PANES: ClassVar[tuple[Pane, ...]] = (Pane("sweep-main", "Sweep", "Help of the pane."),)

    def compose_room(self) -> Iterable[Widget]:
        yield Static("sweep", id="sweep-main", classes="pane")


def make_room() -> Room:
    return SweepRoom()
