"""What charts are made of: reductions that keep what matters, logs that are damaged while they are followed, words."""

import json
import math
import shutil
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.events import Event, RunStarted, StepLogged, ValidationMeasured, to_record
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui import follower
from metavqa_cli.tui.axes import Window
from metavqa_cli.tui.curve_book import ChartData, CurveBook, CurvesPicture, Line, Wish
from metavqa_cli.tui.curve_data import Drawing, Reading, band_reading, ordered, reading, reduced, reduced_band, title
from metavqa_cli.tui.curve_reader import PICTURE_SECONDS, CurveReader
from metavqa_cli.tui.curve_rows import (
    MOST_RUNS,
    ShownRuns,
    chart_title,
    chart_values,
    grid_shape,
    lines_table,
    runs_to_show,
    status,
)
from metavqa_cli.tui.curve_wishes import all_logs, cursor_moved, panned, smoothed_more, zoomed
from metavqa_cli.tui.feed import Curves, RunView
from metavqa_cli.tui.series import Series, Smoother, doubles

nan = math.nan
DATASET = {"name": "scenes", "fingerprint": "f00"}


def series(values: list[float], steps: list[float] | None = None) -> Series:
    return Series("loss", doubles(steps if steps is not None else range(len(values))), doubles(values))


def whole(columns: int = 100, stop: float = 1e9, **more: Any) -> Drawing:
    return Drawing(columns, more.pop("start", 0.0), stop, **more)


def points(found: Any) -> list[tuple[float, float]]:
    return list(zip(found.curve.steps, found.curve.values, strict=True))


# Reductions


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(1, 2000))
def test_few_points_are_drawn_with_the_extremes_among_them(values: list[float], columns: int) -> None:
    found = reduced(0, series(values), whole(columns, stop=len(values)))
    drawn = list(found.curve.values)
    assert len(drawn) <= max(2, min(2 * columns, 1000))
    assert min(drawn) == min(values) and max(drawn) == max(values) and found.dropped == 0


def test_a_curve_is_broken_where_a_value_is_not_finite() -> None:
    found = reduced(0, series([1, nan, 2, 3, math.inf, math.inf, 4]), whole())
    at, values = zip(*points(found), strict=True)
    assert at == (0, 1, 2, 3, 4, 6)
    assert [step for step, value in zip(at, values, strict=True) if math.isnan(value)] == [1, 4]
    assert found.dropped == 3


def test_a_log_axis_breaks_where_there_is_no_logarithm() -> None:
    found = reduced(0, series([100, 0, -1, 10]), whole(log=True))
    assert [value for _, value in points(found) if value == value] == [2, 1]
    assert found.dropped == 2 and len(found.curve.steps) == 3


def test_only_what_is_dropped_in_sight_is_counted() -> None:
    values = series([nan, 1, 2, nan, 3, nan])
    assert reduced(0, values, Drawing(10, 1, 4)).dropped == 1
    assert reduced_band(0, [values, values], Drawing(10, 1, 4)).dropped == 2


def test_a_line_goes_on_to_the_edges_of_the_window() -> None:
    sparse = series([0, 10, 20], [0, 10, 20])
    assert points(reduced(0, sparse, Drawing(10, 5, 15))) == [(5, 5), (10, 10), (15, 15)]
    assert points(reduced(0, sparse, Drawing(10, 12, 16))) == [(12, 12), (16, 16)]  # between two points
    assert points(reduced(0, sparse, Drawing(10, 21, 30))) == []
    assert points(reduced(0, sparse, Drawing(10, 10, 20))) == [(10, 10), (20, 20)]
    broken = series([0, nan, 20], [0, 10, 20])
    assert points(reduced(0, broken, Drawing(10, 5, 15))) == []


def test_no_points_no_line() -> None:
    assert points(reduced(0, series([]), whole())) == [] == points(reduced_band(0, [], whole()))


def test_seeds_become_a_mean_with_edges() -> None:
    curve = reduced_band(3, [series([1, 2]), series([3, 6])], whole(10, stop=1, spread="range")).curve
    assert (curve.line, [*curve.values], [*curve.low], [*curve.high]) == (3, [2, 4], [1, 2], [3, 6])
    curve = reduced_band(0, [series([1, 2]), series([3, 6])], whole(10, stop=1, spread="deviation")).curve
    assert curve.high[0] == pytest.approx(2 + math.sqrt(2))


def test_a_band_on_a_log_axis_may_reach_below_everything() -> None:
    found = reduced_band(0, [series([10, -1]), series([1000, -1])], whole(10, stop=1, log=True, spread="deviation"))
    assert found.curve.low[0] == -math.inf and found.curve.values[0] == pytest.approx(math.log10(505))
    assert len(found.curve.steps) == 1 and found.dropped == 1


@given(st.integers(1, 12), st.integers(1, 800))
def test_a_band_has_few_points_however_many_seeds(seeds: int, columns: int) -> None:
    many = [series([float(seed)] * 1500, [step + seed / 20 for step in range(1500)]) for seed in range(seeds)]
    assert len(reduced_band(0, many, whole(columns, stop=1500)).curve.steps) <= 1000


def test_a_reading_is_the_nearest_point_but_none_where_the_curve_does_not_reach() -> None:
    raw, smooth, drawing = series([1, 2, 3], [0, 10, 20]), series([1, 1, 1], [0, 10, 20]), Drawing(100, 0, 100)
    assert reading(raw, smooth, 13, drawing) == Reading(10, 2, 1)
    assert reading(raw, smooth, None, drawing) == Reading(20, 3, 1) == reading(raw, smooth, 22, drawing)
    assert reading(raw, smooth, 23, drawing) is None and reading(series([]), series([]), None, drawing) is None
    band = reduced_band(0, [raw, smooth], whole(10, stop=20, spread="range")).curve
    assert band_reading(band, 10, drawing) == Reading(10, 1.5, 1.5, 1, 2)


def test_charts_come_in_a_fixed_order_and_unknown_metrics_last() -> None:
    assert ordered(["zeta", "tasks_per_s", "loss", "alpha_x", "validation.accuracy", "loss"]) == (
        "loss", "validation.accuracy", "tasks_per_s", "alpha_x", "zeta"
    )  # fmt: skip
    assert (title("lr"), title("validation.new_thing")) == ("learning rate", "validation new thing")


# Logs


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(workspace: Workspace, seed: int = 0, **section: Any) -> Run:
    config = {"seed": seed, "ldm": section or {"lr": 1e-3}}
    key = runs.run_key("ldm", config, {}, "f00")
    return runs.create(workspace, "ldm", key, config, {}, DATASET, {"variant": "task"}, fresh=True)


def write(run: Run, *events: Event, mode: str = "a") -> None:
    with run.events_path.open(mode) as log:
        log.writelines(json.dumps(to_record(event)) + "\n" for event in events)


def steps(first: int, last: int, **metrics: float) -> list[Event]:
    return [StepLogged(step, metrics or {"loss": float(step)}) for step in range(first, last + 1)]


def book_of(workspace: Workspace, *shown: Run) -> CurveBook:
    book = CurveBook(workspace)
    book.follow(tuple(run.id for run in shown))
    read_all(book)
    return book


def read_all(book: CurveBook) -> bool:
    """Read all logs to their ends; whether anything changed."""
    changed = book.read()
    while book.behind:
        changed |= book.read()
    return changed


def drawn(book: CurveBook, name: str = "loss", **wish: Any) -> list[tuple[float, float]]:
    (curve,) = book.picture(Wish(metrics=(name,), **wish)).charts[name].curves
    return list(zip(curve.steps, curve.values, strict=True))


def test_a_picture_holds_everything_that_is_shown(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, RunStarted(run.id, "ldm", 9), *steps(1, 3, loss=2.0, lr=0.1), ValidationMeasured(3, {"accuracy": 50.0}))
    picture = book_of(workspace, run).picture(Wish(number=7, cursor=2))
    assert (picture.number, picture.names) == (7, ("loss", "validation.accuracy", "lr"))
    assert picture.window == Window.over(1, 3) and not picture.troubles and not picture.behind
    (line,) = picture.lines
    assert (line.name, line.step, line.runs) == (run.id, 3, (run.id,))
    assert line.readings["loss"] == Reading(2, 2.0, 2.0)
    assert "validation.accuracy" not in line.readings  # which begins at step 3


def test_a_torn_last_line_is_taken_when_it_is_whole(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 2))
    with run.events_path.open("a") as log:
        log.write('{"event": "StepLogged", "step": 3, "metr')
    book = book_of(workspace, run)
    assert [step for step, _ in drawn(book)] == [1, 2] and not book.picture(Wish()).troubles
    with run.events_path.open("a") as log:
        log.write('ics": {"loss": 9.0}}\n')
    assert book.read() and drawn(book)[-1] == (3, 9.0)


def test_a_log_cut_short_is_read_again_and_it_says_so(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 50))
    book = book_of(workspace, run)
    assert len(drawn(book)) == 50
    write(run, *steps(1, 2, loss=5.0), mode="w")
    assert read_all(book) and drawn(book) == [(1, 5.0), (2, 5.0)]
    (told,) = book.picture(Wish()).notes
    assert run.id in told and "cut short" in told


def test_a_replaced_log_is_read_from_the_start(workspace: Workspace) -> None:
    run, other = make(workspace), make(workspace, seed=1)
    write(run, *steps(1, 5))
    write(other, *steps(1, 60, loss=7.0))
    book = book_of(workspace, run)
    other.events_path.replace(run.events_path)
    assert read_all(book) and {value for _, value in drawn(book)} == {7.0}
    assert "replaced" in book.picture(Wish()).notes[0]


def test_a_run_removed_while_it_is_shown_keeps_its_curves_and_says_so(workspace: Workspace) -> None:
    run, other = make(workspace), make(workspace, seed=1)
    write(run, *steps(1, 5))
    write(other, *steps(1, 5))
    book = book_of(workspace, run, other)
    shutil.rmtree(run.path)
    assert book.read()  # that is a change
    picture = book.picture(Wish())
    assert len(picture.charts["loss"].curves) == 2
    assert [told for told in picture.troubles] == [
        f"run {run.id}: it was removed; its curves are as they were last read"
    ]
    write(other, *steps(6, 7))
    assert book.read() and book.picture(Wish()).lines[1].step == 7
    assert not book.read()


def test_a_log_that_is_gone_and_one_that_cannot_be_read(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 5))
    book = book_of(workspace, run)
    run.events_path.unlink()
    assert book.read() and "its log is gone" in book.picture(Wish()).troubles[0]
    run.events_path.mkdir()
    assert book.read() and "cannot read" in book.picture(Wish()).troubles[0]
    assert len(drawn(book)) == 5


def test_a_run_that_never_was(workspace: Workspace) -> None:
    book = CurveBook(workspace)
    book.follow(("nobody",))
    assert book.read() and book.picture(Wish()).troubles == ("run nobody: there is no such run",)
    assert book.picture(Wish()).window is None


def test_damaged_lines_are_counted(workspace: Workspace) -> None:
    run = make(workspace)
    run.events_path.write_bytes(b'\xff\xfe\n{"event": "StepLogged"}\n[1]\n')
    write(run, *steps(1, 2))
    book = book_of(workspace, run)
    assert book.picture(Wish()).notes == (f"run {run.id}: 3 damaged lines were left out of its log",)
    assert len(drawn(book)) == 2


def test_averages_of_a_growing_curve_are_those_of_the_whole(workspace: Workspace) -> None:
    run = make(workspace)
    book = book_of(workspace, run)
    values = [math.sin(step) if step % 7 else nan for step in range(1, 91)]
    for first in range(0, 90, 30):
        write(run, *(StepLogged(step + 1, {"loss": values[step]}) for step in range(first, first + 30)))
        book.read()
        drawn(book, weight=0.9)
    whole = Smoother(0.9)
    whole.extend(values)
    steps_, expected = list(range(1, 91)), whole.values
    found = dict(drawn(book, weight=0.9))
    assert all(found[step] == value for step, value in zip(steps_, expected, strict=True) if value == value)
    assert book.picture(Wish(weight=0.6)).lines[0].readings["loss"].smoothed != expected[-1]


def test_a_resumed_run_draws_again_what_it_repeats(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 10))
    book = book_of(workspace, run)
    before = drawn(book, weight=0.9)
    write(run, RunStarted(run.id, "ldm", 20, 5), *steps(6, 10, loss=0.0))
    book.read()
    after = drawn(book, weight=0.9)
    assert after[:5] == before[:5] and after[5:] != before[5:] and len(after) == 10


def test_a_pause_keeps_the_picture_while_points_come(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 10))
    book = book_of(workspace, run)
    assert len(drawn(book, paused=True)) == 10
    write(run, *steps(11, 30))
    book.read()
    picture = book.picture(Wish(metrics=("loss",), paused=True, weight=0.6))
    assert picture.waiting == 20 and picture.window == Window.over(1, 10) and picture.lines[0].step == 10
    assert len(picture.charts["loss"].curves[0].steps) == 10
    assert len(drawn(book)) == 30 and book.picture(Wish()).waiting == 0


def test_runs_that_differ_only_in_their_seed_are_one_line(workspace: Workspace) -> None:
    first, other, second = make(workspace, seed=0), make(workspace, seed=0, lr=0.5), make(workspace, seed=1)
    for run, value in ((first, 1.0), (other, 9.0), (second, 3.0)):
        write(run, *steps(1, 3, loss=value))
    picture = book_of(workspace, first, other, second).picture(Wish(spread="range"))
    assert [line.name for line in picture.lines] == ["ldm task, seeds 0, 1", other.id]
    assert picture.lines[0].readings["loss"] == Reading(3, 2.0, 2.0, 1.0, 3.0)
    assert [len(curve.low) for curve in picture.charts["loss"].curves] == [3, 0]
    apart = book_of(workspace, first, other, second).picture(Wish())
    assert [line.runs for line in apart.lines] == [(first.id,), (other.id,), (second.id,)]


def test_of_runs_with_the_same_seed_the_newest_counts_and_the_others_are_named(workspace: Workspace) -> None:
    first, again, second = make(workspace, seed=0), make(workspace, seed=0), make(workspace, seed=1)
    for run, value in ((first, 100.0), (again, 1.0), (second, 3.0)):
        write(run, *steps(1, 3, loss=value))
    for order in ((first, second, again), (again, first, second)):
        book = book_of(workspace, *order)
        picture = book.picture(Wish(spread="range"))
        (line,) = picture.lines
        assert line.name == "ldm task, seeds 0, 1" and {*line.runs} == {again.id, second.id}
        assert line.readings["loss"] == Reading(3, 2.0, 2.0, 1.0, 3.0)
        assert picture.notes == (
            f"run {first.id} is left out: {again.id} has the same configuration and seed, and is newer",
        )  # fmt: skip
        apart = book.picture(Wish())
        assert len(apart.lines) == 3 and apart.notes == ()


def test_a_newer_run_of_the_same_seed_counts_from_its_first_point(workspace: Workspace) -> None:
    first, again = make(workspace, seed=0), make(workspace, seed=0)
    write(first, *steps(1, 3))
    book = book_of(workspace, first, again)
    assert [line.runs for line in book.picture(Wish(spread="range")).lines] == [(first.id,)]
    write(again, *steps(1, 1))
    book.read()
    assert [line.runs for line in book.picture(Wish(spread="range")).lines] == [(again.id,)]


def test_a_metric_that_only_one_of_the_seeds_has_is_its_own_line(workspace: Workspace) -> None:
    first, second = make(workspace, seed=0), make(workspace, seed=1)
    write(first, *steps(1, 3, loss=1.0, kl=0.0))
    write(second, *steps(1, 3, loss=3.0))
    picture = book_of(workspace, first, second).picture(Wish(spread="deviation", logs=frozenset({"kl", "loss"})))
    (curve,) = picture.charts["kl"].curves
    assert len(curve.low) == 0 and picture.charts["kl"].dropped == 3
    assert picture.lines[0].readings["kl"] == Reading(3, 0.0, 0.0)
    assert picture.lines[0].readings["loss"].low == pytest.approx(2 - math.sqrt(2))


def test_a_run_without_its_configuration_stands_apart_and_it_says_so(workspace: Workspace) -> None:
    first, second = make(workspace, seed=0), make(workspace, seed=1)
    write(first, *steps(1, 3))
    write(second, *steps(1, 3))
    (second.path / "config.toml").write_text("seed = = 1")
    book = book_of(workspace, first, second)
    assert len(book.picture(Wish(spread="range")).lines) == 2
    book.read()
    assert any("apart" in told and second.id in told for told in book.picture(Wish(spread="range")).notes)
    assert book.picture(Wish()).notes == ()  # where all stand apart there is nothing to say


@pytest.mark.parametrize("file", ["run.json", "config.toml"])
@pytest.mark.parametrize("content", ["[" * 100_000, "a = " + "[" * 100_000, "a = 1" + "0" * 5000])
def test_a_run_whose_files_hold_what_none_writes_stands_apart(workspace: Workspace, file: str, content: str) -> None:
    first, second = make(workspace, seed=0), make(workspace, seed=1)
    write(first, *steps(1, 3))
    write(second, *steps(1, 3))
    (second.path / file).write_text(content)
    picture = book_of(workspace, first, second).picture(Wish(spread="range"))
    assert [line.runs for line in picture.lines] == [(first.id,), (second.id,)]
    (told,) = picture.notes
    assert told.startswith(f"run {second.id} is shown apart from other seeds") and f"runs rm {second.id}" in told


def test_a_long_log_is_read_in_slices_and_the_others_are_not_kept_waiting(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = make(workspace), make(workspace, seed=1)
    write(long, *steps(1, 3000))
    write(short, *steps(1, 10))
    book = CurveBook(workspace)
    book.follow((long.id, short.id))
    monkeypatch.setattr(follower, "SLICE_BYTES", 1 << 14)
    book.read()
    assert book.behind and [line.step for line in book.picture(Wish()).lines][1] == 10
    assert 0 < (book.picture(Wish()).lines[0].step or 0) < 3000
    rounds = 0
    while book.behind:
        assert book.read(enough=lambda: True) or rounds < 100
        rounds += 1
    assert book.picture(Wish()).lines[0].step == 3000 and rounds > 5


def test_of_a_log_that_is_long_when_it_is_opened_steps_are_left_out_and_what_comes_later_is_not(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All validations stay, a resumption counts, it is said, and ``whole`` leaves out nothing."""
    monkeypatch.setattr(follower, "SIFTED_BYTES", 1 << 14)
    run, validations = make(workspace), [ValidationMeasured(step, {"accuracy": step / 10}) for step in range(100, 1100)]
    write(
        run, RunStarted(run.id, "ldm", 3000), *steps(1, 1000), *validations[::100], RunStarted(run.id, "ldm", 3000, 900)
    )
    book, size = book_of(workspace, run), run.events_path.stat().st_size
    stride = 1 + size // (1 << 14)
    drawn_now = [step for step, _ in drawn(book)]
    assert drawn_now == [*range(stride, 901, stride)] and stride > 2
    assert [step for step, _ in drawn(book, "validation.accuracy")] == [*range(100, 901, 100)]
    (told,) = book.picture(Wish()).notes
    assert f"one logged step in {stride} is drawn" in told and "runs curves --all" in told
    write(run, *steps(901, 950))
    assert read_all(book) and [step for step, _ in drawn(book)] == [*drawn_now, *range(901, 951)]
    whole = CurveBook(workspace, whole=True)
    whole.follow((run.id,))
    read_all(whole)
    curve = whole.curve(run.id, "loss", 0.0)
    assert curve is not None and [*curve.steps] == [*range(1, 951)] and whole.picture(Wish()).notes == ()


def test_the_points_of_a_run_that_never_ends_are_bounded_and_their_extremes_stay(workspace: Workspace) -> None:
    curves = Curves(most=1000)
    values = {step: -9.0 if step == 4321 else 9.0 if step == 8765 else math.sin(step) for step in range(1, 20_001)}
    longest = 0
    for step, value in values.items():
        curves.absorb([StepLogged(step, {"loss": value})])
        longest = max(longest, len(curves.series["loss"]))
    series = curves.series["loss"]
    assert longest <= 1001 and len(series) > 400 and curves.cuts > 5
    assert all(values[int(step)] == value for step, value in zip(series.steps, series.values, strict=True))
    assert [*series.steps] == sorted(set(series.steps)) and (series.steps[0], series.steps[-1]) == (1, 20_000)
    assert {-9.0, 9.0} <= {*series.values}


def test_a_log_that_vanishes_while_it_is_read_is_not_waited_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SLICE_BYTES", 1 << 10)
    run = make(workspace)
    write(run, *steps(1, 3000))
    book = CurveBook(workspace)
    book.follow((run.id,))
    assert book.read() and book.behind
    run.events_path.unlink()
    book.read()
    assert not book.behind and "its log is gone" in book.picture(Wish()).troubles[0]


def test_only_what_changed_is_worked_out_again(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 10))
    book = book_of(workspace, run)
    first = book.picture(Wish()).charts["loss"].curves[0]
    assert book.picture(Wish(cursor=3)).charts["loss"].curves[0] is first
    assert book.picture(Wish(weight=0.9)).charts["loss"].curves[0] is not first
    write(run, *steps(11, 11))
    book.read()
    assert len(book.picture(Wish()).charts["loss"].curves[0].steps) == 11


# The thread


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.005)


def test_the_reader_answers_wishes_and_follows_and_ends(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 10))
    pictures: list[CurvesPicture] = []
    reader = CurveReader(workspace, pictures.append)
    reader.wish(Wish(number=1, runs=(run.id,)))
    wait_for(lambda: pictures and pictures[-1].number == 1)
    assert pictures[-1].lines[0].step == 10
    write(run, *steps(11, 12))
    wait_for(lambda: pictures[-1].lines[0].step == 12)
    reader.rest(True)
    count = len(pictures)
    reader.wish(Wish(number=2, runs=(run.id,)))
    reader.rest(False)
    wait_for(lambda: pictures[-1].number == 2)
    assert len(pictures) >= count
    reader.close()
    reader._thread.join(10)
    assert not reader._thread.is_alive()


def test_the_reader_outlives_what_nobody_expected(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(workspace)
    write(run, *steps(1, 10))
    pictures: list[CurvesPicture] = []
    reader = CurveReader(workspace, pictures.append)
    reader.wish(Wish(number=1, runs=(run.id,)))
    wait_for(lambda: pictures and pictures[-1].number == 1)
    sound = CurveBook.picture

    def fails(book: CurveBook, wish: Wish) -> CurvesPicture:
        raise RuntimeError("seven")

    monkeypatch.setattr(CurveBook, "picture", fails)
    reader.wish(Wish(number=2, runs=(run.id,)))
    wait_for(lambda: pictures[-1].number == 2)
    (told,) = pictures[-1].troubles
    assert "RuntimeError('seven')" in told and pictures[-1].lines[0].step == 10 and not pictures[-1].behind
    monkeypatch.setattr(CurveBook, "picture", sound)
    wait_for(lambda: not pictures[-1].troubles)  # without being woken
    assert pictures[-1].number == 2
    reader.close()
    reader._thread.join(10)
    assert not reader._thread.is_alive()


def test_a_long_log_is_drawn_at_most_four_times_a_second_while_it_is_read(workspace: Workspace) -> None:
    run = make(workspace)
    write(run, *steps(1, 20_000))
    drawn: list[tuple[float, CurvesPicture]] = []
    reader = CurveReader(workspace, lambda picture: drawn.append((time.monotonic(), picture)))
    reader.wish(Wish(number=1, runs=(run.id,)))
    wait_for(lambda: drawn and not drawn[-1][1].behind)
    reader.close()
    assert drawn[-1][1].lines[0].step == 20_000 and drawn[0][1].behind
    at = [when for when, _ in drawn]
    assert len(at) > 2 and min(after - before for before, after in pairwise(at)) >= 0.9 * PICTURE_SECONDS


# Words


def view(run: str, step: int | None = 10, **more: Any) -> RunView:
    values = {"kind": "ldm", "variant": "task", "state": "running", "seed": 0, **more}
    return RunView(
        run, Path("/runs") / run, values["kind"], values["variant"], values["state"], step, 100, 0.1, "accuracy", 50.0,
        0.0, 0.0, (), "scenes", values["seed"], None, 0.0,
    )  # fmt: skip


def test_the_selected_runs_are_shown_or_the_newest_that_trains() -> None:
    views = [view("a"), view("b"), view("c", step=None)]
    assert runs_to_show(("b", "a"), views).runs == ("b", "a") and runs_to_show(("b",), views).remark == ""
    newest = runs_to_show((), views)
    assert newest.runs == ("b",) and "newest" in newest.remark
    assert runs_to_show((), views[2:]).runs == ()
    assert runs_to_show((), views[:1], kept=ShownRuns(())) == runs_to_show((), views[:1])
    kept = runs_to_show((), views, kept=runs_to_show((), views[:1]))
    assert (kept.runs, kept.newer) == (("a",), "b") and runs_to_show((), views, kept=newest) == newest
    assert runs_to_show(("a",), views, kept=newest) == ShownRuns(("a",))  # what is selected is shown
    assert runs_to_show((), views, kept=ShownRuns(("a",))) == newest  # that was selected, and no longer is
    gone = runs_to_show((), views[1:], kept=runs_to_show((), views[:1]))
    assert (gone.runs, gone.newer) == (("a",), None)  # whether another is newer cannot be told
    many = runs_to_show([f"r{k}" for k in range(50)], [])
    assert len(many.runs) == MOST_RUNS and "50" in many.remark


@pytest.mark.parametrize(
    ("columns", "charts", "height", "shape"),
    [(2, 7, 26, (2, (9, 9, 8))), (1, 7, 15, (1, (8, 7))), (3, 2, 30, (2, (30,))), (2, 0, 10, (1, (10,))),
     (2, 9, 3, (2, (3,))), (2, 3, 0, (2, (1,)))],
)  # fmt: skip
def test_charts_fill_the_height_they_have(columns: int, charts: int, height: int, shape: tuple[int, Any]) -> None:
    assert grid_shape(columns, charts, height) == shape


def line_of(number: int, name: str, **readings: Reading) -> Line:
    return Line(number, (name,), name, 10, readings)


def test_the_table_of_lines_says_everything_that_fits() -> None:
    lines = [line_of(0, "ldm-1", loss=Reading(10, 0.5, 0.25)), line_of(1, "ldm-22", loss=Reading(10, 2e-9, 1.0))]
    views = {"ldm-1": view("ldm-1")}
    head, rows = lines_table(lines, views, "loss", True, 80)
    assert head == "run     what              state      step  value  smoothed"
    assert rows == [
        "ldm-1   ldm task, seed 0  running  10/100    0.5      0.25",
        "ldm-22                    removed      10   2e-9         1",
    ]
    head, rows = lines_table(lines, views, "loss", False, 30)
    assert head == "run     state      step  value" and len(rows[0]) <= 30
    assert lines_table(lines, views, None, False, 80)[1][0].endswith("-")


def test_of_several_seeds_the_table_tells_the_band() -> None:
    line = Line(0, ("a", "b"), "ldm task, seeds 0, 1", 10, {"loss": Reading(10, 2.0, 2.0, 1.0, 3.0)})
    views = {"a": view("a"), "b": view("b", state="finished")}
    (row,) = lines_table([line], views, "loss", False, 100)[1]
    assert "running, finished" in row and row.endswith("2 (1 – 3)")
    (row,) = lines_table([line], views, "loss", True, 100)[1]
    assert row.endswith("-  2 (1 – 3)")  # the mean of smoothed values is no measured one


def test_the_border_tells_as_many_values_as_fit() -> None:
    lines = [line_of(k, f"r{k}", loss=Reading(1, k, k)) for k in range(5)]
    assert chart_values("loss", lines, "abcde", 40) == "a 0  b 1  c 2  d 3  e 4"
    assert chart_values("loss", lines, "abcde", 12) == "a 0  b 1 …"
    assert chart_values("loss", lines, "abcde", 2) == "" == chart_values("kl", lines, "abcde", 40)


def test_a_title_counts_what_is_not_drawn() -> None:
    assert chart_title("kl", ChartData((), 0), False) == "KL"
    assert chart_title("loss", ChartData((), 1), False) == "loss · 1 point not finite"
    assert chart_title("loss", ChartData((), 1200), True) == "loss (log) · 1,200 points without a logarithm"


def test_the_status_says_what_is_shown() -> None:
    picture = CurvesPicture(lines=(line_of(0, "a"), line_of(1, "b")), window=Window(10, 20, 0, 2000), waiting=5)
    words = status(picture, ShownRuns(("a", "b")), 0.9, "range", True)
    assert words == (
        "PAUSED (5 newer points) · smoothing 0.9 · mean and range · steps 10–20 of 0–2,000 · 2 runs"
    )  # fmt: skip
    shown = ShownRuns(("a",), "newest run", True, newer="b")
    assert status(CurvesPicture(behind=True), shown, 0, None, False) == "newer: b · reading the logs… · newest run"


# Wishes


def test_zoom_and_pan_stay_within_the_data_and_show_all_again() -> None:
    window = Window.over(0, 100)
    closer = zoomed(Wish(), window, 1)
    assert closer.window is not None and closer.window.start == pytest.approx(50 - 100 / 3)
    assert zoomed(closer, closer.window, -1).window is None  # everything again, and what comes later too
    at_cursor = zoomed(Wish(cursor=0), window, 1).window
    assert at_cursor is not None and (at_cursor.start, at_cursor.stop) == (0, pytest.approx(200 / 3))
    right = panned(closer, closer.window, 1).window
    assert right is not None and right.start == pytest.approx(closer.window.start + 0.25 * 200 / 3)
    assert panned(Wish(), window, 1).window is None


def test_the_cursor_begins_at_the_newest_step_and_moves_by_columns() -> None:
    window, wish = Window.over(0, 100), Wish(columns=101)
    first = cursor_moved(wish, window, -1)
    assert first.cursor == 100 and cursor_moved(first, window, 1).cursor == 100
    assert cursor_moved(first, window, -10).cursor == pytest.approx(80)


def test_smoothing_and_log_axes_come_round() -> None:
    wish, weights = Wish(), []
    for _ in range(4):
        wish = smoothed_more(wish)
        weights.append(wish.weight)
    assert weights == [0.6, 0.9, 0.97, 0.0]
    assert all_logs(Wish(logs=frozenset({"a"})), ["a", "b"]).logs == {"a", "b"}
    assert all_logs(Wish(logs=frozenset({"a", "b"})), ["a", "b"]).logs == frozenset()
