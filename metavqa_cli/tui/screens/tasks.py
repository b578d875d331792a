"""Tasks."""

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Static

from metavqa_cli.tui.room import Pane, Room, RoomName


class TasksRoom(Room):
    NAME: ClassVar[RoomName] = "tasks"
    PANES: ClassVar[tuple[Pane, ...]] = (Pane("tasks-main", "Tasks", "Help of the pane."),)

    def compose_room(self) -> Iterable[Widget]:
        yield Static("tasks", id="tasks-main", classes="pane")


def make_room() -> Room:
    return TasksRoom()
