"""What must hold while many processes work, noted by each of them in files that all can write at once."""

import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metavqa_cli.engine import build, perform
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.schema.events import DatasetBuilt, RunFinished
from metavqa_cli.store import locks
from metavqa_cli.store.atomic import TEMPORARY
from metavqa_cli.store.removal import sweep
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, read_layout
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.feed import Follower, RunsFeed
from tests.concurrency.deeds import Deed

WATCHED_SECONDS = 1.5
STATES = {"running", "finished", "failed", "interrupted", "stale"}


class Book:
    """Notes of all processes: what went wrong, and which models were made from what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokens").mkdir(parents=True, exist_ok=True)

    def wrong(self, text: str) -> None:
        self._note("wrong", text)

    def made(self, key: str, what: str) -> None:
        self._note("made", [key, what])

    def _note(self, name: str, what: Any) -> None:
        line = json.dumps(what).encode() + b"\n"
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line)
        os.close(descriptor)

    def notes(self, name: str) -> list[Any]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @contextmanager
    def alone(self, what: str) -> Iterator[Path]:
        """Only one living process at a time may be in the body of ``what``."""
        token, mine = self.folder / "tokens" / what, str(os.getpid())
        for _ in range(2):
            try:
                descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                other = token.read_text() or "0"  # 0: it was killed before it wrote its number
                if not locks.Owner(int(other), os.uname().nodename, 0.0).gone and other != "0":
                    self.wrong(f"{what} is worked on by {other} and by {mine} at once")
                token.unlink(missing_ok=True)
                continue
            os.write(descriptor, mine.encode())
            os.close(descriptor)
            break
        try:
            yield token
            self.check(token, what)
        finally:
            token.unlink(missing_ok=True)

    def check(self, token: Path, what: str) -> None:
        found = token.read_text() if token.exists() else "nobody"
        if found != str(os.getpid()):
            self.wrong(f"{what} was taken from {os.getpid()} by {found}")


def install(book: Book) -> None:
    """Have this process note what it trains and builds, and look whether it is alone at it."""
    recorded, built = perform._recorded, build._build

    def watched_run(run: Run, *args: Any) -> Iterator[Any]:
        with book.alone(run.id) as token:
            folder = run.path.stat().st_ino
            for event in recorded(run, *args):
                book.check(token, run.id)
                if not run.path.exists() or run.path.stat().st_ino != folder:
                    book.wrong(f"the folder of {run.id} was replaced while it was worked on")
                if isinstance(event, RunFinished) and run.model_path.exists():
                    book.made(f"{run.kind} {run.manifest()['key']}", content(run.model_path))
                yield event

    def watched_build(session: Any, site: Any, wanted: Any) -> Iterator[Any]:
        with book.alone(f"dataset {site.folder.name}") as token:
            for event in built(session, site, wanted):
                book.check(token, site.folder.name)
                if isinstance(event, DatasetBuilt):
                    files = json.loads((site.folder / "dataset.json").read_text())
                    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
                    book.made(f"dataset {key}", json.dumps(files["files"], sort_keys=True))
                yield event

    perform._recorded, build._build = watched_run, watched_build  # type: ignore[assignment]


def content(path: Path) -> str:
    """A digest of the tensors in a file, without what its header says of when and by whom it was made."""
    layout = read_layout(path)
    digest = hashlib.sha256(json.dumps(layout.tensors, sort_keys=True).encode())
    digest.update(path.read_bytes()[layout.data_start :])
    return digest.hexdigest()


def watch(workspace: Workspace, deed: Deed, book: Book) -> int:
    """Do what the dashboard does for a while. Nothing that it meets may raise an error."""
    feed, end = RunsFeed(workspace), time.monotonic() + WATCHED_SECONDS
    followers = [Follower(workspace.runs_dir / name) for name in deed.follows]
    try:
        while time.monotonic() < end:
            views = feed.read(time.time())
            if {view.state for view in views} - STATES or feed.damaged:
                book.wrong(f"the dashboard saw {[(view.id, view.state) for view in views]}, damaged {feed.damaged}")
            for follower in followers:
                follower.poll()
                for name, curve in follower.curves.series.items():
                    if [*curve.steps] != sorted({*curve.steps}):
                        book.wrong(f"the curve {name} of {follower.tail.path} goes back: {[*curve.steps]}")
            time.sleep(0.05)
    except Exception:
        book.wrong(f"the dashboard fell over: {traceback.format_exc()}")
    return 0


def aftermath(workspace: Workspace, book: Book) -> dict[str, int]:
    """Look through the workspace when everybody has gone; what is wrong is noted. Returns counts."""
    finished = 0
    for name in workspace.run_ids():
        run = Run(workspace.runs_dir / name)
        try:
            manifest, state = run.manifest(), run.state()
            if manifest["id"] != name:
                book.wrong(f"{name} says that it is {manifest['id']}")
            run.config()
            if state == "running":
                book.wrong(f"{name} is still held by {run.holder()}")
            if state == "finished":
                finished += 1
                run.result()
                if run.model_path.exists():
                    load_tensors(run.model_path)
                    book.made(f"{run.kind} {manifest['key']}", content(run.model_path))
        except (MetaVQAError, OSError) as error:
            book.wrong(f"{name} is not whole: {error}")
    for lock in [*workspace.root.rglob("*.lock")]:
        if locks.is_held(lock):
            book.wrong(f"{lock} is held by {locks.holder(lock)}")
    sweep(workspace, age=-1)
    for left in workspace.runs_dir.glob(f"{TEMPORARY}*"):
        book.wrong(f"{left} is left")
    models: dict[str, set[str]] = {}
    for key, what in book.notes("made"):
        models.setdefault(key, set()).add(what)
    for key, found in models.items():
        if len(found) > 1:
            book.wrong(f"{key[:200]} was made {len(found)} times, differently")
    return {"finished runs": finished, "unfinished runs": len(workspace.run_ids()) - finished,
            "distinct results": len(models), "results": len(book.notes("made"))}  # fmt: skip
