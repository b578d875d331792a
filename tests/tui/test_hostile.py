"""Whatever the texts of a workspace hold, the dashboard shows it and is not steered by it."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.pilot import Pilot

from metavqa_cli.engine.classifier import Judgement
from metavqa_cli.engine.proposal import Neighbour
from metavqa_cli.schema.events import RunFailed, RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.schema.text import UNSAFE
from metavqa_cli.store import log
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.answer_text import ResultLines, history_line
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.frame import frame, once
from metavqa_cli.tui.look import Look, SafeFilter
from metavqa_cli.tui.results import Result
from metavqa_cli.tui.room import RoomName
from tests.hostile import IN_A_NAME, MARK, POISON, RUN, quoted
from tests.tui import made_workspace
from tests.tui.made_runs import NOW, made
from tests.tui.made_workspace import LDM, ZOO
from tests.tui.pilots import play, until
from tests.tui.test_answer_text import result
from tests.tui.test_frames import nothing_trained

COLOR = re.compile(r"\x1b\[[0-9;]*m")
KEYS: dict[RoomName, str] = {
    "runs": "end space n escape d escape m slash x escape 2",
    "curves": "a l m tab tab down enter escape",
    "sweep": "down enter tab down enter d escape",
    "ask": "tab m escape question_mark escape",
    "tasks": "down enter f6 f escape m escape o escape k",
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The furnished workspace in which every question, answer, family, name, event and configuration is hostile."""
    usual = made_workspace._task

    def poisoned(number: int) -> Task:
        task = usual(number)
        answers = tuple(f"{answer}{POISON}" for answer in task.answers)
        return replace(task, question=f"{task.question}{POISON}", answers=answers, family=f"{task.family}{POISON}",
                       template=f"{task.template}{POISON}")  # fmt: skip

    monkeypatch.setattr(made_workspace, "_task", poisoned)
    here = tmp_path / f"here{IN_A_NAME}"
    here.mkdir()
    monkeypatch.chdir(here)
    workspace = made_workspace.furnish(Path(f"workspace{IN_A_NAME}"))
    folder = made(workspace, RUN, age=2e5, variant=POISON, parents={"generator": POISON}, dataset=POISON, host=POISON,
                  result={"validation": {"accuracy": 50.0}, POISON: POISON, "sampler": POISON, "method": POISON},
                  config=f'seed = 0\n[dataset]\nname = "mini"\npath = {quoted(POISON)}\n')  # fmt: skip
    for event in (RunStarted(RUN, POISON, 10), StepLogged(1, {POISON: 1.0, "loss": 1.0}), StepLogged(2, {POISON: 2.0}),
                  ValidationMeasured(2, {f"accuracy{POISON}": 3.0}), RunFailed(RUN, POISON)):  # fmt: skip
        log.append(folder / "events.jsonl", event)
    for image in sorted((workspace.dataset_dir(made_workspace.DATASET) / "images").iterdir())[:3]:
        image.write_bytes(b"\x89PNG\r\n\x1a\n")  # whose error names the folder
    with ExitStack() as stack:
        stack.enter_context(Run(workspace.runs_dir / ZOO).lock())
        yield workspace.root


def harmless(app: Dashboard) -> str:
    """What is shown, of which nothing steers a terminal, and no picture or clipboard has it either."""
    shown = frame(app)
    for text in (COLOR.sub("", shown.ansi), shown.svg, app.clipboard):
        found = UNSAFE.search(text)
        assert found is None, text[max(0, found.start() - 100) : found.start() + 50].encode("unicode_escape")
    return shown.text


@pytest.mark.parametrize("room", KEYS)
def test_no_room_and_no_key_is_steered(workspace: Path, room: RoomName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SafeFilter, "apply", lambda _, segments, __: segments)  # the widgets do without the last gate
    app = make_app(workspace, room=room, selected=[RUN, LDM], clock=lambda: NOW, asking=nothing_trained)
    seen: set[str] = set()

    async def script(pilot: Pilot[Any]) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(
                Dashboard, "export_screenshot", lambda _: ""
            )  # takes most of the time; the last one is drawn
            for key in KEYS[room].split():
                seen.add(harmless(app))
                await pilot.press(key)
                await pilot.pause()
        app.say(POISON)
        app.copy(f"{POISON}\nrm")
        await until(pilot, lambda: MARK in frame(app).text.replace("\n", ""))
        seen.add(harmless(app))
        assert "\n" not in app.clipboard and MARK in app.clipboard

    play(app, script, (120, 36))
    assert len(seen) > 2 and any(MARK in text for text in seen)


def test_the_last_gate_lets_nothing_pass_and_moves_nothing() -> None:
    style = Style(bold=True)
    line = [
        Segment("plain", style),
        Segment(f"γ é 👩\u200d👧 {POISON}\u3164|", style),
        Segment("\x1b[6n", None, [(1,)]),
    ]  # type: ignore[list-item]
    passed = SafeFilter().apply(line, Color(0, 0, 0))
    assert passed[0] is line[0] and passed[2] is line[2] and passed[1].style == style
    assert UNSAFE.search(passed[1].text) is None and passed[1].text.startswith("γ é 👩\u200d👧 ")
    assert cell_len(passed[1].text) == cell_len(line[1].text)


def test_a_widget_that_forgets_is_caught(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metavqa_cli.tui.look.neutral", lambda text, **_: text)
    shown = once(make_app(workspace, room="runs", clock=lambda: NOW), (120, 36))
    assert UNSAFE.search(COLOR.sub("", shown.ansi)) is None and f"]0;{MARK}" in shown.text
    monkeypatch.setattr(SafeFilter, "apply", lambda _, segments, __: segments)
    shown = once(make_app(workspace, room="runs", clock=lambda: NOW), (120, 36))
    assert UNSAFE.search(COLOR.sub("", shown.ansi))


@pytest.mark.parametrize("brief", [False, True])
def test_a_hostile_answer_steers_nothing(brief: bool) -> None:
    """What a model of a stranger says: question, answers, names of pictures and of the run, and warnings."""
    names = tuple(f"{name}{POISON}" for name in ("red", "blue"))

    def said(gamma: float, ranked: tuple[str, ...]) -> Result:
        made = result(gamma, question=POISON, answers=names, run=POISON, wrong=(POISON,))
        made.answer.classifier.template = POISON
        made.answer.warnings, made.answer.nearest = [POISON], [Neighbour(POISON, 0.5)]
        shares = [tuple(zip(order, (0.6, 0.4), strict=True)) for order in (ranked, ranked[::-1])]
        made.answer.judgements = [Judgement(f"{IN_A_NAME}.png", *shares)]
        return made

    before, after, look = said(1.0, names), said(1.5, names[::-1]), Look()
    lines = [*map(str, ResultLines(after, 400, look, before, brief=brief)), history_line(after, look, True, 400)]
    text = "\n".join(lines)
    assert UNSAFE.search(text.replace("\n", "")) is None, text.encode("unicode_escape")
    assert "changed" in text and text.count(MARK) > 20


@pytest.mark.parametrize("plain", [False, True])
def test_what_the_gates_made_of_a_line_is_kept(plain: bool, tmp_path: Path) -> None:
    """By the gate itself: with new ones for every frame, every line would be made and cut anew each time."""
    app = make_app(tmp_path, ascii=plain, color=not plain)
    first, second = app.get_line_filters(), app.get_line_filters()
    assert [*map(id, first)] == [*map(id, second)] and any(isinstance(one, SafeFilter) for one in first)
