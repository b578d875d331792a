"""What the dashboard knows at one moment, as one frozen value, and the message that brings a newer one."""

from dataclasses import dataclass

from textual.message import Message

from metavqa_cli.tui.feed import RunView


@dataclass(frozen=True)
class Snapshot:
    """All runs of the workspace, oldest first; why they cannot be read, if so; seconds since 1970 of the reading."""

    views: tuple[RunView, ...] = ()
    damaged: tuple[str, ...] = ()
    trouble: str | None = None
    read_at: float = 0.0

    def view(self, run: str) -> RunView | None:
        """The run with this id, if it is (still) there."""
        return next((view for view in self.views if view.id == run), None)


class SnapshotRead(Message):
    """A newer snapshot is there. Older ones that wait in the queue are of no use."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotRead)
