"""Runs."""

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.room import Pane, Room, RoomName


class RunsRoom(Room):
    NAME: ClassVar[RoomName] = "runs"
    PANES: ClassVar[tuple[Pane, ...]] = (Pane("runs-main", "Runs", "Help of the pane."),)

    def compose_room(self) -> Iterable[Widget]:
        yield Static("runs", id="runs-main", classes="pane")


def make_room() -> Room:
    return RunsRoom()
