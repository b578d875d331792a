"""How the dashboard may draw: with which characters, and whether with colour."""

from collections.abc import Iterable
from dataclasses import dataclass
from re import Match

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from metavqa_cli.schema.text import ASCII, UNSAFE, neutral

# One character for one, so that nothing moves: what Textual and this dashboard draw frames, bars and marks with.
SINGLE = str.maketrans({
    **dict.fromkeys("─╌┄┈▁▔▂▃", "-"), **dict.fromkeys("━═", "="), **dict.fromkeys("│┃║▌▐▎▊▍▏▕", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╺╸┏┓┗┛┣┫┳┻╋", "+"), **dict.fromkeys("█▀▄▇▆▅", "#"), **dict.fromkeys("░▒▓", ":"),
    "●": "*", "○": "o", "◉": "@", "◌": ".", "▶": ">", "►": ">", "▼": "v", "▲": "^", "△": "^", "▽": "v", "◀": "<",
    "⭘": "O", "✓": "x", "✔": "x", "✗": "x", "★": "*", "☆": "*", "…": ".", "·": "-", "•": "*", "→": ">", "←": "<",
    "↑": "^", "↓": "v", "γ": "g", "±": "~", "×": "x", "–": "-", "—": "-", "⏎": "<", "≥": ">", "≤": "<", "“": '"',
    "”": '"', "−": "-", "⌂": "^", "\u00a0": " ",
})  # fmt: skip


@dataclass(frozen=True)
class Look:
    """``ascii``: print only ASCII. ``color``: colours may be used; never to say what nothing else says."""

    ascii: bool = False
    color: bool = True

    def text(self, text: str, *, one_line: bool = True) -> str:
        """Text from elsewhere (a question, a file's name, an error) as it may be shown: no control characters."""
        return neutral(text, one_line=one_line, ascii=self.ascii)

    def pick(self, fine: str, plain: str) -> str:
        """``fine``, or ``plain`` where only ASCII is printed."""
        return plain if self.ascii else fine


class SafeFilter(LineFilter):
    """The last gate: what a widget has forgotten to pass through ``Look.text`` steers no terminal all the same."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.control or (segment.text.isascii() and segment.text.isprintable())
            else Segment(UNSAFE.sub(_marked, segment.text), segment.style)
            for segment in segments
        ]  # fmt: skip


def _marked(match: Match[str]) -> str:
    return "?" * cell_len(match[0])


class AsciiFilter(LineFilter):
    """Whatever a widget draws, only ASCII reaches the screen, each character in as many cells as before."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(ascii_cells(text), style, control) for text, style, control in segments]


def ascii_cells(text: str) -> str:
    """``text`` in ASCII, as many cells wide."""
    if text.isascii():
        return text
    return "".join(_cells(text.translate(SINGLE)))


def _cells(text: str) -> Iterable[str]:
    for letter in text:
        if letter.isascii():
            yield letter
        else:
            known = ASCII.get(ord(letter), "?")
            width = cell_len(letter)
            yield known if len(known) == width else "?" * width
