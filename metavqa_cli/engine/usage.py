"""Who reads a dataset, so that nobody removes it from under them. Without torch.

Each process that reads one holds a lock of its own beside it, which names it. A workspace that cannot be written goes
without: nothing is removed from it either, and who reads on notices a dataset that another machine replaced.
"""

import os
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from metavqa_cli.engine.site import MANIFEST, entrance, locks_beside
from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.store import locks


@dataclass
class _Use:
    lock: Path
    held: ExitStack
    process: int
    readers: int = 0


_guard = threading.RLock()  # what ends a use may be called by the garbage collector, within what begins one
_uses: dict[Path, _Use] = {}


def reads(folder: Path, reader: object) -> None:
    """Say beside the dataset in ``folder`` that this process reads it, until ``reader`` is gone."""
    folder = folder.absolute()
    with _guard:
        use = _uses.get(folder)
        if use is None or use.process != os.getpid():
            use = _begun(folder)
        if use is not None:
            use.readers += 1
            finalize(reader, _ended, folder, use)


def refuse_readers(folder: Path) -> None:
    """``BusyError`` while another process reads the dataset in ``folder``. For whoever is in its entrance."""
    own = _uses.get(folder.absolute())
    for lock in locks_beside(folder, "use"):
        if own is not None and lock.name == own.lock.name:
            continue
        if locks.is_held(lock):
            raise BusyError(f"dataset {folder.name} is read by {locks.holder(lock)}; wait for it to end, or stop it")
        _delete(lock)  # its process was killed


def _begun(folder: Path) -> _Use | None:
    lock, held = folder.with_name(f".{folder.name}.use-{os.urandom(4).hex()}.lock"), ExitStack()
    if not (folder / MANIFEST).is_file():
        return None
    with suppress(JobError, BusyError, OSError), entrance(folder):
        if (folder / MANIFEST).is_file():
            held.enter_context(locks.hold(lock, f"dataset {folder.name}"))
            use = _uses[folder] = _Use(lock, held, os.getpid())
            return use
    return None


def _ended(folder: Path, use: _Use) -> None:
    if use.process != os.getpid():  # a copy of the process, made by fork, has no part in it
        return
    with _guard:
        use.readers -= 1
        if not use.readers:
            _uses.pop(folder, None)
            use.held.close()
            _delete(use.lock)


def _delete(lock: Path) -> None:
    """Nobody waits for this lock, so that its file may go."""
    with suppress(OSError):
        lock.unlink(missing_ok=True)
        locks.sidecar(lock).unlink(missing_ok=True)
