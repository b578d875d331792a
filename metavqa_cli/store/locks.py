"""Locks between processes: a ``filelock`` with a small JSON file beside it that says who holds it since when."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.schema.errors import BusyError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store.atomic import explained, write_json

PATIENCE_SECONDS = 0.3  # long enough to outlast another process's momentary look at the lock


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock: its number, its machine and the time it began (seconds since 1970)."""

    pid: int
    host: str
    since: float

    def __str__(self) -> str:
        minutes, seconds = divmod(max(0, round(time.time() - self.since)), 60)
        age = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        return f"process {self.pid} on {self.host}, for {age}"


@contextmanager
def hold(path: Path, what: str, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock file ``path`` for the body, waiting up to ``patience`` seconds for it.

    ``BusyError`` names ``what``, the owner and the age if it is still taken then.
    """
    import socket

    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience, poll_interval=0.02 if patience < 1 else 0.5)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            holder = read_owner(path) or "another process"
            raise BusyError(f"{what} is in use by {holder}; wait for it to end, or stop it") from None
    try:
        write_json(_sidecar(path), {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
        yield
    finally:
        _sidecar(path).unlink(missing_ok=True)
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock file ``path``. Needs only read access."""
    if not path.is_file():
        return False
    if sys.platform == "win32":
        return _sidecar(path).is_file()
    import fcntl

    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_owner(path: Path) -> Owner | None:
    """Who last wrote its name beside the lock file ``path``; None when nobody did, or it cannot be read."""
    try:
        return Owner(**parse_json(_sidecar(path).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
