"""Following a log that another process writes, by byte offset: only new lines are read, and damage is counted."""

import json
import os
from collections.abc import Iterable, Iterator
from errno import EINVAL
from pathlib import Path
from stat import S_ISREG
from typing import Any

from metavqa_cli.schema.events import EVENTS, Event, from_record, is_sound
from metavqa_cli.store.log import line_state, opened

DECODER = json.JSONDecoder()
MARK_BYTES = 64
LONGEST_LINE = 4 << 20  # bytes: of a thousand metrics a step takes 50 KB

Stamp = tuple[int, int, int, int]


class Tail:
    """Follows one ``events.jsonl`` by byte offset. Damage is counted, never raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarts = 0
        """How often the log was found to be another one: what was gathered from it before then is void."""
        self.damaged = 0
        """Lines that hold no event, or are longer than any event."""
        self.trouble: str | None = None
        """Why the log cannot be read at present; a log that does not exist (yet) is no trouble."""
        self.behind = False
        """Whether the last call stopped at its limit, so that there is more to read at once."""
        self.stamp: Stamp | None = None
        self._file: tuple[int, int] | None = None
        self.offset = 0
        """How many bytes of the log were read."""
        self._mark = b""  # the last bytes read: a log cut short or written anew has other bytes there, or none
        self._torn: list[bytes] = []  # what is there of a line that has no end yet, in pieces
        self._torn_bytes = 0
        self._given_up = False  # whether that line is too long to be one: nothing of it is kept

    def poll(self, limit: int | None = None) -> list[Event]:
        """The events written since the last call, of about ``limit`` bytes at most."""
        return [*self.events(self.lines(limit))]

    def events(self, lines: Iterable[bytes]) -> Iterator[Event]:
        """The events in ``lines``, one at a time: a long log's events together take a hundred megabytes."""
        return (event for event in map(self.parse, lines) if event is not None)

    def lines(self, limit: int | None = None) -> list[bytes]:
        """The complete lines written since the last call, unparsed."""
        try:
            stamp = stamp_of(self.path)
            if stamp == self.stamp and not self.behind and not self.trouble:
                return []
            fresh = self._read(limit)
            self.trouble, self.stamp = None, stamp
        except (FileNotFoundError, NotADirectoryError):
            self.trouble, self.behind = None, False
            return []
        except OSError as error:
            self.trouble, self.behind = f"cannot read {self.path}: {error.strerror or error}", False
            return []
        return [line for line in self._complete(fresh) if line.strip()]

    def _complete(self, fresh: bytes) -> list[bytes]:
        """The lines that end in ``fresh``. Each byte is looked at once, however long the line is that it belongs to."""
        first, *others = fresh.split(b"\n")
        self._keep(first)
        if not others:
            return []
        *whole, last = others
        if len(fresh) > LONGEST_LINE:  # else none of them can be too long
            sound = [line for line in whole if len(line) <= LONGEST_LINE]
            self.damaged, whole = self.damaged + len(whole) - len(sound), sound
        ended = b"".join(self._torn)
        self._forget_line()
        self._keep(last)
        return [ended, *whole]

    def _keep(self, piece: bytes) -> None:
        """A piece of the line that has no end yet; of one that grows too long nothing is kept."""
        self._torn_bytes += len(piece)
        if self._given_up or self._torn_bytes > LONGEST_LINE:
            self.damaged += not self._given_up
            self._given_up = True
            self._torn.clear()
        else:
            self._torn.append(piece)

    def _forget_line(self) -> None:
        self._torn.clear()
        self._torn_bytes, self._given_up = 0, False

    def _read(self, limit: int | None) -> bytes:
        with opened(self.path) as log:
            found = os.fstat(log.fileno())
            log.seek(self.offset - len(self._mark))
            if (found.st_dev, found.st_ino) != self._file or log.read(len(self._mark)) != self._mark:
                self._restart()
                log.seek(0)
            self._file = (found.st_dev, found.st_ino)
            fresh = log.read(-1 if limit is None else limit)
        self.offset += len(fresh)
        self._mark = (self._mark + fresh[-MARK_BYTES:])[-MARK_BYTES:]
        self.behind = len(fresh) == limit
        return fresh

    def _restart(self) -> None:
        self.restarts += self._file is not None
        self.damaged = self.offset = 0
        self._mark = b""
        self._forget_line()

    def parse(self, line: bytes) -> Event | None:
        """The event in a line; None for one of a kind that this version does not know, and for a damaged one, which
        is counted."""
        try:
            record: Any = None if line_state(line) == "broken" else _record(line)
            event = from_record(record) if is_sound(record) else None
        except (ValueError, TypeError, KeyError, RecursionError):
            record = event = None
        if event is None:
            unknown = isinstance(record, dict) and isinstance(kind := record.get("event"), str) and kind not in EVENTS
            self.damaged += not unknown
        return event


def stamp_of(path: Path) -> Stamp:
    """What changes when a file is written or replaced: device, inode, size and time (ns). ``OSError`` if it is gone, or
    no file: to read a pipe is to wait."""
    found = path.stat()
    if not S_ISREG(found.st_mode):
        raise OSError(EINVAL, "it is not a file", str(path))
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _record(line: bytes) -> Any:
    """As ``json.loads``, a third faster: nothing is guessed about the encoding."""
    text = line.decode("utf-8").strip()
    record, end = DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value in a line")
    return record
