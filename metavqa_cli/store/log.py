"""A run's event log: one JSON object a line, only ever appended to, readable while it is being written.

The last key of a line is the CRC-32 of all before it, so that a line with a flipped bit is no event. A line without one
is of before there were seals, or torn.
"""

import hashlib
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from errno import ENOENT
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

from metavqa_cli.schema.events import Event, from_record, is_sound, to_record
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.schema.text import json_text
from metavqa_cli.store.atomic import atomic_path, explained

OPENING, CLOSING = b', "crc": "', b'"}'
CRC = re.compile(re.escape(OPENING) + b"([0-9a-f]{8})" + re.escape(CLOSING))
CRC_BYTES = len(OPENING) + 8 + len(CLOSING)
BLOCK = 2**20
TAIL_BYTES = 65_536  # enough to hold a run's last hundred events

E = TypeVar("E", bound=Event)


def append(path: Path, event: Event) -> None:
    """Add one event to the log ``path``, with the time (``at``, seconds since 1970)."""
    text = json_text({**to_record(event), "at": round(time.time(), 3)})
    line = sealed(text.encode("utf-8")) + b"\n"
    with explained(path), path.open("ab+") as log:
        if log.seek(0, os.SEEK_END) and not _ends_with_newline(log):
            line = b"\n" + line  # a process was killed in the middle of a line: keep ours apart from it
        log.write(line)


def sealed(line: bytes) -> bytes:
    """``line``, a JSON object, with its CRC-32 as the last key."""
    body = line.removesuffix(b"}")
    return body + OPENING + f"{zlib.crc32(body):08x}".encode() + CLOSING


def line_state(line: bytes) -> Literal["sealed", "unsealed", "broken"]:
    """Whether the bytes of ``line`` are those that were written; "unsealed": it has no CRC, or a damaged one."""
    stated = CRC.fullmatch(line[-CRC_BYTES:])
    if stated is None:
        return "unsealed"
    return "sealed" if f"{zlib.crc32(line[:-CRC_BYTES]):08x}".encode() == stated[1] else "broken"


def seal(path: Path) -> None:
    """Give every line of the log ``path`` a CRC that has none, for whoever is its only writer. No log is no trouble."""
    if not path.is_file():
        return
    with atomic_path(path) as temporary, path.open("rb") as log, temporary.open("wb") as new:
        for raw in log:
            line = raw.rstrip(b"\r\n")
            whole = line_state(line) == "unsealed" and parse(line) is not None
            new.write((sealed(line) if whole else line) + raw[len(line) :])


def measure(path: Path, up_to: int = sys.maxsize) -> tuple[int, str]:
    """Length in bytes and SHA-256 of the first ``up_to`` bytes of the log ``path``; of none, those of an empty one."""
    digest, length = hashlib.sha256(), 0
    with suppress(FileNotFoundError), opened(path) as log:
        while block := log.read(min(BLOCK, up_to - length)):
            digest.update(block)
            length += len(block)
    return length, digest.hexdigest()


def mark(path: Path) -> dict[str, Any]:
    """How far the log ``path`` goes: its length in ``bytes``, and the ``sha256`` of the last 64 KB of that at most.

    In as much time for a long log as for a short one; ``reaches`` compares.
    """
    length = path.stat().st_size if path.is_file() else 0
    return {"bytes": length, "sha256": _tail_sum(path, length)}


def reaches(path: Path, told: object) -> bool:
    """Whether the log ``path`` still has everything that it had when ``mark`` returned ``told``, as far as that tells:
    lines that were taken out before, put in, or put elsewhere move what comes after them."""
    length = told.get("bytes") if isinstance(told, dict) else None
    if not isinstance(length, int) or length < 0:
        return False
    return mark(path)["bytes"] >= length and _tail_sum(path, length) == cast(Any, told).get("sha256")


def _tail_sum(path: Path, end: int) -> str:
    start, data = max(0, end - TAIL_BYTES), b""
    if end:
        with opened(path) as log:
            log.seek(start)
            data = log.read(end - start)
    return hashlib.sha256(data).hexdigest()


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events from byte ``offset`` on, and the offset to ask for next.

    A last line that is still being written is left for the next call; a torn line is skipped, and so is an event of a
    kind that this version does not know. A log shorter than ``offset`` (made again) is read from its beginning.
    """
    try:
        with opened(path) as log:
            start = offset if log.seek(0, os.SEEK_END) >= offset else 0
            log.seek(start)
            events: list[Event] = []
            for line in log:  # in the memory of its events, not of its bytes too
                if not line.endswith(b"\n"):
                    break
                start += len(line)
                if (event := parse(line.rstrip(b"\r\n"))) is not None:
                    events.append(event)
    except FileNotFoundError:
        return [], 0
    return events, start


def newest_first(path: Path) -> list[Event]:
    """The last hundred events or so, newest first, without reading a long log to its beginning."""
    try:
        with opened(path) as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = log.read().splitlines()
    except FileNotFoundError:
        return []
    parsed = (parse(line) for line in reversed(lines))
    return [event for event in parsed if event is not None]


def newest(path: Path, kinds: Sequence[type[E]]) -> dict[type[E], E]:
    """The last event of each of the ``kinds`` that the log ``path`` has.

    Read backwards, and only as far as needed; of a gigabyte without one of them it takes a second, in the memory of two
    blocks.
    """
    wanted = {f'{{"event": "{kind.__name__}"'.encode(): kind for kind in kinds}
    found: dict[type[E], E] = {}
    for block in _backwards(path):
        for mark in [mark for mark in wanted if mark in block]:
            begun = (line for line in reversed(block.split(b"\n")) if line.startswith(mark))
            event = next((event for event in map(parse, begun) if event is not None), None)
            if event is not None:
                kind = wanted.pop(mark)
                found[kind] = cast(E, event)
        if not wanted:
            break
    return found


def _backwards(path: Path) -> Iterator[bytes]:
    """The whole lines of a file in blocks, the last block first; a line longer than a block comes in pieces."""
    try:
        with opened(path) as log:
            end, rest = log.seek(0, os.SEEK_END), b""
            while end > 0:
                start = max(0, end - BLOCK)
                log.seek(start)
                data = log.read(end - start) + rest
                cut = 0 if start == 0 else data.find(b"\n") + 1
                rest, end = data[:cut] if cut <= BLOCK else b"", start
                yield data[cut:]
    except FileNotFoundError:
        return


def parse(line: bytes) -> Event | None:
    """The event, or None for a torn or damaged line or an unknown kind."""
    try:
        record: Any = None if line_state(line) == "broken" else parse_json(line, constants=True)  # a loss may be NaN
        return from_record(record) if is_sound(record) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def opened(path: Path) -> BinaryIO:
    """The log ``path``. ``FileNotFoundError`` also where something else has its name: to open a pipe is to wait."""
    if not path.is_file():
        raise FileNotFoundError(ENOENT, "no log", str(path))
    return path.open("rb")


def _ends_with_newline(log: BinaryIO) -> bool:
    log.seek(-1, os.SEEK_END)
    return log.read(1) == b"\n"
