"""The room Curves, driven by keys: what is wished, what is drawn, what is said when files vanish, and its pace."""

import asyncio
import json
import math
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot

from metavqa_cli.schema.events import Event, RunStarted, StepLogged, ValidationMeasured, to_record
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.chart import layout_of
from metavqa_cli.tui.frame import frame, once
from metavqa_cli.tui.screens.curves import CurvesRoom
from metavqa_cli.tui.widgets.chart import ChartView
from metavqa_cli.tui.widgets.chart_grid import LinesTable
from metavqa_cli.tui.widgets.dialogs import Help
from tests.bench.curves import SPIKE
from tests.cli.terminal import python
from tests.tui.pilots import until

DATASET = {"name": "scenes", "fingerprint": "f00"}
Script = Callable[[Pilot[Any], CurvesRoom], Awaitable[None]]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(workspace: Workspace, seed: int = 0, kind: str = "ldm", total: int = 100) -> Run:
    config = {"seed": seed, kind: {"lr": 1e-3}}
    key = runs.run_key(kind, config, {}, "f00")
    run = runs.create(workspace, kind, key, config, {}, DATASET, {"variant": "task"}, fresh=True)
    write(run, RunStarted(run.id, kind, total))
    return run


def write(run: Run, *events: Event, mode: str = "a") -> None:
    with run.events_path.open(mode) as log:
        log.writelines(json.dumps(to_record(event)) + "\n" for event in events)


def steps(first: int, last: int, level: float = 1.0) -> list[Event]:
    return [
        StepLogged(step, {"loss": level / step, "grad_norm": level, "lr": 1e-3, "tasks_per_s": 100.0 + step})
        for step in range(first, last + 1)
    ]


@pytest.fixture
def run(workspace: Workspace) -> Run:
    made = make(workspace)
    write(made, *steps(1, 100), ValidationMeasured(50, {"accuracy": 40.0}), ValidationMeasured(100, {"accuracy": 60.0}))
    return made


@pytest.fixture
def other(workspace: Workspace, run: Run) -> Run:
    made = make(workspace, seed=1)
    write(made, *steps(1, 80, 3.0))
    return made


def dashboard(workspace: Workspace, *selected: Run, **how: Any) -> Dashboard:
    return make_app(workspace.root, room="curves", selected=[one.id for one in selected], look_seconds=0.05, **how)


def drive(app: Dashboard, script: Script, size: tuple[int, int] = (120, 36)) -> None:
    async def play() -> None:
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(app.screen, CurvesRoom))
            room = cast(CurvesRoom, app.screen)
            await until(pilot, lambda: room.settled, "curves")
            await script(pilot, room)

    asyncio.run(play())


async def press(pilot: Pilot[Any], room: CurvesRoom, *keys: str) -> None:
    await pilot.press(*keys)
    await until(pilot, lambda: room.settled, f"curves after {keys}")


def chart_of(room: CurvesRoom, metric: str) -> ChartView:
    return next(view for view in room.grid.charts if view.metric == metric)


def painted(view: ChartView) -> str:
    return "\n".join("".join(text for text, _ in row) for row in view.rows())


def table(room: CurvesRoom) -> str:
    return str(room.query_one("#curves-table").render())


def notes(room: CurvesRoom) -> str:
    return str(room.query_one("#curves-notes").render())


def told(room: CurvesRoom) -> str:
    return str(room.query_one("#curves-status").render())


def test_the_selected_runs_are_drawn_in_a_grid_in_their_order(workspace: Workspace, run: Run, other: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        metrics = [view.metric for view in room.grid.charts]
        assert metrics == ["loss", "validation.accuracy", "lr", "grad_norm", "tasks_per_s"]
        assert [str(view.border_title) for view in room.grid.charts][:2] == ["loss", "validation accuracy, %"]
        assert len(room.picture.lines) == 2 and "steps 1–100 · 2 runs" in told(room)
        picture = painted(chart_of(room, "loss"))
        assert "●" in picture and "▲" in picture
        assert str(chart_of(room, "loss").border_subtitle) == "● 0.01  ▲ 0.0375"
        rows = table(room).splitlines()
        assert rows[1].startswith(f"● {run.id}") and "ldm task, seed 0" in rows[1] and "100/100" in rows[1]
        assert rows[2].startswith(f"▲ {other.id}") and "80/100" in rows[2] and "0.0375" in rows[2]
        left, right = (chart_of(room, name).region for name in ("loss", "validation.accuracy"))
        assert left.y == right.y and left.right == right.x

    drive(dashboard(workspace, run, other), script)


def test_without_a_selection_it_is_the_newest_run_and_it_says_so(workspace: Workspace, run: Run, other: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        assert room.wish.runs == (other.id,) and "newest run" in told(room)
        newer = make(workspace, seed=2)
        write(newer, *steps(1, 3))
        await until(pilot, lambda: room.wish.runs == (newer.id,) and room.settled)
        assert room.picture.lines[0].step == 3

    drive(dashboard(workspace), script)


def test_a_run_that_is_looked_at_closely_stays_when_a_newer_one_begins(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        shown = run
        for seed, (close, let_go) in enumerate([("p", "p"), ("plus", "0"), ("comma", "escape")], 2):
            await press(pilot, room, close)
            wish, newer = room.wish, make(workspace, seed=seed)
            write(newer, *steps(1, 3 + seed))
            await until(pilot, lambda newer=newer: f"newer: {newer.id}" in told(room), f"the newer run after {close}")
            assert room.wish == wish and room.picture.lines[0].runs == (shown.id,)
            await pilot.press(let_go)
            await until(
                pilot, lambda newer=newer: room.wish.runs == (newer.id,) and room.settled, f"its curves after {let_go}"
            )
            assert room.picture.lines[0].step == 3 + seed and "newer:" not in told(room)
            shown = newer

    drive(dashboard(workspace), script)


def test_at_80_columns_the_status_says_what_is_drawn_however(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "s", "s", "s", "b", "b", "plus", "p")
        newer = make(workspace, seed=2)
        write(newer, *steps(1, 3))
        await until(pilot, lambda: f"newer: {newer.id}" in told(room), "the newer run")
        line = frame(cast(Dashboard, pilot.app)).text.splitlines()[1]
        assert line.startswith(f" PAUSED · newer: {newer.id} · smoothing 0.97 · mean ± s.d. · steps 18–84"), line

    drive(dashboard(workspace), script, (80, 24))


def test_an_empty_workspace_says_what_to_do(workspace: Workspace) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        words = str(room.query_one("#curves-nothing").render())
        assert "has curves yet" in words and "quickstart" in words and str(workspace.root) in words
        await press(pilot, room, "y", "s", "plus", "left", "comma", "enter", "escape", "p", "b", "0", "Y", "up")
        first = make(workspace)
        await until(pilot, lambda: room.wish.runs == (first.id,) and room.settled)
        assert "Nothing measured yet." in str(room.query_one("#curves-nothing").render())
        write(first, *steps(1, 2))
        await until(pilot, lambda: room.grid.charts)
        assert room.query_one("#curves-nothing").has_class("hidden")

    drive(dashboard(workspace), script)


def test_a_training_run_moves_its_curves(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        before = painted(chart_of(room, "loss"))
        write(run, *steps(101, 150, 900.0))
        await until(pilot, lambda: room.picture.lines[0].step == 150)
        await until(pilot, lambda: painted(chart_of(room, "loss")) != before)
        assert "steps 1–150" in told(room) and str(chart_of(room, "loss").border_subtitle) == "● 6"
        write(run, StepLogged(151, {"kl": 2.0}))
        await until(pilot, lambda: "kl" in room.grid.metrics)
        assert [view.metric for view in room.grid.charts][:3] == ["loss", "validation.accuracy", "kl"]

    drive(dashboard(workspace, run), script)


def test_y_changes_the_axis_of_the_focused_chart_and_capital_y_that_of_all(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "y")
        assert room.wish.logs == {"loss"} == room.picture.logs
        assert str(chart_of(room, "loss").border_title) == "loss (log)" and " 0.1┤" in painted(chart_of(room, "loss"))
        await press(pilot, room, "tab", "y")
        assert room.wish.logs == {"loss", "validation.accuracy"}
        await press(pilot, room, "Y")
        assert room.wish.logs == set(room.picture.names)
        await press(pilot, room, "Y")
        assert room.wish.logs == frozenset()

    drive(dashboard(workspace, run), script)


def test_points_that_cannot_be_drawn_are_counted_in_the_title(workspace: Workspace, run: Run) -> None:
    write(run, StepLogged(101, {"loss": math.nan}), StepLogged(102, {"loss": math.inf}), StepLogged(103, {"loss": 1.0}))

    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        assert str(chart_of(room, "loss").border_title) == "loss · 2 points not finite"

    drive(dashboard(workspace, run), script)


def test_s_smooths_in_rounds_and_the_table_tells_both_values(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        assert "smoothed" not in table(room)
        for weight in (0.6, 0.9, 0.97):
            await press(pilot, room, "s")
            assert room.wish.weight == weight and f"smoothing {weight}" in told(room) and "smoothed" in table(room)
        reading = room.picture.lines[0].readings["loss"]
        assert reading.raw == 0.01 < reading.smoothed
        await press(pilot, room, "s")
        assert room.wish.weight == 0 and "smoothing" not in told(room)

    drive(dashboard(workspace, run), script)


def test_zoom_pan_and_whole(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "plus", "equals_sign")
        window = room.picture.window
        assert window is not None and window.stop - window.start == pytest.approx(99 / 1.5**2)
        assert "of 1–100" in told(room)
        assert {view.pictured.window for view in room.grid.charts} == {(window.start, window.stop)}  # linked
        await press(pilot, room, "right")
        moved = room.picture.window
        assert moved is not None and moved.start == pytest.approx(window.start + 0.25 * (window.stop - window.start))
        await press(pilot, room, "left", "minus", "minus")
        assert room.wish.window is None and "of 1–100" not in told(room)
        await press(pilot, room, "plus", "0")
        assert room.wish.window is None

    drive(dashboard(workspace, run), script)


def test_a_window_at_the_end_follows_what_comes(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "comma", "plus")  # around the newest step
        assert room.wish.window is not None and room.wish.window.stop == 100
        write(run, *steps(101, 120))
        await until(pilot, lambda: room.wish.window is not None and room.wish.window.stop == 120)
        assert room.wish.window.start == pytest.approx(120 - 99 / 1.5)

    drive(dashboard(workspace, run), script)


def test_the_cursor_tells_the_values_at_a_step(workspace: Workspace, run: Run, other: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        view = chart_of(room, "loss")
        await press(pilot, room, "comma")
        assert room.wish.cursor == 100 and "┊" in painted(view) and "at step 100" in str(lines(room).border_subtitle)
        assert str(view.border_subtitle) == "● 0.01" and table(room).splitlines()[2].endswith("-")  # it ends at 80
        columns = layout_of(view.size.width, 10).width
        await press(pilot, room, "less_than_sign")
        assert room.wish.cursor == pytest.approx(100 - 10 * 99 / columns, rel=0.02)
        await press(pilot, room, "full_stop", "comma")
        assert room.wish.cursor == pytest.approx(100 - 10 * 99 / columns, rel=0.02)
        step = round(room.wish.cursor)
        assert str(view.border_subtitle) == f"● {1 / step:.4g}  ▲ 0.0375"
        await press(pilot, room, "escape")
        assert room.wish.cursor is None and "┊" not in painted(view)
        assert "newest values" in str(lines(room).border_subtitle)
        await press(pilot, room, "comma", "greater_than_sign")
        assert room.wish.cursor == 100

    drive(dashboard(workspace, run, other), script)


def lines(room: CurvesRoom) -> LinesTable:
    return room.query_one(LinesTable)


def test_a_pause_keeps_the_picture_and_counts_what_comes(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        for key, last in (("p", 100), ("space", 110)):
            await press(pilot, room, key)
            before = painted(chart_of(room, "loss"))
            assert told(room).startswith("PAUSED")
            write(run, *steps(last + 1, last + 10))
            await until(pilot, lambda: "PAUSED (40 newer points)" in told(room))
            assert painted(chart_of(room, "loss")) == before and room.picture.lines[0].step == last
            await press(pilot, room, key)
            await until(pilot, lambda last=last: room.picture.lines[0].step == last + 10)
            assert "PAUSED" not in told(room) and painted(chart_of(room, "loss")) != before

    drive(dashboard(workspace, run), script)


def test_b_joins_seeds_in_a_band_with_two_kinds_of_edges(workspace: Workspace, run: Run, other: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "b")
        assert [line.name for line in room.picture.lines] == ["ldm task, seeds 0, 1"]
        assert "mean and range" in told(room) and "(" in table(room)
        (curve,) = chart_of(room, "grad_norm").pictured.curves
        assert (curve.values[0], curve.low[0], curve.high[0]) == (2, 1, 3)
        await press(pilot, room, "b")
        assert "mean ± s.d." in told(room)
        (curve,) = chart_of(room, "grad_norm").pictured.curves
        assert curve.high[0] == pytest.approx(2 + math.sqrt(2))
        await press(pilot, room, "b")
        assert len(room.picture.lines) == 2

    drive(dashboard(workspace, run, other), script)


def test_enter_shows_one_chart_large_and_escape_all_again(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "tab", "enter")
        large = chart_of(room, "validation.accuracy")
        await until(pilot, lambda: large.size.width > 110)
        assert [view.metric for view in room.grid.charts if view.display] == ["validation.accuracy"]
        assert large.outer_size.height == room.grid.size.height
        await until(pilot, lambda: room.wish.metrics == ("validation.accuracy",) and room.settled)
        assert "60" in painted(large) and len(painted(large).splitlines()[0]) == large.size.width
        await press(pilot, room, "down")
        await until(pilot, lambda: room.wish.metrics == ("lr",) and room.settled)
        await press(pilot, room, "escape")
        await until(pilot, lambda: all(view.display for view in room.grid.charts) and room.settled)
        assert room.wish.cursor is None and large.size.width < 70

    drive(dashboard(workspace, run), script)


def test_arrows_and_tab_move_between_charts_and_those_out_of_sight_are_drawn_when_they_come(
    workspace: Workspace, run: Run
) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        assert room.wish.metrics == ("loss", "validation.accuracy") and room.metric == "loss"
        await press(pilot, room, "down", "down")
        assert room.metric == "lr"
        await until(pilot, lambda: "lr" in (room.wish.metrics or ()) and room.settled)
        assert "●" in painted(chart_of(room, "lr"))
        await press(pilot, room, "up")
        assert room.metric == "validation.accuracy"
        await press(pilot, room, "pagedown")
        await until(pilot, lambda: "tasks_per_s" in (room.wish.metrics or ()) and room.settled)
        await press(pilot, room, "tab", "tab", "tab", "tab")
        assert room.focused is lines(room) and room.metric == "tasks_per_s"
        assert "tasks per second" in str(lines(room).border_subtitle)
        await press(pilot, room, "left", "plus", "y")  # keys go on working from the table
        assert room.wish.logs == {"tasks_per_s"} and room.wish.window is not None

    drive(dashboard(workspace, run), script, (80, 24))


def test_panes_go_and_come_and_help_says_what_they_are(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        height = room.grid.size.height
        await press(pilot, room, "2")
        await until(pilot, lambda: room.grid.size.height > height)
        await press(pilot, room, "2")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        help = cast(Help, pilot.app.screen)
        assert "Charts" in help.heading and any("border tells" in text for text in help.paragraphs)
        described = {does for _, does in help.keys}
        assert {"Log", "Smooth", "Band", "Zoom", "Zoom out", "Earlier steps", "All steps", "Pause", "Large",
                "Cursor ten columns left", "Back to the grid, or no cursor"} <= described  # fmt: skip

    drive(dashboard(workspace, run), script)


def test_without_charts_the_lines_take_the_room(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        for size in ((80, 24), (160, 48)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: room.size == size and room.settled)
            before = lines(room).region
            assert before.y > room.status.region.bottom
            await press(pilot, room, "1")
            await until(pilot, lambda: lines(room).region.y == room.status.region.bottom, "lines below the status")
            assert lines(room).region.bottom == before.bottom
            await press(pilot, room, "1")
            await until(pilot, lambda before=before: lines(room).region == before, "lines as they were")

    drive(dashboard(workspace, run), script)


def test_columns_by_width(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        for size, columns in (((80, 24), 1), ((120, 36), 2), ((160, 48), 3)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda columns=columns: beside_the_first(room) == columns, f"{columns} columns")

    drive(dashboard(workspace, run), script, (100, 30))


def beside_the_first(room: CurvesRoom) -> int:
    """How many charts are in the first row."""
    return sum(view.region.y == room.grid.charts[0].region.y for view in room.grid.charts)


def test_a_room_that_heard_of_runs_before_it_could_ask_for_curves_has_not_settled(
    workspace: Workspace, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, mount = list[bool](), CurvesRoom.on_mount

    def late(room: CurvesRoom) -> None:
        room.take(replace(room.dashboard.snapshot, read_at=1.0))  # as a slow machine may have it
        seen.append(room.settled)
        mount(room)

    monkeypatch.setattr(CurvesRoom, "on_mount", late)

    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        assert seen == [False] and "loss" in frame(cast(Dashboard, pilot.app)).text

    drive(dashboard(workspace, run), script)


def test_a_terminal_made_tiny_and_large_again(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        before = frame(cast(Dashboard, pilot.app)).text
        for size in ((20, 5), (1, 1), (200, 60), (120, 36)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: room.settled)
        await until(pilot, lambda: frame(cast(Dashboard, pilot.app)).text == before)

    drive(dashboard(workspace, run), script)


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
def test_ascii_and_no_color_tell_as_much(workspace: Workspace, run: Run, other: Run, size: tuple[int, int]) -> None:
    shown = once(dashboard(workspace, run, other, ascii=True, color=False), size)
    assert shown.settled and shown.text.isascii()
    assert f"o {run.id}" in shown.text and f"x {other.id}" in shown.text and "o 0.01  x 0.0375" in shown.text
    fine = once(dashboard(workspace, run, other, color=False), size)
    assert "#3fa7e0" not in fine.svg.lower() and f"▲ {other.id}" in fine.text


def test_lines_have_colours_where_there_are_any(workspace: Workspace, run: Run, other: Run) -> None:
    shown = once(dashboard(workspace, run, other), (120, 36))
    assert "#3fa7e0" in shown.svg.lower() and "#e08a1e" in shown.svg.lower()


# Faults


def test_a_run_removed_while_it_is_shown(workspace: Workspace, run: Run, other: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        shutil.rmtree(run.path)
        await until(pilot, lambda: any("was removed" in said for said in room.troubles.values()))
        await until(pilot, lambda: "removed" in table(room).splitlines()[1])
        assert run.id in " ".join(room.troubles.values()) and len(chart_of(room, "loss").pictured.curves) == 2
        write(other, *steps(81, 90, 3.0))
        await until(pilot, lambda: room.picture.lines[1].step == 90)

    drive(dashboard(workspace, run, other), script)


def test_a_log_cut_short_replaced_and_deleted_while_it_is_shown(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        write(run, *steps(1, 5), mode="w")
        await until(pilot, lambda: "cut short" in notes(room), "a note")
        await until(pilot, lambda: room.picture.lines[0].step == 5 and "steps 1–5" in told(room))
        assert not room.troubles and str(lines(room).border_title) == "Lines · 1 note"  # it takes no row for good
        replacement = run.path / "other.jsonl"
        replacement.write_text("".join(json.dumps(to_record(event)) + "\n" for event in steps(1, 400)) + '{"event": "S')
        replacement.replace(run.events_path)
        await until(pilot, lambda: room.picture.lines[0].step == 400)
        run.events_path.unlink()
        await until(pilot, lambda: any("its log is gone" in said for said in room.troubles.values()))
        write(run, *steps(1, 3))
        await until(pilot, lambda: room.picture.lines[0].step == 3)
        await until(pilot, lambda: not any("gone" in said for said in room.troubles.values()))

    drive(dashboard(workspace, run), script)


def test_a_selected_run_that_is_not_there(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await until(pilot, lambda: "run nobody: there is no such run" in room.troubles.values())
        assert len(room.picture.lines) == 2 and room.picture.lines[1].step == 100

    app = make_app(workspace.root, room="curves", selected=["nobody", run.id], look_seconds=0.05)
    drive(app, script)


def test_names_from_files_are_never_markup(workspace: Workspace, run: Run) -> None:
    write(run, StepLogged(101, {"[bold red]x[/]\x1b[2J": 1.0}))

    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await press(pilot, room, "enter", "up")
        shown = frame(cast(Dashboard, pilot.app)).text
        await press(pilot, room, "escape", "tab", "tab", "tab", "tab", "tab", "enter")
        await until(pilot, lambda: room.metric == "[bold red]x[/]\x1b[2J" and room.settled)
        shown = frame(cast(Dashboard, pilot.app)).text
        assert "[bold red]x[/]\\x1b[2J" in shown and "\x1b" not in shown

    drive(dashboard(workspace, run), script)


def test_a_log_with_hundreds_of_metrics_shows_the_first_ones(workspace: Workspace, run: Run) -> None:
    write(run, StepLogged(101, {f"m{k:03}": 1.0 for k in range(300)}))

    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        assert len(room.grid.charts) == 60 and any("245 more metrics" in said for said in room.troubles.values())

    drive(dashboard(workspace, run), script)


def test_while_another_room_is_in_front_nothing_is_read(workspace: Workspace, run: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        await pilot.press("f2")
        await until(pilot, lambda: pilot.app.screen is not room)
        write(run, *steps(101, 120))
        seen = cast(Dashboard, pilot.app)
        await until(pilot, lambda: (view := seen.snapshot.view(run.id)) and view.step == 120)  # others have read it
        assert room.picture.lines[0].step == 100
        await pilot.press("f3")
        await until(pilot, lambda: room.picture.lines[0].step == 120)

    drive(dashboard(workspace, run), script)


def test_a_run_whose_manifest_breaks_while_it_is_shown(workspace: Workspace, run: Run, other: Run) -> None:
    async def script(pilot: Pilot[Any], room: CurvesRoom) -> None:
        (other.path / "run.json").write_text("[" * 100_000)
        await press(pilot, room, "b")
        assert len(room.picture.lines) == 2 and f"run {other.id} is shown apart" in notes(room)
        write(run, *steps(101, 120))
        await until(pilot, lambda: room.picture.lines[0].step == 120, "what comes later")
        await press(pilot, room, "b", "b")
        assert "apart" not in notes(room) and str(lines(room).border_title) == "Lines"

    drive(dashboard(workspace, run, other), script)


# Long runs


def test_a_hundred_thousand_steps_are_read_and_drawn_while_the_screen_answers(tmp_path: Path) -> None:
    """In a process of its own, because checking types makes charts ten times as slow."""
    code = "import json; from tests.bench.curves import watched; print(json.dumps(watched(1, 100_000)))"
    done = python("-c", code, cwd=tmp_path)
    found = json.loads(done.out)
    print(found)
    assert (found["step"], found["highest"]) == (100_000, SPIKE) and found["points"] <= 1000, done.err
    assert found["pictures"] > 2  # it was drawn before all was read
    assert max(found["reading_lag_longest_ms"], found["keys_lag_longest_ms"]) < 500
