"""Text from elsewhere made safe to print: nothing in it can steer a terminal, and it fits one that knows only ASCII."""

import re

# C0, DEL, C1, line and paragraph separators, the marks that reorder text, and what a file's name has instead of UTF-8:
# all but newline and tab.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ASCII = str.maketrans({
    "…": "...", "→": "->", "±": "+-", "γ": "gamma", "–": "-", "—": "-", "×": "x", "≥": ">=", "≤": "<=", "·": "-",
    "█": "#", "━": "-", "“": '"', "”": '"', "•": "*", "✓": "ok", "✗": "x",
})  # fmt: skip


def neutral(text: str, *, one_line: bool = False, ascii: bool = False) -> str:
    """``text`` with control and reordering characters made visible as escapes; newlines and tabs too in a cell.

    With ``ascii`` other letters become ASCII ones where there are any, and escapes where there are none.
    """
    safe = UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    if one_line:
        safe = safe.replace("\n", "\\n").replace("\t", "\\t")
    return plain(safe) if ascii else safe


def plain(text: str) -> str:
    """``text`` in ASCII."""
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode()
