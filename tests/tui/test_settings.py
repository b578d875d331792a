"""What the dashboard remembers: kept in one file, and nothing but the memory is lost when that is unsound."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.settings import DEFAULT_THEME, Settings, load, save
from metavqa_cli.tui.snapshot import Snapshot
from tests.tui.made_runs import view

LISTS = st.dictionaries(st.text(max_size=20), st.lists(st.text(max_size=12), max_size=4), max_size=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "dashboard.json"


def test_nothing_kept_yet_is_the_usual_settings(path: Path) -> None:
    assert load(path) == (Settings(), None)
    assert Settings().theme == DEFAULT_THEME


@given(st.tuples(st.text(max_size=12), st.text(max_size=12), LISTS, LISTS))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, values: tuple[Any, ...]) -> None:
    settings = Settings(*values)
    path = tmp_path_factory.mktemp("settings") / "new" / "dashboard.json"
    assert save(path, settings) is None
    assert load(path) == (settings, None)


@pytest.mark.parametrize("text", ["{", "", "nul", '{"theme": "nord"', "\x00\x01"])
def test_a_damaged_file_is_said_to_be_and_the_usual_settings_are_used(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    settings, trouble = load(path)
    assert settings == Settings()
    assert trouble is not None and str(path) in trouble and "the usual ones are used" in trouble


def test_bytes_that_are_no_text_are_damage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe{}")
    assert load(path)[1] is not None


@pytest.mark.parametrize("record", [[], 3, None, "nord", {}, {"theme": 7, "pinned": []}, {"marked": {"/ws": "abc"}}])
def test_what_has_another_type_is_as_usual(path: Path, record: object) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    assert load(path) == (Settings(), None)


def test_what_is_sound_is_kept_beside_what_is_not(path: Path) -> None:
    path.parent.mkdir()
    kept = {"theme": "nord", "pictures": None, "pinned": {"/ws": ["a", 1]}, "marked": {"/ws": ["a"]}, "later": True}
    path.write_text(json.dumps(kept))
    assert load(path) == (Settings("nord", marked={"/ws": ["a"]}), None)


def test_a_folder_in_the_way_is_one_sentence_each_way(path: Path) -> None:
    path.mkdir(parents=True)
    settings, trouble = load(path)
    assert settings == Settings() and "cannot be read" in str(trouble)
    assert "are not kept" in str(save(path, settings)) and str(path) in str(save(path, settings))


def test_a_file_nested_too_deep_is_said_to_be_unreadable(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("[" * 200_000)
    settings, trouble = load(path)
    assert settings == Settings() and "cannot be read" in str(trouble)


def test_two_dashboards_keep_each_others_marks_and_a_run_that_is_gone_is_forgotten(path: Path, tmp_path: Path) -> None:
    save(path, Settings(marked={str(tmp_path): ["gone-00000000"], "/other": ["a"]}))
    one, two = (make_app(tmp_path, settings=path) for _ in range(2))
    for app, run in ((one, "ldm-aaaa1111"), (two, "ldm-bbbb2222")):
        app.set_reactive(Dashboard.snapshot, Snapshot((view("ldm-aaaa1111"), view("ldm-bbbb2222"))))
        app.toggle("marked", run)
    kept, _ = load(path)
    assert kept.marked == {str(tmp_path): ["ldm-aaaa1111", "ldm-bbbb2222"], "/other": ["a"]}
    two.toggle("marked", "ldm-aaaa1111")
    two.remember(pictures="sixel")
    one.remember(theme="nord")
    assert load(path)[0] == Settings("nord", "sixel", marked={str(tmp_path): ["ldm-bbbb2222"], "/other": ["a"]})


def test_a_file_where_the_folder_should_be_is_one_sentence(path: Path) -> None:
    path.parent.write_text("in the way")
    assert load(path) == (Settings(), None)
    assert "are not kept" in str(save(path, Settings()))
    assert path.parent.read_text() == "in the way"
