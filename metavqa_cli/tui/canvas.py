"""Dots within text: braille, two across and four down in a cell, or ASCII, one across and two down; and the marks by
which lines are told apart without colour."""

from dataclasses import dataclass

from metavqa_cli.tui.plot import ASCII_MARKS, DOTS, MARKS

BRAILLE = 0x2800
BITS = tuple(tuple(sum(column[row] for row in range(4) if rows >> row & 1) for rows in range(16)) for column in DOTS)
ASCII_DOTS = " '.|"  # none, the upper, the lower, both


@dataclass(frozen=True)
class Grain:
    """How many dots a text cell has, ``across`` and ``down``."""

    across: int
    down: int

    def bits(self, column: int, rows: int) -> int:
        """What a cell shows of one of its dot columns, whose raised ``rows`` are bits, the top one first."""
        return BITS[column][rows] if self.down == 4 else rows

    def text(self, bits: int) -> str:
        """The character with these dots raised."""
        return (chr(BRAILLE + bits) if bits else " ") if self.down == 4 else ASCII_DOTS[bits]


FINE, COARSE = Grain(2, 4), Grain(1, 2)


def mark_of(line: int, ascii: bool) -> str:
    """The mark of the ``line``-th line; with more lines than marks they come round again."""
    marks = ASCII_MARKS if ascii else MARKS
    return marks[line % len(marks)]
