"""The room γ sweep: what it shows is what was measured, every key does what it says, and no fault stops it."""

import asyncio
import gc
import json
import os
import re
import shutil
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from metavqa_cli.engine.curves import Point
from metavqa_cli.engine.curves import sweep as swept_curves
from metavqa_cli.engine.judgements import Judgement, judgements
from metavqa_cli.engine.scores import CellSpec
from metavqa_cli.engine.swept import Reader
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.asking import Asking
from metavqa_cli.tui.frame import frame, once
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.screens.sweep import SweepRoom
from metavqa_cli.tui.sweep_command import SweepWish, check, fitting_preset, sweeping
from metavqa_cli.tui.sweep_data import (
    Choice,
    colored,
    current_curve,
    curve_name,
    drawn,
    levels_of,
    reading,
    sampler_words,
    series_of,
    shown_curves,
)
from metavqa_cli.tui.sweep_feed import Board, SweepFeed, Wish
from metavqa_cli.tui.sweep_live import Drawn, LiveRead, Model, live_head, model_of, stepped
from metavqa_cli.tui.sweep_show import BoardRead
from metavqa_cli.tui.sweep_state import State
from metavqa_cli.tui.sweep_tasks import (
    JudgedImage,
    TaskLine,
    change_text,
    image_lines,
    judged_images,
    summary,
    task_lines,
    tasks_words,
)
from metavqa_cli.tui.widgets.choose import ChooseOne, ChooseSome
from metavqa_cli.tui.widgets.dialogs import Help
from metavqa_cli.tui.widgets.picture import Gallery
from metavqa_cli.tui.widgets.sweep_answers import SweepAnswers, SweepPictures
from metavqa_cli.tui.widgets.sweep_form import SweepForm
from metavqa_cli.tui.widgets.sweep_plot import SweepPlot
from tests import miniature, old_format, sweeps
from tests.cli.terminal import python
from tests.tui.pilots import until

SIZE = (160, 48)
FINE, ASCII = Look(), Look(ascii=True, color=False)
LDM = CellSpec("task-ldm", 0, gamma=1.0)
Steps = Callable[["Pilot[Any]", SweepRoom], Awaitable[None]]


def drive(root: Path, steps: Steps, size: tuple[int, int] = SIZE, **how: Any) -> None:
    """Run the room on a workspace until it has settled, and go through ``steps``."""

    async def main() -> None:
        app = make_app(root, room="sweep", look_seconds=0.05, **how)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(app.room, SweepRoom) and app.room.settled, "the room has settled")
            room = app.room
            assert isinstance(room, SweepRoom)
            await steps(pilot, room)

    asyncio.run(main())


def app_of(pilot: "Pilot[Any]") -> Dashboard:
    assert isinstance(pilot.app, Dashboard)
    return pilot.app


def text_of(room: SweepRoom, name: str) -> str:
    return str(room.query_one(f"#{name}", Static).content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return sweeps.copy(tmp_path / "workspace").root


# Curves, levels and words


def found(family: str = "") -> Any:
    return swept_curves(Reader(sweeps.finished()[0]).read(miniature.NAME), family)


def test_every_curve_level_and_validated_gamma_is_drawn_and_named() -> None:
    sweep = found()
    plotted, _, legend = "\n".join(drawn(sweep, Choice(), 1.0, (150, 40), FINE)).partition("└")
    assert plotted.count("▲") == 2 and plotted.count("★") == 1 and "●" in plotted
    assert plotted.count("┆") > 20 and "╌╌╌╌" in plotted and "┈┈┈┈" in plotted
    entries = ("● Task + HyperLDM (here)", "▲ Task + HyperLDM without anchor", "★ γ chosen on validation tasks",
               "╌╌╌ Uncond. Multitask, zero-shot: ", "┈┈┈ few-shot ceiling, ", "± s.d. over 1 to 2 seeds")  # fmt: skip
    assert all(words in legend for words in entries)
    alone = Choice(hidden=frozenset({sweep.curves[1].key}))
    assert "\n".join(drawn(sweep, alone, 1.0, (150, 40), FINE)).partition("└")[0].count("●") == 3


def test_where_there_is_little_room_the_legend_is_short_and_the_plot_stays() -> None:
    lines = drawn(found(), Choice(), 1.0, (76, 11), FINE)
    assert len(lines) <= 11 and any("● task-ldm (here)" in line for line in lines)
    assert sum("┆" in line for line in lines) >= 2 and sum("│" in line or "┤" in line for line in lines) >= 4


def test_levels_have_their_seeds_tasks_and_interval_and_the_ceiling_says_that_it_was_chosen() -> None:
    sweep = found()
    multitask, ceiling = sweep.multitask, sweep.ceiling
    assert multitask.low < multitask.mean < multitask.high and ceiling.among > 1
    lines = levels_of(sweep)
    assert [line.note for line in lines] == [
        f" % (2 seeds), 95 % {multitask.low:.2f}–{multitask.high:.2f} (13 tasks)",
        f" % ({len(ceiling.seeds)} seeds), 95 % {ceiling.low:.2f}–{ceiling.high:.2f} (13 tasks)",
    ]
    assert f"the best of {ceiling.among} on all test tasks" in lines[1].label
    assert levels_of(sweep, short=True)[0].note == f" ({multitask.low:.1f}–{multitask.high:.1f}, 2 seeds)"
    legend = " ".join(drawn(sweep, Choice(), 1.0, (150, 40), FINE))
    assert f"{multitask.mean:.2f}{lines[0].note}" in legend
    lone = replace(sweep, multitask=replace(multitask, tasks=1), ceiling=replace(ceiling, among=1))
    assert levels_of(lone)[0].note == " % (2 seeds), one task, so no interval"
    assert levels_of(lone, short=True)[0].note == " (2 seeds)" and "best of" not in levels_of(lone)[1].label


def test_curves_that_were_drawn_otherwise_name_their_samplers() -> None:
    one, other = found().curves
    assert curve_name(one, [one, other]) == "Task + HyperLDM" and one.sampler == other.sampler
    other = replace(other, sampler="ddpm, all steps")
    sweep = replace(found(), curves=(one, other, replace(one, descriptors=0.5)))
    assert [curve_name(curve, sweep.curves) for curve in sweep.curves] == [
        "Task + HyperLDM, ddim, 4 steps", "Task + HyperLDM without anchor, ddpm, all steps",
        "Task + HyperLDM (50 % of the questions), ddim, 4 steps",
    ]  # fmt: skip
    assert sampler_words(sweep, Choice()) == "ddim, 4 steps (here)"
    assert sampler_words(sweep, Choice(current=other.key)) == "ddpm, all steps (here)"
    assert sampler_words(sweep, Choice(hidden=frozenset({other.key}))) == "ddim, 4 steps"
    short = series_of(sweep, Choice(), FINE, short=True)
    assert [line.label for line in short[:3]] == ["task-ldm (here)", "task-ldm-plain", "task-ldm 50 %"]


def test_ascii_has_only_ascii() -> None:
    text = "\n".join(drawn(found(), Choice(), 1.0, (100, 30), ASCII))
    assert text.isascii() and "!" in text and "* gamma chosen" in text


def test_bands_are_what_was_chosen() -> None:
    sweep = found()
    points = sweep.curves[0].points
    by_seeds, by_tasks, none = (
        series_of(sweep, Choice(band=band), FINE)[0].spread for band in ("seeds", "tasks", "none")
    )
    assert by_seeds == [point.sd for point in points] and by_seeds[0] is None and by_seeds[1]
    assert by_tasks == [(point.mean - point.low, point.high - point.mean) for point in points]
    assert list(none) == [None] * 3
    assert "░░░ 95 % interval over 13 tasks" in drawn(sweep, Choice(band="tasks"), None, (150, 40), FINE)[-1]


def test_the_words_say_the_numbers_at_the_line() -> None:
    sweep = found()
    point = sweep.curves[0].points[1]
    first, second, third, fourth = reading(sweep, sweep.curves[0], point)
    assert first == (f"γ = 1: {point.mean:.2f} % ± {point.sd:.2f} s.d. (2 seeds), "
                     f"95 % {point.low:.2f}–{point.high:.2f} (13 tasks)")  # fmt: skip
    assert second.startswith(f"{point.diff[0]:+.2f} points to Uncond. Multitask, 95 % {point.diff[1]:+.2f} to ")
    validated = sweep.curves[0].validated
    assert third.startswith("validated γ, ") and all(f"{gamma:g}" in third for gamma in validated.gammas)
    assert third.endswith(f": {validated.mean:.2f} % ± {validated.sd:.2f} s.d. (2 seeds), "
                          f"95 % {validated.low:.2f}–{validated.high:.2f} (13 tasks)")  # fmt: skip
    assert fourth.startswith(f"{validated.diff[0]:+.2f} points to Uncond. Multitask, 95 % ")
    lone = replace(point, tasks=1, common=(0,))
    assert reading(sweep, replace(sweep.curves[0], validated=None), lone) == [
        f"γ = 1: {point.mean:.2f} % ± {point.sd:.2f} s.d. (2 seeds), one task, so no interval",
        f"{point.diff[0]:+.2f} points to Uncond. Multitask (over 1 seed)",
    ]
    assert "±" not in reading(sweep, sweep.curves[0], sweep.curves[0].points[0])[0], "of one seed there is none"


def test_a_curve_put_aside_is_not_drawn_unless_it_is_scrubbed() -> None:
    sweep = found()
    one, other = sweep.curves
    choice = Choice(current=other.key, hidden=frozenset({one.key, other.key}))
    assert shown_curves(sweep, choice) == [other] and current_curve(sweep, choice) is other
    assert current_curve(sweep, Choice()) is one
    assert shown_curves(sweep, Choice(share=0.5)) == [one, other], "a share that nothing has hides nothing"


def test_colours_only_repeat_what_marks_say() -> None:
    lines = drawn(found(), Choice(), 1.0, (100, 30), FINE)
    fine, plain = colored(lines, 2, FINE), colored(lines, 2, Look(color=False))
    assert fine.plain == plain.plain == "\n".join(lines)
    assert fine.spans and not plain.spans


# Tasks and answers


def state() -> State:
    swept = Reader(sweeps.finished()[0]).read(miniature.NAME)
    return State(Board(miniature.NAME, (miniature.NAME,), swept, swept_curves(swept)))


def test_scrubbing_goes_from_point_to_point_and_stops_at_the_ends() -> None:
    now, met = replace_gamma(state(), 0.0), []
    for by in (-1, 1, 1, 1, 1, -1):
        now = now.scrubbed(by)
        assert now.here is not None
        met.append((now.here.gamma, now.there.gamma if now.there else None))
    assert met == [(0, None), (1, 0), (3, 1), (3, 1), (3, 1), (1, 3)]


def replace_gamma(now: State, gamma: float) -> State:
    return replace(now, gamma=gamma)


def test_the_line_begins_at_the_point_nearest_to_the_validated_gamma() -> None:
    now = state()
    assert now.curve is not None and now.curve.validated is not None and now.here is not None
    wanted = min((0.0, 1.0, 3.0), key=lambda gamma: abs(gamma - now.curve.validated.gamma))  # type: ignore[union-attr]
    assert now.here.gamma == wanted and now.there is None


def test_tasks_have_their_accuracy_and_its_change() -> None:
    now = replace_gamma(state(), 1.0).scrubbed(1)
    assert now.here is not None and now.there is not None and now.board.swept is not None
    lines = now.task_lines()
    for line in lines:
        here, there = (100 * sum(float(one.accuracies[line.number]) for one in point.measured) / len(point.measured)
                       for point in (now.here, now.there))  # fmt: skip
        assert (line.now, line.before) == (pytest.approx(here), pytest.approx(there))
    orders = {order: [line.now for line in task_lines(now.board.swept, now.here, now.there, order=order)]
              for order in ("file", "best", "worst")}  # fmt: skip
    assert orders["best"] == sorted(orders["file"], reverse=True) and orders["worst"] == sorted(orders["file"])
    changes = [abs(line.change) for line in task_lines(now.board.swept, now.here, now.there, order="change")]
    assert changes == sorted(changes, reverse=True) and changes[0] > 0


def test_words_and_family_filter_the_tasks() -> None:
    now = state()
    swept = now.board.swept
    assert swept is not None
    family = swept.families[0]
    some = task_lines(swept, now.here, None, family=family)
    assert 0 < len(some) < len(swept.tasks) and {line.family for line in some} == {family}
    word = swept.tasks[0].question.split()[-1].rstrip("?")
    few = task_lines(swept, now.here, None, words=f"{word.upper()} {swept.tasks[0].family}")
    assert swept.tasks[0].question in {line.question for line in few} and len(few) < len(swept.tasks)
    assert task_lines(swept, None, None) == []


def test_changes_have_signs_and_words() -> None:
    changes = [TaskLine(0, "q", "f", 50.0, before) for before in (40.0, 60.0, 50.01, None)]
    assert [change_text(line, FINE) for line in changes] == ["+10.0", "-10.0", "=", ""]


def judgement(image: str, right: str, *shares: tuple[str, float]) -> Judgement:
    return Judgement(image, right, shares)


def test_what_changed_is_said_in_words() -> None:
    now = [judgement("a", "red", ("red", 1.0)), judgement("b", "red", ("blue", 0.5), ("red", 0.5)),
           judgement("c", "red", ("blue", 1.0)), judgement("d", "red", ("red", 0.75), ("blue", 0.25)),
           judgement("e", "red", ("blue", 0.75), ("red", 0.25))]  # fmt: skip
    before = [judgement("a", "red", ("blue", 1.0)), judgement("b", "red", ("red", 1.0)),
              judgement("c", "red", ("green", 1.0)), judgement("d", "red", ("red", 1.0)),
              judgement("e", "red", ("blue", 0.5), ("red", 0.5))]  # fmt: skip
    images = judged_images(now, before)
    assert [one.changed for one in images] == [
        "now right, was blue",
        "now a tie, was red",
        "still wrong, was green",
        "",
        "now wrong, was blue = red",
    ]
    assert not any(one.changed for one in judged_images(now, ()))
    assert [one.mark(FINE) for one in images] == ["✓", "=", "✗", "✓", "✗"]
    line, here, there = TaskLine(0, "Q?", "color", 62.5, 75.0), point_at(2.0, 0, 1), point_at(1.5, 0, 1)
    head = summary(line, images, here, there)
    assert head == ["Q?  [color]", "γ = 2: 62.5 % (-12.5 from γ = 1.5), 2 seeds; 2 of 5 right, 1 tie, 4 changed"]
    assert "(-12.5 from γ = 1.5, other seeds), 2 seeds" in summary(line, images, here, point_at(1.5, 0))[1]
    alone = replace(line, family="", before=None)
    assert summary(alone, images[:1], point_at(2.0, 0), None) == ["Q?", "γ = 2: 62.5 %, 1 seed; 1 of 1 right"]


def point_at(gamma: float, *seeds: int) -> Point:
    return Point((gamma,) * len(seeds), seeds, 6, 50.0, None, 40.0, 60.0, None, (), ())


def test_the_list_says_over_which_seeds_its_numbers_are() -> None:
    two, one = point_at(1.0, 0, 1), point_at(2.0, 0)
    assert tasks_words(two, None, "file") == "mean over 2 seeds · as in the dataset"
    assert tasks_words(one, two, "best") == "one seed · change from other seeds · best first"
    assert tasks_words(two, point_at(2.0, 0, 1), "worst") == "mean over 2 seeds · worst first"
    assert tasks_words(None, None, "file") == "as in the dataset"


@pytest.mark.parametrize(("look", "right", "wrong"), [(FINE, "✓", "✗"), (ASCII, "+", "-")])
@pytest.mark.parametrize("width", [30, 50, 60, 90])
def test_a_line_for_each_image_fits_and_says_all(look: Look, right: str, wrong: str, width: int) -> None:
    images = [
        JudgedImage("004/004047", "red", "red", 1.0, "right", ""),
        JudgedImage("005/005262", "a rather long answer to fit", "blue", 0.5, "wrong", "now wrong, was red"),
        JudgedImage("005/005263", "red", "red = a", 0.5, "tie", ""),
    ]
    lines = image_lines(images, 1.5, width, look)
    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith(f"{right} red") and "100 %" in lines[1]
    assert lines[2].startswith(f"{wrong} a ") and " 50 %" in lines[2] and "blue" in lines[2]
    assert lines[3].startswith("= red")
    assert ("004/004047" in lines[1]) == (width == 90) and ("004047" in lines[1]) == (width >= 60)
    assert width < 50 or ("now wrong" in lines[2] and "since γ = 1.5" in lines[0])


def test_foreign_text_is_made_harmless() -> None:
    image = JudgedImage("a\x1b[31m", "re\x1bd", "b\nlue", 1.0, "wrong", "")
    assert "\x1b" not in "".join(lines := image_lines([image], None, 90, FINE)) and "\n" not in "".join(lines)


# The command


def test_the_command_says_only_what_was_filled_in() -> None:
    assert sweeping(SweepWish("task-ldm", "0:2:1", "0,3", "", "mini", "smoke", "ldm.epochs=2")) == (
        "eval", "sweep", "--method", "task-ldm", "--gamma", "0:2:1", "--seeds", "0,3", "--dataset", "mini",
        "--preset", "smoke", "--set", "ldm.epochs=2",
    )  # fmt: skip
    assert sweeping(SweepWish("", "", "", "", "", "")) == ("eval", "sweep")


def test_the_number_of_cells_is_what_the_command_measures() -> None:
    from metavqa_cli.engine.experiments import sweep_specs

    for wish, specs in (
        (SweepWish("task-ldm,hvae-ldm", "0:2:1", "2", "0.5,1"),
         sweep_specs(["task-ldm", "hvae-ldm"], [0, 1], [0.5, 1.0], [0.0, 1.0, 2.0])),
        (SweepWish(gammas="1", seeds="3,"), sweep_specs(["task-ldm"], [3], [1.0], [1.0])),
    ):  # fmt: skip
        assert check(wish).startswith(f"{len(specs)} cells: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"methods": "film"}, "film has no guidance scale to sweep; choose from hnet-ldm"),
     ({"gammas": "3:0:1"}, "TO not below FROM"), ({"seeds": "x"}, "--seeds takes how many"),
     ({"descriptors": "2"}, "--descriptors takes shares"), ({"overrides": "ldm.epoch=2"}, "ldm.epoch"),
     ({"overrides": "'"}, "close the quote")],
)  # fmt: skip
def test_a_mistake_is_a_sentence(changes: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        check(SweepWish(**changes))


def test_the_preset_that_fits_a_run() -> None:
    from metavqa_cli.engine.configuration import resolve_config

    for name in ("smoke", "tiny", "paper"):
        assert fitting_preset(resolve_config(name).config.model_dump(mode="json")) == name
    assert fitting_preset({}) == "tiny"


# The room


def test_it_shows_curves_words_tasks_answers_and_pictures(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        screen = frame(app_of(pilot)).text
        for words in ("Accuracy against γ on mini", "● Task + HyperLDM (here)", "★ γ chosen", "Tasks: 13",
                      "few-shot ceiling", "Answers", "Pictures", "ddim, 4 steps"):  # fmt: skip
            assert words in screen, words
        assert text_of(room, "sweep-words").startswith("γ = 1: ")
        gallery = room.query_one(Gallery)
        assert len(gallery.tiles) == len(room.images) > 3
        assert all(tile.image is not None and tile.label[0] in "✓✗=" for tile in gallery.tiles)
        assert not room.troubles

    drive(root, steps)


def test_scrubbing_moves_the_line_and_tells_what_changed(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("right")
        await until(pilot, lambda: text_of(room, "sweep-words").startswith("γ = 3: "))
        plot = room.query_one(SweepPlot)
        assert plot.gamma == 3.0 and room.state.there is not None and room.state.there.gamma == 1.0
        swept, line = room.board.swept, room.tasks.list.current
        assert swept is not None and line is not None and room.state.here is not None
        expected = judgements(swept, room.state.here.measured, line.number)
        assert [(one.image, one.answer, one.right) for one in room.images] == [
            (one.image, one.answer, one.right) for one in expected
        ]
        before = {one.image: one.answer for one in judgements(swept, room.state.there.measured, line.number)}
        assert [bool(one.changed) for one in room.images] == [before[one.image] != one.answer for one in room.images]
        assert "since γ = 1" in "\n".join(image_lines(room.images, 1.0, 90, FINE))
        pictures = [tile.label for tile in room.query_one(Gallery).tiles]
        assert [label[0] for label in pictures] == [one.mark(FINE) for one in room.images]
        await pilot.press("full_stop")
        assert room.state.gamma == 3.0, "the last point is the last"
        await pilot.press("comma", "left")
        await until(pilot, lambda: text_of(room, "sweep-words").startswith("γ = 0: "))

    drive(root, steps)


def test_another_task_is_shown_with_its_answers_and_pictures(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        first, before = room.state.question, list(room.query_one(Gallery).tiles)
        await pilot.press("down")
        assert room.state.question != first
        assert room.query_one(SweepAnswers).head[0].startswith(str(room.state.question))
        await until(pilot, lambda: room.settled and room.query_one(Gallery).tiles != before, "other pictures")
        assert len(room.query_one(Gallery).tiles) == len(room.images)
        await pilot.press("up")
        assert room.state.question == first
        await pilot.press("tab")
        assert room.tasks.list.has_focus
        await pilot.press("end")
        assert room.tasks.list.cursor == 12
        await pilot.press("home", "pagedown", "pageup")
        assert room.tasks.list.cursor == 0

    drive(root, steps)


def test_the_task_stays_when_the_order_changes(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("right", "down", "down", "down")
        question = room.state.question
        for order in ("change", "worst", "best", "file"):
            await pilot.press("s")
            assert room.state.order == order and room.state.question == question
            assert room.tasks.list.current is not None and room.tasks.list.current.question == question

    drive(root, steps)


def test_families_cycle_through_curves_and_tasks(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        assert room.board.swept is not None
        family = room.board.swept.families[0]
        await pilot.press("f")
        await until(pilot, lambda: room.board.sweep is not None and room.board.sweep.family == family)
        assert {line.family for line in room.tasks.list.lines} == {family}
        assert f"on mini: {family}, {len(room.tasks.list.lines)} tasks" in frame(app_of(pilot)).text
        whole = found(family).curves[0].points[0].mean
        assert room.board.sweep is not None and room.board.sweep.curves[0].points[0].mean == pytest.approx(whole)
        await pilot.press("F")
        await until(pilot, lambda: room.board.sweep is not None and room.board.sweep.family == "")
        await pilot.press("F")
        await until(pilot, lambda: room.board.sweep is not None and room.board.sweep.tasks < 13)
        await pilot.press("escape")
        await until(pilot, lambda: room.board.sweep is not None and room.board.sweep.tasks == 13)

    drive(root, steps)


def test_bands_are_switched_and_named(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        for words, absent in (("95 % interval over 13 tasks", "± s.d."), ("", "░░░"), ("± s.d. over", "95 % interval")):
            await pilot.press("b")
            await pilot.pause()
            plot = str(room.query_one(SweepPlot).render())
            assert words in plot and absent not in plot

    drive(root, steps)


def test_methods_are_chosen_and_scrubbed(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("m")
        await until(pilot, lambda: isinstance(pilot.app.screen, ChooseSome))
        await pilot.press("space", "down", "enter")
        await until(pilot, lambda: pilot.app.screen is room)
        assert room.state.curve is not None and room.state.curve.method == "task-ldm-plain"
        plot = str(room.query_one(SweepPlot).render())
        assert "● Task + HyperLDM without anchor (here)" in plot and "▲" not in plot
        await pilot.press("left", "left")
        assert text_of(room, "sweep-words").startswith("γ = 0: ")

    drive(root, steps)


def test_shares_of_the_descriptors_are_chosen_where_there_are_several(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("d")
        assert room.state.choice.share is None, "all knew the same"
        half = sweeps.add(Workspace(root), sweeps.cell(LDM), "cell-half")
        rewrite(half, "run.json", cell={"method": "task-ldm", "seed": 0, "descriptors": 0.5, "gamma": 1.0})
        await until(pilot, lambda: room.board.sweep is not None and len(room.board.sweep.curves) == 3)
        for share, curves in ((1.0, 2), (0.5, 1), (None, 3)):
            await pilot.press("d")
            assert room.state.choice.share == share and room.board.sweep is not None
            assert len(shown_curves(room.board.sweep, room.state.choice)) == curves

    drive(root, steps)


def test_a_filter_follows_every_letter(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("slash", *"count")
        await until(pilot, lambda: 0 < len(room.tasks.list.lines) < 13)
        assert room.tasks.line.has_focus
        await until(pilot, lambda: typed(pilot) == "count", "what is typed is seen")
        assert all("count" in f"{line.question} {line.family}".lower() for line in room.tasks.list.lines)
        await pilot.press("enter")
        assert room.tasks.list.has_focus and not room.query_one(Input).has_class("hidden")
        await pilot.press("slash", *"xyz")
        await until(pilot, lambda: not room.tasks.list.lines)
        assert room.images == [] and "no task matches; escape shows all" in frame(app_of(pilot)).text
        await pilot.press("escape")
        await until(pilot, lambda: len(room.tasks.list.lines) == 13)
        assert room.query_one(Input).has_class("hidden")

    drive(root, steps)


def typed(pilot: "Pilot[Any]") -> str:
    """What stands in the last line of the pane Tasks."""
    lines = frame(app_of(pilot)).text.splitlines()
    top = next(row for row, line in enumerate(lines) if re.match("[╭┏]. Tasks: ", line))
    end = next(row for row, line in enumerate(lines) if row > top and line[0] in "╰┗")
    return re.split("[│┃]", lines[end - 1])[1].strip()


def test_it_is_entered_with_a_question(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        assert room.board.swept is not None
        wanted = room.board.swept.tasks[7].question
        app_of(pilot).visit("sweep", question=wanted)
        await until(pilot, lambda: room.state.question == wanted)
        assert room.tasks.list.current is not None and room.tasks.list.current.question == wanted
        app_of(pilot).visit("sweep", question="Never asked?")
        await until(pilot, lambda: any("Never asked?" in said.message for said in pilot.app._notifications))

    drive(root, steps)


def test_enter_asks_about_the_task(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visits: list[Any] = []
    monkeypatch.setattr(Dashboard, "visit", lambda self, name, **what: visits.append((name, what)))

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("down", "enter")
        ((name, what),) = visits
        assert name == "ask" and what["question"] == room.state.question
        assert len(what["images"]) == min(8, len(room.images)) and all(path.is_file() for path in what["images"])

    drive(root, steps)


def test_copy_help_and_renderer(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("c")
        assert pilot.app.clipboard == room.state.question
        await pilot.press("k")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        await pilot.press("escape")
        for key in "1234":
            await pilot.press(key)
        assert [pane.id for pane in room.PANES if room.query_one(f"#{pane.id}").display] == ["sweep-pictures"]

    drive(root, steps)


def test_another_dataset_is_chosen(root: Path) -> None:
    shutil.copytree(root / "datasets" / "mini", root / "datasets" / "other", symlinks=True)

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("o")
        await until(pilot, lambda: isinstance(pilot.app.screen, ChooseOne))
        await pilot.press("end", "enter")
        await until(pilot, lambda: room.board.dataset == "other")
        await until(pilot, lambda: "Nothing was measured at several γ on the dataset 'other' yet: n starts"
                    in frame(app_of(pilot)).text.replace("\n", " "))  # fmt: skip

    drive(root, steps, size=(200, 50))


# A sweep is started and fills in


def test_the_form_shows_the_exact_command_and_starts_it(root: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = ["/bin/sh", "-c", f'echo "$@" > {told}', "metavqa"]

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, SweepForm))
        form = pilot.app.screen
        assert isinstance(form, SweepForm)
        await until(pilot, lambda: form.line != "")
        wanted = "eval sweep --method task-ldm --gamma 0:3:0.25 --seeds 1 --dataset mini --preset tiny"
        assert form.line.startswith("metavqa ") and form.line.endswith(f" {wanted}")
        form.query_one("#gammas", Input).value = "nonsense"
        await until(pilot, lambda: "found 'nonsense'" in str(form.query_one("#wrong", Static).content))
        await pilot.press("ctrl+s")
        assert pilot.app.screen is form, "what is wrong is not started"
        form.query_one("#gammas", Input).value = "0:1:0.5"
        await until(pilot, lambda: str(form.query_one("#remark", Static).content).startswith("8 cells: "))
        await pilot.press("ctrl+y")
        assert pilot.app.clipboard == form.line
        await pilot.press("ctrl+s")
        await until(pilot, lambda: pilot.app.screen is room and told.exists() and told.read_text())
        assert told.read_text().strip().partition("eval")[2] == form.line.partition("eval")[2] != ""

    drive(root, steps, program=program)


def test_the_curve_fills_in_when_a_cell_appears(tmp_path: Path) -> None:
    few = tuple(spec for spec in sweeps.SPECS if spec.gamma in (None, 0.0) and spec.control is None)
    workspace = sweeps.copy(tmp_path / "workspace", few)

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        def gammas() -> list[float]:
            return [point.gamma for point in room.board.sweep.curves[0].points] if room.board.sweep else []

        assert gammas() == [0.0]
        marks = str(room.query_one(SweepPlot).render()).count("●")
        sweeps.add(workspace, sweeps.cell(LDM))
        await until(pilot, lambda: gammas() == [0.0, 1.0])
        assert str(room.query_one(SweepPlot).render()).count("●") == marks + 1
        sweeps.add(workspace, sweeps.cell(CellSpec("task-ldm", 1, gamma=1.0)))
        await until(
            pilot, lambda: room.board.sweep is not None and room.board.sweep.curves[0].points[1].seeds == (0, 1)
        )
        assert not room.troubles

    drive(workspace.root, steps)


def test_cells_that_are_being_measured_are_counted(root: Path) -> None:
    run = Run(root / "runs" / sweeps.cell(LDM).id)
    (run.path / "result.json").unlink()

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        with run.lock():
            await until(pilot, lambda: "1 cell being measured" in frame(app_of(pilot)).text)
        await until(pilot, lambda: "being measured" not in frame(app_of(pilot)).text)

    drive(root, steps)


# A live γ


def asking(workspace: Workspace, dataset: str | None) -> Asking:
    """The service, with the miniature's configuration and its encoder, which is loaded already."""

    def opened(here: Workspace, run: str | None, of: str | None) -> Any:
        from metavqa_cli.engine.ask import Asker
        from metavqa_cli.store import runs

        with patch(miniature.ENCODER, miniature.loaded_encoder):
            chosen = runs.get(here, run) if run else miniature.run("ldm", "task", here)
            return Asker(miniature.session(here), chosen)

    return Asking(workspace, dataset, opened)


def test_live_at_a_measured_gamma_is_what_was_measured_and_between_it_is_not() -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("l")
        await until(pilot, lambda: room.state.drawn is not None, "a classifier was generated")
        swept, line, here = room.board.swept, room.tasks.list.current, room.state.here
        assert swept is not None and line is not None and here is not None and room.state.drawn is not None
        assert (here.gamma, room.state.drawn.gamma) == (1.0, 1.0)
        assert room.state.drawn.run == json.loads((Run(swept_root / "runs" / here.measured[0].run).path / "run.json")
                                                  .read_text())["parents"]["ldm"]  # fmt: skip
        first = judgements(swept, here.measured[:1], line.number)
        assert [one.answer for one in room.images] == [one.answer for one in first]
        assert "shares are probabilities of one sample (seed 0" in room.query_one(SweepAnswers).head[1]
        assert all(0 < one.share < 1 for one in room.images)
        shares = [one.share for one in room.images]
        await pilot.press("right", "right", "right")
        await until(pilot, lambda: room.state.drawn is not None and room.state.drawn.gamma == 1.15)
        assert [one.share for one in room.images] != shares and room.query_one(SweepPlot).gamma == 1.15
        await pilot.press("down")
        await until(pilot, lambda: room.state.drawn is not None and room.state.drawn.question == room.state.question)
        await pilot.press("l")
        assert room.state.live is None and room.query_one(SweepAnswers).head[1].startswith("γ = 1: ")
        assert not room.troubles

    swept_root = sweeps.finished()[0].root
    drive(swept_root, steps, asking=asking)


def test_a_model_that_cannot_be_loaded_is_said_in_place(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("l")
        await until(pilot, lambda: "there is no run 'ldm-" in room.troubles.get("live", ""))
        assert "cannot be generated" in room.query_one(SweepAnswers).head[1]
        await pilot.press("right", "escape")
        await until(pilot, lambda: "live" not in room.troubles and bool(room.images))

    drive(root, steps, asking=asking)


def test_live_steps_stay_on_their_grid() -> None:
    assert [stepped(1.25, 1), stepped(1.0, -1), stepped(0.0, -1), stepped(0.02, 1)] == [1.3, 0.95, 0.0, 0.05]


def test_a_method_that_is_more_than_an_ldm_has_no_live_gamma() -> None:
    now = state()
    with pytest.raises(UsageError, match="no curve is scrubbed"):
        model_of(None, None)
    assert now.curve is not None
    other = replace(now.curve, method="task-ldm-eq11")
    with pytest.raises(UsageError, match="is not a HyperLDM alone; m chooses one of hnet-ldm"):
        model_of(other, now.here)


def test_a_live_gamma_is_of_the_hyperldm_that_the_point_was_drawn_from(tmp_path: Path) -> None:
    workspace = sweeps.copy(tmp_path / "workspace", ())
    sweeps.add(workspace, miniature.run("eval"))
    board = SweepFeed(workspace).read(Wish(miniature.NAME, (workspace.runs_dir / miniature.run("eval").id,)))
    assert board.sweep is not None
    rows = (miniature.run("eval").result() or {})["rows"]
    for curve in board.sweep.curves:
        for point in curve.points:
            (row,) = [row for row in rows if (row["method"], row["gamma"]) == (curve.method, point.gamma)]
            assert model_of(curve, point) == Model(row["run"], row["seed"], row["sampler"])
    assert len({model_of(curve, curve.points[0]).run for curve in board.sweep.curves}) > 1
    curve = board.sweep.curves[0]
    untold = replace(curve.points[0], measured=(replace(curve.points[0].measured[0], ldm=None),))
    with pytest.raises(UsageError, match="does not say which HyperLDM it was drawn from"):
        model_of(curve, untold)


def test_what_is_live_names_its_sampler_and_whether_it_was_measured_so() -> None:
    drawn = Drawn("Q?", 1.0, "ldm-1", "ddim, 5 steps", (judgement("a", "red", ("red", 0.9), ("blue", 0.1)),))
    same, other = (live_head("Q?", "", drawn, 1.0, "", Model("ldm-1", 3, sampler))
                   for sampler in ("ddim, 5 steps", "ddpm, all steps"))  # fmt: skip
    assert same[1] == "live γ = 1: 1 of 1 right; shares are probabilities of one sample (seed 3, ldm-1)"
    assert same[2] == "ddim, 5 steps"
    assert other[2] == "ddim, 5 steps; not as it was measured: ddpm, all steps"


def test_a_live_gamma_ends_with_its_curve_and_with_its_dataset() -> None:
    source = sweeps.finished()[0].root

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("l")
        await until(pilot, lambda: room.state.drawn is not None, "a classifier was generated")
        before, sweep = room.state.drawn, room.board.sweep
        assert before is not None and sweep is not None
        room.go(replace(room.state, choice=Choice(current=sweep.curves[1].key)))
        assert (room.state.live, room.state.drawn, room.state.model) == (None, None, None)
        assert room.query_one(SweepAnswers).head[1].startswith("γ = ")
        await until(pilot, lambda: any("another curve" in said.message for said in app_of(pilot)._notifications))
        room.take_live(LiveRead(before))
        assert room.state.drawn is None, "what comes too late is of the curve before"
        await pilot.press("l")
        assert room.state.live is not None and room.state.model is not None
        room.take_live(LiveRead(replace(before, run="ldm-of-another")))
        assert room.state.drawn is None or room.state.drawn.run == before.run, "nor is it another model's"
        room.take_board(BoardRead(replace(room.board, dataset="other"), room._took))
        assert room.state.live is None and room.board.dataset == "other"

    drive(source, steps, asking=asking)


# Faults


def rewrite(run: Run, name: str, **values: Any) -> None:
    old_format.rewrite(run.path / name, **values)


def test_an_odd_value_is_named_and_when_it_is_mended_everything_goes_on(root: Path) -> None:
    run = Run(root / "runs" / sweeps.cell(LDM).id)
    kept = (run.path / "result.json").read_text()

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        for odd, words in (({"gamma": float("nan")}, "gamma is nan"), ({"sampler": {}}, "sampler is {}")):
            (run.path / "result.json").write_text(kept)
            rewrite(run, "result.json", **odd)
            await until(pilot, lambda words=words: words in room.troubles.get("measured", ""))
        (run.path / "result.json").write_text(kept)
        await until(pilot, lambda: "measured" not in room.troubles and room.settled)

    drive(root, steps)


def test_an_error_that_nobody_thought_of_is_said_and_the_room_looks_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        with monkeypatch.context() as odd:
            odd.setattr(Reader, "read", lambda *_: 1 / 0)
            await until(pilot, lambda: "cannot be read (ZeroDivisionError: " in room.troubles.get("dataset", ""))
            assert room.board.sweep is not None and room.board.sweep.curves, "what was read stays"
        await until(pilot, lambda: "dataset" not in room.troubles)

    drive(root, steps)


def test_the_preset_is_that_of_the_newest_run_on_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metavqa_cli.engine.configuration import resolve_config

    workspace = sweeps.copy(tmp_path / "workspace", sweeps.SPECS[:3])
    shutil.copytree(workspace.datasets_dir / "mini", workspace.datasets_dir / "other", symlinks=True)
    paths = [workspace.runs_dir / sweeps.cell(spec).id for spec in sweeps.SPECS[:3]]
    made = dict(zip(paths, ("smoke", "paper", "smoke"), strict=True))
    monkeypatch.setattr(
        Run, "config", lambda run: resolve_config(made[run.path]).config.model_dump(mode="json")
    )  # fmt: skip
    feed = SweepFeed(workspace)
    wishes = (("mini", paths[:1]), ("mini", paths[:2]), ("mini", paths), ("other", []))
    presets = [feed.read(Wish(name, tuple(runs))).preset for name, runs in wishes]
    assert presets == ["smoke", "paper", "smoke", "tiny"]


def test_what_is_gone_is_not_kept_in_memory(root: Path) -> None:
    runs = tuple(Run(root / "runs" / run.id).path for run in sweeps.finished()[1])
    feed = SweepFeed(Workspace(root))
    board = feed.read(Wish(miniature.NAME, runs))
    assert board.swept is not None
    kept = [weakref.ref(one) for one in board.swept.measured]
    del board
    feed.read(Wish(miniature.NAME, runs[:2]))
    gc.collect()
    assert {ref() is not None for ref in kept} == {True, False}
    assert len({one.run for ref in kept if (one := ref()) is not None}) == 2


def test_a_damaged_cell_is_named_and_the_others_stay(root: Path) -> None:
    run = Run(root / "runs" / sweeps.cell(LDM).id)

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        os.truncate(run.model_path, 100)
        await until(pilot, lambda: "truncated" in room.troubles.get("measured", ""))
        assert room.board.sweep is not None
        assert [point.seeds for point in room.board.sweep.curves[0].points] == [(0,), (1,), (0, 1)]
        shutil.rmtree(run.path)
        await until(pilot, lambda: "measured" not in room.troubles)

    drive(root, steps)


def test_a_cell_that_is_deleted_while_it_is_shown(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        for seed in (0, 1):
            shutil.rmtree(root / "runs" / sweeps.cell(CellSpec("task-ldm", seed, gamma=1.0)).id)
        await until(pilot, lambda: room.board.sweep is not None and len(room.board.sweep.curves[0].points) == 2)
        assert room.state.here is not None and room.state.here.gamma in (0.0, 3.0)
        await pilot.press("right", "left")

    drive(root, steps)


def test_a_dataset_that_is_deleted_while_it_is_shown(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        (root / "datasets" / "mini").rename(root / "datasets" / ".mini")
        await until(pilot, lambda: "there is no dataset 'mini'" in room.troubles.get("dataset", ""))
        assert room.board.sweep is not None and room.board.sweep.curves, "what was read stays"
        await pilot.press("right", "f", "down")
        (root / "datasets" / ".mini").rename(root / "datasets" / "mini")
        await until(pilot, lambda: "dataset" not in room.troubles)

    drive(root, steps)


def test_images_that_are_gone_or_damaged_are_frames_that_say_so(root: Path) -> None:
    folder = root / "datasets" / "mini"
    images = folder / "images"
    source = images.resolve()
    images.unlink()
    shutil.copytree(source, images)
    task = Reader(Workspace(root)).read(miniature.NAME).tasks[0]
    first, second = (images / f"{image}.png" for image, _ in task.query[:2])
    first.unlink()
    second.write_bytes(b"no image")

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        tiles = room.query_one(Gallery).tiles
        assert [tile.image is None for tile in tiles[:3]] == [True, True, False]
        assert all(tile.missing and tile.label for tile in tiles[:2])

    drive(root, steps)


def test_without_images_the_pane_says_so(root: Path) -> None:
    (root / "datasets" / "mini" / "images").unlink()

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        said = str(room.query_one(SweepPictures).query_one(Static).content)
        assert "does not say where its images are" in said and room.images

    drive(root, steps)


def test_no_cells_and_no_dataset_say_what_to_do(tmp_path: Path) -> None:
    workspace = sweeps.copy(tmp_path / "workspace", ())
    shown = once(make_app(workspace.root, room="sweep", dataset="mini"), (100, 30))
    assert shown.settled and "n starts a sweep" in shown.text.replace("\n", " ")
    empty = once(make_app(tmp_path / "nothing", room="sweep"), (100, 30))
    assert empty.settled and "`metavqa quickstart` makes one" in " ".join(empty.text.split())

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        await pilot.press("right", "f", "m", "d", "b", "s", "down", "enter", "c", "o", "k")
        assert pilot.app.screen is room

    drive(tmp_path / "nothing", steps)


def test_an_evaluation_alone_is_shown_as_one(tmp_path: Path) -> None:
    workspace = sweeps.copy(tmp_path / "workspace", ())
    sweeps.add(workspace, miniature.run("eval"))

    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        assert "one seed, from the newest evaluation; n starts a sweep" in text_of(room, "sweep-words")
        assert room.images and room.board.sweep is not None and room.board.sweep.kind == "eval"

    drive(workspace.root, steps)


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("size", [(20, 5), (80, 24), (120, 36), (160, 48), (200, 60)])
def test_every_size_is_drawn(size: tuple[int, int], ascii: bool, root: Path) -> None:
    shown = once(make_app(root, room="sweep", ascii=ascii, color=not ascii), size)
    assert shown.settled and (not ascii or shown.text.isascii())
    if size[0] >= 80:
        assert (("γ = 1: " in shown.text) != ascii and "task-ldm" in shown.text) or "Task + HyperLDM" in shown.text


def test_resized_to_almost_nothing_and_back(root: Path) -> None:
    async def steps(pilot: "Pilot[Any]", room: SweepRoom) -> None:
        before = room.images
        await pilot.resize_terminal(20, 5)
        await pilot.press("right", "down")
        await pilot.resize_terminal(*SIZE)
        await until(pilot, lambda: "Accuracy against γ on mini" in frame(app_of(pilot)).text)
        assert room.images and room.images != before

    drive(root, steps)


def test_its_first_paint_needs_no_numpy_and_the_room_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, metavqa_cli.tui.screens.sweep; print(sorted({'numpy', 'torch', 'PIL', 'scipy'} & {*sys.modules}))"
    )
    assert python("-c", code, cwd=tmp_path).out == "[]\n"
    show = (
        "import sys; from pathlib import Path; from metavqa_cli.tui.app import make_app; "
        "from metavqa_cli.tui.frame import once; "
        f"shown = once(make_app(Path({str(sweeps.finished()[0].root)!r}), room='sweep'), (120, 36)); "
        "print(shown.settled, 'torch' in sys.modules)"
    )
    assert python("-c", show, cwd=tmp_path).out == "True False\n"
