"""Rows of runs: which, in which order, and each cell exactly as wide as its column, whatever a file says."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.run_rows import (
    ORDERS,
    STATES,
    WANTED,
    Flags,
    accuracy_text,
    ancestors,
    bar,
    cells,
    children,
    columns,
    damage,
    details,
    duration,
    flag_text,
    flags_of,
    heading,
    progress_text,
    visible,
)
from tests.tui.made_runs import HOUR, NOW, view

FINE, PLAIN = Look(), Look(ascii=True)
OLD = view("zoo-1111", kind="zoo", variant=None, created=NOW - 5 * HOUR, updated=NOW - 10, accuracy=None, progress=0.2,
           state="failed", message="out of memory")  # fmt: skip
MIDDLE = view("ldm-2222", created=NOW - 3 * HOUR, updated=NOW - 30, accuracy=61.0, state="running", progress=0.5)
NEW = view("hvae-3333", kind="hvae", created=NOW - HOUR, updated=NOW - 20, accuracy=48.0)
VIEWS = (OLD, MIDDLE, NEW)
ORDER = dict(ORDERS)
IN_ORDER = {
    "newest": [NEW, MIDDLE, OLD],
    "last written": [OLD, NEW, MIDDLE],
    "accuracy": [MIDDLE, NEW, OLD],
    "progress": [NEW, MIDDLE, OLD],
    "state": [MIDDLE, OLD, NEW],
    "kind": [NEW, MIDDLE, OLD],
}


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def everything(_: RunView) -> bool:
    return True


# Which, and in which order


def test_every_order_has_its_expectation() -> None:
    assert list(IN_ORDER) == [name for name, _ in ORDERS]


@pytest.mark.parametrize("name", IN_ORDER)
def test_the_largest_comes_first_and_the_smallest_when_turned(name: str) -> None:
    order = (name, ORDER[name])
    assert visible(VIEWS, everything, order) == IN_ORDER[name]
    assert visible(VIEWS, everything, order, turned=True) == IN_ORDER[name][::-1]
    assert visible(VIEWS[::-1], everything, order) == IN_ORDER[name]


def test_kinds_are_in_the_order_of_letters_and_the_newest_of_each_first() -> None:
    names = [("ldm", None), ("ldm", "task"), ("ldm", "task-w"), ("zoo", None)]
    made = [view(f"{kind}-{n}", kind=kind, variant=variant, created=NOW - n) for n in (2, 1) for kind, variant in names]
    shown = visible(made, everything, ("kind", ORDER["kind"]))
    assert [(one.kind, one.variant) for one in shown] == [name for name in names for _ in range(2)]
    assert [one.created for one in shown] == [NOW - 1, NOW - 2] * 4


def test_an_accuracy_that_is_no_number_comes_after_all_that_are() -> None:
    wrong = view("ldm-nan", accuracy=float("nan"))
    for views in ((wrong, MIDDLE, NEW), (MIDDLE, wrong, NEW), (MIDDLE, NEW, wrong)):
        assert visible(views, everything, ("accuracy", ORDER["accuracy"])) == [MIDDLE, NEW, wrong]


def test_the_filter_decides_but_pinned_runs_stay_on_top_in_the_same_order() -> None:
    def only_zoo(run: RunView) -> bool:
        return run.kind == "zoo"

    assert visible(VIEWS, only_zoo) == [OLD]
    assert visible(VIEWS, only_zoo, pinned=[NEW.id]) == [NEW, OLD]
    assert visible(VIEWS, everything, pinned=[OLD.id, MIDDLE.id]) == [MIDDLE, OLD, NEW]
    assert visible(VIEWS, everything, pinned=[OLD.id, MIDDLE.id], turned=True) == [OLD, MIDDLE, NEW]
    assert visible(VIEWS, everything, pinned=["gone-9999"]) == IN_ORDER["newest"]


def test_flags_tell_the_place_in_the_selection_and_what_is_pinned_and_marked() -> None:
    found = flags_of(["b", "a"], ["a", "c"], {"d"})
    assert found == {"b": Flags(1), "a": Flags(2, pinned=True), "c": Flags(0, True), "d": Flags(0, False, True)}


# Columns


@given(st.integers(-5, 300))
def test_columns_are_never_wider_than_asked_but_at_least_two(width: int) -> None:
    shown = columns(width)
    assert shown[:2] == WANTED[:2]
    taken = sum(column.width for column in shown) + len(shown) - 1
    assert taken <= width or len(shown) == 2
    assert [WANTED.index(column) for column in shown] == sorted(WANTED.index(column) for column in shown)


def test_a_wide_list_shows_every_column_and_a_narrow_one_the_most_needed() -> None:
    assert columns(300) == WANTED
    assert [column.title for column in columns(76)][:5] == ["", "run", "state", "progress", "accuracy"]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    [
        "数据集·一二三四五六七八九十",
        "👩‍👩‍👧‍👦 family",
        "e\u0301" * 12,
        "\x1b[31mred\x1b[0m",
        "a\tb\nc",
        "\u202eevil",
        "x" * 90,
        "",
    ]
)
VALUES = st.fixed_dictionaries({
    "run": st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    "kind": TEXTS, "variant": st.none() | TEXTS, "dataset": TEXTS, "state": st.sampled_from(sorted(STATES)),
    "parents": st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple), "message": st.none() | TEXTS,
    "seed": st.none() | st.integers(-(10**19), 10**19), "progress": st.floats(0, 1),
    "total_steps": st.none() | st.integers(0), "accuracy": st.none() | st.floats(-1e9, 1e9),
    "created": st.floats(0, 2 * NOW), "updated": st.floats(0, 2 * NOW),
})  # fmt: skip


@given(
    VALUES,
    st.integers(0, 200),
    st.booleans(),
    st.booleans(),
    st.builds(Flags, st.integers(0, 12), st.booleans(), st.booleans()),
)
def test_every_row_is_as_wide_as_the_heading_and_steers_no_terminal(
    values: dict[str, Any], width: int, ascii: bool, here: bool, flags: Flags
) -> None:
    look, shown, run = Look(ascii), columns(width), view(**values)
    found = cells(run, flags, shown, look, here=here)
    assert [cell_len(cell.text) for cell in found] == [column.width for column in shown]
    row = " ".join(cell.text for cell in found)
    assert cell_len(row) == cell_len(heading(shown, look))
    assert not set(row) & {*map(chr, range(32)), *map(chr, range(127, 160)), *"\u202e\u2066\u2028"}
    assert row.isascii() or not ascii


def test_what_is_cut_ends_with_an_ellipsis() -> None:
    run = view("baseline-0123456789abcdef")
    shown = columns(40)
    assert cells(run, Flags(), shown, FINE)[1].text == "baseline-0123456…"
    assert cells(run, Flags(), shown, PLAIN)[1].text == "baseline-0123456."


def test_numbers_stand_to_the_right_under_their_titles() -> None:
    shown = tuple(column for column in WANTED if column.title in ("accuracy", "age", "seed"))
    assert heading(shown, FINE) == "  accuracy   age seed"
    assert " ".join(cell.text for cell in cells(view(), Flags(), shown, FINE)) == "  52.5 val   60m    0"


def test_state_is_told_by_a_mark_and_a_word_and_only_then_by_its_tone() -> None:
    state = [column for column in WANTED if column.title == "state"]
    for name, (fine, plain) in STATES.items():
        (cell,) = cells(view(state=name), Flags(), state, FINE)
        assert (cell.text.rstrip(), cell.tone) == (f"{fine} {name}", name)
        assert cells(view(state=name), Flags(), state, PLAIN)[0].text.rstrip() == f"{plain} {name}"
    for at in (0, 1):
        assert len({marks[at] for marks in STATES.values()}) == len(STATES)


@pytest.mark.parametrize(
    ("flags", "fine", "plain"),
    [(Flags(), "     ", "     "), (Flags(3), "[3]  ", "[3]  "), (Flags(10), "[+]  ", "[+]  "),
     (Flags(9, pinned=True), "[9] ↑", "[9] ^"), (Flags(0, True, True), "   ★↑", "   *^"),
     (Flags(1, marked=True), "[1]★ ", "[1]* ")],
)  # fmt: skip
def test_flags_as_text(flags: Flags, fine: str, plain: str) -> None:
    assert (flag_text(flags, FINE), flag_text(flags, PLAIN)) == (fine, plain)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0, "0s"), (45.4, "45s"), (119, "119s"), (120, "2m"), (7199, "120m"), (7200, "2h"), (172_799, "48h"),
     (172_800, "2d"), (86_400 * 400, "400d")],
)  # fmt: skip
def test_duration_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_is_a_bar_with_per_cent_and_nothing_for_what_does_not_count() -> None:
    assert progress_text(view(state="running", progress=0.5), FINE) == "██░  50 %"
    assert progress_text(view(state="running", progress=0.0), FINE) == "░░░   0 %"
    assert progress_text(view(total_steps=None), PLAIN) == "### 100 %"
    assert progress_text(view(state="running", progress=0.0, total_steps=None), FINE) == ""
    assert progress_text(view(state="failed", progress=0.4, total_steps=None), PLAIN) == "#..  40 %"


@given(st.floats(allow_nan=False), st.integers(0, 80))
def test_a_bar_is_as_wide_as_asked(share: float, width: int) -> None:
    assert len(bar(share, width, FINE)) == width
    assert bar(share, width, PLAIN).count("#") == bar(share, width, FINE).count("█")


def test_accuracy_says_on_which_tasks() -> None:
    assert accuracy_text(view(accuracy=54.72)) == "54.7 val"
    assert accuracy_text(view(accuracy=54.0, metric_name="test")) == "54.0 test"
    assert accuracy_text(view(accuracy=None)) == "-"


# Details


def rows(run: RunView, *others: RunView, look: Look = FINE) -> list[tuple[str, str]]:
    return details(run, (run, *others), look)


def test_details_say_what_the_list_says_and_more() -> None:
    found = dict(rows(view(seed=3, step=1500, total_steps=6000, state="running", progress=0.25)))
    assert found == {
        "run": "ldm-aaaa1111", "kind": "ldm task", "state": "▶ running", "step": "1,500 of 6,000",
        "accuracy": "52.5 val", "dataset": "scenes", "seed": "3", "begun": "2026-05-04 11:00, 60m ago",
        "written": "60s ago", "folder": str(Path("runs") / "ldm-aaaa1111"),
    }  # fmt: skip


def test_details_of_a_run_without_steps_seed_or_accuracy() -> None:
    found = dict(rows(view(step=None, total_steps=None, seed=None, accuracy=None, dataset="")))
    assert (found["step"], found["seed"], found["accuracy"], found["dataset"]) == ("-", "-", "-", "-")


def test_the_error_of_a_failed_run_stands_beside_its_state() -> None:
    names = [name for name, _ in rows(OLD)]
    assert names[2:4] == ["state", "error"]
    assert dict(rows(view(message="bad\nnews \x1b[2J")))["error"] == r"bad\nnews \x1b[2J"


def test_lineage_climbs_from_parent_to_parent() -> None:
    zoo = view("zoo-1", parents=(("init", "baseline-1"),))
    hvae = view("hvae-1", parents=(("zoo", "zoo-1"), ("init", "baseline-1")))
    ldm = view("ldm-1", parents=(("generator", "hvae-1"),))
    lines = ancestors(ldm, (view("baseline-1"), zoo, hvae, ldm))
    assert lines == ["generator: hvae-1", "  zoo: zoo-1", "    init: baseline-1", "  init: baseline-1"]
    assert [text for name, text in rows(ldm, zoo, hvae) if name in ("made from", "")][:2] == lines[:2]


def test_a_parent_that_was_removed_is_said_to_be() -> None:
    assert ancestors(view(parents=(("generator", "hvae-9"),)), ()) == ["generator: hvae-9 (removed)"]


def test_parents_that_go_in_a_circle_are_told_once() -> None:
    one, two = view("a-1", parents=(("from", "b-1"),)), view("b-1", parents=(("from", "a-1"), ("also", "b-1")))
    assert ancestors(one, (one, two)) == ["from: b-1", "  from: a-1", "  also: b-1"]
    itself = view("c-1", parents=(("from", "c-1"),))
    assert ancestors(itself, (itself,)) == ["from: c-1"]


def test_a_web_of_parents_is_told_in_as_many_lines_as_it_has_threads() -> None:
    layers = [[view(f"r-{depth}-{n}", parents=tuple((f"p{m}", f"r-{depth - 1}-{m}") for m in (0, 1) if depth))
               for n in (0, 1)] for depth in range(40)]  # fmt: skip
    everyone = [run for layer in layers for run in layer]
    assert len(ancestors(layers[-1][0], everyone)) == 2 + 38 * 4


def test_children_are_named_up_to_a_number() -> None:
    one = view("hvae-1")
    made = [view(f"ldm-{number}", parents=(("generator", "hvae-1"),)) for number in range(9)]
    other = view("ldm-x", parents=(("generator", "hvae-2"),))
    assert children("hvae-1", (one, *made, other)) == [f"ldm-{number}" for number in range(9)]
    assert dict(rows(one, *made, other))["used by"] == "ldm-0, ldm-1, ldm-2, ldm-3, ldm-4, ldm-5 and 3 more"
    assert dict(rows(one, *made[:2]))["used by"] == "ldm-0, ldm-1"
    assert "used by" not in dict(rows(other, one))


@given(VALUES, st.booleans())
def test_details_steer_no_terminal(values: dict[str, Any], ascii: bool) -> None:
    run = view(**values)
    for _, text in details(run, (run,), Look(ascii)):
        assert not set(text) & {*map(chr, range(32)), *map(chr, range(127, 160)), *"\u202e\u2066\u2028"}
        assert text.isascii() or not ascii


def test_damaged_runs_are_named_with_the_way_out() -> None:
    assert damage(()) is None
    assert damage(["ldm-1"]) == (
        "the run.json of ldm-1 cannot be read; it is not listed, and `metavqa runs rm ldm-1` removes it"
    )
    assert "ldm-1, ldm-2, ldm-3 and 2 more cannot" in str(damage([f"ldm-{n}" for n in range(1, 6)]))
