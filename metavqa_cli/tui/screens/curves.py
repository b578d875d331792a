"""Curves."""

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.room import Pane, Room, RoomName


class CurvesRoom(Room):
    NAME: ClassVar[RoomName] = "curves"
    PANES: ClassVar[tuple[Pane, ...]] = (Pane("curves-main", "Curves", "Help of the pane."),)

    def compose_room(self) -> Iterable[Widget]:
        yield Static("curves", id="curves-main", classes="pane")


def make_room() -> Room:
    return CurvesRoom()
