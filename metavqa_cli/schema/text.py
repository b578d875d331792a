"""Text from elsewhere made safe to print: nothing in it steers a terminal or hides, and it fits one of only ASCII."""

import json
import re
from typing import Any

# Controls but newline and tab (C0, DEL, C1), line and paragraph separators, what a file's name has instead of UTF-8;
# marks and overrides that reorder text; what cannot be seen: soft hyphen, zero-width and tag characters, fillers.
BASE = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff"
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u206f"
    "\\xad\\u034f\\u180e\\u200b\\u2060-\\u2065\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb"
    "\\U0001d173-\\U0001d17a\\U000e0000-\\U000e007f"
)
# Joiners and selectors make emoji and are letters of many scripts: between such, once, they are meant; elsewhere they
# hide something.
JOINERS, SELECTORS = "\\u200c\\u200d", "\\ufe00-\\ufe0f\\U000e0100-\\U000e01ef"
ODD = BASE + JOINERS + SELECTORS
LETTER = f"[^\\x00-\\x7f{ODD}]"
MEANT = (  # after the first odd character; that one is looked back at, for to search a set of characters is fast
    f"(?<={LETTER}[{JOINERS}])(?={LETTER})|(?<={LETTER}[{SELECTORS}])[{JOINERS}](?={LETTER})"
    f"|(?:(?<=[0-9#*][{SELECTORS}])|(?<={LETTER}[{SELECTORS}]))(?![{ODD}])"
)
UNSAFE = re.compile(f"[{ODD}](?<![{ODD}][\\s\\S])(?!{MEANT})[{ODD}]*")
ASCII = str.maketrans({
    "…": "...", "→": "->", "±": "+-", "γ": "gamma", "–": "-", "—": "-", "×": "x", "≥": ">=", "≤": "<=", "·": "-",
    "█": "#", "━": "-", "“": '"', "”": '"', "•": "*", "✓": "ok", "✗": "x",
})  # fmt: skip


def neutral(text: str, *, one_line: bool = False, ascii: bool = False) -> str:
    """``text`` with control, reordering and invisible characters shown as escapes; newlines and tabs too in a cell.

    With ``ascii`` other letters become ASCII ones where there are any, and escapes where there are none.
    """
    if text.isascii() and text.isprintable():
        return text
    safe = UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    if one_line:
        safe = safe.replace("\n", "\\n").replace("\t", "\\t")
    return plain(safe) if ascii else safe


def plain(text: str) -> str:
    """``text`` in ASCII."""
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode()


def json_text(value: Any, indent: int | None = None, *, ascii: bool = False, strict: bool = False) -> str:
    """``value`` as JSON, with the unsafe characters of its strings as JSON's own escapes: read back, it is the same.

    ``strict``: ``ValueError`` for a number that is not finite, which only Python's JSON has a word for.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=not strict)
    return UNSAFE.sub(lambda match: "".join(map(_json_escape, match[0])), text)


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
