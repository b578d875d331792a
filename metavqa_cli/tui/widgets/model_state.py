"""One line: where the model stands, and for how long it has been loading or generating."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual.message import Message
from textual.widgets import Static

from metavqa_cli.engine.request import Request
from metavqa_cli.tui.asking import Asking, Status
from metavqa_cli.tui.beside import post
from metavqa_cli.tui.results import Result, defaults, generate

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard

TICK_SECONDS = 0.5


class ModelState(Static):
    """Listens to the thread that owns torch, and has it generate classifiers: the newest request counts."""

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

    class Generated(Message):
        """What came of the newest request: a result, or the exception that ended it."""

        def __init__(self, number: int, value: Result | Exception) -> None:
            super().__init__()
            self.number, self.value = number, value

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.is_generating = False
        self._number = 0
        self._since = time.monotonic()
        self._stop_listening: Callable[[], None] = lambda: None

    @property
    def asking(self) -> Asking:
        return cast("Dashboard", self.app).asking

    def on_mount(self) -> None:
        self._stop_listening = self.asking.listen(lambda status: post(self, self.Changed(status)))
        self.set_interval(TICK_SECONDS, self.show)
        self.show()
        if self.asking.status.state != "cold":  # another room had it load
            self.post_message(self.Changed(self.asking.status))

    def on_unmount(self) -> None:
        self._stop_listening()

    def generate(self, request: Request, files: Sequence[Path]) -> None:
        """Have a classifier generated and tested on ``files``, in place of one that is under way."""
        self._number += 1
        number, self.is_generating = self._number, True
        work = partial(generate, request=request, files=tuple(files))
        self.asking.submit(work, lambda value: post(self, self.Generated(number, value)))
        self._began()

    def cancel(self) -> None:
        """End what is being generated before its next denoising step, or image."""
        if self.is_generating:
            self.asking.cancel("ask")

    def on_model_state_generated(self, message: Generated) -> None:
        """Goes on to the room, unless a newer request is under way."""
        if message.number != self._number:
            message.stop()
            return
        self.is_generating = False
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
        elif self.is_generating:
            text, style = f"generating… {seconds} (x cancels)", "bold"
        else:
            text, style = f"ready: {status.run}", "dim"
        self.update(Text(text, style, no_wrap=True, overflow="ellipsis"))
