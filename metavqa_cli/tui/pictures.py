"""Images as characters: half blocks in two colours, or brightness in ASCII; and tiles of them side by side.

A line is a list of rich segments. Rich and Pillow are imported when an image is drawn, not before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.segment import Segment

    Line = list[Segment]

UPPER = "▀"
RAMP = " .:-=+*#%@"  # from dark to bright, as on a dark terminal
NARROWEST, BETWEEN = 24, 2  # columns of a tile (fewer hide what a picture is of), and between two


@dataclass(frozen=True)
class Tile:
    """A picture with a label under it; without an image its ``label`` stands in an empty frame too."""

    image: "Image | None"
    label: str
    missing: str = ""


def half_blocks(image: "Image", width: int) -> "list[Line]":
    """``image`` (RGB) in at most ``width`` columns and half as many lines: each character is two pixels, one a half."""
    from rich.color import Color
    from rich.segment import Segment
    from rich.style import Style

    pixels = _fitted(image, width, width)
    lines: list[Line] = []
    for y in range(0, pixels.height, 2):
        line = []
        for x in range(pixels.width):
            upper, lower = (Color.from_rgb(*_rgb(pixels, x, at)) if at < pixels.height else None for at in (y, y + 1))
            line.append(Segment(UPPER, Style(color=upper, bgcolor=lower)))
        lines.append(line)
    return lines


def shades(image: "Image", width: int) -> "list[Line]":
    """``image`` in at most ``width`` columns and half as many lines of ASCII characters, dense ones where it is bright.

    The darkest pixel is a space and the brightest an ``@``, so that a dim photograph can be made out too.
    """
    from PIL import ImageOps
    from rich.segment import Segment

    pixels = ImageOps.autocontrast(_fitted(image.convert("L"), width, width))
    pixels = pixels.resize((pixels.width, max(1, pixels.height // 2)))  # a character is twice as high as wide
    grey = pixels.tobytes()
    text = "".join(RAMP[value * len(RAMP) // 256] for value in grey)
    return [[Segment(text[at : at + pixels.width])] for at in range(0, len(text), pixels.width)]


def arrange(tiles: Sequence[Tile], width: int, *, color: bool) -> "list[Line]":
    """``tiles`` in as many columns as ``width`` (at least 4) has room for, with an empty line between rows."""
    columns = max(1, (width + BETWEEN) // (NARROWEST + BETWEEN))
    side = max(4, min(width, (width + BETWEEN) // columns - BETWEEN))
    lines: list[Line] = []
    for first in range(0, len(tiles), columns):
        lines += [*_beside([_block(tile, side, color) for tile in tiles[first : first + columns]], side), []]
    return lines[:-1]


@dataclass(frozen=True)
class Lines:
    """Lines that a rich console prints as they are."""

    lines: "list[Line]"

    def __rich_console__(self, console: Any, options: Any) -> "Iterator[Segment]":
        from rich.segment import Segment

        for line in self.lines:
            yield from line
            yield Segment.line()


def _fitted(image: "Image", width: int, height: int) -> "Image":
    """``image`` scaled to fit into ``width`` × ``height`` pixels, each side at least one."""
    from PIL.Image import Resampling

    scale = min(width / image.width, height / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Resampling.LANCZOS)


def _rgb(image: "Image", x: int, y: int) -> Sequence[int]:
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


def _block(tile: Tile, side: int, color: bool) -> "list[Line]":
    """The lines of one tile, each at most ``side`` columns wide, the label last."""
    from rich.segment import Segment
    from rich.style import Style

    if tile.image is None:
        picture = _frame(tile.missing, side)
    else:
        picture = half_blocks(tile.image, side) if color else shades(tile.image, side)
    return [*picture, [Segment(_cut(tile.label, side), Style(bold=True))]]


def _frame(name: str, side: int) -> "list[Line]":
    """An empty frame of ASCII characters with ``name`` in it, folded."""
    from rich.cells import chop_cells, set_cell_size
    from rich.segment import Segment

    inner = side - 2
    height = max(1, side // 2 - 2)
    words = chop_cells(name, inner)[:height] or [""]
    above = (height - len(words)) // 2
    rows = [*[""] * above, *words, *[""] * (height - len(words) - above)]
    edge = f"+{'-' * inner}+"
    return [[Segment(text)] for text in (edge, *(f"|{set_cell_size(row, inner)}|" for row in rows), edge)]


def _cut(text: str, width: int) -> str:
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
