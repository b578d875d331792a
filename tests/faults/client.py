"""The server of ``tests.faults.server`` as seen by a test: one call, one command line in a process of its own."""

import atexit
import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from metavqa_cli.cli import app
from tests.faults.server import Ended, Request

ROOT = Path(app.__file__).parents[2]


@cache
def _server() -> "subprocess.Popen[str]":
    """Started at the first request, ended with the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAVQA_", "XDG_"))}
    started = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.server"],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(_end, started)
    return started


def _end(server: "subprocess.Popen[str]") -> None:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.close()
    server.wait(30)
    server.stdout.close()


def ended(root: Path, *commands: list[str], cwd: Path | None = None, **how: Any) -> Ended:
    """Run ``commands`` of metavqa on the workspace ``root/workspace``; ``how`` as in ``Request``."""
    cwd = cwd or root / "here"
    workspace = ["--workspace", str(root / "workspace")]
    request = Request([[*workspace, *command] for command in commands], str(root), str(cwd), **how)
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    try:
        server.stdin.write(json.dumps(asdict(request)) + "\n")
        server.stdin.flush()
        return Ended(**json.loads(server.stdout.readline()))
    except BaseException:  # an answer that is still to come would be taken for that of the next request
        server.kill()
        _server.cache_clear()
        raise
