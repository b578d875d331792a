"""Curves in a terminal: series with bands and level lines as plain lines of text, in braille or ASCII."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, pairwise

from metavqa_cli.schema.text import plain

MARKS, ASCII_MARKS = "●▲■◆✚○△□◇▼", "ox+#@%&$?="
RULES, ASCII_RULES = "╌┈━═", "-~=_"
STAR, RULE = ("★", "*"), ("┆", "!")
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille character, by column and row
SMALLEST = (32, 8)
COARSE = 1e-9  # of the values: they are one where they differ by less
SPREAD = "± s.d. over seeds"

Band = float | tuple[float, float] | None  # on both sides, or below and above


@dataclass(frozen=True)
class Series:
    """Points joined by a curve; ``spread`` (one for each point, None where unknown) is drawn as a band around it.

    Points that are not finite are left out. One with a ``mark`` of its own takes none of the others'; without a
    ``label`` it is not in the legend.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    spread: Sequence[Band] = ()
    mark: str = ""


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with; ``note`` follows its number in the legend."""

    label: str
    y: float
    note: str = ""


@dataclass
class _Canvas:
    """The area within the axes: text cells of ``dots`` (across, down) each; row 0 is at the top."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    dots: tuple[int, int]
    cells: dict[tuple[int, int], str] = field(default_factory=dict)
    raised: set[tuple[int, int]] = field(default_factory=set)

    def dot(self, x: float, y: float) -> tuple[int, int]:
        """Column and row of the dot nearest to a point of the data."""
        across, down = self.width * self.dots[0] - 1, self.height * self.dots[1] - 1
        return (round((x - self.x[0]) / (self.x[1] - self.x[0]) * across),
                round((self.y[1] - y) / (self.y[1] - self.y[0]) * down))  # fmt: skip

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """Column and row of the text cell that holds a point of the data."""
        column, row = self.dot(x, y)
        return column // self.dots[0], row // self.dots[1]

    def depth(self, y: float) -> float:
        """How many rows of text a height of the data is below the top."""
        return (self.y[1] - y) / (self.y[1] - self.y[0]) * self.height

    def lines(self) -> list[str]:
        """The rows of text: dots where nothing else is."""
        return ["".join(self._text(column, row) for column in range(self.width)) for row in range(self.height)]

    def _text(self, column: int, row: int) -> str:
        across, down = self.dots
        if (column, row) in self.cells:
            return self.cells[column, row]
        raised = [(i, j) for i in range(across) for j in range(down)
                  if (column * across + i, row * down + j) in self.raised]  # fmt: skip
        if (across, down) == (1, 1):
            return "." if raised else " "
        return chr(0x2800 + sum(DOTS[i][j] for i, j in raised)) if raised else " "


def plot(
    series: Sequence[Series],
    levels: Sequence[Level] = (),
    width: int = 80,
    height: int = 20,
    ascii: bool = False,
    x_label: str = "γ",
    y_label: str = "accuracy in per cent",
    band: str = SPREAD,
    rule: float | None = None,
) -> list[str]:
    """The curves with axes and a legend, as lines of at most ``width`` characters; ``band`` says what the bands are.

    A vertical line stands at ``rule``, behind the curves.

    ``height`` is that of the whole without the legend, which follows in as many lines as it needs. A series is known
    by the mark at its points, a level by its kind of line. Below 32 × 8 it is drawn as if that were given.
    """
    width, height = max(width, SMALLEST[0]), max(height, SMALLEST[1])
    series, levels = [_finite(one) for one in series], [level for level in levels if math.isfinite(level.y)]
    rule = rule if rule is not None and math.isfinite(rule) else None
    x_label, y_label = (plain(label) if ascii else label for label in (x_label, y_label))
    y_range = _padded(_heights(series, levels))
    y_ticks = _ticks(*y_range, max(2, (height - 4) // 3))
    margin = max(len(text) for text in y_ticks.values())
    xs = [x for one in series for x in one.xs] + ([] if rule is None else [rule])
    canvas = _Canvas(width - margin - 2, height - 4, _padded(xs, 0.02), y_range, (1, 1) if ascii else (2, 4))
    _draw(canvas, series, levels, rule, ascii)
    return [line.rstrip() for line in [
        y_label, *_framed(canvas, y_ticks, margin, ascii), *_x_axis(canvas, series, margin, ascii),
        x_label.rjust(margin + 2 + canvas.width // 2 + len(x_label) // 2),
        *_legend(series, levels, band, width, ascii),
    ]]  # fmt: skip


def _finite(series: Series) -> Series:
    """Without the points, and without the bands of points, that are not finite."""
    bands = [band if all(map(math.isfinite, _edges(band))) else None for band in series.spread]
    points = zip(series.xs, series.ys, bands or [None] * len(series.xs), strict=True)
    kept = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    return replace(series, xs=[x for x, *_ in kept], ys=[y for _, y, _ in kept], spread=[band for *_, band in kept])


def _edges(band: Band) -> tuple[float, float]:
    """How far a band goes below and above."""
    return band if isinstance(band, tuple) else (band or 0.0,) * 2


def _heights(series: Sequence[Series], levels: Sequence[Level]) -> list[float]:
    edges = [edge for one in series for _, y, (below, above) in _points(one) for edge in (y - below, y + above)]
    return edges + [level.y for level in levels]


def _points(series: Series) -> list[tuple[float, float, tuple[float, float]]]:
    """x, y and how far the band goes below and above, in the order of x; no band is 0."""
    return sorted(zip(series.xs, series.ys, map(_edges, series.spread), strict=True))


def marks_of(series: Sequence[Series], ascii: bool) -> list[str]:
    """The mark of each series: its own, else the next of the usual ones."""
    usual = cycle(ASCII_MARKS if ascii else MARKS)
    return [one.mark or next(usual) for one in series]


def _padded(values: Iterable[float], part: float = 0.05) -> tuple[float, float]:
    """The range of ``values`` with some room at both ends, also around a single one or such as floats hardly tell."""
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    room = part * (high - low) if high - low > COARSE * max(1.0, abs(low), abs(high)) else 0.5
    return low - room, high + room


def _ticks(low: float, high: float, most: int) -> dict[float, str]:
    """At most ``most`` round numbers (but two if that is possible) within a range, as text with equal decimals."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= rough)
    decimals = max(0, -math.floor(math.log10(step)) + (round(step / 10 ** math.floor(math.log10(step)), 6) == 2.5))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return {i * step: f"{i * step:.{decimals}f}" for i in range(first, last + 1)}


def _draw(canvas: _Canvas, series: Sequence[Series], levels: Sequence[Level], rule: float | None, ascii: bool) -> None:
    """Bands first, then levels, the vertical line, curves and marks, each over what was there before."""
    for one in series:
        _draw_band(canvas, one, ":" if ascii else "░")
    for level, line in zip(levels, cycle(ASCII_RULES if ascii else RULES), strict=False):
        row = canvas.cell(canvas.x[0], level.y)[1]
        canvas.cells.update({(column, row): line for column in range(canvas.width)})
    if rule is not None:
        column = canvas.cell(rule, canvas.y[0])[0]
        canvas.cells.update({(column, row): RULE[ascii] for row in range(canvas.height)})
    for one in series:
        _draw_curve(canvas, one)
    for one, mark in zip(series, marks_of(series, ascii), strict=True):
        canvas.cells.update({canvas.cell(x, y): mark for x, y, _ in _points(one)})


def _draw_band(canvas: _Canvas, series: Series, shade: str) -> None:
    """Shade the cells whose middle lies within the band."""
    points = _points(series)
    for (x0, y0, (below0, above0)), (x1, y1, (below1, above1)) in zip(points, points[1:] or points, strict=False):
        first, last = canvas.cell(x0, y0)[0], canvas.cell(x1, y1)[0]
        for column in range(first, last + 1):
            part = (column - first) / max(1, last - first)
            y = y0 + part * (y1 - y0)
            edges = y + above0 + part * (above1 - above0), y - below0 - part * (below1 - below0)
            top, bottom = (math.ceil(canvas.depth(edge) - 0.5) for edge in edges)
            canvas.cells.update({(column, row): shade for row in range(top, bottom)})


def _draw_curve(canvas: _Canvas, series: Series) -> None:
    """Raise the dots along the curve, in cells cleared of what was there."""
    points = [canvas.dot(x, y) for x, y, _ in _points(series)]
    for (x0, y0), (x1, y1) in pairwise(points):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            column, row = round(x0 + i * (x1 - x0) / steps), round(y0 + i * (y1 - y0) / steps)
            canvas.raised.add((column, row))
            canvas.cells.pop((column // canvas.dots[0], row // canvas.dots[1]), None)


def _framed(canvas: _Canvas, ticks: dict[float, str], margin: int, ascii: bool) -> list[str]:
    bar, tick = ("|", "+") if ascii else ("│", "┤")
    labels = {canvas.cell(canvas.x[0], y)[1]: text for y, text in ticks.items()}
    return [f"{labels.get(row, '').rjust(margin)} {tick if row in labels else bar}{line}"
            for row, line in enumerate(canvas.lines())]  # fmt: skip


def _x_axis(canvas: _Canvas, series: Sequence[Series], margin: int, ascii: bool) -> list[str]:
    """The axis and its numbers: the points' own x where they have room, else round numbers."""
    corner, bar, tick = ("+", "-", "+") if ascii else ("└", "─", "┬")
    own = {x: f"{x:g}" for one in series if not one.mark for x in one.xs}
    choices = [own, *(_ticks(*canvas.x, most) for most in (canvas.width // 10, 4, 3, 2, 1) if most)]
    placed = next(filter(None, (_placed(canvas, ticks, margin) for ticks in choices)), [])
    axis, numbers = [bar] * canvas.width, ""
    for column, start, text in placed:
        axis[column] = tick
        numbers = numbers.ljust(start) + text
    return [" " * (margin + 1) + corner + "".join(axis), numbers]


def _placed(canvas: _Canvas, ticks: dict[float, str], margin: int) -> list[tuple[int, int, str]]:
    """The column of each tick, where its text begins, and the text; nothing where two would touch."""
    columns = sorted((canvas.cell(x, canvas.y[0])[0], text) for x, text in ticks.items())
    whole = margin + 2 + canvas.width
    placed = [(column, min(max(0, margin + 2 + column - len(text) // 2), whole - len(text)), text)
              for column, text in columns]  # fmt: skip
    crowded = any(b < a + len(text) + 2 for (_, a, text), (_, b, _) in pairwise(placed))
    return [] if crowded else placed


def _legend(series: Sequence[Series], levels: Sequence[Level], band: str, width: int, ascii: bool) -> list[str]:
    """Mark and name of everything that is drawn, as many on a line as fit; a long name goes on in the next line."""
    rules = ASCII_RULES if ascii else RULES
    entries = [f"{mark} {one.label}" for one, mark in zip(series, marks_of(series, ascii), strict=True) if one.label]
    entries += [
        f"{rule * 3} {level.label}: {level.y:.2f}{level.note}"
        for level, rule in zip(levels, cycle(rules), strict=False)
    ]
    if any(value for one in series for value in one.spread):
        entries.append(f"{':::' if ascii else '░░░'} {band}")
    lines: list[str] = []
    for entry in map(plain, entries) if ascii else entries:
        if lines and len(lines[-1]) + 3 + len(entry) <= width:
            lines[-1] += "   " + entry
        else:
            lines += textwrap.wrap(entry, width, subsequent_indent="  ", break_on_hyphens=False)
    return lines
