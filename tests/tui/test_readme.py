"""The README's list of keys is that of the program."""

import re
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.keys import _character_to_key

from metavqa_cli.tui.app import Dashboard, _make_room
from metavqa_cli.tui.room import ROOMS, RoomName

README = Path(__file__).parents[2] / "README.md"
ARROWS = {"←": "left", "→": "right", "↑": "up", "↓": "down", "esc": "escape"}


def listed(where: str) -> set[str]:
    """The keys in a row of the README's table, by Textual's names."""
    row = next(line for line in README.read_text("utf-8").splitlines() if line.startswith(f"| {where} | `"))
    keys = re.findall(r"`([^`]+)`", row)
    return {ARROWS.get(key) or (_character_to_key(key) if len(key) == 1 else key.lower()) for key in keys}


def bound(bindings: object) -> list[set[str]]:
    """The keys of each binding."""
    assert isinstance(bindings, list)
    return [{*one.key.split(",")} for one in bindings if isinstance(one, Binding)]


@pytest.mark.parametrize("name", list(ROOMS))
def test_every_key_of_a_room_is_in_the_readme_and_no_other(name: RoomName) -> None:
    keys, common = bound(type(_make_room(name)).BINDINGS), listed("everywhere")
    shown = listed(ROOMS[name][1])
    assert [of for of in keys if not of & (shown | common)] == []
    assert shown <= set().union(*keys) | ({"enter"} if name == "ask" else set())  # that one is the input's


def test_the_keys_of_everywhere_are_in_the_readme() -> None:
    shown = listed("everywhere")
    assert {"f2", "f6", "question_mark", "q", "ctrl+p", "escape", "tab"} <= shown
    assert {"question_mark", "q", "f2", "f6"} <= set().union(*bound(Dashboard.BINDINGS))
