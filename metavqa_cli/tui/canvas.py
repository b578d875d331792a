"""Dots within text: braille, two across and four down in a cell, or ASCII, one across and two down; and the marks by
which lines are told apart without colour."""

from dataclasses import dataclass

from metavqa_cli.tui.plot import ASCII_MARKS, DOTS, MARKS

BRAILLE = 0x2800
BITS = tuple(tuple(sum(column[row] for row in range(4) if rows >> row & 1) for rows in range(16)) for column in DOTS)
ASCII_DOTS = " '.|"  # none, the upper, the lower, both


@dataclass(frozen=True)
class Grain:
    """How many dots a text cell has, ``across`` and ``down``; tables, for a chart looks up thousands of cells."""

    across: int
    down: int
    bits: tuple[tuple[int, ...], ...]
    """What a cell shows of one of its dot columns, by that column and its raised rows as bits, the top one first."""
    texts: str
    """The character with these dots raised."""


FINE = Grain(2, 4, BITS, " " + "".join(chr(BRAILLE + bits) for bits in range(1, 256)))
COARSE = Grain(1, 2, (tuple(range(4)),), ASCII_DOTS)


def mark_of(line: int, ascii: bool) -> str:
    """The mark of the ``line``-th line; with more lines than marks they come round again."""
    marks = ASCII_MARKS if ascii else MARKS
    return marks[line % len(marks)]
