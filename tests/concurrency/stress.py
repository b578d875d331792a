"""Many processes at once on one workspace, some of them killed: ``python -m tests.concurrency.stress FOLDER``.

``FOLDER/workspace`` is worked on, a copy of the miniature unless it is there. The process has one thread, imports
everything once and forks for every deed, so that twenty at a time fit into two cores. Types are not checked: what is
tested is what a person runs. Prints JSON.
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.concurrency.deeds import INTERRUPTED, Deed, Deeds
from tests.concurrency.watch import Book, aftermath, install, watch

HANGS = 120.0  # seconds
CRASHED = 99
HEARD = (signal.SIGINT, signal.SIGTERM)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
KILLED_SHARE = 0.25  # of the deeds


@dataclass
class Child:
    """A deed that is being done. ``doomed``: when it gets which signal."""

    deed: Deed
    began: float
    printed: Path
    doomed: tuple[float, signal.Signals] | None
    sent: signal.Signals | None = None


def prepare() -> None:
    """Import everything, and load the encoder, so that no child has to."""
    import filelock  # noqa: F401
    import PIL.Image
    import safetensors.numpy
    import safetensors.torch  # noqa: F401
    import torch

    import metavqa_cli
    from metavqa_cli.engine import session
    from tests import miniature

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(metavqa_cli.__path__, "metavqa_cli."):
        if not module.name.endswith("__main__") and ".tui.widgets" not in module.name:
            importlib.import_module(module.name)
    PIL.Image.init()
    miniature.encoder()
    session.load_encoder = miniature.loaded_encoder  # type: ignore[assignment]
    gc.freeze()


def become(deed: Deed, root: Path, printed: Path, book: Book) -> int:
    """Do the deed as a fresh process does; returns its exit code."""
    for stream, name in ((1, "out"), (2, "err")):
        descriptor = os.open(printed.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.argv = ["metavqa", *deed.args]
    from metavqa_cli.cli import app
    from metavqa_cli.store.workspace import Workspace

    install(book)
    if deed.kind == "watch":
        return watch(Workspace(root / "workspace"), deed, book)
    code = app.run(["--workspace", str(root / "workspace"), *deed.args])
    sys.stdout.flush()
    return code


class Stress:
    """Keeps so many children at work for so long, and judges how each of them ended."""

    def __init__(self, root: Path, seed: int) -> None:
        from metavqa_cli.store.workspace import Workspace

        self.root, self.draw = root, random.Random(seed)
        self.workspace = Workspace(root / "workspace")
        self.book, self.deeds = Book(root / "book"), Deeds(self.workspace, seed)
        self.children: dict[int, Child] = {}
        self.ends: Counter[tuple[str, str]] = Counter()
        self.signals: Counter[str] = Counter()
        self.number = 0
        (root / "printed").mkdir()

    def work(self, processes: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(self.children) < processes:
                self._start(self.deeds.next())
            self._tend()
        for pid, child in self.children.items():
            if child.sent is None and child.deed.kind != "watch":
                self._send(pid, child, signal.SIGINT)
        while self.children:
            self._tend(may_signal=False)

    def _start(self, deed: Deed) -> None:
        self.number += 1
        now, printed = time.monotonic(), self.root / "printed" / f"{self.number:05d}"
        doomed = None
        if self.draw.random() < KILLED_SHARE and deed.kind != "watch":
            doomed = (now + self.draw.expovariate(1.0), self.draw.choice(SIGNALS))
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # until the child can hear them
        pid = os.fork()
        if pid == 0:
            code = CRASHED
            try:
                for number in HEARD:
                    signal.signal(number, signal.default_int_handler)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
                code = become(deed, self.root, printed, self.book)
            except KeyboardInterrupt:  # before or after the command line, as any Python may end
                code = INTERRUPTED
            except BaseException as error:
                self.book.wrong(f"{deed.kind} raised {type(error).__name__}: {error}")
            finally:
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        self.children[pid] = Child(deed, now, printed, doomed)

    def _tend(self, may_signal: bool = True) -> None:
        now = time.monotonic()
        for pid, child in self.children.items():
            if may_signal and child.doomed is not None and now > child.doomed[0] and child.sent is None:
                self._send(pid, child, child.doomed[1])
            if now - child.began > HANGS and child.sent != signal.SIGKILL:
                self.book.wrong(f"{child.deed.kind} hangs: {' '.join(child.deed.args)}")
                self._send(pid, child, signal.SIGKILL)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            self._judge(self.children.pop(pid), os.waitstatus_to_exitcode(status))
        else:
            time.sleep(0.005)

    def _send(self, pid: int, child: Child, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            child.sent = number
            self.signals[number.name] += 1

    def _judge(self, child: Child, code: int) -> None:
        allowed = {*child.deed.codes}
        if child.sent is not None:
            allowed.add(-signal.SIGKILL if child.sent == signal.SIGKILL else INTERRUPTED)
        self.ends[child.deed.kind, str(code)] += 1
        said = child.printed.with_suffix(".err")
        err = said.read_text("utf-8", "replace") if said.exists() else ""
        if code not in allowed or "Traceback" in err or "this is a bug" in err:
            self.book.wrong(f"{child.deed.kind} ended with {code}: {' '.join(child.deed.args)}\n{err[-1500:]}")
        for name in ("out", "err"):
            child.printed.with_suffix(f".{name}").unlink(missing_ok=True)

    def report(self) -> dict[str, Any]:
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, code), count in sorted(self.ends.items()):
            by_kind.setdefault(kind, {})[code] = count
        found = aftermath(self.workspace, self.book)
        return {"deeds": self.number, "ends": by_kind, "signals": dict(self.signals), **found,
                "wrong": self.book.notes("wrong")}  # fmt: skip


def main() -> None:
    """Parse the command line, let them work, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    prepare()
    if not (wanted.root / "workspace").exists():
        from tests import miniature

        miniature.copy(wanted.root / "workspace")
    stress = Stress(wanted.root, wanted.seed)
    stress.work(wanted.processes, wanted.seconds)
    print(json.dumps(stress.report()))


if __name__ == "__main__":
    main()
