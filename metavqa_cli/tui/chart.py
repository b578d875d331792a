"""A chart of curves as rows of text, a pure function of plain numbers: what the room Curves and ``runs curves`` draw.

Every curve costs O(points + width): for each column of dots, the vertical extent of the curve in it. Four curves of
1,000 points take a few milliseconds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from metavqa_cli.tui.axes import log_text, log_ticks, nice_ticks, tick_text
from metavqa_cli.tui.canvas import COARSE, FINE, Grain, mark_of

NARROWEST_LABELLED, LOWEST_LABELLED = 24, 4  # below this many columns or rows the axes are left out
LABEL_WIDTH = 5  # at least, so that charts below each other have one x axis
BETWEEN_TICKS = 11  # columns
BETWEEN_MARKS = 18  # columns, where not every point has one
SPARSE = 4  # columns for each point, from which on every point is marked

Span = tuple[str, str]
"""Text and the name of its style: "" (nothing), "axis", "cursor", "note", "curve 3" or "band 3"."""
Row = list[Span]


@dataclass(frozen=True)
class Curve:
    """Line number ``line`` of a chart: ascending ``steps`` and a value at each, NaN where the line is broken.

    On a log axis the values are exponents of ten. ``low`` and ``high``, if given, are the edges of a band.
    """

    line: int
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Layout:
    """Where the curves are within a chart: text cells ``left`` of them, and the ``width`` and ``height`` they have."""

    left: int
    width: int
    height: int

    def column(self, step: float, window: tuple[float, float]) -> int | None:
        """The column of text, from 0, that holds ``step``; None when it is not in sight."""
        start, stop = window
        if not start <= step <= stop:
            return None
        return _place(step, start, stop, self.width * FINE.across) // FINE.across


def chart(
    curves: Sequence[Curve],
    width: int,
    height: int,
    window: tuple[float, float],
    *,
    log: bool = False,
    ascii: bool = False,
    cursor: float | None = None,
    note: str = "",
) -> list[Row]:
    """``height`` rows, ``width`` characters each. ``window``: the steps at the left and right edge.

    The lowest and highest value in sight are drawn at the lower and upper edge. ``note`` is what stands in the middle
    when no curve has a point.
    """
    if width < 1 or height < 1:
        return [[] for _ in range(height)]
    labelled, low_high = height >= LOWEST_LABELLED, _extent(curves)
    y = _widened(*low_high) if low_high else (0.0, 1.0)
    inner = height - 1 if labelled else height
    ticks = _y_ticks(*y, max(3, inner // 2), log) if low_high and width >= NARROWEST_LABELLED else {}
    layout = layout_of(width, height, ticks.values())
    picture = _Picture(layout, window, y, COARSE if ascii else FINE)
    for curve in curves:
        picture.band(curve)
    for curve in curves:
        picture.line(curve)
    picture.marks(curves, ascii)
    if cursor is not None and (column := layout.column(cursor, window)) is not None:
        picture.rule(column, ":" if ascii else "┊")
    if low_high is None:
        picture.write(note)
    rows = _beside_axis(picture, ticks, ascii) if layout.left else picture.rows()
    return [*rows, _x_axis(layout, window, ascii)] if labelled else rows


def layout_of(width: int, height: int, labels: Iterable[str] = ()) -> Layout:
    """What the axes leave of ``width`` × ``height``; ``labels`` are the texts of the y axis."""
    left = max([LABEL_WIDTH, *map(len, labels)]) + 1 if width >= NARROWEST_LABELLED else 0
    return Layout(left, width - left, height - 1 if height >= LOWEST_LABELLED else height)


@dataclass
class _Picture:
    """The area within the axes while it is drawn: dots by cell, one style a cell, and what stands in place of dots."""

    layout: Layout
    window: tuple[float, float]
    y: tuple[float, float]
    grain: Grain
    dots: list[list[int]] = field(init=False)
    styles: list[list[str]] = field(init=False)
    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int] | None]] = field(default_factory=dict)
    """By line: the highest and lowest row of dots in each column of dots."""

    def __post_init__(self) -> None:
        rows, columns = range(self.layout.height), self.layout.width
        self.dots, self.styles = [[0] * columns for _ in rows], [[""] * columns for _ in rows]
        self.across, self.down = columns * self.grain.across, self.layout.height * self.grain.down

    def line(self, curve: Curve) -> None:
        """Raise the dots of a curve, over what is there."""
        extents = self._traced(curve.steps, curve.values)
        self.extents[curve.line] = extents
        self._raise([_filled(*extent) if extent else 0 for extent in extents], f"curve {curve.line}")

    def band(self, curve: Curve) -> None:
        """Raise every fourth dot between the edges of a curve's band."""
        if not curve.low:
            return
        lows, highs = (self._traced(curve.steps, edge) for edge in (curve.low, curve.high))
        masks = []
        for column, (low, high) in enumerate(zip(lows, highs, strict=True)):
            sparse = _sparse(self.down, 2 * column % 4) if self.grain is FINE else _filled(0, self.down - 1)
            masks.append(_filled(high[0], low[1]) & sparse if low and high else 0)
        if self.grain is FINE:
            self._raise(masks, f"band {curve.line}")
        else:
            self._shade(masks, f"band {curve.line}")

    def marks(self, curves: Sequence[Curve], ascii: bool) -> None:
        """The mark of each line at its last point, and at all of them where they are sparse, else here and there."""
        for place, curve in enumerate(curves):
            steps = [step for step, value in zip(curve.steps, curve.values, strict=True) if value == value]
            every = len(steps) * SPARSE <= self.layout.width
            columns = [self._across(step) for step in steps] if every else [self._across(step) for step in steps[-1:]]
            if not every and len(curves) > 1:
                stride = BETWEEN_MARKS * self.grain.across
                columns += range(stride * place // len(curves), self.across - stride // 3, stride)
            for column in reversed(columns):
                self._mark(curve.line, column, mark_of(curve.line, ascii))

    def _mark(self, line: int, column: int, mark: str) -> None:
        extent = self.extents[line][column]
        if extent is None:
            return
        cell = (sum(extent) // 2 // self.grain.down, column // self.grain.across)
        if cell not in self.texts or self.texts[cell] == ":":
            self.texts[cell], self.styles[cell[0]][cell[1]] = mark, f"curve {line}"

    def rule(self, column: int, text: str) -> None:
        """A vertical line behind everything."""
        for row in range(self.layout.height):
            if not self.dots[row][column] and (row, column) not in self.texts:
                self.texts[row, column], self.styles[row][column] = text, "cursor"

    def write(self, note: str) -> None:
        """A line of text in the middle, as much of it as there is room for."""
        row, shown = (self.layout.height - 1) // 2, note[: self.layout.width]
        left = (self.layout.width - len(shown)) // 2
        for column, letter in enumerate(shown, left):
            self.texts[row, column], self.styles[row][column] = letter, "note"

    def rows(self) -> list[Row]:
        """The text; neighbours of one style together."""
        written: list[list[str]] = [[self.grain.texts[bits] for bits in dots] for dots in self.dots]
        for (row, column), text in self.texts.items():
            written[row][column] = text
        return [_spans(zip(text, styles, strict=True)) for text, styles in zip(written, self.styles, strict=True)]

    def _raise(self, masks: Sequence[int], style: str) -> None:
        grain, dots, styles = self.grain, self.dots, self.styles
        for place, mask in enumerate(masks):
            if mask:
                column, part = divmod(place, grain.across)
                row = ((mask & -mask).bit_length() - 1) // grain.down
                mask >>= row * grain.down
                while mask:
                    rows = mask & ((1 << grain.down) - 1)
                    if rows:
                        dots[row][column] |= grain.bits[part][rows]
                        styles[row][column] = style
                        self.texts.pop((row, column), None)
                    mask >>= grain.down
                    row += 1

    def _shade(self, masks: Sequence[int], style: str) -> None:
        """A band in ASCII: the cells that lie in it altogether."""
        whole = (1 << self.grain.down) - 1
        for column, mask in enumerate(masks):
            for row in range(self.layout.height):
                if mask >> row * self.grain.down & whole == whole:
                    self.texts[row, column], self.styles[row][column] = ":", style

    def _traced(self, steps: Sequence[float], values: Sequence[float]) -> list[tuple[int, int] | None]:
        """The rows of dots that the line through the points covers in each column of dots."""
        tops, bottoms = [self.down] * self.across, [-1] * self.across
        (low, high), down = self.y, self.down - 1
        top, height = 0.5 * high, 0.5 * high - 0.5 * low  # halves, because a difference could overflow
        start, stop = self.window
        scale = (self.across - 1) / (stop - start) if stop > start else 0.0
        shift = 0.5 if scale else 0.5 * self.across
        before, row_before, broken = -1, 0, False
        for step, value in zip(steps, values, strict=True):
            if value != value:
                broken = True
                continue
            column = int((step - start) * scale + shift)
            row = int((top - 0.5 * min(max(value, low), high)) / height * down + 0.5)
            if before >= 0 and column > before and (not broken or column == before + 1):
                _join(tops, bottoms, before, row_before, column, row)
            if row < tops[column]:
                tops[column] = row
            if row > bottoms[column]:
                bottoms[column] = row
            before, row_before, broken = column, row, False
        return [(a, b) if b >= 0 else None for a, b in zip(tops, bottoms, strict=True)]

    def _across(self, step: float) -> int:
        return _place(step, *self.window, self.across)


def _join(tops: list[int], bottoms: list[int], first: int, start: int, last: int, stop: int) -> None:
    """Widen the extents of columns ``first`` to ``last`` by the straight line from row ``start`` to row ``stop``.

    Each column takes the part of the line that lies in it, without the row that the next column begins with.
    """
    slope = (stop - start) / (last - first)
    a = start
    for column in range(first, last + 1):
        b = stop if column == last else int(start + slope * (column - first + 0.5) + 0.5)
        end = b if column == last or a == b else (b - 1 if b > a else b + 1)
        top, bottom = (a, end) if a < end else (end, a)
        if top < tops[column]:
            tops[column] = top
        if bottom > bottoms[column]:
            bottoms[column] = bottom
        a = b


def _place(step: float, start: float, stop: float, dots: int) -> int:
    """The column of dots that ``step`` is in; the middle one when there is a single step."""
    return int((step - start) * ((dots - 1) / (stop - start)) + 0.5) if stop > start else dots // 2


def _filled(top: int, bottom: int) -> int:
    """Rows ``top`` to ``bottom`` as bits."""
    return ((1 << (bottom - top + 1)) - 1) << top if bottom >= top else 0


def _sparse(rows: int, first: int) -> int:
    """Every fourth row from ``first`` on as bits."""
    return sum(1 << row for row in range(first, rows, 4))


def _extent(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The lowest and highest number that is drawn; None if there is none."""
    edges = [edge for curve in curves for edge in (curve.values, curve.low, curve.high)]
    finite = [number for edge in edges for number in edge if math.isfinite(number)]
    return (min(finite), max(finite)) if finite else None


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range itself, or one around a single value."""
    if 0.5 * high - 0.5 * low > 1e-12 * max(abs(low), abs(high)):
        return low, high
    room = 0.1 * abs(low) or 0.5
    return max(low - room, -1.7e308), min(high + room, 1.7e308)


def _y_ticks(low: float, high: float, count: int, log: bool) -> dict[float, str]:
    """Round numbers within the range and their texts, with as many digits as tell them apart."""
    if log:
        return {tick: log_text(tick) for tick in log_ticks(low, high, count)}
    return _texts(nice_ticks(low, high, count))


def _texts(ticks: Sequence[float]) -> dict[float, str]:
    return next(
        texts
        for digits in range(3, 18)
        if len({*(texts := {tick: tick_text(tick, digits) for tick in ticks}).values()}) == len(ticks) or digits == 17
    )


def _beside_axis(picture: _Picture, ticks: dict[float, str], ascii: bool) -> list[Row]:
    bar, tick = ("|", "+") if ascii else ("│", "┤")
    (low, high), down = picture.y, picture.down - 1
    height = 0.5 * high - 0.5 * low
    labels = {
        int((0.5 * high - 0.5 * y) / height * down + 0.5) // picture.grain.down: text for y, text in ticks.items()
    }
    left = picture.layout.left - 1
    heads = [f"{labels.get(row, '').rjust(left)}{tick if row in labels else bar}" for row in range(len(picture.dots))]
    return [[(head, "axis"), *row] for head, row in zip(heads, picture.rows(), strict=True)]


def _x_axis(layout: Layout, window: tuple[float, float], ascii: bool) -> Row:
    """The line below the curves, with the steps written into it where they belong."""
    line = ["-" if ascii else "─"] * layout.width
    free = 0
    for step, text in _texts(nice_ticks(*window, max(3, layout.width // BETWEEN_TICKS))).items():
        column = layout.column(step, window)
        left = min(max(0, (column or 0) - len(text) // 2), layout.width - len(text))
        if column is not None and left >= free:
            line[left : left + len(text)] = text
            free = left + len(text) + 1
    corner = ("+" if ascii else "└").rjust(layout.left) if layout.left else ""
    return [(corner + "".join(line), "axis")]


def _spans(cells: Iterable[tuple[str, str]]) -> Row:
    return [("".join(text for text, _ in run), style) for style, run in groupby(cells, key=lambda cell: cell[1])]
