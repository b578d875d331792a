"""Following a log that another process writes, by byte offset: only new lines are read, and damage is counted."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_origin

from metavqa_cli.schema.events import EVENTS, Event, from_record

DECODER = json.JSONDecoder()
MARK_BYTES = 64
LARGEST_STEP = 2**53  # as far as a float counts
TYPES: dict[str, dict[str, Any]] = {
    name: {part: get_origin(of.type) or of.type for part, of in kind.__dataclass_fields__.items()}
    for name, kind in EVENTS.items()
}

Stamp = tuple[int, int, int, int]


class Tail:
    """Follows one ``events.jsonl`` by byte offset. Damage is counted, never raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarts = 0
        """How often the log was found to be another one: what was gathered from it before then is void."""
        self.damaged = 0
        """Complete lines that hold no event."""
        self.unknown = 0
        """Events of a kind that this version does not know."""
        self.trouble: str | None = None
        """Why the log cannot be read at present; a log that does not exist (yet) is no trouble."""
        self.behind = False
        """Whether the last call stopped at its limit, so that there is more to read at once."""
        self.stamp: Stamp | None = None
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._mark = b""  # the last bytes read: a log cut short or written anew has other bytes there, or none
        self._torn = b""

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
            if stamp == self.stamp and not self.behind:
                return []
            fresh = self._read(limit)
            self.trouble, self.stamp = None, stamp
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.trouble = f"cannot read {self.path}: {error.strerror or error}"
            return []
        *complete, self._torn = (self._torn + fresh).split(b"\n")
        return [line for line in complete if line.strip()]

    def _read(self, limit: int | None) -> bytes:
        with self.path.open("rb") as log:
            found = os.fstat(log.fileno())
            log.seek(self._offset - len(self._mark))
            if (found.st_dev, found.st_ino) != self._file or log.read(len(self._mark)) != self._mark:
                self._restart()
                log.seek(0)
            self._file = (found.st_dev, found.st_ino)
            fresh = log.read(-1 if limit is None else limit)
        self._offset += len(fresh)
        self._mark = (self._mark + fresh[-MARK_BYTES:])[-MARK_BYTES:]
        self.behind = len(fresh) == limit
        return fresh

    def _restart(self) -> None:
        self.restarts += self._file is not None
        self.damaged = self.unknown = self._offset = 0
        self._mark = self._torn = b""

    def parse(self, line: bytes) -> Event | None:
        """The event in a line; None for a damaged one or an unknown kind, which are counted."""
        try:
            record = _record(line)
            event = from_record(record) if _is_sound(record) else None
        except (ValueError, TypeError, KeyError, RecursionError):
            record = event = None
        if event is None:
            unknown = isinstance(record, dict) and isinstance(kind := record.get("event"), str) and kind not in EVENTS
            self.unknown, self.damaged = self.unknown + unknown, self.damaged + (not unknown)
        return event


def stamp_of(path: Path) -> Stamp:
    """What changes when a file is written or replaced: device, inode, size and time (ns). ``OSError`` if it is gone."""
    found = path.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _record(line: bytes) -> Any:
    """As ``json.loads``, a third faster: nothing is guessed about the encoding."""
    text = line.decode("utf-8").strip()
    record, end = DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value in a line")
    return record


def _is_sound(record: Any) -> bool:
    """Whether a record has the types of its event, so that what is built from it can be trusted."""
    types = TYPES.get(record["event"])
    if types is None:
        return False
    for name, of in types.items():
        if name in record and not isinstance(record[name], of):
            return False
    return abs(record.get("step", 0)) < LARGEST_STEP and _are_numbers(record.get("metrics", {}).values())


def _are_numbers(values: Iterable[Any]) -> bool:
    kinds = {*map(type, values)}
    return kinds <= {float} or (kinds <= {float, int} and all(map(_is_small, values)))


def _is_small(value: float) -> bool:
    return isinstance(value, float) or abs(value) < LARGEST_STEP
