"""What the charts of the room Curves are made of, as pure functions of series: order and titles of the charts, the
points that are drawn of a curve or of several seeds together, and the values at the cursor."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from typing import Any, Literal, TypeAlias

from metavqa_cli.tui.chart import Curve
from metavqa_cli.tui.series import (
    MOST_DRAWN,
    Numbers,
    Series,
    averaged,
    band,
    doubles,
    downsampled,
)

Spread: TypeAlias = Literal["range", "deviation"]

TITLES = {  # in the order in which they are shown; what else was logged follows
    "loss": "loss",
    "validation.accuracy": "validation accuracy, %",
    "kl": "KL",
    "validation.train_decoded_accuracy": "reconstruction accuracy, %",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tasks_per_s": "tasks per second",
    "accuracy": "training accuracy",
    "squared_error": "squared error",
    "z_norm": "norm of the latents",
    "validation.zero_shot_accuracy": "zero-shot validation accuracy, %",
    "validation.top5_accuracy": "validation accuracy in the first five, %",
}
KNOWN = {name: place for place, name in enumerate(TITLES)}


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn of every curve: ``columns`` of dots from step ``start`` to ``stop``, the values or their
    logarithms, and several seeds apart (None) or as a mean with a band."""

    columns: int
    start: float
    stop: float
    log: bool = False
    spread: Spread | None = None

    @property
    def reach(self) -> float:
        """How far from its first and last point a curve still says something at the cursor: a column of text."""
        return 2 * (self.stop - self.start) / max(1, self.columns)


@dataclass(frozen=True)
class Reading:
    """What one line says at a step: the value measured and the smoothed one, or for several runs the mean (both) and
    the edges of the band."""

    step: float
    raw: float
    smoothed: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Reduced:
    """A curve with what was left out of it in sight: NaN, infinite, on a log axis zero and negative values."""

    curve: Curve
    dropped: int


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """The names of metrics, each once, in the order of their charts."""
    return tuple(sorted({*names}, key=lambda name: (KNOWN.get(name, len(KNOWN)), name)))


def title(name: str) -> str:
    """What a chart of the metric is called."""
    return TITLES.get(name, name.replace("validation.", "validation ", 1).replace("_", " "))


def reduced(line: int, series: Series, drawing: Drawing) -> Reduced:
    """At most ``min(2 * columns, 1000)`` points of a curve (and a NaN where it is broken), the extremes among them.

    Where the curve goes on beyond an edge it is drawn up to that edge, so that something is seen between two points.
    """
    steps, values = series.steps, series.values
    inside = slice(bisect_left(steps, drawing.start), bisect_right(steps, drawing.stop))
    around = slice(max(inside.start - 1, 0), inside.stop + 1)
    sound, unsound = _parted(steps[around], values[around], drawing.log)
    limit = max(min(drawing.columns, MOST_DRAWN // 2), 1)
    drawn = downsampled(Series(series.name, *sound), limit)
    heights = doubles(map(math.log10, drawn.values)) if drawing.log else drawn.values
    points = _clipped(_broken(list(zip(drawn.steps, heights, strict=True)), unsound), drawing.start, drawing.stop)
    dropped = bisect_right(unsound, drawing.stop) - bisect_left(unsound, drawing.start)
    return Reduced(Curve(line, *_columns_of(points, 2)), dropped)


def reduced_band(line: int, runs: Sequence[Series], drawing: Drawing) -> Reduced:
    """Several seeds as their mean with a band, each averaged over columns first. On a log axis an edge at or below
    zero goes down to the lower end (minus infinity)."""
    columns = max(min(drawing.columns, MOST_DRAWN // max(len(runs), 1)), 1)
    together = band([averaged(run, columns, drawing.start, drawing.stop) for run in runs], drawing.spread or "range")
    dropped = sum(_unsound(run, drawing.start, drawing.stop) for run in runs)
    points: list[tuple[float, ...]] = [*zip(together.steps, together.mean, together.low, together.high, strict=True)]
    if drawing.log:
        positive = [point for point in points if point[1] > 0]
        dropped += len(points) - len(positive)
        points = [(step, *map(_exponent, edges)) for step, *edges in positive]
    return Reduced(Curve(line, *_columns_of(points, 4)), dropped)


def reading(raw: Series, smoothed: Series, step: float | None, drawing: Drawing) -> Reading | None:
    """The point nearest to ``step``, the last one without it; None when the curve does not reach there."""
    place = _nearest(raw.steps, step, drawing.reach)
    return None if place is None else Reading(raw.steps[place], raw.values[place], smoothed.values[place])


def band_reading(curve: Curve, step: float | None, drawing: Drawing) -> Reading | None:
    """The mean and the edges of a band (no exponents) at the point nearest to ``step``, the last one without it."""
    place = _nearest(curve.steps, step, drawing.reach)
    if place is None:
        return None
    mean = curve.values[place]
    return Reading(curve.steps[place], mean, mean, curve.low[place], curve.high[place])


def seed_group(kind: str, variant: str | None, dataset: Any, config: Mapping[str, Any]) -> str:
    """Equal for runs that differ in nothing but their seed."""
    return repr((kind, variant, dataset, _sorted({key: value for key, value in config.items() if key != "seed"})))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    return value


def _nearest(steps: Sequence[float], step: float | None, reach: float) -> int | None:
    if not len(steps) or (step is not None and not steps[0] - reach <= step <= steps[-1] + reach):
        return None
    if step is None:
        return len(steps) - 1
    after = bisect_left(steps, step)
    near = range(max(after - 1, 0), min(after + 1, len(steps)))
    return min(near, key=lambda place: abs(steps[place] - step))


def _parted(steps: Numbers, values: Numbers, log: bool) -> tuple[tuple[Numbers, Numbers], Numbers]:
    """The points that can be drawn, and the steps of the others. Nearly always a sum and a minimum say: all can."""
    if math.isfinite(sum(values)) and not (log and len(values) and min(values) <= 0):
        return (steps, values), doubles()
    mask = [math.isfinite(value) and (value > 0 or not log) for value in values]
    sound = doubles(compress(steps, mask)), doubles(compress(values, mask))
    return sound, doubles(step for step, is_sound in zip(steps, mask, strict=True) if not is_sound)


def _unsound(series: Series, start: float, stop: float) -> int:
    inside = slice(bisect_left(series.steps, start), bisect_right(series.steps, stop))
    values = series.values[inside]
    return 0 if math.isfinite(sum(values)) else sum(not math.isfinite(value) for value in values)


def _broken(points: list[tuple[float, float]], unsound: Numbers) -> list[tuple[float, float]]:
    """The points with a NaN between two that have an unsound point between them."""
    if not len(unsound):
        return points
    broken = points[:1]
    for (before, _), point in pairwise(points):
        place = bisect_right(unsound, before)
        if place < len(unsound) and unsound[place] < point[0]:
            broken.append((unsound[place], math.nan))
        broken.append(point)
    return broken


def _clipped(points: list[tuple[float, float]], start: float, stop: float) -> list[tuple[float, float]]:
    """The line within the edges: one that crosses an edge ends there."""
    if points and points[0][0] < start:
        points = _entering(points, start)
    if points and points[-1][0] > stop:
        points = _entering(points[::-1], stop)[::-1]
    return points


def _entering(points: list[tuple[float, float]], edge: float) -> list[tuple[float, float]]:
    """``points`` whose first one is beyond ``edge``: it moves along the line to the edge, or goes if there is none."""
    (x0, y0), *rest = points
    if not rest or math.isnan(rest[0][1]):
        return rest[1:]
    x1, y1 = rest[0]
    share = (edge - x0) / (x1 - x0)
    return [(edge, y0 * (1 - share) + y1 * share), *rest] if x1 != edge else rest


def _columns_of(points: Sequence[tuple[float, ...]], count: int) -> list[Numbers]:
    return [doubles(column) for column in zip(*points, strict=True)] or [doubles() for _ in range(count)]


def _exponent(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
