"""JSON files read piece by piece, so that a file of hundreds of megabytes costs the memory of one record.

Every mistake in a file is a ``JobError`` that names the file and the place.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.strict import kind
from metavqa_cli.tasks.sources.material import Progress, unwatched
from metavqa_cli.tasks.sources.packed import Source, text_of

MAX_VALUE = 16 * 1024**2  # characters of one record; the largest task of the release has 80,000
LONGEST_TAIL = 2  # of a number that is cut where it may go on: "1.", "1e+"
SPACE = re.compile(r"[ \t\r\n]*")


def shown(value: Any) -> str:
    """A value in an error text: short, and on one line."""
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, say
        return kind(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_not_json)


def items(source: Source, progress: Progress = unwatched) -> Iterator[tuple[str, int | None, Any]]:
    """The members of the object that a file holds, as (key, None, value); a list comes as (key, index, element) each.

    An empty list yields (key, -1, None) once, so that its key is known to be there. ``JobError`` as in the module's
    docstring, also for a key that comes twice.
    """
    text = _Text(source, progress)
    text.expect("{", "an object ({…})")
    keys: set[str] = set()
    while text.peek() != "}" or keys:
        key = text.key()
        if key in keys:
            text.fail(f"the key {shown(key)} comes a second time")
        keys.add(key)
        if text.peek() == "[":
            yield from ((key, index, value) for index, value in text.elements())
        else:
            yield key, None, text.value()
        if text.peek() != ",":
            break
        text.skip()
    text.expect("}", "a comma or the end of the object")
    if text.peek():
        text.fail("something follows the end of the object")


class _Text:
    """A JSON text of which only a window is in memory."""

    def __init__(self, source: Source, progress: Progress) -> None:
        self.source, self.chunks = source, text_of(source, progress)
        self.window, self.at, self.ended = "", 0, False
        self.line, self.column = 1, 1  # of the window's first character

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            self.at = SPACE.match(self.window, self.at).end()  # type: ignore[union-attr]  # it matches anywhere
            if self.at < len(self.window) or not self._more(1):
                return self.window[self.at : self.at + 1]

    def skip(self) -> None:
        """Go past the character that ``peek`` gave."""
        self.at += 1

    def expect(self, character: str, what: str) -> None:
        """Go past ``character``, or say that ``what`` was expected."""
        found = self.peek()
        if found != character:
            self.fail(f"{shown(found) if found else 'the end of the file'} stands where {what} was expected")
        self.skip()

    def key(self) -> str:
        """A key and its colon."""
        if self.peek() != '"':
            self.expect('"', "a key")
        key = self.value()
        self.expect(":", "a colon")
        return str(key)

    def elements(self) -> Iterator[tuple[int, Any]]:
        """The elements of the list that begins here; (-1, None) when it has none."""
        self.skip()
        index = -1
        if self.peek() == "]":
            yield index, None
        else:
            while index < 0 or self.peek() == ",":
                self.at += index >= 0
                index += 1
                yield index, self.value()
        self.expect("]", "a comma or the end of the list")

    def value(self) -> Any:
        """The whole value that comes next."""
        while True:
            try:
                self.at = SPACE.match(self.window, self.at).end()  # type: ignore[union-attr]  # it matches anywhere
                value, end = DECODER.raw_decode(self.window, self.at)
                if end + LONGEST_TAIL < len(self.window) or not self._more(1):
                    self.at = end
                    return value
            except RecursionError:
                self.fail("its values are nested too deeply")
            except ValueError as error:
                size = len(self.window) - self.at
                if not isinstance(error, json.JSONDecodeError) or size > MAX_VALUE or not self._more(max(1, size)):
                    self._explain(error)

    def _more(self, least: int) -> bool:
        """Read on by at least ``least`` characters; False at the end. Doubling keeps retries linear in the size."""
        if self.ended:
            return False
        self.line, self.column = self._place(self.at)
        parts, self.at = [self.window[self.at :]], 0
        while least > 0 and not self.ended:
            chunk = next(self.chunks, None)
            self.ended = chunk is None
            parts.append(chunk or "")
            least -= len(chunk or "")
        self.window = "".join(parts)
        return len(parts) > 1 and bool(self.window)

    def _place(self, at: int) -> tuple[int, int]:
        """Line and column of the window's character ``at``, from 1."""
        newlines = self.window.count("\n", 0, at)
        if not newlines:
            return self.line, self.column + at
        return self.line + newlines, at - self.window.rfind("\n", 0, at)

    def _explain(self, error: ValueError) -> NoReturn:
        if not isinstance(error, json.JSONDecodeError):
            self.fail("a number has too many digits" if "digits" in str(error) else str(error))
        cut = self.ended and (error.pos >= len(self.window.rstrip()) or error.msg.startswith("Unterminated"))
        self.fail("the file ends in the middle" if cut else error.msg[0].lower() + error.msg[1:], error.pos)

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        line, column = self._place(self.at if at is None else at)
        raise JobError(
            f"{self.source}, line {line:,}, column {column:,}: {reason}; name the right file, or copy it again"
        )
