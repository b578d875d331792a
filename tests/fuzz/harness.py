"""Feeds a parser inputs under limits of time and memory, and counts what becomes of them.

The property: a parser gives a value that passes its own checks, or raises a ``MetaVQAError`` whose text is one
printable sentence that names the file. Everything else is a failure: another exception, more than ``SECONDS`` of
processor time, more than ``ROOM`` bytes of memory.
"""

import json
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import randoms

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.schema.text import neutral
from tests.fuzz.mutations import Mutate, raw

SECONDS = 10.0  # of processor time for one input; the files are small
ROOM = 3 * 2**30  # bytes of address space beyond what the process had at the start
KEPT = 20  # failures that are told in full


class TooLong(BaseException):
    """An input took more than ``SECONDS``; no parser may catch it."""


@dataclass(frozen=True)
class Parser:
    """One parser: its sound inputs, how they are made unsound, and a call that parses the file and checks the value.

    ``parse`` raises ``AssertionError`` for a value that is not sound. ``named`` is what an error must name.
    """

    name: str
    path: Path
    seeds: list[bytes]
    mutate: Mutate
    parse: Callable[[], object]
    named: str
    lists: bool = False
    """Whether an error may be a list of several lines, as that of a configuration is."""


@dataclass
class Tally:
    """What became of the inputs of one parser."""

    parser: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def fail(self, number: int, what: str, detail: str) -> None:
        self.failures[what] += 1
        if self.failures[what] == 1 and len(self.examples) < KEPT:
            self.examples.append(f"{self.parser} {number}: {what}\n{detail}")


def limit_memory() -> None:
    """From here on the process may take ``ROOM`` more than it has."""
    with Path("/proc/self/statm").open() as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextmanager
def limited_time() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def sow(parser: Parser, tally: Tally) -> None:
    """Parse the seeds as they are: one that is refused would make every input of it one."""
    for number, seed in enumerate(parser.seeds):
        parser.path.write_bytes(seed)
        before = tally.accepted
        one(parser, number, tally)
        if tally.accepted == before:
            tally.fail(number, "a sound file is refused", "")
    tally.accepted = tally.refused = 0


def feed(parser: Parser, numbers: range, tally: Tally) -> None:
    """Parse the inputs with these numbers; the same number is the same input."""
    for number in numbers:
        put(parser, Random(f"{parser.name} {number}"), number, tally)


def search(parser: Parser, inputs: int, tally: Tally) -> None:
    """Let hypothesis make every choice of up to ``inputs`` mutations: of what fails it finds the simplest form."""

    @settings(max_examples=inputs, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(randoms(use_true_random=False))
    def each(rng: Random) -> None:
        failed = tally.failures.total()
        put(parser, rng, tally.inputs, tally)
        assert tally.failures.total() == failed

    with suppress(AssertionError):  # it is in the tally
        each()


def put(parser: Parser, rng: Random, number: int, tally: Tally) -> None:
    """Parse the input that the choices of ``rng`` lead to."""
    seed = rng.choice(parser.seeds)
    try:
        data = parser.mutate(seed, rng)
    except (RecursionError, ValueError, OverflowError):  # it became what Python itself cannot write
        data = raw(seed, rng)
    parser.path.unlink(missing_ok=True)
    parser.path.write_bytes(data)
    tally.inputs += 1
    one(parser, number, tally)


def one(parser: Parser, number: int, tally: Tally) -> None:
    try:
        with limited_time():
            parser.parse()
        tally.accepted += 1
    except MetaVQAError as error:
        tally.refused += 1
        if wrong := wrong_text(str(error), parser):
            tally.fail(number, f"{wrong} ({type(error).__name__})", repr(str(error))[:600])
    except (Exception, TooLong) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "metavqa_cli" in frame.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no frame"
        tally.fail(number, f"{type(error).__name__} at {where}", "".join(traceback.format_exception(error))[-1500:])


def wrong_text(text: str, parser: Parser) -> str | None:
    """What is wrong with an error's text."""
    checked = text.replace("\n  ", " ") if parser.lists else text
    if neutral(checked, one_line=True) != checked:
        return "an error with control characters"
    if parser.named not in text:
        return "an error that does not name its file"
    if not checked.strip() or len(text) > 20_000:
        return "an error of no length, or of too much"
    return None


def report(tallies: list[Tally]) -> str:
    """The table of parsers, inputs, accepted, refused, failures; then the failures."""
    rows = [("parser", "inputs", "accepted", "refused", "failures")]
    rows += [(t.parser, *(f"{n:,}" for n in (t.inputs, t.accepted, t.refused, t.failures.total()))) for t in tallies]
    sums = (sum(t.inputs for t in tallies), sum(t.accepted for t in tallies), sum(t.refused for t in tallies),
            sum(t.failures.total() for t in tallies))  # fmt: skip
    rows.append(("all", *(f"{n:,}" for n in sums)))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    cells = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
             for row in rows]  # fmt: skip
    table = "\n".join(map("  ".join, cells))
    found = [f"{count} x {parser.parser}: {what}" for parser in tallies for what, count in parser.failures.items()]
    return "\n".join([table, *found, *(example for t in tallies for example in t.examples)])


def as_json(tallies: list[Tally]) -> str:
    return json.dumps([{"parser": t.parser, "inputs": t.inputs, "accepted": t.accepted, "refused": t.refused,
                        "failures": dict(t.failures)} for t in tallies])  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
