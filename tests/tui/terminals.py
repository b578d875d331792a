"""A real terminal for a real process: a pseudo-terminal whose state can be looked at after the program has ended."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0


@dataclass
class Window:
    """A process in a terminal; ``seen`` is everything that it has written."""

    process: "subprocess.Popen[bytes]"
    fd: int
    before: list[Any]
    seen: bytes = b""

    def read_until(self, wanted: bytes) -> None:
        """Read until ``wanted`` was written; an ``AssertionError`` if that never happens."""
        end = time.monotonic() + DEADLINE_SECONDS
        while wanted not in self.seen:
            assert time.monotonic() < end, f"waited in vain for {wanted!r} in {self.seen[-2000:]!r}"
            self._read()

    def wait(self) -> int:
        """Read until the process has ended; its exit code."""
        end = time.monotonic() + DEADLINE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < end, "the process does not end"
            self._read()
        self._read()
        return self.process.returncode

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    @property
    def is_restored(self) -> bool:
        """Whether the terminal echoes and edits lines as before, on its usual screen and with its cursor."""
        on, off = self.seen.rfind(b"\x1b[?1049h"), self.seen.rfind(b"\x1b[?1049l")
        shown = self.seen.rfind(b"\x1b[?25h") > self.seen.rfind(b"\x1b[?25l")
        return termios.tcgetattr(self.fd)[:4] == self.before[:4] and off > on >= 0 and shown

    def _read(self) -> None:
        if select.select([self.fd], [], [], 0.05)[0]:
            try:
                self.seen += os.read(self.fd, 65_536)
            except OSError:  # the other end is closed
                time.sleep(0.01)


def window(args: Sequence[str], cwd: Path, size: tuple[int, int] = (100, 30), **environment: str) -> Window:
    """Start ``python ARGS`` in a terminal of ``size`` columns and rows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    before = termios.tcgetattr(ours)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAVQA_")}
    process = subprocess.Popen(
        [sys.executable, *args], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
        start_new_session=True, preexec_fn=_own_terminal,
        env={**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    return Window(process, ours, before)  # ``theirs`` stays open, so that the state can be read after the end


def _own_terminal() -> None:
    """In the child: its standard input becomes the terminal that Ctrl-Z and closed windows act through."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
