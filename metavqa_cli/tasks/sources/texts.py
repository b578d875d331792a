"""What a question or an answer read from a file may be."""

import re

from metavqa_cli.schema.errors import JobError

MAX_TEXT = 1000  # characters; the longest text of the release has 45
ODD = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
SURROGATES = "\ud800"
WORD = re.compile(r"[^\W_]")


def check_length(text: str, what: str, place: str) -> str:
    """``text`` itself. ``JobError`` naming ``what`` and ``place`` when it is far too long to be one."""
    if len(text) > MAX_TEXT:
        raise JobError(
            f"{place}: the {what} has {len(text):,} characters ({text[:40]!r}…), expected at most {MAX_TEXT:,}; "
            "mend the file"
        )
    return text


def oddity(text: str) -> str | None:
    """What in ``text`` no question or answer has: a control character, or half of a character."""
    if (match := ODD.search(text)) is None:
        return None
    return f"the {'half' if match[0] >= SURROGATES else 'control'} character U+{ord(match[0]):04X}"


def writable(text: str) -> str:
    """``text`` with a question mark in place of each half character, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return WORD.search(text) is not None
