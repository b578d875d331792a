"""The frame of the dashboard, driven by keys: rooms, help, palette, leaving, sizes, looks, and faults around it."""

import asyncio
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.binding import Binding
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.feed import RunsFeed, RunView
from metavqa_cli.tui.frame import frame, once
from metavqa_cli.tui.room import ROOMS, RoomName
from metavqa_cli.tui.screens.runs import RunsRoom
from metavqa_cli.tui.widgets.dialogs import Confirm, Help
from tests import miniature
from tests.tui.made_runs import made
from tests.tui.pilots import play, until

WAITS = """
import sys, time
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""
COLORS = {*range(30, 39), *range(40, 49), *range(90, 98), *range(100, 108)}
NAMES: tuple[RoomName, ...] = tuple(ROOMS)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three runs made by hand."""
    found = Workspace(tmp_path / "workspace")
    made(found, "baseline-11111111", age=7200, result={})
    made(found, "hvae-22222222", parents={"init": "baseline-11111111"}, age=3600)
    made(found, "ldm-33333333", parents={"generator": "hvae-22222222"}, age=1800)
    return found


@pytest.fixture
def jobs_end() -> Iterator[list[Dashboard]]:
    """Dashboards whose jobs end with the test, whatever becomes of it."""
    apps: list[Dashboard] = []
    yield apps
    for job in (job for app in apps for job in app.jobs.all):
        if job.code is None:
            job.process.kill()
        job.process.wait()


def text_of(app: Dashboard) -> str:
    return frame(app).text


def the_room(app: Dashboard) -> RunsRoom:
    assert isinstance(app.room, RunsRoom)
    return app.room


async def enter(pilot: Pilot[int], app: Dashboard, name: RoomName) -> None:
    await pilot.press(ROOMS[name][0])
    await until(pilot, lambda: app.room is not None and name == app.room.NAME and app.room.is_mounted, f"room {name}")


# Rooms, help, palette


def test_function_keys_enter_every_room_from_every_room(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        for name in (*NAMES, *NAMES[::-1], *NAMES[::2]):
            await enter(pilot, app, name)
            key, title = ROOMS[name]
            assert f"[{key.upper()} {title}]" in text_of(app).splitlines()[0]

    play(app, script)


def test_help_names_the_focused_pane_and_the_keys_that_work_there(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        for pane in app.room.PANES if app.room else ():
            (widget,) = app.screen.query(f"#{pane.id}")
            widget.focus()
            await pilot.press("question_mark")
            await until(pilot, lambda: isinstance(app.screen, Help), "the help")
            help = app.screen
            assert isinstance(help, Help) and help.heading == f"Runs: {pane.title}"
            assert pane.help in help.paragraphs and RunsRoom.HELP in help.paragraphs
            keys = dict(help.keys)
            shown = {active.binding.description for active in app.room.active_bindings.values()} if app.room else set()
            assert {"Filter", "Select", "New", "Stop", "Resume", "Delete", "Sort", "Pin", "Mark"} <= set(keys.values())
            assert {"Filter", "Select"} <= shown
            assert keys["/"] == "Filter" and keys["F5"] == "go to Ask" and keys["1"] == "hide or show: Runs"
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Help), "the help to close")

    play(app, script)


@pytest.mark.parametrize("name", NAMES)
def test_every_room_has_help_with_its_purpose_and_its_command(workspace: Workspace, name: RoomName) -> None:
    app = make_app(workspace.root, room=name)

    async def script(pilot: Pilot[int]) -> None:
        app.action_help_pane()
        await until(pilot, lambda: isinstance(app.screen, Help), "the help")
        assert isinstance(app.screen, Help)
        told = " ".join(app.screen.paragraphs)
        assert "metavqa " in told.replace("metavqa tui --help", "")
        assert app.room is not None and app.room.HELP and app.room.PANES
        assert all(pane.help.endswith((".", "…")) for pane in app.room.PANES), "help is whole sentences"
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, Help), "q closes the help, not the dashboard")
        assert app.is_running

    play(app, script)


def test_the_command_palette_goes_to_a_room(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette), "the palette")
        await pilot.press(*"gototasks")
        await until(pilot, lambda: "Go to Tasks" in text_of(app), "the command")
        await pilot.press("enter")
        await until(pilot, lambda: app.room is not None and app.room.NAME == "tasks", "the room")

    play(app, script)


def test_the_palette_offers_rooms_help_theme_picture_and_quit(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        commands = {command.title: command.callback for command in app.get_system_commands(app.screen)}
        general = {*(f"Go to {title}" for _, title in ROOMS.values()), "Help", "Theme", "Save a picture", "Quit"}
        assert general <= {*commands}
        here = {f"{one.description}: here" for one in RunsRoom.BINDINGS if isinstance(one, Binding)}
        assert here <= {*commands}, "every key of the room by its name"
        commands["Sort: here"]()
        await until(pilot, lambda: isinstance(app.room, RunsRoom) and app.room.order == 1, "another order")

    play(app, script)


def test_keys_may_be_quicker_than_the_rooms(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        for key in ("f3", "f4", "f5", "f6", "f5", "f3", "f6"):
            app.post_message(events.Key(key, None))  # without waiting for anything, as a held key is
        await until(pilot, lambda: app.room is not None and app.room.NAME == "tasks" and app.room.settled, "the last")

    play(app, script)


def test_help_has_one_line_for_each_key_and_none_of_textuals_own(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        for name in NAMES:
            await pilot.press(ROOMS[name][0])
            await until(pilot, lambda name=name: app.room is not None and name == app.room.NAME, name)  # type: ignore[misc]
            does = [words for _, words in app._keys_here()]
            assert len(does) == len({*does}) and not any("selected text" in words for words in does), does

    play(app, script)


def test_a_picture_is_saved_into_this_folder(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        app._save_picture()
        (svg,) = tmp_path.glob("*.svg")
        assert "ldm-33333333" in svg.read_text("utf-8")

    play(app, script)


# Leaving


def test_q_quits_at_once_without_jobs(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        await pilot.press("q")
        await until(pilot, lambda: app._exit, "the end")

    play(app, script)
    assert app.return_value == 0 and app.return_code == 0


def busy_app(workspace: Workspace, jobs_end: list[Dashboard]) -> Dashboard:
    app = make_app(workspace.root, program=(sys.executable, "-c", WAITS))
    jobs_end.append(app)
    return app


async def start(pilot: Pilot[int], app: Dashboard) -> None:
    job = app.start_job(["train", "zoo"], outlives=False)
    assert job is not None
    await until(pilot, lambda: b"ready" in job.log.read_bytes(), "the job")


async def ask_to_leave(pilot: Pilot[int], app: Dashboard, key: str = "q") -> None:
    await pilot.press(key)
    await until(pilot, lambda: "1 job started here" in getattr(app.screen, "question", ""), "the question")


@pytest.mark.parametrize(("answer", "outlives"), [("k", True), ("s", False)])
def test_q_with_a_job_asks_what_becomes_of_it(
    workspace: Workspace, jobs_end: list[Dashboard], answer: str, outlives: bool
) -> None:
    app = busy_app(workspace, jobs_end)

    async def script(pilot: Pilot[int]) -> None:
        await start(pilot, app)
        await ask_to_leave(pilot, app)
        assert "k: keep running" in text_of(app) and "s: stop with a checkpoint" in text_of(app)
        await pilot.press(answer)
        await until(pilot, lambda: app._exit, "the end")

    play(app, script)
    (job,) = app.jobs.all
    assert job.outlives == outlives and job.code is None
    app.jobs.close()
    if outlives:
        assert job.code is None and job.asked_to_stop == 0
    else:
        assert job.process.wait(60) == 130


def test_escape_stays_and_the_job_goes_on(workspace: Workspace, jobs_end: list[Dashboard]) -> None:
    app = busy_app(workspace, jobs_end)

    async def script(pilot: Pilot[int]) -> None:
        await start(pilot, app)
        for _ in range(2):
            await ask_to_leave(pilot, app)
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Confirm), "the room")
        assert not app._exit and app.jobs.running() == app.jobs.all

    play(app, script)


def test_leaving_from_another_question_asks_about_the_job_first(
    workspace: Workspace, jobs_end: list[Dashboard]
) -> None:
    app = busy_app(workspace, jobs_end)

    async def script(pilot: Pilot[int]) -> None:
        await start(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "the first question")
        await ask_to_leave(pilot, app, "ctrl+q")
        assert not app._exit
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app._exit, "asked once more, it leaves")

    play(app, script)
    assert [job.outlives for job in app.jobs.all] == [False]


# Panes, theme, sizes


def test_number_keys_hide_and_show_panes_and_the_last_one_stays(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        room = the_room(app)
        shown = lambda: [pane.title for pane in room.PANES if room.query_one(f"#{pane.id}").display]  # noqa: E731
        await until(pilot, lambda: len(shown()) == 4, "all panes")
        for key, left in (("1", ["Details", "Differences", "Jobs"]), ("3", ["Details", "Jobs"]), ("4", ["Details"])):
            await pilot.press(key)
            await until(pilot, lambda left=left: shown() == left, key)  # type: ignore[misc]
        await pilot.press("2")
        await until(pilot, lambda: "this is the last pane" in text_of(app), "the refusal")
        assert shown() == ["Details"]
        assert room.focused is not None and room.focused.id == "runs-details", "the keyboard is where one can see it"
        for key in "134":
            await pilot.press(key)
        await until(pilot, lambda: len(shown()) == 4, "all panes again")

    play(app, script)


def test_the_theme_is_remembered_by_the_next_dashboard(workspace: Workspace, tmp_path: Path) -> None:
    settings = tmp_path / "config" / "dashboard.json"

    async def choose(pilot: Pilot[int]) -> None:
        first.theme = "nord"
        await until(pilot, lambda: settings.is_file(), "the settings")

    async def look(pilot: Pilot[int]) -> None:
        assert second.theme == "nord"

    first = make_app(workspace.root, settings=settings)
    play(first, choose)
    assert json.loads(settings.read_text())["theme"] == "nord"
    second = make_app(workspace.root, settings=settings)
    play(second, look)


def test_a_theme_that_there_is_none_of_is_no_reason_to_fail(workspace: Workspace, tmp_path: Path) -> None:
    settings = tmp_path / "dashboard.json"
    settings.write_text(json.dumps({"theme": "of another version"}))
    assert "ldm-33333333" in once(make_app(workspace.root, settings=settings), (80, 24)).text


@pytest.mark.parametrize("name", NAMES)
def test_resized_to_almost_nothing_and_back_every_room_stands(name: RoomName) -> None:
    app = make_app(miniature.finished().root, room=name)

    async def script(pilot: Pilot[int]) -> None:
        room = app.room
        for width, height in ((20, 5), (200, 60), (1, 1), (200, 5), (20, 60), (160, 48)):
            await pilot.resize_terminal(width, height)
            await until(pilot, lambda w=width, h=height: app.size == (w, h), f"{width} x {height}")  # type: ignore[misc]
            lines = text_of(app).splitlines()
            assert len(lines) <= height
            await pilot.press("tab", "down")
            assert app.room is room
        classes = {name for name in app.screen.classes if name.startswith("-")}
        assert {"-wide", "-high"} <= classes and not classes & {"-narrow", "-usual", "-low"}
        await until(pilot, lambda: app.room is not None and app.room.settled, "the room to settle")

    play(app, script)


@pytest.mark.parametrize(
    ("size", "classes"),
    [((80, 24), {"-narrow", "-low"}), ((99, 29), {"-narrow", "-low"}), ((100, 30), {"-usual", "-high"}),
     ((139, 48), {"-usual", "-high"}), ((140, 60), {"-wide", "-high"})],
)  # fmt: skip
def test_sizes_have_names(workspace: Workspace, size: tuple[int, int], classes: set[str]) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        names = {"-narrow", "-usual", "-wide", "-low", "-high"}
        await until(pilot, lambda: names & set(app.screen.classes) == classes, f"classes {classes}")

    play(app, script, size)


@pytest.mark.parametrize("name", ["runs", "curves", "sweep", "tasks"])
def test_help_and_quit_are_in_sight_at_80_columns_and_every_key_at_160(name: RoomName) -> None:
    narrow, wide = (
        once(make_app(miniature.finished().root, room=name), size).text.splitlines()[-1]
        for size in ((80, 24), (160, 48))
    )
    assert narrow.endswith("? Help  q Quit") and wide.endswith("? Help  q Quit")
    assert len(narrow) <= 80 and len(narrow) <= len(wide)
    if name == "runs":
        assert "u Resume" not in narrow and all(key in wide for key in ("u Resume", "s Sort", "p Pin", "m Mark"))


def test_a_footer_grows_with_the_terminal(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "u Resume" not in text_of(app), "the short one")
        await pilot.resize_terminal(120, 36)
        await until(pilot, lambda: "u Resume" in text_of(app), "the long one")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "u Resume" not in text_of(app), "the short one again")

    play(app, script, (80, 24))


# Looks


def colors(ansi: str) -> set[int]:
    found = (int(number) for codes in re.findall(r"\x1b\[([0-9;]*)m", ansi) for number in codes.split(";") if number)
    return set(found) & COLORS


@pytest.mark.parametrize("name", NAMES)
def test_without_colour_there_is_none_and_the_text_is_the_same(name: RoomName) -> None:
    root, clock = miniature.finished().root, time.time()
    plain = once(make_app(root, room=name, color=False, clock=lambda: clock), (120, 36))
    fine = once(make_app(root, room=name, clock=lambda: clock), (120, 36))
    assert colors(plain.ansi) == set() != colors(fine.ansi)
    if name == "runs":
        assert plain.text == fine.text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
def test_ascii_means_ascii_in_every_room(name: RoomName, size: tuple[int, int]) -> None:
    shown = once(make_app(miniature.finished().root, room=name, ascii=True), size)
    assert shown.text.isascii() and shown.ansi.isascii() and shown.settled
    assert ROOMS[name][1].replace("γ", "g") in shown.text


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("value", ["", "1", None])
def test_jobs_get_the_environment_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, value: str | None, color: bool
) -> None:
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    before = dict(os.environ)
    app = make_app(workspace.root, color=color)
    assert dict(os.environ) == before
    assert app.jobs.environment == before

    async def script(pilot: Pilot[int]) -> None:
        assert bool(colors(frame(app).ansi)) == color, "the wish is what counts, an empty NO_COLOR is none"

    play(app, script)
    assert os.environ.get("NO_COLOR") == value


# Faults around it


def trouble(app: Dashboard, of: str) -> str:
    return app.room.troubles.get(of, "") if app.room else ""


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_that_does_not_exist_is_empty_and_stays_unmade(tmp_path: Path, name: RoomName) -> None:
    shown = once(make_app(tmp_path / "nowhere", room=name), (120, 36))
    assert shown.settled and not (tmp_path / "nowhere").exists()
    if name == "runs":
        assert "no runs in" in shown.text and "metavqa quickstart" in shown.text.replace("\n", " ")


def test_runs_that_cannot_be_listed_are_told_and_shown_as_they_were(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(workspace.root, look_seconds=0.05)
    broken = threading.Event()
    whole = Workspace.run_ids

    def run_ids(self: Workspace) -> list[str]:
        if broken.is_set():
            raise PermissionError(13, "Permission denied")
        return whole(self)

    monkeypatch.setattr(Workspace, "run_ids", run_ids)

    async def script(pilot: Pilot[int]) -> None:
        broken.set()
        await until(pilot, lambda: "cannot list" in trouble(app, "workspace"), "the trouble")
        assert "Permission denied" in trouble(app, "workspace")  # its end may be beyond the edge of the screen
        assert "cannot list" in text_of(app) and "ldm-33333333" in text_of(app)
        await pilot.press("space")
        assert app.selected == ("ldm-33333333",)
        broken.clear()
        await until(pilot, lambda: not trouble(app, "workspace"), "its end")
        assert "cannot list" not in text_of(app)

    play(app, script)


def test_runs_that_could_never_be_listed_are_not_said_to_be_none(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_ids(self: Workspace) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Workspace, "run_ids", run_ids)
    shown = once(make_app(workspace.root), (120, 36))
    assert "cannot list" in shown.text and "no runs in" not in shown.text


def test_a_workspace_that_does_not_answer_is_told_and_keys_and_leaving_work(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(RunsFeed, "read", lambda self, now: released.wait() and ())
    monkeypatch.setattr("metavqa_cli.tui.app.SLOW_SECONDS", 0.2)
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "reading the runs of" in text_of(app), "what it is doing")
        await until(pilot, lambda: "has not answered for" in trouble(app, "slow"), "the trouble")
        await until(pilot, lambda: "! the workspace has not answered" in text_of(app), "the trouble in place")
        await pilot.press("slash", *"ldm")
        await until(pilot, lambda: "ldm" in text_of(app), "the filter")
        await pilot.press("enter")
        await enter(pilot, app, "curves")
        await until(pilot, lambda: "has not answered" in text_of(app), "the trouble in another room")
        await pilot.press("q")
        await until(pilot, lambda: app._exit, "the end")
        assert not released.is_set()

    try:
        play(app, script, settled=False)
        assert app.return_value == 0
    finally:
        released.set()


def test_the_trouble_ends_when_the_workspace_answers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    released, whole = threading.Event(), RunsFeed.read

    def read(self: RunsFeed, now: float) -> tuple[RunView, ...]:
        released.wait()
        return whole(self, now)

    monkeypatch.setattr(RunsFeed, "read", read)
    monkeypatch.setattr("metavqa_cli.tui.app.SLOW_SECONDS", 0.2)
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: trouble(app, "slow"), "the trouble")
        released.set()
        await until(pilot, lambda: "ldm-33333333" in text_of(app), "the runs")
        assert not trouble(app, "slow") and "has not answered" not in text_of(app)

    try:
        play(app, script, settled=False)
    finally:
        released.set()


def test_settings_that_cannot_be_written_are_told_and_everything_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    app = make_app(workspace.root, settings=tmp_path / "file" / "dashboard.json")

    async def script(pilot: Pilot[int]) -> None:
        assert not trouble(app, "settings")
        await pilot.press("p")
        await until(pilot, lambda: "are not kept" in trouble(app, "settings"), "the trouble")
        assert "! the dashboard's settings are not kept" in text_of(app)
        assert app.listed("pinned") == ["ldm-33333333"]
        await enter(pilot, app, "curves")
        await until(pilot, lambda: "are not kept" in trouble(app, "settings"), "the trouble in another room")

    play(app, script)


def test_settings_that_cannot_be_read_are_told(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "dashboard.json").write_text("{")
    shown = once(make_app(workspace.root, settings=tmp_path / "dashboard.json"), (120, 36))
    assert "! the dashboard's settings" in shown.text and "ldm-33333333" in shown.text


def test_a_message_to_a_dashboard_that_has_ended_goes_nowhere(workspace: Workspace) -> None:
    app = make_app(workspace.root)

    async def script(pilot: Pilot[int]) -> None:
        pass

    play(app, script)
    app._read()
    assert not app.is_running


def test_ten_thousand_runs_are_listed_while_keys_answer(tmp_path: Path) -> None:
    workspace, number = Workspace(tmp_path), 10_000
    workspace.runs_dir.mkdir()
    for n in range(number):
        folder = workspace.runs_dir / f"ldm-{n:08x}"
        folder.mkdir()
        (folder / "run.json").write_text(
            '{"kind": "ldm", "key": "0", "parents": {}, "dataset": {"name": "d", "fingerprint": "f"}, '
            f'"schema_version": 1, "created": "2026-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}+00:00"}}'
        )
    app = make_app(workspace.root, look_seconds=3600)
    waits: list[float] = []

    async def answer(key: str, condition: Callable[[], object]) -> float:
        """Seconds from a key to what it does; without the pilot, which waits until nothing in this process works."""
        asked = time.monotonic()
        app.post_message(events.Key(key, key if len(key) == 1 else None))
        while not condition():
            assert time.monotonic() < asked + 60, f"waited in vain for {key}\n{text_of(app)}"
            await asyncio.sleep(0.001)
        return time.monotonic() - asked

    async def script(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: isinstance(app.room, RunsRoom), "the room")
        shown = the_room(app).list
        while not app.snapshot.views:
            before = shown.border_subtitle
            await asyncio.sleep(0.1)  # between two keys, as a person does: without it the reading thread would starve
            waits.append(await answer("s", lambda before=before: shown.border_subtitle != before))  # type: ignore[misc]
        await answer("end", lambda: shown.cursor == number - 1)
        assert len(shown.views) == number
        await answer("a", lambda: "the first 8 of 10000" in text_of(app))
        assert len(app.selected) == number
        await answer("slash", lambda: isinstance(app.focused, Input))
        for key in "270f":
            await answer(key, lambda key=key: str(getattr(app.focused, "value", "")).endswith(key))  # type: ignore[misc]
        await answer("enter", lambda: [view.id for view in shown.views] == ["ldm-0000270f"])
        assert shown.border_title == "Runs: 1 of 10000"

    play(app, script, settled=False)
    assert len(waits) > 3, f"keys are answered while the list is read, however busy the machine is: {waits}"


def test_what_is_pinned_belongs_to_its_workspace(workspace: Workspace, tmp_path: Path) -> None:
    settings, other = tmp_path / "dashboard.json", Workspace(tmp_path / "other")
    made(other, "ldm-33333333")

    async def pin(pilot: Pilot[int]) -> None:
        await pilot.press("p", "m")
        await until(pilot, lambda: "★↑" in text_of(first), "the flags")

    async def look(pilot: Pilot[int]) -> None:
        assert "★" not in text_of(second) and "↑" not in text_of(second)

    first, second = make_app(workspace.root, settings=settings), make_app(other.root, settings=settings)
    play(first, pin)
    second = make_app(other.root, settings=settings)
    play(second, look)
    again: Any = once(make_app(workspace.root, settings=settings), (120, 36))
    assert "★↑" in again.text
