"""One line: where the model stands, and for how long it has been loading or generating."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual.message import Message
from textual.widgets import Static

from metavqa_cli.tui.asking import Asking, Status
from metavqa_cli.tui.beside import post
from metavqa_cli.tui.results import defaults

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard

TICK_SECONDS = 0.5


class ModelState(Static):
    """Listens to the thread that owns torch. ``number`` is that of the request that is being generated, or None."""

    class Changed(Message):
        """The model stands elsewhere now."""

        def __init__(self, status: Status) -> None:
            super().__init__()
            self.status = status

    class Loaded(Message):
        """A run is loaded: what it does where nothing is chosen, as it is typed, or the exception that kept it."""

        def __init__(self, value: dict[str, str] | Exception) -> None:
            super().__init__()
            self.value = value

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.number: int | None = None
        self._since = time.monotonic()
        self._stop_listening: Callable[[], None] = lambda: None

    @property
    def asking(self) -> Asking:
        return cast("Dashboard", self.app).asking

    def on_mount(self) -> None:
        self._stop_listening = self.asking.listen(lambda status: post(self, self.Changed(status)))
        self.set_interval(TICK_SECONDS, self.show)
        self.show()

    def on_unmount(self) -> None:
        self._stop_listening()

    def generating(self, number: int | None) -> None:
        """The request of this number is being generated; None: none is."""
        self.number = number
        self._began()

    def on_model_state_changed(self, message: Changed) -> None:
        """Goes on to the room."""
        self._began()
        if message.status.state == "ready":
            self.asking.submit(defaults, lambda value: post(self, self.Loaded(value)), "defaults")

    def _began(self) -> None:
        self._since = time.monotonic()
        self.show()

    def show(self) -> None:
        """Say how things stand now."""
        status, seconds = self.asking.status, f"{time.monotonic() - self._since:.0f} s"
        if status.state == "failed":
            text, style = "no model is loaded, so nothing can be generated; r tries again", "bold"
        elif status.state != "ready":
            text, style = f"loading torch and {status.run or 'the newest HyperLDM'}… {seconds}", "bold"
        elif self.number is not None:
            text, style = f"generating… {seconds} (x cancels)", "bold"
        else:
            text, style = f"ready: {status.run}", "dim"
        self.update(Text(text, style, no_wrap=True, overflow="ellipsis"))
