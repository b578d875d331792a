"""What the curves show, as pure functions of plain numbers: downsampling, smoothing and bands.

The standard library alone is used, so the dashboard paints before numpy is loaded. ``curve_data`` makes of them what is
drawn on an axis.
"""

import math
import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress, pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    Numbers: TypeAlias = "array[float]"
else:
    Numbers = array  # subscripting an array needs Python 3.12

MOST_DRAWN = 1000  # points of one curve: a frame of four such curves takes 87 ms
MOST_KEPT = 131_072  # points of one curve, 2 MB: a hundred for each that is drawn


def doubles(numbers: Iterable[float] = ()) -> Numbers:
    """The numbers as eight-byte floats, one after the other."""
    return array("d", numbers)


@dataclass(frozen=True)
class Series:
    """One metric of one run: strictly increasing ``steps`` and a value at each, which may be NaN or infinite."""

    name: str
    steps: Numbers = field(default_factory=doubles)
    values: Numbers = field(default_factory=doubles)

    def __post_init__(self) -> None:
        assert len(self.steps) == len(self.values), f"{len(self.steps)} steps but {len(self.values)} values"

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Drawn:
    """The points to draw, in order of steps, all finite; ``dropped`` counts the NaN and infinite ones left out."""

    steps: Numbers
    values: Numbers
    dropped: int


@dataclass(frozen=True)
class Band:
    """Several runs as one: at each step the mean, the band's edges, and how many runs were averaged there."""

    steps: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers
    runs: tuple[int, ...]


def extent(curves: Iterable[Series]) -> tuple[float, float] | None:
    """The first and last step of all the curves together; None if none has a point."""
    ends = [(curve.steps[0], curve.steps[-1]) for curve in curves if len(curve)]
    return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None


def downsampled(series: Series, columns: int, start: float = -math.inf, stop: float = math.inf) -> Drawn:
    """The points with ``start <= step <= stop`` that a plot ``columns`` wide needs.

    At most ``min(2 * columns, 1000)`` points: all of them where they fit, else the lowest and highest of each column
    (the columns divide the steps shown evenly) and the first and last point. O(n), a few passes that run in C.
    """
    window = slice(bisect_left(series.steps, start), bisect_right(series.steps, stop))
    steps, values = _finite(series.steps[window], series.values[window])
    dropped = len(series.steps[window]) - len(steps)
    limit = max(min(2 * columns, MOST_DRAWN), 0)
    kept = range(len(steps)) if len(steps) <= limit else _extremes(steps, values, limit)
    return Drawn(doubles(steps[i] for i in kept), doubles(values[i] for i in kept), dropped)


def _extremes(steps: Numbers, values: Numbers, limit: int) -> list[int]:
    """Places of the lowest and highest value in each of as many even columns as leave room for both ends."""
    ends = {0, len(steps) - 1} if limit >= 4 else set()  # a single column has room for its extremes only
    for left, right in _columns(steps, (limit - len(ends)) // 2, steps[0], steps[-1]):
        chunk = values[left:right]
        ends |= {left + chunk.index(min(chunk)), left + chunk.index(max(chunk))}
    return sorted(ends)


def thin(series: Series) -> None:
    """Leave out about half of the points, in place: of each four that follow each other the lowest and the highest
    stay, or one that is not finite, and the first and last of all."""
    steps, values = series.steps, series.values
    kept = sorted({0, len(steps) - 1, *chain.from_iterable(_two_of(values, at) for at in range(0, len(values), 4))})
    steps[:], values[:] = (doubles(part[place] for place in kept) for part in (steps, values))


def _two_of(values: Numbers, start: int) -> tuple[int, int]:
    """Places of the lowest and the highest of the four values from ``start`` on; of a value that is no number too."""
    four = range(start, min(start + 4, len(values)))
    odd = next((place for place in four if not math.isfinite(values[place])), None)
    low = min(four, key=values.__getitem__) if odd is None else odd
    sound = [place for place in four if math.isfinite(values[place])]
    return low, max(sound, key=values.__getitem__, default=low)


def averaged(series: Series, columns: int, start: float, stop: float) -> Series:
    """The mean step and mean finite value of each of ``columns`` even columns from ``start`` to ``stop``.

    What a ``band`` over long runs is made of: seeds that log at the same steps keep equal steps.
    """
    window = slice(bisect_left(series.steps, start), bisect_right(series.steps, stop))
    steps, values = _finite(series.steps[window], series.values[window])
    cuts = _columns(steps, columns, start, stop)
    means = [doubles(sum(part[left:right]) / (right - left) for left, right in cuts) for part in (steps, values)]
    return replace(series, steps=means[0], values=means[1])


def _columns(steps: Numbers, columns: int, start: float, stop: float) -> list[tuple[int, int]]:
    """Where each even column from ``start`` to ``stop`` that holds a point begins and ends, as places in ``steps``."""
    if columns < 1:
        return []
    edges = (_between(start, stop, column / columns) for column in range(1, columns))
    cuts = [0, *(bisect_left(steps, edge) for edge in edges), len(steps)]
    return [(left, right) for left, right in pairwise(cuts) if left < right]


def _finite(steps: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """The points with finite values. A finite sum proves in one pass in C that all of them are."""
    if math.isfinite(sum(values)):
        return steps, values
    mask = list(map(math.isfinite, values))
    return doubles(compress(steps, mask)), doubles(compress(values, mask))


def _between(left: float, right: float, share: float) -> float:
    return left * (1 - share) + right * share  # unlike left + share * (right - left), no overflow


class Smoother:
    """Exponential average over points that come one after the other, 0 <= ``weight`` < 1, debiased (Adam's correction,
    as in TensorBoard).

    The mean starts at the first value instead of zero, so a constant added to the values is added to the result.
    NaN and infinite values stay where they are and do not enter the mean.
    """

    def __init__(self, weight: float) -> None:
        assert 0 <= weight < 1, f"smoothing weight {weight} is outside [0, 1)"
        self.weight, self.values = weight, doubles()
        self._mean, self._power = 0.0, 1.0

    def extend(self, values: Iterable[float]) -> None:
        """Append the averages of the next ``values`` to ``self.values``."""
        weight, mean, power, append = self.weight, self._mean, self._power, self.values.append
        for value in values:
            if math.isfinite(value):
                power *= weight
                # The biased average divided by (1 - weight**n), rewritten so that a constant stays exactly constant.
                mean += (value - mean) * ((1 - weight) / (1 - power))
                append(mean)
            else:
                append(value)
        self._mean, self._power = mean, power


def band(curves: Sequence[Series], spread: Literal["range", "deviation"] = "range") -> Band:
    """Overlay of several seeds on the union of their steps.

    Each run is interpolated linearly between its own finite points and says nothing before its first or after its
    last. ``low`` and ``high`` are the lowest and highest run, or the mean minus and plus the sample standard
    deviation (0 where a single run is left).
    """
    clean = [(steps, values) for steps, values in (_finite(c.steps, c.values) for c in curves) if steps]
    grid = _union([steps for steps, _ in clean])
    rows: list[Sequence[float]] = list(zip(*(_on_grid(*run, grid) for run in clean), strict=True))
    if any(len(steps) < len(grid) for steps, _ in clean):
        rows = [[value for value in row if value == value] for row in rows]  # NaN: outside that run
    low, high = doubles(map(min, rows)), doubles(map(max, rows))
    # Rounding could carry the mean of equal values out of the band.
    mean = doubles(min(max(math.fsum(row) / len(row), a), b) for row, a, b in zip(rows, low, high, strict=True))
    if spread == "deviation":
        widths = list(map(_deviation, rows, mean))
        low, high = doubles(map(operator.sub, mean, widths)), doubles(map(operator.add, mean, widths))
    return Band(grid, mean, low, high, tuple(map(len, rows)))


def _union(grids: list[Numbers]) -> Numbers:
    if all(grid == grids[0] for grid in grids):  # seeds of one configuration log at the same steps
        return grids[0] if grids else doubles()
    return doubles(dict.fromkeys(sorted(chain.from_iterable(grids))))


def _on_grid(steps: Numbers, values: Numbers, grid: Numbers) -> Numbers:
    """The run's values at the steps of ``grid``, a superset of its own; NaN outside its range."""
    if steps == grid:
        return values
    filled, right = doubles([math.nan]) * len(grid), 0
    for place in range(bisect_left(grid, steps[0]), bisect_right(grid, steps[-1])):
        step = grid[place]
        if steps[right] < step:
            right += 1  # once is enough: the grid holds every step of the run
        if steps[right] == step:
            filled[place] = values[right]
        else:
            share = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
            filled[place] = _between(values[right - 1], values[right], share)
    return filled


def _deviation(row: Sequence[float], centre: float) -> float:
    if len(row) < 2:
        return 0.0
    return math.sqrt(math.fsum((value - centre) ** 2 for value in row) / (len(row) - 1))
