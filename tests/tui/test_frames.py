"""What every room looks like, as text: the same workspace at the same moment is drawn the same, to the character.

``METAVQA_ACCEPT_FRAMES=1 python -m pytest tests/tui/test_frames.py`` keeps what is drawn now as what is right.
"""

import difflib
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from metavqa_cli.schema.errors import MissingError
from metavqa_cli.store.locks import sidecar
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.asking import Asking
from metavqa_cli.tui.frame import once
from metavqa_cli.tui.room import RoomName
from tests.tui.made_runs import NOW
from tests.tui.made_workspace import LDM, SECOND, ZOO, furnish

FRAMES = Path(__file__).parent / "frames"
ACCEPT = "METAVQA_ACCEPT_FRAMES"
SIZES = ((80, 24), (160, 48))
ROOMS: tuple[RoomName, ...] = ("runs", "curves", "sweep", "ask", "tasks")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The furnished workspace under a name without a folder, at a fixed time in UTC, with one run at work."""
    here = tmp_path / "here"  # the room Ask shows its name
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with ExitStack() as stack:
        stack.callback(time.tzset)
        stack.callback(monkeypatch.undo)
        made = furnish(Path("workspace"))
        stack.enter_context(Run(made.runs_dir / ZOO).lock())
        owner = {"pid": 4711, "host": "elsewhere", "since": NOW - 200}
        sidecar(Run(made.runs_dir / ZOO).lock_path).write_text(json.dumps(owner))
        yield made.root


def nothing_trained(workspace: Workspace, dataset: str | None) -> Asking:
    """The service of the room Ask without torch: there is nothing that it could load."""

    def none(*_: object) -> object:
        raise MissingError("the weights of this HyperLDM are made up; `metavqa train ldm` trains one")

    return Asking(workspace, dataset, none)  # type: ignore[arg-type]


def the_app(root: Path, room: RoomName, *, ascii: bool = False) -> Dashboard:
    return make_app(root, room=room, selected=[LDM, SECOND], ascii=ascii, clock=lambda: NOW, asking=nothing_trained)


def compare(text: str, name: str) -> None:
    """Compare with the kept frame, to the character; keep this one instead when that is wished."""
    path = FRAMES / f"{name}.txt"
    if os.environ.get(ACCEPT) == "1":
        FRAMES.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    kept = path.read_text("utf-8") if path.exists() else ""
    if text != kept:
        lines = difflib.unified_diff(
            kept.splitlines(), text.splitlines(), f"{path.name} as kept", "as drawn", lineterm=""
        )
        raise AssertionError("\n".join([*lines, f"{name} is drawn otherwise; if that is right: {ACCEPT}=1 keeps it"]))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_looks_as_it_did(workspace: Path, room: RoomName, size: tuple[int, int]) -> None:
    shown = once(the_app(workspace, room), size)
    assert shown.settled
    compare(shown.text, f"{room}-{size[0]}x{size[1]}")


@pytest.mark.parametrize("room", ROOMS)
def test_in_ascii_it_looks_as_it_did(workspace: Path, room: RoomName) -> None:
    shown = once(the_app(workspace, room, ascii=True), (120, 36))
    assert shown.settled and shown.text.isascii()
    compare(shown.text, f"{room}-ascii-120x36")


def test_every_kept_frame_has_its_test() -> None:
    expected = {f"{room}-{width}x{height}.txt" for room in ROOMS for width, height in SIZES}
    assert {path.name for path in FRAMES.iterdir()} == expected | {f"{room}-ascii-120x36.txt" for room in ROOMS}


def test_another_frame_is_told_with_the_way_to_accept_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(f"{__name__}.FRAMES", tmp_path)
    (tmp_path / "one.txt").write_text("as it was\nsame\n")
    monkeypatch.delenv(ACCEPT, raising=False)
    with pytest.raises(AssertionError, match=r"-as it was\n\+as it is\n same\none is drawn otherwise.*=1 keeps it"):
        compare("as it is\nsame\n", "one")
    monkeypatch.setenv(ACCEPT, "1")
    compare("as it is\nsame\n", "one")
    monkeypatch.delenv(ACCEPT)
    compare("as it is\nsame\n", "one")
