"""Whether a run's log is what was written, line by line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.schema.events import CheckpointSaved, RunFinished, RunStarted
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store.log import CRC_BYTES, line_state, parse, sealed

RECENT = 10_000  # lines among which one that comes twice is looked for
BEGINNING = b'{"event": "'


@dataclass(frozen=True)
class LogState:
    """What was found: numbers of lines (from 1), and what the log says of its run.

    ``torn`` lines were not written to their end, because a process was killed; it went on in the line after.
    ``torn_end``: the last line is such a line, or lacks only its line end, and nothing came after it.
    """

    lines: int = 0
    damaged: tuple[int, ...] = ()
    torn: tuple[int, ...] = ()
    unsealed: int = 0
    torn_end: bool = False
    run: str | None = None
    finished: bool = False
    resumable: bool = False


def examine(path: Path, start: int = 0) -> LogState:
    """Read the log ``path`` from byte ``start`` on, a line at a time. No log is an empty one."""
    damaged: list[int] = []
    torn: list[int] = []
    unsealed = number = 0
    run, finished, resumable, torn_end = None, False, False, False
    recent: dict[int, None] = {}
    suspect = 0  # a line that may be torn, which the next one tells
    state = ""
    for number, raw in enumerate(_lines(path, start), 1):
        line, torn_end = raw.rstrip(b"\n"), not raw.endswith(b"\n")
        state, event = line_state(line), parse(line)
        if suspect:
            (torn if isinstance(event, RunStarted) else damaged).append(suspect)
            suspect = 0
        if isinstance(event, RunStarted):
            run, finished = event.run, False
        finished = finished or isinstance(event, RunFinished)
        resumable = resumable or isinstance(event, CheckpointSaved)
        twice = hash(line) in recent and state == "sealed"  # no two events have the same content and time
        recent[hash(line)] = None
        if len(recent) > RECENT:
            del recent[next(iter(recent))]
        if twice or state == "broken" or (state == "unsealed" and _was_sealed(line)):
            damaged.append(number)
        elif state == "unsealed" and not _is_json(line):
            suspect = number if _is_torn(line) else 0
            damaged += [] if suspect else [number]
        unsealed += state == "unsealed" and not suspect and number not in damaged[-1:]
    if suspect and not torn_end:
        damaged.append(suspect)
    torn_end = torn_end and (suspect > 0 or state == "sealed")
    return LogState(number, tuple(damaged), tuple(torn), unsealed, torn_end, run, finished, resumable)


def _lines(path: Path, start: int) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as log:
            log.seek(start)
            yield from log


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line, constants=True), dict)
    except ValueError:
        return False


def _is_torn(line: bytes) -> bool:
    """Whether a line that is no JSON may be the first part of an event's."""
    return line.startswith(BEGINNING) or BEGINNING.startswith(line)


def _was_sealed(line: bytes) -> bool:
    """Whether a line without a sound CRC ends in all but a byte or two of the CRC of what is before it."""
    whole = sealed(line[:-CRC_BYTES] + b"}")
    differing = sum(a != b for a, b in zip(whole[-CRC_BYTES:], line[-CRC_BYTES:], strict=False))
    return len(whole) == len(line) and differing < 3
