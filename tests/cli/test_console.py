"""Data on stdout in every format, narration on stderr, and nothing that could steer the terminal."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metavqa_cli.cli import console
from metavqa_cli.schema.text import UNSAFE

ROWS: list[dict[str, Any]] = [
    {"name": 'red, "green"', "value": 0.5, "parts": [1, 2], "more": {"a": None}},
    {"name": "two\nlines\tand a tab", "value": float("nan"), "parts": [], "more": None},
]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def plain_style() -> None:
    console.configure()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """stdout and stderr are terminals 40 columns wide."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(console, "is_terminal", lambda _stream: True)


def test_json_is_strict_and_complete(capsys: Capture) -> None:
    console.emit(ROWS, "json", ["name"])
    parsed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert parsed == [ROWS[0], {**ROWS[1], "value": None}]


def test_json_of_a_record_is_an_object_and_paths_are_text(capsys: Capture) -> None:
    console.emit({"path": Path("a/b"), "n": (1, 2)}, "json")
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "n": [1, 2]}


def test_jsonl_is_one_row_a_line(capsys: Capture) -> None:
    console.emit(ROWS, "jsonl")
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == [row["name"] for row in ROWS]


def test_csv_can_be_read_back(capsys: Capture) -> None:
    console.emit(ROWS, "csv", ["name", "value", "parts", "absent"])
    read = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert read[0] == ["name", "value", "parts", "absent"]
    assert read[1] == ['red, "green"', "0.5", "[1, 2]", ""]
    assert read[2] == ["two\nlines\tand a tab", "nan", "[]", ""]


def test_markdown_is_a_table_of_github_with_numbers_to_the_right(capsys: Capture) -> None:
    console.emit([{"a": "x|y", "n": 1.5, "more": None}, {"a": "<b> \\| *\n`", "n": None, "more": [1]}], "markdown")
    assert capsys.readouterr().out.splitlines() == [
        "| a | n | more |", "| --- | ---: | --- |", "| x\\|y | 1.5 | - |", "| \\<b> \\\\\\| \\*\\\\n\\` | - | [1] |",
    ]  # fmt: skip


def test_markdown_of_chosen_columns_of_a_record_and_of_nothing(capsys: Capture) -> None:
    console.emit([{"a": 1, "b|c": 2}], "markdown", ["b|c", "absent"])
    console.emit({"a": 1, "b": "x"}, "markdown")
    console.emit([], "markdown", ["a", "b"])
    assert capsys.readouterr().out.splitlines() == [
        "| b\\|c | absent |", "| ---: | ---: |", "| 2 | - |",
        "| key | value |", "| --- | --- |", "| a | 1 |", "| b | x |",
        "| a | b |", "| --- | --- |",
    ]  # fmt: skip


@pytest.mark.usefixtures("terminal")
def test_markdown_is_the_same_on_a_terminal_and_never_folded(capsys: Capture) -> None:
    console.emit([{"a": "z" * 100}], "markdown")
    assert capsys.readouterr().out == f"| a |\n| --- |\n| {'z' * 100} |\n"


def test_auto_outside_a_terminal_is_tab_separated_and_never_cut(capsys: Capture) -> None:
    long = "x" * 500
    console.emit([{"a": long, "b": None}, {"a": "two\nlines\t", "b": True}])
    assert capsys.readouterr().out == f"a\tb\n{long}\t-\ntwo\\nlines\\t\ttrue\n"


def test_a_record_is_one_line_for_each_key(capsys: Capture) -> None:
    console.emit({"a": 1, "b": "x"})
    assert capsys.readouterr().out == "a\t1\nb\tx\n"


def test_human_outside_a_terminal_is_aligned_and_never_cut(capsys: Capture) -> None:
    long = "y" * 500
    console.emit([{"name": "a", "value": long}, {"name": "longer", "value": 1}], "human")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name    value", f"a       {long}", "longer  1"]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("row", [{"name": "a", "value": "z" * 100}, {"path": "z" * 100, "mean": "53.1", "low": "52"}])
def test_human_on_a_narrow_terminal_folds_instead_of_cutting(row: dict[str, str], capsys: Capture) -> None:
    console.configure(color="never")
    console.emit([row])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count("z") for line in lines) == 100
    assert all(len(value) > 9 or value in " ".join(lines) for value in row.values())
    assert all(len(line) <= 40 for line in lines)


@pytest.mark.parametrize("form", ["auto", "human", "json", "jsonl", "csv"])
def test_no_rows_are_no_error(capsys: Capture, form: console.Format) -> None:
    console.emit([], form, ["a", "b"])
    printed = capsys.readouterr().out
    assert printed.split() == {"json": ["[]"], "jsonl": [], "csv": ["a,b"]}.get(form, ["a", "b"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
@pytest.mark.parametrize("form", ["auto", "human", "csv", "markdown"])
def test_nothing_printed_can_steer_a_terminal(capsys: Capture, form: console.Format, text: str) -> None:
    console.emit([{"a": text}], form)
    console.out(text)
    console.warn(text)
    printed = "".join(capsys.readouterr())
    assert UNSAFE.search(printed) is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [("\x1b[31mred", "\\x1b[31mred"), ("a\rb", "a\\rb"), ("\u202eevil", "\\u202eevil"), ("\x9b1m", "\\x9b1m"),
     ("où → γ ≥ 1", "où → γ ≥ 1"), ("tab\tand\nline", "tab\tand\nline")],
)  # fmt: skip
def test_control_characters_are_made_visible_and_words_are_kept(raw: str, shown: str) -> None:
    assert console.neutral(raw) == shown


def test_ascii_translates_symbols_and_escapes_the_rest(capsys: Capture) -> None:
    console.configure(ascii=True)
    console.out("γ ≥ 1 … où 画")
    console.emit([{"a": "画"}], "json")
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.startswith("gamma >= 1 ... o\\xf9 \\u753b\n")
    assert json.loads(printed.partition("\n")[2]) == [{"a": "画"}]


def test_quiet_keeps_warnings_and_errors(capsys: Capture) -> None:
    console.configure(quiet=True)
    for say in (console.narrate, console.warn, console.fail):
        say("words")
    assert capsys.readouterr() == ("", "warning: words\nerror: words\n")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("color", "environment", "colored"),
    [
        ("auto", {}, True), ("auto", {"NO_COLOR": "1"}, False), ("auto", {"NO_COLOR": ""}, True),
        ("never", {"FORCE_COLOR": "1"}, False), ("always", {"NO_COLOR": "1"}, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)  # fmt: skip
def test_colour_on_a_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, color: console.Color, environment: dict[str, str], colored: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    console.configure(color=color)
    console.fail("words")
    printed = capsys.readouterr().err
    assert ("\x1b[" in printed) == colored
    assert printed.replace("\x1b[1;31m", "").replace("\x1b[0m", "") == "error: words\n"


@pytest.mark.parametrize(
    ("color", "environment", "colored"),
    [("auto", {}, False), ("always", {}, True), ("auto", {"FORCE_COLOR": "1"}, True)],
)
def test_colour_in_a_pipe(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, color: console.Color, environment: dict[str, str], colored: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    console.configure(color=color)
    console.warn("words")
    console.emit([{"a": 1}], "human")
    captured = capsys.readouterr()
    assert ("\x1b[" in captured.err) == ("\x1b[" in captured.out) == colored


def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for term, is_one in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        assert console.is_terminal("stdout") is is_one
