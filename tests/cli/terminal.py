"""Run the command line as a person does: in a process of its own, or quickly within this one."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from metavqa_cli.cli import app

ROOT = Path(app.__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def assert_refused(done: Done, code: int, *words: str, alone: bool = False) -> None:
    """One sentence on stderr (after the narration, or ``alone``), nothing on stdout, and the documented exit code."""
    assert (done.code, done.out) == (code, ""), done.err
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.err.endswith(f"{error}\n") and "Traceback" not in done.err
    assert not alone or done.err == f"{error}\n"
    for word in words:
        assert word in error


class Terminal:
    """Runs ``metavqa`` in a workspace of its own, in the current process."""

    def __init__(self, workspace: Path, capture: "pytest.CaptureFixture[str]") -> None:
        self.workspace, self.capture = workspace, capture

    def __call__(self, *args: str) -> Done:
        self.capture.readouterr()
        code = app.run(["--workspace", str(self.workspace), *args])
        return Done(code, *self.capture.readouterr())


def python(*args: str, cwd: Path, **environment: str) -> Done:
    """Run this Python with ``args`` in a fresh process, ``cwd`` and an environment without the person's variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAVQA_")}
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)
