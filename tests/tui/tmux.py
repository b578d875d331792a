"""The dashboard in tmux, driven as by a person: keys are sent, the screen is read, conditions are waited for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Tmux:
    """One session of a tmux server of its own (``socket``)."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def __call__(self, *args: str) -> str:
        """Run a tmux command; what it prints."""
        done = subprocess.run(["tmux", "-S", str(self.socket), *args], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def screen(self) -> str:
        """The text on the screen."""
        return self("capture-pane", "-p", "-t", "0")

    def press(self, *keys: str) -> None:
        """Press keys by their tmux names, one after the other."""
        for key in keys:
            self("send-keys", "-t", "0", key)

    def type(self, text: str, into: str = "") -> None:
        """Type letters, as a person does: into the line that has ``into`` on it, when the cursor is there."""
        if into:
            self.until(lambda shown: into in self._line_of_cursor(shown), f"the cursor in the line {into!r}")
        self("send-keys", "-t", "0", "-l", text)

    def _line_of_cursor(self, shown: str) -> str:
        row = int(self("display-message", "-t", "0", "-p", "#{cursor_y}"))
        return [*shown.splitlines(), *[""] * (row + 1)][row]

    def until(self, condition: Callable[[str], object], what: str, seconds: float = 120.0) -> str:
        """Look at the screen until ``condition`` holds of it; the screen. ``AssertionError`` if it never does."""
        end = time.monotonic() + seconds
        while not condition(shown := self.screen):
            assert time.monotonic() < end, f"waited in vain for {what}:\n{shown}"
            time.sleep(0.05)
        return shown

    def sees(self, text: str, seconds: float = 120.0) -> str:
        """Wait until ``text`` is on the screen."""
        return self.until(lambda shown: text in shown, repr(text), seconds)


@contextmanager
def session(folder: Path, args: Sequence[str], size: tuple[int, int] = (120, 36), **environment: str) -> Iterator[Tmux]:
    """``metavqa ARGS`` in tmux, then a line "left with CODE"; the server is ended with the body."""
    tmux = Tmux(folder / "tmux")
    others = ("METAVQA_", "TMUX", "COLUMNS", "LINES")  # the size is tmux's to say
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    program = f"'{sys.executable}' -m metavqa_cli {' '.join(args)}; echo left with $?; exec sleep 600"
    command = ["tmux", "-S", str(tmux.socket), "-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y",
               str(size[1]), program]  # fmt: skip
    around = {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment}
    subprocess.run(command, cwd=folder, env=around, check=True, timeout=20)
    try:
        yield tmux
    finally:
        subprocess.run(["tmux", "-S", str(tmux.socket), "kill-server"], capture_output=True, timeout=20)
