"""The words around the charts of the room Curves, as pure functions: which runs, the table of lines, titles, status."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from metavqa_cli.tui.axes import Window, tick_text
from metavqa_cli.tui.curve_book import ChartData, CurvesPicture, Line
from metavqa_cli.tui.curve_data import Reading, Spread, title
from metavqa_cli.tui.feed import RunView

MOST_RUNS = 32  # shown at once: as many have a mark and colour of their own
LEAST_ROWS, LOWEST_PAIR = 8, 14  # of a chart below another; of two charts in a low window
SPREADS: dict[Spread | None, str] = {None: "", "range": "mean and range", "deviation": "mean ± s.d."}
NOTHING = (
    "No run of {} has curves yet: n in Runs (F2) starts a training, and `metavqa quickstart` makes the first runs."
)
NEWEST = "newest run (space in Runs, F2, selects others)"
HEADS = ("run", "what", "state", "step", "value", "smoothed")


@dataclass(frozen=True)
class ShownRuns:
    """Ids of the runs whose curves are shown, and a sentence when they are not simply the selected ones.

    ``unasked``: nothing is selected, it is the newest run; ``newer``: one that began while this one was kept.
    """

    runs: tuple[str, ...]
    remark: str = ""
    unasked: bool = False
    newer: str | None = None


def runs_to_show(selected: Sequence[str], views: Sequence[RunView], kept: ShownRuns | None = None) -> ShownRuns:
    """The selected runs, or else the newest one that trains. ``views``: oldest first.

    ``kept``: what is shown now, if it is looked at so closely that a newer run must not take its place.
    """
    if len(selected) > MOST_RUNS:
        return ShownRuns(tuple(selected[:MOST_RUNS]), f"the first {MOST_RUNS} of {len(selected)} selected runs")
    if selected:
        return ShownRuns(tuple(selected))
    training = [view.id for view in views if view.step is not None]
    if kept is not None and kept.unasked:
        later = kept.runs[0] in training[:-1]
        return replace(kept, newer=training[-1] if later else None)
    return ShownRuns((training[-1],), NEWEST, unasked=True) if training else ShownRuns(())


def grid_shape(columns: int, charts: int, height: int) -> tuple[int, tuple[int, ...]]:
    """How many of at most ``columns`` columns ``charts`` charts take, and the heights of the rows of charts in sight:
    as many as can be read, and together ``height``."""
    columns = max(1, min(columns, charts))
    below = -(-charts // columns)
    in_sight = max(1, min(below, max(height // LEAST_ROWS, 2 * (height >= LOWEST_PAIR))))
    least, left = divmod(max(height, 1), in_sight)
    return columns, tuple(least + (row < left) for row in range(in_sight))


def status(picture: CurvesPicture, shown: ShownRuns, weight: float, spread: Spread | None, paused: bool) -> str:
    """What is shown, in one line: first what nothing else on the screen tells, for a narrow one cuts the end."""
    parts = ["PAUSED" + (f" ({picture.waiting:,} newer points)" if picture.waiting else "")] if paused else []
    parts += [f"newer: {shown.newer}"] * (shown.newer is not None)
    parts += [f"smoothing {weight:g}"] * (weight > 0) + [SPREADS[spread]] * (spread is not None)
    parts += ["reading the logs…"] * picture.behind
    if picture.window is not None:
        parts.append(_steps(picture.window))
    count = sum(len(line.runs) for line in picture.lines)
    if shown.remark or count:
        parts.append(shown.remark or f"{count} run{'s' * (count > 1)}")
    return " · ".join(parts)


def _steps(window: Window) -> str:
    whole = (window.start, window.stop) == (window.first, window.last)
    span = f"steps {window.start:,.0f}–{window.stop:,.0f}"
    return span if whole else f"{span} of {window.first:,.0f}–{window.last:,.0f}"


def nothing_words(chosen: bool, settled: bool, root: str) -> str:
    """What stands in place of charts: whether runs were chosen, whether their logs were read, and the workspace."""
    if not chosen:
        return NOTHING.format(root)
    return "Nothing measured yet." if settled else "Reading the logs…"


def chart_title(name: str, data: ChartData | None, log: bool) -> str:
    """The metric, its axis, and how many points could not be drawn."""
    words = title(name) + (" (log)" if log else "")
    if data is None or not data.dropped:
        return words
    why = "not finite" if not log else "without a logarithm"
    return f"{words} · {data.dropped:,} point{'s' * (data.dropped > 1)} {why}"


def chart_values(name: str, lines: Sequence[Line], marks: Sequence[str], width: int) -> str:
    """Each line's mark and value at the cursor, as many as fit into ``width``."""
    told = [
        f"{marks[line.number]} {tick_text(line.readings[name].smoothed)}" for line in lines if name in line.readings
    ]
    shown = ""
    for number, text in enumerate(told):
        longer = f"{shown}  {text}" if shown else text
        if cell_len(longer) > width - 2 * (number + 1 < len(told)):
            return f"{shown} …" if shown else ""
        shown = longer
    return shown


def lines_table(
    lines: Sequence[Line], views: Mapping[str, RunView], metric: str | None, smoothing: bool, width: int
) -> tuple[str, list[str]]:
    """The head and one row for each line: name, what it is, state, step, and its value of ``metric`` at the cursor.

    Without the marks that stand before them; columns that leave no room for the others go first.
    """
    rows = [HEADS, *(_cells(line, views, metric, smoothing) for line in lines)]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(HEADS))]
    if not smoothing or all(line.readings.get(metric or "") is None for line in lines):
        widths[5] = 0
    for column in (1, 2, 3, 5):
        if sum(widths) + 2 * (sum(map(bool, widths)) - 1) > width:
            widths[column] = 0
    widths[0] = max(1, min(widths[0], width - sum(widths[1:]) - 2 * sum(map(bool, widths[1:]))))
    head, *body = ("  ".join(_padded(row, widths)) for row in rows)
    return head, body


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        if width and column < 3:
            yield cell if cell_len(cell) == width else set_cell_size(cell, width)
        elif width:
            yield " " * (width - cell_len(cell)) + cell


def _cells(line: Line, views: Mapping[str, RunView], metric: str | None, smoothing: bool) -> tuple[str, ...]:
    known = [views[run] for run in line.runs if run in views]
    what = ""
    if len(line.runs) == 1 and known:
        seed = "" if known[0].seed is None else f", seed {known[0].seed}"
        what = f"{known[0].kind} {known[0].variant or ''}".strip() + seed
    states = [*dict.fromkeys(view.state for view in known)] if len(known) == len(line.runs) else ["removed"]
    total = known[0].total_steps if known else None
    step = "-" if line.step is None else f"{line.step:,.0f}" + (f"/{total:,}" if total else "")
    value, smoothed = values_of(line.readings.get(metric or ""), smoothing)
    return line.name, what, ", ".join(states), step, value, smoothed if smoothing else ""


def values_of(reading: Reading | None, smoothing: bool) -> tuple[str, str]:
    """The measured and the smoothed value as text. Of several runs there is one mean, with the edges of its band: of
    the smoothed values with ``smoothing``, else of the measured ones."""
    if reading is None:
        return "-", "-"
    if reading.low is None or reading.high is None:
        return tick_text(reading.raw, 5), tick_text(reading.smoothed, 5)
    mean = f"{tick_text(reading.raw)} ({tick_text(reading.low)} – {tick_text(reading.high)})"
    return ("-", mean) if smoothing else (mean, "-")
