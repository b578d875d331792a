"""Images as characters: half blocks in two colours, or brightness in ASCII; and tiles of them side by side.

A line is a list of rich segments. Rich and Pillow are imported when an image is drawn, not before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.color import Color
    from rich.segment import Segment
    from rich.style import Style

    Line = list[Segment]

UPPER = "▀"
RAMP = " .:-=+*#%@"  # from dark to bright, as on a dark terminal
STEPS = [(value & 0xF8) | (value >> 5) for value in range(256)]
NARROWEST, BETWEEN = 24, 2  # columns of a tile (fewer hide what a picture is of), and between two


@dataclass(frozen=True)
class Tile:
    """A picture with a label under it; without an image its ``label`` stands in an empty frame too."""

    image: "Image | None"
    label: str
    missing: str = ""


def half_blocks(image: "Image", width: int, height: int | None = None, exact: bool = True) -> "list[Line]":
    """``image`` (RGB) in at most ``width`` columns and ``height`` lines (None: half as many as columns).

    Each character is two pixels, one a half. Neighbours of one colour are one segment. If not ``exact``, colours are in
    steps of 8 (of 256), which nobody sees: half as many segments and styles to make, to keep and to paint.
    """
    from rich.segment import Segment

    pixels = _fitted(image, width, width if height is None else 2 * height)
    if not exact:
        pixels = pixels.point(STEPS * len(image.getbands()))
    flat = pixels.tobytes()
    row = 3 * pixels.width
    lines: list[Line] = []
    for top in range(0, len(flat), 2 * row):
        halves = zip_longest(_triples(flat[top : top + row]), _triples(flat[top + row : top + 2 * row]))
        runs = ((len(list(cells)), colors) for colors, cells in groupby(halves))
        lines.append([Segment(UPPER * count, _style(upper, lower)) for count, (upper, lower) in runs])
    return lines


def _triples(row: bytes) -> Iterator[tuple[int, ...]]:
    return zip(*[iter(row)] * 3, strict=True)


@lru_cache(maxsize=1 << 12)
def _style(upper: tuple[int, int, int], lower: tuple[int, int, int] | None) -> "Style":
    """The colours of a half block; below an odd last row the terminal's own colour stays."""
    from rich.style import Style

    return Style(color=_color(*upper), bgcolor=None if lower is None else _color(*lower))


@lru_cache(maxsize=1 << 12)
def _color(red: int, green: int, blue: int) -> "Color":
    """One object for all styles that have this colour."""
    from rich.color import Color

    return Color.from_rgb(red, green, blue)


def shades(image: "Image", width: int, height: int | None = None) -> "list[Line]":
    """``image`` in at most ``width`` columns and ``height`` lines of ASCII characters, dense ones where it is bright.

    ``height`` None: half as many as columns. The darkest pixel is a space and the brightest an ``@``, so that a dim
    photograph can be made out too.
    """
    from PIL import ImageOps
    from rich.segment import Segment

    pixels = ImageOps.autocontrast(_fitted(image.convert("L"), width, width if height is None else 2 * height))
    pixels = pixels.resize((pixels.width, max(1, pixels.height // 2)))  # a character is twice as high as wide
    grey = pixels.tobytes()
    text = "".join(RAMP[value * len(RAMP) // 256] for value in grey)
    return [[Segment(text[at : at + pixels.width])] for at in range(0, len(text), pixels.width)]


def arrange(tiles: Sequence[Tile], width: int, *, color: bool) -> "list[Line]":
    """``tiles`` in as many columns as ``width`` (at least 4) has room for, with an empty line between rows."""
    columns = columns_in(width)
    side = max(4, min(width, (width + BETWEEN) // columns - BETWEEN))
    lines: list[Line] = []
    for first in range(0, len(tiles), columns):
        lines += [*_beside([_block(tile, side, color) for tile in tiles[first : first + columns]], side), []]
    return lines[:-1]


def columns_in(width: int) -> int:
    """How many tiles stand side by side in ``width`` columns, none narrower than ``NARROWEST``; at least one."""
    return max(1, (width + BETWEEN) // (NARROWEST + BETWEEN))


@dataclass(frozen=True)
class Lines:
    """Lines that a rich console prints as they are."""

    lines: "list[Line]"

    def __rich_console__(self, console: Any, options: Any) -> "Iterator[Segment]":
        from rich.segment import Segment

        for line in self.lines:
            yield from line
            yield Segment.line()


def drawn(image: "Image", width: int, height: int, *, color: bool) -> "list[Line]":
    """``half_blocks`` or ``shades``, remembered: lines that are drawn again (scrolled, resized back) cost nothing."""
    return _drawn(_Same(image), width, height, color)


@dataclass(frozen=True, eq=False)
class _Same:
    """An image as a key: the same object, not the same pixels (comparing those would take long)."""

    image: "Image"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.image is self.image

    def __hash__(self) -> int:
        return id(self.image)


@lru_cache(maxsize=96)
def _drawn(image: _Same, width: int, height: int, color: bool) -> "list[Line]":
    return half_blocks(image.image, width, height, False) if color else shades(image.image, width, height)


def _fitted(image: "Image", width: int, height: int) -> "Image":
    """``image`` scaled to fit into ``width`` × ``height`` pixels, each side at least one."""
    from PIL.Image import Resampling

    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)  # large ones are halved first: many times quicker


def _block(tile: Tile, side: int, color: bool) -> "list[Line]":
    """The lines of one tile, each at most ``side`` columns wide, the label last."""
    from rich.segment import Segment
    from rich.style import Style

    if tile.image is None:
        picture = frame(tile.missing, side, side // 2)
    else:
        picture = half_blocks(tile.image, side) if color else shades(tile.image, side)
    return [*picture, [Segment(cut(tile.label, side), Style(bold=True))]]


def frame(words: str, width: int, height: int) -> "list[Line]":
    """An empty frame of ASCII characters with ``words`` in it, folded; what does not fit is left out."""
    from rich.cells import set_cell_size
    from rich.segment import Segment

    inner, room = max(0, width - 2), max(1, height - 2)
    folded = fold(words, inner)[:room]
    above = (room - len(folded)) // 2
    rows = [*[""] * above, *folded, *[""] * (room - len(folded) - above)]
    edge = f"+{'-' * inner}+"
    return [[Segment(text)] for text in (edge, *(f"|{set_cell_size(row, inner)}|" for row in rows), edge)]


def fold(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken between words where that is possible."""
    from rich.cells import cell_len, chop_cells

    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines += chop_cells(word, width) if width > 0 else []
    return lines


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns, with dots where something is left out."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 3).rstrip() + "..."


def _beside(blocks: "Sequence[list[Line]]", side: int) -> "list[Line]":
    """Blocks side by side: pictures stand on one line, and so do the labels below them."""
    from rich.segment import Segment

    height = max(map(len, blocks))
    lines: list[Line] = []
    for at in range(height):
        line: Line = []
        for number, block in enumerate(blocks):
            own = block[at - height + len(block)] if at >= height - len(block) else []
            gap = side - sum(segment.cell_length for segment in own)
            line += [*own, Segment(" " * (gap + (BETWEEN if number < len(blocks) - 1 else 0)))]
        lines.append(line)
    return lines
