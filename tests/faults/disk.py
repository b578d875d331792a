"""The file operations of this process inside one folder, counted one by one, and a fault at one of them.

Most operations are seen through ``sys.addaudithook``, before they happen; what Python does not announce (``fsync``,
``write``, ``close``, and the writer of safetensors, which is not Python) is replaced. The product knows nothing of it.

A power cut is a kill after which what was never synced is gone: contents of files, and renames in folders.
"""

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATHS = {  # audit event -> how the operation is called here, and how many paths it has
    "os.rename": ("rename", 2), "os.remove": ("remove", 1), "os.mkdir": ("mkdir", 1), "os.rmdir": ("rmdir", 1),
    "os.truncate": ("truncate", 1), "os.chmod": ("chmod", 1), "os.utime": ("utime", 1), "os.symlink": ("symlink", 2),
    "os.link": ("link", 2), "os.listdir": ("list", 1), "os.scandir": ("list", 1),
}  # fmt: skip
READING = {"read", "open", "list"}  # these change nothing: a kill before them is the same as before the next one
SPACE = {"create", "write", "close", "mkdir", "rename", "fsync", "link", "symlink"}  # what a full disk may refuse
WRITES = os.O_WRONLY | os.O_RDWR
MAKES = os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Fault:
    """What goes wrong: at the ``nth`` operation (from 0) of one of ``kinds`` (of any that changes something, if none).

    ``how``: kill; torn (half of a write, then kill); power; sigint, sigterm; or the name of an errno. ``lasting``
    repeats an errno for every later operation of these kinds. ``again``: so many operations later, the same signal.
    """

    how: str
    nth: int = 0
    kinds: tuple[str, ...] = ()
    lasting: bool = False
    again: int = 0


@dataclass
class Disk:
    """Counts the operations under ``root``, tells each (kind and path) to ``log``, and commits ``fault``."""

    root: str
    fault: Fault | None
    log: Callable[[str, str], None]
    seen: int = 0
    synced: dict[tuple[int, int], int] = field(default_factory=dict)  # by inode: bytes sure to survive a power cut
    moved: list[tuple[str, str, str | None]] = field(default_factory=list)  # renames that are not synced: from, to, old
    graveyard: str | None = None  # for what such a rename replaced
    signalled_at: int | None = None

    def install(self) -> None:
        """From here on every operation of this process is counted. There is no way back."""
        self._fsync, self._open, self._write = os.fsync, io.open, os.write
        os.fsync = self.fsync  # type: ignore[assignment]
        os.sync = self.sync
        os.write = self.write  # type: ignore[assignment]
        io.open = builtins.open = self.open  # type: ignore[assignment]
        self._replace_safetensors()
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            place = self.inside(path)
            if place is not None:
                makes = isinstance(flags, int) and bool(flags & MAKES)
                writes = isinstance(flags, int) and bool(flags & WRITES)
                self.meet("create" if makes else "open" if writes else "read", place)
                if makes and flags & os.O_TRUNC:
                    self.forget(place)
        elif event in PATHS:
            kind, count = PATHS[event]
            folder = arguments[-1] if kind in ("remove", "rmdir", "mkdir") else -1
            places = [self.inside(path, folder) for path in arguments[:count]]
            if any(place is not None for place in places):
                self.meet(kind, " -> ".join(str(place) for place in places))
                if kind == "rename" and None not in places:
                    self.note_rename(str(places[0]), str(places[1]))

    def inside(self, path: Any, folder: Any = -1) -> str | None:
        """The absolute path of what an operation is about, if that lies in the watched folder."""
        if isinstance(path, int):
            place = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
        else:
            place = os.fsdecode(path)
            if isinstance(folder, int) and folder >= 0:
                place = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), place)  # noqa: PTH115, PTH118
            place = os.path.abspath(place)  # noqa: PTH100
        return place if place == self.root or place.startswith(self.root + "/") else None

    def meet(self, kind: str, place: str, torn: Callable[[], None] | None = None) -> None:
        """One operation is about to happen; commit the fault if this is its turn."""
        self.log(kind, place.replace(self.root, ""))
        fault = self.fault
        if fault is None or (kind not in fault.kinds if fault.kinds else kind in READING):
            return
        number, self.seen = self.seen, self.seen + 1
        again = fault.again and self.signalled_at is not None and number == self.signalled_at + fault.again
        if number == fault.nth or again or (fault.lasting and number > fault.nth):
            self.commit(fault, kind, place, torn)

    def commit(self, fault: Fault, kind: str, place: str, torn: Callable[[], None] | None) -> None:
        if fault.how in ("sigint", "sigterm"):
            self.signalled_at = self.signalled_at or self.seen - 1
            signal.raise_signal(signal.SIGINT if fault.how == "sigint" else signal.SIGTERM)
            return
        if fault.how in ("kill", "torn", "power"):
            if fault.how == "torn" and torn is not None:
                torn()
            if fault.how == "power":
                self.lose_power()
            self.log("killed", "")
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, fault.how)
        named = [] if kind in ("write", "close", "fsync") else [place.split(" -> ")[0]]  # as the system calls have it
        raise OSError(number, os.strerror(number), *named)

    # What Python does not announce.

    def fsync(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        place = self.inside(number)
        if place is not None:
            self.meet("fsync", place)
        self._fsync(number)
        if place is not None:
            self.note_sync(place, os.fstat(number))

    def sync(self) -> None:
        """As if everything were on the disk; the real one waits for what other processes write."""
        self.meet("fsync", self.root)
        self.synced.clear()
        self.moved.clear()

    def write(self, descriptor: int, data: Any) -> int:
        place = self.inside(descriptor)
        if place is not None:
            self.meet("write", place, lambda: None)
            self.note_write(descriptor)
        return self._write(descriptor, data)

    def open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        opened = self._open(file, mode, *arguments, **options)
        if not set(mode) & set("wax+") or (place := self.inside(opened.fileno())) is None:
            return opened
        if mode[0] in "wx":
            self.note_write(opened.fileno())
        return Watched(opened, place, self)

    def _replace_safetensors(self) -> None:
        """``save_file`` writes as it does, but through Python, in two halves, with its own kind of error."""
        from safetensors import SafetensorError, numpy, torch

        def saved(save: Callable[..., bytes]) -> Callable[..., None]:
            def save_file(tensors: Any, filename: Any, metadata: Any = None) -> None:
                data = save(tensors, metadata=metadata)
                try:
                    with io.open(filename, "wb") as file:  # noqa: UP020
                        file.write(data[: len(data) // 2])
                        file.write(data[len(data) // 2 :])
                except OSError as error:
                    text = f"I/O error: {error.strerror} (os error {error.errno})"
                    raise SafetensorError(f"Error while serializing: {text}") from None

            return save_file

        torch.save_file = saved(torch.save)
        numpy.save_file = saved(numpy.save)

    # What a power cut would take.

    def note_write(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self.synced.setdefault((found.st_dev, found.st_ino), found.st_size)

    def forget(self, place: str) -> None:
        """The file is about to be emptied: nothing of it is sure any more."""
        if os.path.isfile(place):  # noqa: PTH113
            found = os.stat(place)  # noqa: PTH116
            self.synced[found.st_dev, found.st_ino] = 0

    def note_sync(self, place: str, found: os.stat_result) -> None:
        self.synced.pop((found.st_dev, found.st_ino), None)
        self.moved = [move for move in self.moved if os.path.dirname(move[1]) != place]  # noqa: PTH120

    def note_rename(self, source: str, target: str) -> None:
        if self.graveyard is None:
            return
        old = None
        if os.path.isfile(target) and not os.path.islink(target):  # noqa: PTH113, PTH114
            old = f"{self.graveyard}/{len(self.moved)}-{self.seen}"
            os.link(target, old)
        self.moved.append((source, target, old))

    def lose_power(self) -> None:
        """What is not on the disk yet never gets there."""
        fault, self.fault = self.fault, None
        for source, target, old in reversed(self.moved):
            if os.path.lexists(target) and os.path.isdir(os.path.dirname(source)):  # noqa: PTH112, PTH120
                os.rename(target, source)  # noqa: PTH104
                if old is not None:
                    os.link(old, target)
        for path in Path(self.root).rglob("*"):
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                sure = self.synced.get((found.st_dev, found.st_ino), found.st_size)
                if sure < found.st_size:
                    os.truncate(path, sure)
        self.fault = fault


class Watched:
    """A file that is open for writing: every write and the close are operations."""

    def __init__(self, file: Any, place: str, disk: Disk) -> None:
        self._file, self._place, self._disk = file, place, disk

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._disk.meet("write", self._place, half)
        self._disk.note_write(self._file.fileno())
        written: int = self._file.write(data)
        self._file.flush()  # so that a kill at the next operation finds it on the disk
        return written

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            self._disk.meet("close", self._place)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
