"""The room Runs, driven by its keys: what is shown, what is selected, what is done, and its faults."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input, Select, Static

from metavqa_cli.schema.events import RunFailed, RunInterrupted, RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.frame import frame
from metavqa_cli.tui.run_rows import ORDERS
from metavqa_cli.tui.screens.runs import RunsRoom
from metavqa_cli.tui.widgets.choose import ChooseOne
from metavqa_cli.tui.widgets.dialogs import Confirm
from metavqa_cli.tui.widgets.job_form import JobForm
from metavqa_cli.tui.widgets.run_details import Differences, JobList, RunDetails
from tests import miniature
from tests.cli.terminal import ROOT
from tests.tui.made_runs import NOW, made
from tests.tui.pilots import play, said, until

BASELINE, HVAE, LDM, ZOO = "baseline-11111111", "hvae-22222222", "ldm-33333333", "zoo-44444444"
NEWEST_FIRST = [ZOO, LDM, HVAE, BASELINE]
WAITS = """
import sys, time
try:
    print("ready", *sys.argv[1:], flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""
HOLDS = """
import sys, time
from pathlib import Path
from metavqa_cli.schema.events import RunInterrupted
from metavqa_cli.store.runs import Run
run = Run(Path(sys.argv[1]))
with run.lock():
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        run.append(RunInterrupted(run.id, 40))
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A finished baseline, an interrupted generator made of it, a failed ldm made of that, and a zoo by itself."""
    found = Workspace(tmp_path / "workspace")
    measured = ValidationMeasured(10, {"accuracy": 61.5})
    made(found, BASELINE, events=[RunStarted(BASELINE, "baseline", 10), measured], age=7200, variant="multitask",
         result={"validation": {"accuracy": 61.5}})  # fmt: skip
    made(found, HVAE, parents={"init": BASELINE}, age=3600, variant="task",
         events=[RunStarted(HVAE, "hvae", 100), StepLogged(40, {"loss": 1.0}), RunInterrupted(HVAE, 40)])  # fmt: skip
    made(found, LDM, parents={"generator": HVAE}, age=1800, variant="task", config="seed = 1\n[ldm]\nepochs = 20\n",
         events=[RunStarted(LDM, "ldm", 100), RunFailed(LDM, "out of memory [bold]red[/]")])  # fmt: skip
    made(found, ZOO, age=600, events=[RunStarted(ZOO, "zoo", 0)])
    return found


@pytest.fixture
def dashboard(workspace: Workspace, tmp_path: Path) -> Iterator[Dashboard]:
    """On these runs, with a program for jobs that waits until it is interrupted; what is left of them ends here."""
    app = make_app(
        workspace.root, clock=lambda: NOW, look_seconds=0.05, settings=tmp_path / "dashboard.json",
        program=(sys.executable, "-c", WAITS),
    )  # fmt: skip
    yield app
    for job in app.jobs.all:
        if job.code is None:
            job.process.kill()
        job.process.wait()


def the_room(app: Dashboard) -> RunsRoom:
    assert isinstance(app.room, RunsRoom)
    return app.room


def ids(app: Dashboard) -> list[str]:
    return [view.id for view in the_room(app).list.views]


def here(app: Dashboard) -> str:
    current = the_room(app).list.current
    return current.id if current else ""


def words(app: Dashboard, pane: type[RunDetails] | type[Differences] | type[JobList]) -> str:
    return str(the_room(app).query_one(pane).query_one(Static).render())


def line_of(app: Dashboard, run: str) -> str:
    return next((line for line in rows(app) if line[7:].startswith(run)), "")


def rows(app: Dashboard) -> list[str]:
    """The lines of the list, with its heading, between its borders."""
    region = the_room(app).list.content_region
    lines = frame(app).text.splitlines()[region.y : region.bottom]
    return [line[region.x : region.right] for line in lines]


async def go_to(pilot: Pilot[int], app: Dashboard, run: str) -> None:
    await pilot.press("home", *["down"] * ids(app).index(run))
    await until(pilot, lambda: here(app) == run, f"the cursor on {run}")


async def answered(pilot: Pilot[int], app: Dashboard, question: str, key: str) -> None:
    """Wait for a question and answer it."""
    await until(pilot, lambda: question in getattr(app.screen, "question", ""), f"the question {question!r}")
    await pilot.press(key)
    await until(pilot, lambda: not isinstance(app.screen, Confirm), "the answer")


async def told(pilot: Pilot[int], app: Dashboard, sentence: str) -> None:
    await until(pilot, lambda: sentence in said(app), f"{sentence!r}")


# What is shown


def test_every_run_is_a_line_with_what_matters_of_it(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        assert ids(dashboard) == NEWEST_FIRST
        for run, parts in (
            (BASELINE, ["✓ finished", "███ 100 %", "61.5 val", "2h", "multitask"]),
            (HVAE, ["‖ interrupted", "█░░  40 %", "60m", "task", BASELINE]),
            (LDM, ["✗ failed", "30m", "task", HVAE]),
            (ZOO, ["◌ stale", "10m", "zoo"]),
        ):
            line = line_of(dashboard, run)
            assert all(part in line for part in parts), line
        assert frame(dashboard).text.count(" failed") == 1

    play(dashboard, script, (200, 60))


def test_details_follow_the_cursor_and_foreign_text_is_no_markup(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, LDM)
        await until(pilot, lambda: LDM in words(dashboard, RunDetails), "its details")
        shown = words(dashboard, RunDetails)
        assert "out of memory [bold]red[/]" in shown
        assert f"generator: {HVAE}" in shown and f"  init: {BASELINE}" in shown
        await pilot.press("down")
        await until(pilot, lambda: f"used by   {LDM}" in words(dashboard, RunDetails), "those of the next")

    play(dashboard, script, (160, 48))


def test_the_cursor_moves_by_keys_and_stays_on_its_run(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        for key, run in (
            ("down", LDM), ("j", HVAE), ("end", BASELINE), ("down", BASELINE), ("k", HVAE), ("up", LDM),
            ("home", ZOO), ("up", ZOO), ("pagedown", BASELINE), ("pageup", ZOO), ("down", LDM),
        ):  # fmt: skip
            await pilot.press(key)
            await until(pilot, lambda run=run: here(dashboard) == run, f"{key} to {run}")  # type: ignore[misc]
        made(workspace, "ldm-55555555", age=60)
        await until(pilot, lambda: ids(dashboard)[0] == "ldm-55555555", "the new run")
        assert here(dashboard) == LDM

    play(dashboard, script)


def test_a_click_moves_the_cursor(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.click("#runs-list", offset=(12, 4))
        await until(pilot, lambda: here(dashboard) == HVAE, "the cursor")
        await pilot.click("#runs-list", offset=(12, 12))
        assert here(dashboard) == HVAE, "there is no run"

    play(dashboard, script)


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (160, 48), (200, 60)])
@pytest.mark.parametrize("ascii", [False, True])
def test_rows_stand_under_their_headings_at_every_size_selected_or_not(
    workspace: Workspace, size: tuple[int, int], ascii: bool
) -> None:
    for number in range(60):
        made(workspace, f"cell-{number:08x}", age=10_000 + number)
    app = make_app(workspace.root, ascii=ascii, clock=lambda: NOW)

    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("space", "p", "m")
        await until(pilot, lambda: app.listed("marked"), "the mark")
        heading = rows(app)[0]
        for run in (ZOO, LDM, HVAE, BASELINE):
            line = line_of(app, run)
            assert line.index(run) == heading.index("run")
            assert line[heading.index("state") :][:2] in ("✓ ", "‖ ", "✗ ", "◌ ", "= ", "| ", "x ", ". ")
        assert line_of(app, ZOO).strip().startswith("[1]") and line_of(app, LDM).strip().startswith(">")

    play(app, script, size)


# Filter


def test_the_filter_follows_every_letter_and_a_wrong_one_is_told_in_place(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        wrong = the_room(dashboard).filter_line.query_one(Static)
        await pilot.press("slash")
        await until(pilot, lambda: isinstance(dashboard.focused, Input), "the filter")
        await pilot.press("h")
        await until(pilot, lambda: ids(dashboard) == [HVAE], "what has an h")
        await pilot.press("backspace", *"sta")
        await until(pilot, lambda: ids(dashboard) == [], "nothing")
        assert "no run matches; escape shows all 4" in frame(dashboard).text
        await pilot.press(*"te")
        await pilot.press("colon", *"failed")
        await until(pilot, lambda: ids(dashboard) == [LDM], "what failed")
        assert "Runs: 1 of 4" in frame(dashboard).text
        await pilot.press("space", "greater_than_sign")
        await until(pilot, lambda: "a field is missing before '>'" in str(wrong.render()), "what is wrong")
        assert ids(dashboard) == [LDM], "the list stays as it was"
        await pilot.press("backspace", *"acuracy>1")
        await until(pilot, lambda: "no field 'acuracy'; did you mean accuracy?" in str(wrong.render()), "what is wrong")
        assert "! there is no field" in frame(dashboard).text
        await pilot.press("escape")
        await until(pilot, lambda: ids(dashboard) == NEWEST_FIRST, "all runs")
        assert wrong.has_class("hidden") and dashboard.focused is the_room(dashboard).list

    play(dashboard, script)


def test_enter_keeps_the_filter_and_escape_clears_it_later(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("slash", *"kind:ldm", "enter")
        await until(pilot, lambda: dashboard.focused is the_room(dashboard).list, "the list")
        assert ids(dashboard) == [LDM] and "kind:ldm" in frame(dashboard).text
        made(workspace, "ldm-55555555", age=60)
        made(workspace, "zoo-66666666", age=50)
        await until(pilot, lambda: ids(dashboard) == ["ldm-55555555", LDM], "a new run that matches, and only that")
        await pilot.press("escape")
        await until(pilot, lambda: len(ids(dashboard)) == 6, "all runs")
        assert not the_room(dashboard).filter_line.display

    play(dashboard, script)


def test_an_empty_filter_hides_its_line_again(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("slash", "enter")
        await until(pilot, lambda: dashboard.focused is the_room(dashboard).list, "the list")
        assert not the_room(dashboard).filter_line.display
        assert ids(dashboard) == NEWEST_FIRST

    play(dashboard, script)


def test_letters_that_are_keys_are_letters_in_the_filter(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("slash", *"qdnxu1p?")
        line = the_room(dashboard).filter_line.query_one(Input)
        await until(pilot, lambda: line.value == "qdnxu1p?", "the letters")
        assert isinstance(dashboard.screen, RunsRoom) and not dashboard._exit

    play(dashboard, script)


# Order, selection, flags


def test_s_goes_through_the_orders_and_r_turns_them(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        shown = the_room(dashboard).list
        expected = {"accuracy": BASELINE, "state": LDM, "kind": BASELINE, "progress": BASELINE}
        for name, _ in [*ORDERS[1:], ORDERS[0]]:
            await pilot.press("s")
            await until(pilot, lambda name=name: shown.border_subtitle == name, name)  # type: ignore[misc]
            assert ids(dashboard)[0] == expected.get(name, ids(dashboard)[0])
        assert ids(dashboard) == NEWEST_FIRST
        await pilot.press("r")
        await until(pilot, lambda: ids(dashboard) == NEWEST_FIRST[::-1], "the oldest first")
        assert "newest, turned" in frame(dashboard).text

    play(dashboard, script)


def test_space_selects_in_order_and_again_takes_back(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, HVAE)
        await pilot.press("space")
        await until(pilot, lambda: dashboard.selected == (HVAE,) and here(dashboard) == BASELINE, "one, and onwards")
        await go_to(pilot, dashboard, ZOO)
        await pilot.press("space")
        await until(pilot, lambda: dashboard.selected == (HVAE, ZOO), "two")
        assert "[1]" in line_of(dashboard, HVAE) and "[2]" in line_of(dashboard, ZOO)
        await go_to(pilot, dashboard, HVAE)
        await pilot.press("space")
        await until(pilot, lambda: dashboard.selected == (ZOO,), "one again")
        assert "[1]" in line_of(dashboard, ZOO) and "[" not in line_of(dashboard, HVAE)
        await pilot.press("escape")
        await until(pilot, lambda: dashboard.selected == (), "none")

    play(dashboard, script)


def test_a_selects_all_that_are_shown_or_none(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("a")
        await until(pilot, lambda: dashboard.selected == tuple(NEWEST_FIRST), "all")
        await pilot.press("a")
        await until(pilot, lambda: dashboard.selected == (), "none")
        await pilot.press("slash", *"kind:zoo", "enter", "a")
        await until(pilot, lambda: dashboard.selected == (ZOO,), "all that are shown")

    play(dashboard, script)


def test_a_adds_what_is_shown_to_what_was_selected(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, BASELINE)
        await pilot.press("space", "slash", *"kind:ldm", "enter", "a")
        await until(pilot, lambda: dashboard.selected == (BASELINE, LDM), "both")
        await pilot.press("a")
        await until(pilot, lambda: dashboard.selected == (BASELINE,), "what is shown is taken back, the other stays")

    play(dashboard, script)


def test_enter_keeps_the_selection_wherever_the_cursor_is(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("home", "space", "space", "enter")
        await until(pilot, lambda: dashboard.room is not None and dashboard.room.NAME == "curves", "the curves")
        assert dashboard.selected == (ZOO, LDM)

    play(dashboard, script)


def test_a_selected_run_whose_manifest_is_unreadable_for_a_moment_stays_selected(
    dashboard: Dashboard, workspace: Workspace
) -> None:
    manifest = workspace.runs_dir / LDM / "run.json"
    sound = manifest.read_text()

    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, LDM)
        await pilot.press("space")
        manifest.write_text("[" * 200_000)  # too deep to be read
        await until(pilot, lambda: LDM in dashboard.snapshot.damaged, "the damage")
        assert ids(dashboard) == [ZOO, HVAE, BASELINE], "the others are shown"
        manifest.write_text(sound)
        await until(pilot, lambda: LDM in ids(dashboard), "the run again")
        assert dashboard.selected == (LDM,)

    play(dashboard, script)


def test_the_form_begins_with_the_dataset_of_the_run_and_the_preset_that_is_about_it(
    dashboard: Dashboard, workspace: Workspace
) -> None:
    made(workspace, "ldm-55555555", age=60, dataset="smoke")
    folder = workspace.dataset_dir("smoke")
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")

    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, "ldm-55555555")
        form = await open_form(pilot, dashboard)
        assert form.line.endswith(" train ldm --dataset smoke --preset smoke --with-parents")

    play(dashboard, script)


def test_runs_selected_from_outside_are_shown_and_unknown_ones_dropped(workspace: Workspace) -> None:
    app = make_app(workspace.root, selected=["gone-99999999", LDM], clock=lambda: NOW)

    async def script(pilot: Pilot[int]) -> None:
        assert app.selected == (LDM,)
        assert "[1]" in line_of(app, LDM)

    play(app, script)


def test_p_pins_and_m_marks_and_both_are_kept(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, BASELINE)
        await pilot.press("p")
        await until(pilot, lambda: ids(dashboard) == [BASELINE, ZOO, LDM, HVAE], "the pinned one on top")
        assert here(dashboard) == BASELINE and "↑" in line_of(dashboard, BASELINE)
        await pilot.press("slash", *"kind:zoo", "enter")
        await until(pilot, lambda: ids(dashboard) == [BASELINE, ZOO], "the pinned one whatever the filter")
        await pilot.press("escape")
        await go_to(pilot, dashboard, LDM)
        await pilot.press("m")
        await until(pilot, lambda: "★" in line_of(dashboard, LDM), "the mark")
        assert (dashboard.listed("pinned"), dashboard.listed("marked")) == ([BASELINE], [LDM])
        await pilot.press("M")
        await until(pilot, lambda: ids(dashboard) == [BASELINE, LDM], "only what is marked, and pinned")
        assert "only marked" in frame(dashboard).text
        await pilot.press("escape")
        await until(pilot, lambda: len(ids(dashboard)) == 4, "all")
        await go_to(pilot, dashboard, LDM)
        await pilot.press("m")
        await go_to(pilot, dashboard, BASELINE)
        await pilot.press("p")
        await until(pilot, lambda: ids(dashboard) == NEWEST_FIRST, "taken back")
        assert dashboard.listed("marked") == []

    play(dashboard, script)


def test_c_copies_the_id(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("c")
        await until(pilot, lambda: dashboard.clipboard == ZOO, "the id")
        await told(pilot, dashboard, f"copied: {ZOO}")

    play(dashboard, script)


def test_enter_goes_to_the_curves_of_the_selection_or_of_this_run(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: dashboard.room is not None and dashboard.room.NAME == "curves", "the curves")
        assert dashboard.selected == (ZOO,)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(dashboard.room, RunsRoom) and dashboard.room.is_current, "the runs")
        await pilot.press("escape")
        await until(pilot, lambda: dashboard.selected == (), "none")
        for run in (HVAE, LDM):
            await go_to(pilot, dashboard, run)
            await pilot.press("space")
        await go_to(pilot, dashboard, LDM)
        await pilot.press("enter")
        await until(pilot, lambda: dashboard.room is not None and dashboard.room.NAME == "curves", "the curves")
        assert dashboard.selected == (HVAE, LDM)

    play(dashboard, script)


# Differences


def test_differences_of_two_runs_of_a_real_workspace(tmp_path: Path) -> None:
    app = make_app(miniature.copy(tmp_path / "copy").root)
    weights, task = (miniature.run("hvae", objective).id for objective in ("weights", "task"))

    async def script(pilot: Pilot[int]) -> None:
        assert "Select two or more runs" in words(app, Differences)
        for run in (weights, task):
            await go_to(pilot, app, run)
            await pilot.press("space")
        await until(pilot, lambda: "config.hvae.objective" in words(app, Differences), "the differences")
        lines = words(app, Differences).splitlines()
        at = lines.index("config.hvae.objective")
        width = max(len(weights), len(task))
        assert lines[at + 1 : at + 3] == [f"  {weights:{width}}  weights", f"  {task:{width}}  task"]
        assert not any("config.dataset.name" in line for line in lines), "only what differs"
        await pilot.press("escape")
        await until(pilot, lambda: "Select two or more runs" in words(app, Differences), "none")

    play(app, script, (160, 48))


def test_equal_runs_do_not_differ(dashboard: Dashboard, workspace: Workspace) -> None:
    same = [path.name for path in (made(workspace, f"cell-{n}", age=60 + n) for n in (1, 2))]

    async def script(pilot: Pilot[int]) -> None:
        for run in same:
            await go_to(pilot, dashboard, run)
            await pilot.press("space")
        await until(pilot, lambda: "cell-1, cell-2 do not differ" in words(dashboard, Differences), "no difference")

    play(dashboard, script)


def test_a_damaged_configuration_is_told_where_the_differences_would_be(
    dashboard: Dashboard, workspace: Workspace
) -> None:
    (workspace.runs_dir / LDM / "config.toml").write_text("seed = [")

    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("space", "space")
        await until(pilot, lambda: "config.toml is damaged" in words(dashboard, Differences), "what is wrong")
        assert words(dashboard, Differences).startswith("! ")

    play(dashboard, script)


def test_differences_are_looked_up_again_when_a_run_ends(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("space", "space")
        await until(pilot, lambda: "config.ldm.epochs" in words(dashboard, Differences), "the differences")
        assert "result.gamma" not in words(dashboard, Differences)
        (workspace.runs_dir / LDM / "result.json").write_text('{"gamma": 1.23456789}')
        await until(pilot, lambda: "result.gamma" in words(dashboard, Differences), "the result as well")
        assert f"{LDM}  1.23457" in words(dashboard, Differences)

    play(dashboard, script)


# Delete


def test_delete_asks_and_removes(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("d")
        await answered(pilot, dashboard, f"remove {ZOO} and its files?", "escape")
        assert (workspace.runs_dir / ZOO).is_dir()
        await pilot.press("d")
        await until(pilot, lambda: isinstance(dashboard.screen, Confirm), "the question")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(dashboard.screen, Confirm), "enter by mistake")
        assert (workspace.runs_dir / ZOO).is_dir()
        await pilot.press("d")
        await answered(pilot, dashboard, f"remove {ZOO} and its files?", "y")
        await told(pilot, dashboard, f"removed {ZOO}")
        await until(pilot, lambda: ids(dashboard) == NEWEST_FIRST[1:], "the others")
        assert not (workspace.runs_dir / ZOO).exists() and here(dashboard) == LDM

    play(dashboard, script)


def test_delete_names_what_was_made_from_the_run(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, HVAE)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(dashboard.screen, Confirm), "the question")
        assert f"{LDM} was made from it and will not load without it." in frame(dashboard).text.replace("\n", " ") or (
            f"{LDM} was made from it" in getattr(dashboard.screen, "question", "")
        )
        assert "y: remove all the same" in frame(dashboard).text
        await answered(pilot, dashboard, f"remove {HVAE}", "y")
        await until(pilot, lambda: HVAE not in ids(dashboard), "it is gone")
        await go_to(pilot, dashboard, LDM)
        await until(pilot, lambda: f"generator: {HVAE} (removed)" in words(dashboard, RunDetails), "told of its child")

    play(dashboard, script)


def test_delete_of_a_run_that_has_vanished_is_one_sentence(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("d")
        await until(pilot, lambda: isinstance(dashboard.screen, Confirm), "the question")
        shutil.rmtree(workspace.runs_dir / ZOO)
        await answered(pilot, dashboard, f"remove {ZOO}", "y")
        await told(pilot, dashboard, ZOO)
        await until(pilot, lambda: ids(dashboard) == NEWEST_FIRST[1:], "the others")
        assert "Traceback" not in said(dashboard)

    play(dashboard, script)


# Stop


@pytest.fixture
def holder(workspace: Workspace) -> Iterator["subprocess.Popen[str]"]:
    """A process that works on the generator until it is interrupted."""
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(workspace.runs_dir / HVAE)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with started:
        try:
            assert started.stdout is not None and started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


def test_stop_asks_and_interrupts_the_process(dashboard: Dashboard, holder: "subprocess.Popen[str]") -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, HVAE)
        assert "▶ running" in line_of(dashboard, HVAE)
        await pilot.press("x")
        await answered(pilot, dashboard, f"stop {HVAE}?", "escape")
        assert holder.poll() is None
        await pilot.press("x")
        await answered(pilot, dashboard, f"stop {HVAE}?", "y")
        await told(pilot, dashboard, f"asked process {holder.pid} to stop {HVAE}")
        await until(pilot, lambda: "‖ interrupted" in line_of(dashboard, HVAE), "its end")
        assert holder.wait(60) == 0

    play(dashboard, script)


def test_stop_of_what_does_not_run_says_so_without_asking(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("x")
        await told(pilot, dashboard, f"run {ZOO} is not running: it is stale")
        assert isinstance(dashboard.screen, RunsRoom)

    play(dashboard, script)


def test_stop_of_what_has_just_ended_says_so(dashboard: Dashboard, holder: "subprocess.Popen[str]") -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, HVAE)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(dashboard.screen, Confirm), "the question")
        holder.kill()
        holder.wait()
        await answered(pilot, dashboard, f"stop {HVAE}?", "y")
        await told(pilot, dashboard, f"run {HVAE} is not running")

    play(dashboard, script)


def test_delete_of_a_running_run_is_refused(
    dashboard: Dashboard, workspace: Workspace, holder: "subprocess.Popen[str]"
) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, HVAE)
        await pilot.press("d")
        await answered(pilot, dashboard, f"remove {HVAE}", "y")
        await told(pilot, dashboard, f"run {HVAE} is in use by process {holder.pid} on ")
        assert (workspace.runs_dir / HVAE / "run.json").is_file()

    play(dashboard, script)


# Resume, new


async def job_ready(pilot: Pilot[int], app: Dashboard) -> str:
    """What the stand-in program was given."""
    await until(pilot, lambda: app.jobs.all and b"\n" in app.jobs.all[-1].log.read_bytes(), "the job")
    return app.jobs.all[-1].log.read_text()


@pytest.mark.parametrize(("run", "kind"), [(HVAE, "hvae"), (LDM, "ldm"), (ZOO, "zoo")])
def test_resume_starts_the_job_that_goes_on(dashboard: Dashboard, workspace: Workspace, run: str, kind: str) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, run)
        await pilot.press("u")
        given = await job_ready(pilot, dashboard)
        assert given == f"ready --workspace {workspace.root} train {kind} --resume {run}\n"
        await told(pilot, dashboard, f"started: metavqa train {kind} --resume {run}")
        await until(pilot, lambda: f"metavqa train {kind} --resume {run}" in words(dashboard, JobList), "the list")
        assert words(dashboard, JobList).startswith("running ")

    play(dashboard, script)


def test_resume_of_a_finished_run_says_why_not(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await go_to(pilot, dashboard, BASELINE)
        await pilot.press("u")
        await told(pilot, dashboard, f"run {BASELINE} is finished")
        assert dashboard.jobs.all == []

    play(dashboard, script)


async def open_form(pilot: Pilot[int], app: Dashboard) -> JobForm:
    await pilot.press("n")
    await until(pilot, lambda: isinstance(app.screen, JobForm) and app.screen.line, "the form")
    assert isinstance(app.screen, JobForm)
    return app.screen


def test_the_command_line_follows_every_field(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        form = await open_form(pilot, dashboard)
        start = f"metavqa --workspace {dashboard.workspace.root} "
        assert form.line == f"{start}train ldm --preset tiny --with-parents"
        for name, value, line in (
            ("choice", "task", "metavqa train ldm --on task --preset tiny --with-parents"),
            ("preset", "smoke", "metavqa train ldm --on task --preset smoke --with-parents"),
            ("with-parents", False, "metavqa train ldm --on task --preset smoke"),
            ("outlives", True, "metavqa train ldm --on task --preset smoke"),
            ("gamma", "1.5", "metavqa train ldm --on task --gamma 1.5 --preset smoke"),
            ("seed", "3", "metavqa train ldm --on task --gamma 1.5 --seed 3 --preset smoke"),
            ("dataset", "pets", "metavqa train ldm --on task --gamma 1.5 --seed 3 --dataset pets --preset smoke"),
            ("overrides", "ldm.epochs=2", "metavqa train ldm --on task --gamma 1.5 --seed 3 --dataset pets "
             "--preset smoke --set ldm.epochs=2"),
            ("kind", "hvae", "metavqa train hvae --objective task --seed 3 --dataset pets --preset smoke "
             "--set ldm.epochs=2"),
            ("choice", "weights", "metavqa train hvae --objective weights --seed 3 --dataset pets --preset smoke "
             "--set ldm.epochs=2"),
        ):  # fmt: skip
            field = form.query_one(f"#{name}")
            assert isinstance(field, Select | Input)
            field.value = value
            line = line.replace("metavqa ", start)
            await until(pilot, lambda line=line: form.line == line, f"{name} = {value}: {line}")  # type: ignore[misc]
            shown = str(form.query_one("#line", Static).render())
            assert shown == f"$ {line}"
        assert form.query_one("#gamma").has_class("hidden") and not form.query_one("#start", Button).disabled
        assert "objective" in frame(dashboard).text

    play(dashboard, script)


def test_the_form_is_filled_in_by_keys_alone_and_starts(dashboard: Dashboard, workspace: Workspace) -> None:
    async def script(pilot: Pilot[int]) -> None:
        form = await open_form(pilot, dashboard)
        await pilot.press("tab", "tab", "tab")
        await until(pilot, lambda: dashboard.focused is form.query_one("#gamma"), "the field γ")
        await pilot.press(*"2.5", "tab", "4")
        await until(pilot, lambda: "--gamma 2.5 --seed 4" in form.line, "the line")
        await pilot.press("ctrl+s")
        given = await job_ready(pilot, dashboard)
        wanted = "train ldm --gamma 2.5 --seed 4 --preset tiny --with-parents"
        assert given == f"ready --workspace {workspace.root} {wanted}\n"
        await until(pilot, lambda: f"metavqa {wanted}" in words(dashboard, JobList).replace("\n", ""), "the list")
        assert [job.outlives for job in dashboard.jobs.all] == [False]

    play(dashboard, script, (160, 48))


def test_a_job_that_goes_on_after_quitting_says_so(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        form = await open_form(pilot, dashboard)
        form.query_one("#outlives", Select).value = True
        await pilot.press("ctrl+s")
        await job_ready(pilot, dashboard)
        await until(pilot, lambda: "(goes on after quitting)" in words(dashboard, JobList), "the words")
        assert [job.outlives for job in dashboard.jobs.all] == [True]

    play(dashboard, script)


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [("overrides", "ldm.epoch=3", "did you mean"), ("overrides", "a='open", "close the quote"),
     ("gamma", "-1", "ldm.gamma"), ("seed", "one", "seed is a whole number")],
)  # fmt: skip
def test_what_is_wrong_is_told_and_does_not_start(dashboard: Dashboard, name: str, value: str, wrong: str) -> None:
    async def script(pilot: Pilot[int]) -> None:
        form = await open_form(pilot, dashboard)
        form.query_one(f"#{name}", Input).value = value
        told = lambda: str(form.query_one("#wrong", Static).render())  # noqa: E731
        await until(pilot, lambda: wrong in told() and told().startswith("! "), "what is wrong")
        assert form.query_one("#start", Button).disabled
        await pilot.press("ctrl+s")
        assert dashboard.screen is form and dashboard.jobs.all == []
        form.query_one(f"#{name}", Input).value = ""
        await until(pilot, lambda: not form.query_one("#start", Button).disabled, "mended")
        assert told() == ""

    play(dashboard, script)


def test_ctrl_y_copies_the_line_and_escape_starts_nothing(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        form = await open_form(pilot, dashboard)
        form.query_one("#overrides", Input).value = "ldm.hidden=[64,64]"
        await until(pilot, lambda: "--set" in form.line, "the line")
        await pilot.press("ctrl+y")
        root = dashboard.workspace.root
        line = f"metavqa --workspace {root} train ldm --preset tiny --set 'ldm.hidden=[64,64]' --with-parents"
        await until(pilot, lambda: dashboard.clipboard == line, "the line")
        form.query_one("#overrides", Input).value = "'"
        await until(pilot, lambda: not form.line, "no line")
        await pilot.press("ctrl+y")
        assert dashboard.clipboard == line, "what cannot be told is not copied"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(dashboard.screen, RunsRoom), "the room")
        assert dashboard.jobs.all == []

    play(dashboard, script)


def test_a_program_that_is_not_there_is_told(workspace: Workspace) -> None:
    app = make_app(workspace.root, program=("/no/such/metavqa",))

    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("u")
        await told(pilot, app, "cannot start /no/such/metavqa")
        assert app.jobs.all == []

    play(app, script)


# Jobs


def test_x_on_the_jobs_stops_the_one_that_is_chosen(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        for run in (ZOO, LDM):
            await go_to(pilot, dashboard, run)
            await pilot.press("u")
            await job_ready(pilot, dashboard)
        the_room(dashboard).query_one(JobList).focus()
        await pilot.press("x")
        await until(pilot, lambda: isinstance(dashboard.screen, ChooseOne), "the question which")
        await pilot.press("enter")  # the newest is the first
        one, two = dashboard.jobs.all
        await until(pilot, lambda: two.code is not None, "its end")
        assert (one.code, two.ending()) == (None, "interrupted")
        await told(pilot, dashboard, f"metavqa train ldm --resume {LDM}: interrupted")
        await until(pilot, lambda: words(dashboard, JobList).startswith("interrupted "), "the list")

    play(dashboard, script)


def test_a_job_that_is_killed_is_announced_with_its_last_words(dashboard: Dashboard) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("u")
        await job_ready(pilot, dashboard)
        (job,) = dashboard.jobs.all
        os.kill(job.process.pid, signal.SIGKILL)
        await told(pilot, dashboard, "killed by signal 9 (Killed): ready --workspace")
        await until(pilot, lambda: "killed by signal 9" in words(dashboard, JobList), "the list")

    play(dashboard, script)


def test_a_job_that_fails_is_announced_with_its_error(workspace: Workspace) -> None:
    code = "import sys; print('error: no such dataset [bold]', file=sys.stderr); sys.exit(3)"
    app = make_app(workspace.root, program=(sys.executable, "-c", code))

    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("u")
        await told(pilot, app, "something is missing: error: no such dataset [bold]")

    play(app, script)
    assert len([note for note in app._notifications if "something is missing" in note.message]) == 1


# Faults


def test_a_run_folder_deleted_while_shown_goes_and_takes_its_selection_along(
    dashboard: Dashboard, workspace: Workspace
) -> None:
    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("space", "space", "up")
        await until(pilot, lambda: here(dashboard) == LDM and len(dashboard.selected) == 2, "two")
        shutil.rmtree(workspace.runs_dir / LDM)
        await until(pilot, lambda: ids(dashboard) == [ZOO, HVAE, BASELINE], "the others")
        assert dashboard.selected == (ZOO,) and here(dashboard) in (HVAE, ZOO)
        await until(pilot, lambda: "Select two or more" in words(dashboard, Differences), "no differences")
        shutil.rmtree(workspace.runs_dir)
        await until(pilot, lambda: ids(dashboard) == [], "none")
        assert "no runs in" in frame(dashboard).text and "no run is highlighted" in words(dashboard, RunDetails)
        await pilot.press("space", "enter", "f2", "p", "m", "x", "u", "d", "c", "down", "a")
        await until(pilot, lambda: isinstance(dashboard.screen, RunsRoom), "the room stands")

    play(dashboard, script)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"kind": 7, "schema_version": 99}'])
def test_a_run_json_damaged_while_shown_is_told_and_mended(
    dashboard: Dashboard, workspace: Workspace, text: str
) -> None:
    async def script(pilot: Pilot[int]) -> None:
        path = workspace.runs_dir / LDM / "run.json"
        sound = path.read_text()
        path.write_text(text)
        await until(pilot, lambda: "damaged" in the_room(dashboard).troubles, "the trouble")
        assert ids(dashboard) == [ZOO, HVAE, BASELINE]
        assert f"! the run.json of {LDM} cannot be read" in frame(dashboard).text
        path.write_text(sound)
        await until(pilot, lambda: ids(dashboard) == NEWEST_FIRST, "it is back")
        assert "damaged" not in the_room(dashboard).troubles

    play(dashboard, script)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("events.jsonl", lambda path: path.write_bytes(path.read_bytes()[:-20])),
        ("events.jsonl", lambda path: path.write_bytes(b"\xff\x00{}\n" * 50)),
        ("events.jsonl", lambda path: path.unlink()),
        ("config.toml", lambda path: path.unlink()),
        ("result.json", lambda path: path.write_text("{")),
        ("result.json", lambda path: path.mkdir()),
    ],
)
def test_other_files_of_a_run_may_be_in_any_state(
    dashboard: Dashboard, workspace: Workspace, name: str, change: Callable[[Path], object]
) -> None:
    async def script(pilot: Pilot[int]) -> None:
        read = dashboard.snapshot
        change(workspace.runs_dir / LDM / name)
        made(workspace, "ldm-55555555", age=60)
        await until(pilot, lambda: len(ids(dashboard)) == 5, "the workspace is read again")
        assert LDM in ids(dashboard) and dashboard.snapshot is not read
        await go_to(pilot, dashboard, LDM)
        await until(pilot, lambda: LDM in words(dashboard, RunDetails), "its details")

    play(dashboard, script)


def test_a_folder_whose_name_steers_the_terminal_is_only_a_name(dashboard: Dashboard, workspace: Workspace) -> None:
    folder = workspace.runs_dir / "zoo-\x1b[31m\udcff"
    shutil.copytree(workspace.runs_dir / ZOO, folder)

    async def script(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: len(ids(dashboard)) == 5, "five runs")
        await go_to(pilot, dashboard, folder.name)
        await pilot.press("space")
        shown = frame(dashboard)
        assert r"zoo-\x1b[31m\udc" in shown.text and "\x1b[31m\udcff" not in shown.ansi
        shown.svg.encode("utf-8")

    play(dashboard, script, (160, 48))
