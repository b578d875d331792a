"""However the dashboard ends, the terminal is what it was before, and the exit code is a documented one."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.tui.terminals import Window, window

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
CRASHING = """
import sys
from metavqa_cli.tui.screens.runs import RunsRoom
def broken(self):
    raise RuntimeError("a fault of the dashboard's own")
RunsRoom.action_sort = broken
from metavqa_cli.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


def opened(tmp_path: Path, *before: str) -> Window:
    """The dashboard on an empty workspace, painted."""
    shown = window([*(before or ("-m", "metavqa_cli")), "-w", str(tmp_path / "workspace"), "tui"], tmp_path)
    shown.read_until(b"no runs in")
    return shown


def test_q_leaves_a_terminal_as_it_was(tmp_path: Path) -> None:
    shown = opened(tmp_path)
    shown.type("q")
    assert shown.wait() == 0 and shown.is_restored


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_it_in_order(tmp_path: Path, name: str) -> None:
    shown = opened(tmp_path)
    shown.process.send_signal(getattr(signal, name))
    assert shown.wait() == 130 and shown.is_restored
    assert b"Traceback" not in shown.seen


def test_a_crash_leaves_the_terminal_as_it_was_and_says_what_happened(tmp_path: Path) -> None:
    shown = opened(tmp_path, "-c", CRASHING)
    shown.type("s")
    assert shown.wait() == 1 and shown.is_restored
    end = shown.seen[shown.seen.rfind(b"\x1b[?1049l") :]
    assert b"a fault of the dashboard's own" in end and b"the dashboard ended by an error of its own" in end


def test_suspended_and_continued_it_paints_again(tmp_path: Path) -> None:
    shown = opened(tmp_path)
    shown.type("\x1a")  # ctrl+z
    shown.read_until(b"\x1b[?1049l")
    stopped = os.waitid(os.P_PID, shown.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert stopped is not None, "it has really stopped: continued before that, it would stop for ever"
    shown.seen = b""
    shown.process.send_signal(signal.SIGCONT)
    shown.read_until(b"F2 Runs")
    shown.type("q")
    assert shown.wait() == 0
