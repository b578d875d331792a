"""A process that has everything imported, and runs command lines in children that it forks.

``python -m tests.faults.server``: a request is a line of JSON on stdin (``Request``), the answer one on stdout. It has
one thread, so a child is as good as a fresh process, but ready in milliseconds; its types are not checked, so that what
is tested is what a person runs.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.disk import Disk, Fault

GIVEN_UP = 300.0  # seconds; a child that has not ended by then hangs
LINUX_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Request:
    """Run ``commands`` one after the other, in ``cwd``, with ``fault`` in the folder ``root``.

    ``delay``: seconds after which ``signal`` is sent. ``largest``: bytes that a file may have. ``powerless``: without a
    superuser's privileges, if it has them.
    """

    commands: list[list[str]]
    root: str
    cwd: str
    fault: Fault | None = None
    delay: float | None = None
    signal: int = signal.SIGKILL
    largest: int | None = None
    powerless: bool = False
    watched: bool = True


@dataclass(frozen=True)
class Ended:
    """How a child ended: the exit codes of the commands that did (-9: killed), what was printed, and what it did."""

    codes: list[int]
    out: str
    err: str
    operations: list[list[str]]
    seconds: float


def child(request: Request, reports: int, printed: tuple[int, int]) -> None:
    """Become a fresh metavqa process. Never returns."""
    os.setsid()
    os.dup2(printed[0], 1)
    os.dup2(printed[1], 2)
    os.chdir(request.cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_DATA_HOME"] = f"{request.root}/home"
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    from metavqa_cli.cli import app

    def say(*words: object) -> None:
        raw(reports, (json.dumps(words) + "\n").encode())

    raw = os.write
    if request.powerless and os.getuid() == 0:
        _give_up_powers()
    disk = None
    if request.watched:
        disk = Disk(request.root, request.fault, lambda kind, place: say(kind, place))
        if request.fault is not None and request.fault.how == "power":
            disk.graveyard = f"{request.root}.graveyard"
            Path(disk.graveyard).mkdir(exist_ok=True)
        disk.install()
    if request.largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.largest, request.largest))
    try:
        for command in request.commands:
            say("exit", app.run(command))
    except BaseException as error:  # what `main` would show as a traceback
        sys.stderr.write(f"Traceback: {type(error).__name__}: {error}\n")
        say("exit", 70)
    sys.stderr.flush()
    if disk is not None and request.fault is not None and request.fault.how == "power":
        disk.lose_power()  # after the end: what was said to be done must be
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def run(request: Request, folder: Path) -> Ended:
    """Fork a child for the request and wait for its end."""
    files = [os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")]
    heard, reports = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(heard)
            child(request, reports, (files[0], files[1]))
        finally:
            os._exit(71)
    os.close(reports)
    limit = request.delay if request.delay is not None else GIVEN_UP
    lines, late = _listen(heard, pid, began + limit, request.signal)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    os.close(heard)
    told = [json.loads(line) for line in lines.split(b"\n") if line.endswith(b"]")]
    codes = [int(code) for kind, code in told if kind == "exit"]
    ended = os.waitstatus_to_exitcode(status)
    if ended != 0:
        codes.append(ended)
    if late and request.delay is None:
        codes.append(-100)
    out, err = ((folder / name).read_text("utf-8", "replace") for name in ("out", "err"))
    for file in files:
        os.close(file)
    return Ended(codes, out, err, [pair for pair in told if pair[0] != "exit"], seconds)


def _listen(heard: int, pid: int, deadline: float, number: int) -> tuple[bytes, bool]:
    """Everything that the child reports until it ends; at the deadline it gets its signal. A hanging one is killed."""
    lines, late = b"", False
    while True:
        wait = max(0.0, deadline - time.monotonic()) if not late else GIVEN_UP
        if not select.select([heard], [], [], wait)[0]:
            os.kill(pid, signal.SIGKILL if late else number)
            late = True
            continue
        if not (more := os.read(heard, 1 << 16)):
            return lines, late
        lines += more


def main() -> None:
    """Answer requests until stdin ends."""
    import tempfile

    import torch

    torch.set_num_threads(1)
    _import_everything()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever an import prints is no answer
    with tempfile.TemporaryDirectory(prefix="metavqa-faults-") as folder:
        for line in sys.stdin:
            answers.write(json.dumps(asdict(run(_parsed(json.loads(line)), Path(folder)))) + "\n")
            answers.flush()


def _give_up_powers() -> None:
    """To root without capabilities, the modes of files apply as they do to other users (capabilities(7))."""
    header, none = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _parsed(values: dict[str, Any]) -> Request:
    fault = values.pop("fault")
    if fault is not None:
        fault["kinds"] = tuple(fault["kinds"])
    return Request(**values, fault=None if fault is None else Fault(**fault))


def _import_everything() -> None:
    """All modules that the commands load when they are run, and the built-in encoder."""
    import importlib
    import pkgutil

    import typer.main

    import metavqa_cli
    from metavqa_cli.cli import app
    from metavqa_cli.engine import archives, session
    from metavqa_cli.store import fetch
    from tests import miniature
    from tests.faults.mirror import CATALOGUE

    for module in pkgutil.walk_packages(metavqa_cli.__path__, "metavqa_cli."):
        if ".tui" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    import filelock  # noqa: F401
    import PIL.Image
    import rich.progress  # noqa: F401
    import safetensors.numpy
    import safetensors.torch  # noqa: F401

    PIL.Image.init()
    typer.main.get_command = cache(typer.main.get_command)  # half of the time of a short command
    typer.main.get_command(app.app)
    archives.ARCHIVES, fetch.BACKOFF_SECONDS = CATALOGUE, 0.0
    miniature.encoder()
    session.load_encoder = miniature.loaded_encoder  # type: ignore[assignment]


if __name__ == "__main__":
    main()
