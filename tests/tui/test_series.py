"""The curves' arithmetic: nothing lost that the eye would see, nothing shown that was not logged."""

import math
import statistics
import subprocess
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from metavqa_cli.tui.axes import Window, log_text, log_ticks, nice_ticks, tick_text
from metavqa_cli.tui.series import (
    MOST_DRAWN,
    Series,
    Smoother,
    averaged,
    band,
    downsampled,
    extent,
)

STEPS = st.integers(0, 10_000)
MODERATE = st.floats(-1e6, 1e6)
ANY = st.floats(allow_nan=True, allow_infinity=True)


def curves(values: st.SearchStrategy[float] = MODERATE, least: int = 0) -> st.SearchStrategy[Series]:
    found = st.dictionaries(STEPS, values, min_size=least, max_size=80)
    return found.map(
        lambda points: Series("loss", doubles(sorted(points)), doubles(map(points.__getitem__, sorted(points))))
    )


def doubles(numbers: Iterable[float]) -> "array[float]":
    return array("d", numbers)


def curve(*points: tuple[float, float]) -> Series:
    return Series("loss", doubles(step for step, _ in points), doubles(value for _, value in points))


def numbered(*values: float) -> Series:
    return curve(*enumerate(values))


def points_of(steps: object, values: object) -> list[tuple[float, float]]:
    return list(zip(steps, values, strict=True))  # type: ignore[call-overload]


# Series


def test_the_extent_spans_all_curves_and_ignores_empty_ones() -> None:
    assert extent([curve((5, 0.0), (9, 0.0)), Series("empty"), curve((7, 0.0), (30, 0.0))]) == (5, 30)
    assert extent([Series("empty")]) is None


# Downsampling


@given(curves(ANY), st.integers(-1, 60), STEPS, STEPS)
def test_what_is_drawn_is_finite_ordered_in_the_window_within_the_budget_and_counted(
    series: Series, columns: int, start: int, stop: int
) -> None:
    drawn = downsampled(series, columns, start, stop)
    inside = [(s, v) for s, v in points_of(series.steps, series.values) if start <= s <= stop]
    finite = [point for point in inside if math.isfinite(point[1])]
    shown = points_of(drawn.steps, drawn.values)
    assert shown == [point for point in finite if point in set(shown)]  # a subsequence: true points in their order
    assert len(shown) <= max(2 * columns, 0)
    assert drawn.dropped == len(inside) - len(finite)
    if len(finite) <= 2 * columns:
        assert shown == finite


@given(curves(ANY), st.integers(1, 30))
def test_the_extremes_and_both_ends_are_drawn(series: Series, columns: int) -> None:
    finite = [(s, v) for s, v in points_of(series.steps, series.values) if math.isfinite(v)]
    assume(finite)
    drawn = downsampled(series, columns)
    values = [value for _, value in finite]
    assert (min(drawn.values), max(drawn.values)) == (min(values), max(values))
    if columns >= 2:
        assert (drawn.steps[0], drawn.steps[-1]) == (finite[0][0], finite[-1][0])


def test_every_column_keeps_its_lowest_and_highest_point() -> None:
    series = numbered(*(math.sin(step * step) for step in range(1001)))
    drawn = downsampled(series, 51)  # 50 columns of 20 steps, and room for both ends
    columns = defaultdict(list)
    for step, value in points_of(series.steps, series.values):
        columns[min(int(step // 20), 49)].append(value)
    assert all({min(values), max(values)} <= set(drawn.values) for values in columns.values())
    assert len(drawn.steps) <= 102


def test_both_edges_of_the_window_are_inside_it() -> None:
    series = numbered(0.0, 10.0, 20.0, 30.0, 40.0)
    assert list(downsampled(series, 10, 1, 3).values) == [10, 20, 30]
    assert list(averaged(series, 1, 1, 3).values) == [20]


def test_a_single_spike_among_100_000_points_is_drawn() -> None:
    values = [0.0] * 100_000
    values[61_803], values[14_142] = 1.0, -1.0
    drawn = downsampled(numbered(*values), 5_000)
    assert {(61_803, 1.0), (14_142, -1.0)} <= set(points_of(drawn.steps, drawn.values))
    assert len(drawn.steps) <= MOST_DRAWN == 1000


def test_finite_values_whose_sum_overflows_are_all_kept() -> None:
    drawn = downsampled(numbered(1.7e308, 1.7e308, math.nan), 5)
    assert (list(drawn.values), drawn.dropped) == ([1.7e308, 1.7e308], 1)


def test_columns_of_even_width_are_averaged() -> None:
    series = curve((0, 1.0), (4, 3.0), (5, 10.0), (9, math.nan), (19, 4.0), (25, 99.0))
    assert averaged(series, 4, 0, 20) == curve((2, 2.0), (5, 10.0), (19, 4.0))
    assert len(averaged(series, 0, 0, 20)) == 0


@given(curves(least=1), st.integers(1, 30))
def test_column_means_stay_inside_the_series_and_keep_the_order(series: Series, columns: int) -> None:
    means = averaged(series, columns, 0, 10_000)
    assert 1 <= len(means) <= columns
    assert list(means.steps) == sorted(set(means.steps))
    assert min(series.values) - 1e-6 <= min(means.values) and max(means.values) <= max(series.values) + 1e-6


# Smoothing


def smoothed(series: Series, weight: float) -> "array[float]":
    smoother = Smoother(weight)
    smoother.extend(series.values)
    return smoother.values


def debiased(values: list[float], weight: float) -> list[float]:
    """The textbook form: an average begun at zero, divided by the weight it has seen."""
    biased, found = 0.0, []
    for count, value in enumerate(values, start=1):
        biased = weight * biased + (1 - weight) * value
        found.append(biased / (1 - weight**count))
    return found


@given(curves(least=1), st.floats(0, 0.999))
def test_smoothing_is_the_debiased_exponential_average(series: Series, weight: float) -> None:
    expected = debiased(list(series.values), weight)
    assert list(smoothed(series, weight)) == pytest.approx(expected, rel=1e-6, abs=1e-4)


@given(MODERATE, st.integers(1, 200), st.floats(0, 0.999))
def test_smoothing_a_constant_gives_exactly_that_constant(value: float, count: int, weight: float) -> None:
    assert list(smoothed(numbered(*[value] * count), weight)) == [value] * count


@given(curves(), MODERATE, st.floats(0, 0.999))
def test_a_constant_added_before_smoothing_is_found_after_it(series: Series, shift: float, weight: float) -> None:
    moved = Series(series.name, series.steps, doubles(value + shift for value in series.values))
    expected = [value + shift for value in smoothed(series, weight)]
    assert list(smoothed(moved, weight)) == pytest.approx(expected, rel=1e-6, abs=1e-4)


def test_values_that_are_not_finite_stay_and_do_not_spread() -> None:
    found = smoothed(numbered(math.nan, 2.0, math.inf, 4.0, -math.inf), 0.5)
    expected = debiased([2.0, 4.0], 0.5)
    assert math.isnan(found[0])
    assert list(found[1:]) == pytest.approx([expected[0], math.inf, expected[1], -math.inf])


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan])
def test_a_smoothing_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(AssertionError, match=r"outside \[0, 1\)"):
        smoothed(numbered(1.0), weight)


# Bands


@given(curves(), st.sampled_from(["range", "deviation"]))
def test_the_band_of_one_series_is_that_series(series: Series, spread: str) -> None:
    found = band([series], spread)  # type: ignore[arg-type]
    assert found.steps == series.steps
    assert found.mean == found.low == found.high == series.values
    assert found.runs == (1,) * len(series)


def test_runs_are_interpolated_inside_their_range_and_silent_outside() -> None:
    found = band([curve((0, 0.0), (10, 10.0)), curve((5, 7.0), (20, 22.0))])
    assert list(found.steps) == [0, 5, 10, 20]
    assert list(found.low) == [0, 5, 10, 22]
    assert list(found.high) == pytest.approx([0, 7, 12, 22])
    assert list(found.mean) == pytest.approx([0, 6, 11, 22])
    assert found.runs == (1, 2, 2, 1)


def test_the_deviation_is_the_sample_standard_deviation() -> None:
    rows = [(1.0, 4.0, 2.5), (0.5, 0.25, 8.0)]
    found = band([numbered(*values) for values in zip(*rows, strict=True)], "deviation")
    for place, row in enumerate(rows):
        mean, width = statistics.mean(row), statistics.stdev(row)
        measured = (found.low[place], found.mean[place], found.high[place])
        assert measured == pytest.approx((mean - width, mean, mean + width))


@given(st.lists(curves(), max_size=4))
def test_the_band_holds_every_run_on_the_union_of_their_steps(runs: list[Series]) -> None:
    found = band(runs)
    assert list(found.steps) == sorted({step for run in runs for step in run.steps})
    place = {step: index for index, step in enumerate(found.steps)}
    for step, value in (point for run in runs for point in points_of(run.steps, run.values)):
        assert found.low[place[step]] <= value <= found.high[place[step]]
    spans = [(run.steps[0], run.steps[-1]) for run in runs if len(run)]
    assert found.runs == tuple(sum(first <= step <= last for first, last in spans) for step in found.steps)
    assert all(a <= m <= b for a, m, b in zip(found.low, found.mean, found.high, strict=True))


@given(st.sets(STEPS, min_size=2, max_size=20), st.sets(STEPS, min_size=2, max_size=20))
def test_runs_on_one_straight_line_make_a_band_of_no_width(a: set[int], b: set[int]) -> None:
    found = band([curve(*((step, 3.0 * step - 7.0) for step in sorted(steps))) for steps in (a, b)])
    line = [3.0 * step - 7.0 for step in found.steps]
    assert list(found.low) == pytest.approx(line) and list(found.high) == pytest.approx(line)


def test_a_diverged_point_is_bridged_and_an_empty_band_has_no_points() -> None:
    found = band([curve((0, 0.0), (5, math.nan), (10, 10.0)), curve((5, 1.0), (6, math.inf)), Series("empty")])
    assert (list(found.steps), list(found.low), list(found.high)) == ([0, 5, 10], [0, 1, 10], [0, 5, 10])
    assert len(band([]).steps) == len(band([Series("empty")]).mean) == 0


# Axes


@pytest.mark.parametrize(
    ("low", "high", "count", "ticks"),
    [
        (0, 1, 6, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (0.1, 0.3, 3, (0.1, 0.2, 0.3)),
        (-1, 1, 2, (0,)),
        (0, 100_000, 6, (0, 20_000, 40_000, 60_000, 80_000, 100_000)),
        (-1.7e308, 1.7e308, 5, (-1e308, 0, 1e308)),
        (5, 5, 4, (5,)),
        (1e16, 1e16 + 4, 5, (1e16,)),
        (3, 2, 4, ()),
        (math.nan, 2, 4, ()),
        (0, math.inf, 4, ()),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, count: int, ticks: tuple[float, ...]) -> None:
    assert nice_ticks(low, high, count) == ticks


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(2, 12))
@example(6.0, 8.5, 2)
@example(0.0, 5e-324, 2)
def test_ticks_lie_evenly_inside_the_range_and_are_never_too_many(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high, count)
    assert 1 <= len(ticks) <= count
    assert all(low <= tick <= high for tick in ticks) and list(ticks) == sorted(set(ticks))
    gaps = [right - left for left, right in pairwise(ticks)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps) if gaps else [], rel=1e-2)


@pytest.mark.parametrize(
    ("low", "high", "count", "texts"),
    [
        (-3, 3, 7, "0.001 0.01 0.1 1 10 100 1k"),
        (-3, 3, 3, "0.001 1 1k"),
        (-6.5, -3.9, 4, "1e-6 1e-5 1e-4"),
        (0.1, 0.9, 5, "2 4 6"),
        (0, 0, 4, "1"),
        (-320, -318, 9, "1e-320 1e-319 1e-318"),
        (400.2, 400.4, 2, "1e400.2 1e400.4"),
        (1, -1, 4, ""),
    ],
)
def test_a_log_axis_is_marked_at_decades_or_at_round_numbers(low: float, high: float, count: int, texts: str) -> None:
    assert " ".join(map(log_text, log_ticks(low, high, count))) == texts


@given(st.floats(-300, 300), st.floats(-300, 300), st.integers(2, 12))
def test_log_ticks_lie_inside_the_range_and_are_never_too_many(a: float, b: float, count: int) -> None:
    ticks = log_ticks(min(a, b), max(a, b), count)
    assert 1 <= len(ticks) <= count and list(ticks) == sorted(ticks)
    assert all(min(a, b) - 1e-9 <= tick <= max(a, b) + 1e-9 for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (-0.0, "0"), (0.001, "0.001"), (0.25, "0.25"), (10, "10"), (999.96, "1k"), (1000, "1k"),
        (12_500, "12.5k"), (-1234, "-1.234k"), (999_999, "1M"), (2.5e6, "2.5M"), (3e9, "3G"), (4e12, "4T"),
        (1e15, "1e15"), (1e-4, "1e-4"), (-1.5e-5, "-1.5e-5"), (math.nan, "nan"), (-math.inf, "-inf"),
    ],
)  # fmt: skip
def test_numbers_are_written_short(value: float, text: str) -> None:
    assert tick_text(value) == text


def test_more_digits_tell_deeply_zoomed_ticks_apart() -> None:
    assert [tick_text(tick, digits=6) for tick in (100_001, 100_002)] == ["100.001k", "100.002k"]


# Zoom and pan

INSIDE = st.floats(0, 1000)
WINDOWS = st.tuples(st.floats(400, 490), st.floats(510, 600)).map(lambda ends: Window(*ends, 0, 1000))


def ends_of(window: Window) -> tuple[float, float]:
    return window.start, window.stop


@given(WINDOWS, st.floats(0.5, 50), INSIDE)
def test_zooming_and_zooming_back_is_where_it_began(window: Window, factor: float, at: float) -> None:
    at = min(max(at, window.start), window.stop)
    closer = window.zoom(factor, at)
    assert closer.stop - closer.start == pytest.approx((window.stop - window.start) / factor)
    assert ends_of(closer.zoom(1 / factor, at)) == pytest.approx(ends_of(window))


@given(WINDOWS, st.floats(0.5, 50), st.floats(0, 1))
def test_the_step_under_the_cursor_stays_under_it(window: Window, factor: float, share: float) -> None:
    at = window.start + share * (window.stop - window.start)
    closer = window.zoom(factor, at)
    assert closer.start + share * (closer.stop - closer.start) == pytest.approx(at)


MOVES = st.tuples(st.just("zoom"), st.floats(1e-3, 1e3), st.floats(-2000, 2000)) | st.tuples(
    st.just("pan"), st.floats(-5, 5)
)


@given(st.lists(MOVES, max_size=30), st.sampled_from([(0, 1000), (7, 7), (-2, 5)]))
def test_no_move_leaves_the_data_or_turns_the_window_round(moves: list[tuple], data: tuple[float, float]) -> None:
    window = Window.over(*data)
    for name, *given_values in moves:
        window = getattr(window, name)(*given_values)
        assert data[0] <= window.start <= window.stop <= data[1]
        assert window.stop > window.start or data == (7, 7)


@given(WINDOWS, st.floats(-5, 5))
def test_panning_keeps_the_width_and_stops_at_the_edge_of_the_data(window: Window, share: float) -> None:
    moved, width = window.pan(share), window.stop - window.start
    assert moved.stop - moved.start == pytest.approx(width)
    assert moved.start == pytest.approx(min(max(window.start + share * width, 0), 1000 - width))


def test_zooming_out_at_the_edge_shows_no_more_than_the_data() -> None:
    assert ends_of(Window(0, 100, 0, 1000).zoom(0.5, 50)) == (0, 150)
    assert ends_of(Window(0, 100, 0, 1000).zoom(0.001, 50)) == (0, 1000)


@given(st.floats(1, 1e12))
def test_the_deepest_zoom_is_a_millionth_of_the_data_and_never_widens(factor: float) -> None:
    deepest = Window.over(0, 1000).zoom(factor, 500)
    assert deepest.stop - deepest.start == pytest.approx(1000 / min(factor, 1e6), rel=1e-3)
    assert ends_of(Window(1, 1.0001, 0, 1e9).zoom(2, 1)) == (1, 1.0001)


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        (Window.over(0, 100), (0, 140)),  # everything: still everything
        (Window(80, 100, 0, 100), (120, 140)),  # the newest: follows
        (Window(20, 60, 0, 100), (20, 60)),  # elsewhere: stays
    ],
)
def test_a_window_on_a_growing_run_follows_only_if_it_showed_the_newest_point(
    window: Window, shown: tuple[float, float]
) -> None:
    assert window.grown(0, 140) == Window(*shown, 0, 140)


def test_a_window_on_a_run_that_was_cut_back_stays_inside_it() -> None:
    assert Window(20, 60, 0, 100).grown(0, 50) == Window(20, 50, 0, 50)


# Start-up


def test_the_curves_arithmetic_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "textual", "scipy", "rich"}
    program = "import sys, metavqa_cli.tui.series; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not heavy & set(loaded.split())
