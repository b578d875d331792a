"""Locks between processes: a ``filelock`` with a small JSON file beside it that says who holds it since when.

The system's lock alone decides who holds it, and it ends with its process, however that ends; the name beside it is
only told. Between machines it holds as far as their file system passes ``flock`` on (NFS does, since Linux 2.6.12).
"""

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store.atomic import explained

PATIENCE_SECONDS = 0.3  # long enough to outlast another process's momentary look at the lock
COMMAND_LENGTH = 80  # characters of a command line that are told
UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock: its number, its machine and since when (seconds since 1970).

    ``began`` is when the process itself began, in the system's own count, which tells it from a later one with the same
    number; None where the system does not say (it is not Linux). ``command`` is what was typed.
    """

    pid: int
    host: str
    since: float
    began: int | None = None
    command: str = ""

    @property
    def name(self) -> str:
        """Which process it is, without how long it has held the lock."""
        return f"process {self.pid} on {self.host}{f' ({self.command})' if self.command else ''}"

    @property
    def age(self) -> float:
        """Seconds since it took the lock; 0 when the clock was set back meanwhile."""
        return max(0.0, time.time() - self.since)

    @property
    def gone(self) -> bool:
        """Whether the process has certainly ended. Of another machine's nothing is certain."""
        if self.host != socket.gethostname():
            return False
        began = _began(self.pid)
        return began is None or (self.began is not None and began not in (self.began, UNKNOWN))

    def __str__(self) -> str:
        return f"{self.name}, for {_spoken(self.age)}"


UNKNOWN = -1  # when a process began that the system says no more of than that it is there


@contextmanager
def hold(path: Path, what: str, patience: float = PATIENCE_SECONDS) -> Iterator[Owner | None]:
    """Hold the lock file ``path`` for the body, waiting up to ``patience`` seconds for it.

    Yields the process that held it before and ended without letting go of it (it was killed), if that was so, once.
    ``BusyError`` names ``what``, the owner and the age if it is still taken then. The file stays where it is, so that
    all who wait for it wait for the same one: it must not lie in a folder that the holder moves or deletes.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience, poll_interval=0.02 if patience < 1 else 0.5)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except NotImplementedError:
            raise JobError(f"cannot lock {path}: its file system has no locks; choose another disk (--workspace, or "
                           "the output's own option)") from None  # fmt: skip
        except Timeout:
            raise BusyError(f"{what} is in use by {holder(path)}; wait for it to end, or stop it") from None
    try:
        left = read_owner(path)
        _write_owner(path)
        yield left
    finally:
        with suppress(OSError):
            sidecar(path).unlink(missing_ok=True)
        lock.release()  # after its name is gone, so that nobody takes the next holder's away


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock file ``path``. Needs only read access."""
    if not path.is_file():
        return False
    if sys.platform == "win32":
        return sidecar(path).is_file()
    import fcntl

    try:
        with path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # since we looked
        return False
    except OSError:  # it may not be opened, or its file system has no locks: all there is to go by is the name
        owner = read_owner(path)
        return owner is not None and not owner.gone
    return False


def holder(path: Path) -> str:
    """Who holds the lock file ``path``, where and since when, as far as that is known."""
    owner = read_owner(path)
    return "another process" if owner is None or owner.gone else str(owner)


def read_owner(path: Path) -> Owner | None:
    """Who last wrote its name beside the lock file ``path``; None when nobody did, or it cannot be read."""
    try:
        found = parse_json(sidecar(path).read_bytes())
        return _owner(found) if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def sidecar(path: Path) -> Path:
    """The file that says who holds the lock file ``path``."""
    return path.with_name(path.name + ".json")


def _owner(found: dict[str, Any]) -> Owner | None:
    """The owner that a record describes; None when that is no process: to the system, 0 and less are whole groups."""
    pid, host, since = found.get("pid"), found.get("host"), found.get("since")
    began, command = found.get("began"), found.get("command")
    numbers = type(pid) is int and pid > 0 and type(since) in (int, float)
    if not (numbers and isinstance(host, str)):
        return None
    return Owner(
        pid, _short(host), float(since),  # type: ignore[arg-type]
        began if type(began) is int else None, _short(command) if isinstance(command, str) else "",
    )  # fmt: skip


def _write_owner(path: Path) -> None:
    """Say that this process holds ``path``, in one step. It need not outlive a power cut, and a full disk is no reason
    to stop: what the holder does may be to remove something."""
    pid = os.getpid()
    owner = Owner(pid, socket.gethostname(), time.time(), _began(pid), _command())
    draft = path.with_name(f"{path.name}.new")  # of which there is one, since one holds the lock: a kill leaves no more
    with suppress(OSError):
        draft.write_text(json.dumps(asdict(owner)) + "\n", "utf-8")
        draft.replace(sidecar(path))


def _command() -> str:
    words = sys.argv or [""]
    program = Path(words[0]).name
    return _short(shlex.join(["metavqa" if program == "__main__.py" else program, *words[1:]]))


def _short(text: str) -> str:
    """At most ``COMMAND_LENGTH`` characters, all of which can be shown and encoded."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= COMMAND_LENGTH else f"{shown[: COMMAND_LENGTH - 3]}..."


def _began(pid: int) -> int | None:
    """When the process began, in clock ticks since the machine did; None when there is no such living process, and
    ``UNKNOWN`` when there may be one."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if state in (b"Z", b"X") else int(fields[18])
    except (OSError, ValueError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    if sys.platform == "win32":  # where asking a process means ending it
        return UNKNOWN
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is there, and somebody else's
        return UNKNOWN
    except (OSError, OverflowError):
        return None
    return UNKNOWN


def _spoken(seconds: float) -> str:
    """Its two largest units: "5 s", "2 min 5 s", "3 h 0 min"."""
    left = round(seconds)
    first = next((place for place, (_, size) in enumerate(UNITS) if left >= size), len(UNITS) - 1)
    parts = []
    for unit, size in UNITS[first : first + 2]:
        number, left = divmod(left, size)
        parts.append(f"{number} {unit}")
    return " ".join(parts)
