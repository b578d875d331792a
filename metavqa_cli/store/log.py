"""A run's event log: one JSON object a line, only ever appended to, readable while it is being written."""

import os
import time
from pathlib import Path
from typing import BinaryIO

from metavqa_cli.schema.events import Event, from_record, is_sound, to_record
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.schema.text import json_text
from metavqa_cli.store.atomic import explained

TAIL_BYTES = 65_536  # enough to hold a run's last hundred events


def append(path: Path, event: Event) -> None:
    """Add one event to the log ``path``, with the time (``at``, seconds since 1970)."""
    line = json_text({**to_record(event), "at": round(time.time(), 3)}) + "\n"
    with explained(path), path.open("ab+") as log:
        if log.seek(0, os.SEEK_END) and not _ends_with_newline(log):
            line = "\n" + line  # a process was killed in the middle of a line: keep ours apart from it
        log.write(line.encode("utf-8"))


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events from byte ``offset`` on, and the offset to ask for next.

    A last line that is still being written is left for the next call; a torn line is skipped, and so is an event of a
    kind that this version does not know. A log shorter than ``offset`` (made again) is read from its beginning.
    """
    try:
        with path.open("rb") as log:
            start = offset if log.seek(0, os.SEEK_END) >= offset else 0
            log.seek(start)
            data = log.read()
    except FileNotFoundError:
        return [], 0
    complete = data[: data.rfind(b"\n") + 1]
    parsed = (_parse(line) for line in complete.splitlines())
    return [event for event in parsed if event is not None], start + len(complete)


def newest_first(path: Path) -> list[Event]:
    """The last hundred events or so, newest first, without reading a long log to its beginning."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = log.read().splitlines()
    except FileNotFoundError:
        return []
    parsed = (_parse(line) for line in reversed(lines))
    return [event for event in parsed if event is not None]


def _parse(line: bytes) -> Event | None:
    """The event, or None for a torn line or an unknown kind."""
    try:
        record = parse_json(line, constants=True)  # a loss may be NaN
        return from_record(record) if is_sound(record) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _ends_with_newline(log: BinaryIO) -> bool:
    log.seek(-1, os.SEEK_END)
    return log.read(1) == b"\n"
