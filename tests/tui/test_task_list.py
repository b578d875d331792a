"""Rows, order, filter, columns, methods and details of tasks, as pure functions."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from metavqa_cli.engine.contact import Pair
from metavqa_cli.engine.swept import Measured
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.filters import Filter, FilterError, parse
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.task_details import details
from metavqa_cli.tui.task_list import (
    GRAMMAR,
    LETTERS,
    ORDERS,
    SPLITS,
    Arrangement,
    cells,
    columns,
    families_of,
    heading,
    next_of,
    next_order,
    rows_of,
    with_accuracies,
)
from metavqa_cli.tui.task_methods import Method, chosen, methods_of, shown_at_first
from metavqa_cli.tui.widgets.task_images import next_page

LOOK, PLAIN = Look(), Look(ascii=True, color=False)


def task(question: str, answers: int = 3, support: int = 4, query: int = 2, **changes: Any) -> Task:
    names = tuple(f"answer {letter}" for letter in "abcdefghijkl"[:answers])
    pairs = [tuple((f"{part}{n}", n % answers) for n in range(count)) for part, count in (("s", support), ("q", query))]
    usual: dict[str, Any] = {"split": "test", "family": "count", "novelty": None}
    return Task(question, "it is {}", names, *pairs, **{**usual, **changes})


TASKS = (
    task("How many dogs?", family="count", novelty="wording"),
    task("Which colour is the cat?", answers=5, family="colour", split="train"),
    task("How many red cats?", answers=2, query=40, family="count"),
    task("where is it?", family="", split="validation", support=9),
)
ROWS = rows_of(TASKS)
MEASURED = with_accuracies(ROWS, {0: 50.0, 2: 50.0})


def kept(text: str) -> str:
    return "".join(str(row.number) for row in Arrangement(parse(text, GRAMMAR)).of(MEASURED))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", "0123"), ("how", "02"), ("HOW cat", "2"), ("count", ""), ("family:count", "02"), ("family=colour", "1"),
        ("split:test", "02"), ("split:val", "3"), ("novelty:wording", "0"), ("-how", "13"), ("answers>3", "1"),
        ("answers=2", "2"), ("images>=11", "23"), ("pairs=6", "01"), ("support>4", "3"), ("query>=40", "2"),
        ("accuracy<51", "02"), ("accuracy>50%", ""), ("accuracy=50", "02"), ("accuracy!=50", "13"),
        ("cat | dog", "012"), ('"answer e"', ""), ('answer:"answer e"', "1"), ("word:cats", "2"),
    ],
)  # fmt: skip
def test_a_filter_keeps_the_tasks_that_its_words_say(text: str, numbers: str) -> None:
    assert kept(text) == numbers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind:ldm", "there is no field 'kind'"),
        ("answers>few", "answers is a number"),
        ("family>3", "family is a text"),
    ],
)
def test_a_filter_of_runs_is_refused_with_the_fields_of_tasks(text: str, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        parse(text, GRAMMAR)
    with pytest.raises(FilterError, match="question, family, split"):
        parse(":x", GRAMMAR)


@pytest.mark.parametrize(
    ("order", "numbers"),
    [("file order", "0123"), ("question", "0231"), ("family", "3102"), ("best first", "1203"), ("worst first", "0213")],
)
def test_orders(order: str, numbers: str) -> None:
    rows = with_accuracies(ROWS, {0: 10.0, 1: 90.0, 2: 20.0})
    (wanted,) = [one for one in ORDERS if one.name == order]
    assert "".join(str(row.number) for row in Arrangement(order=wanted).of(rows)) == numbers


def test_of_equal_tasks_the_one_with_more_query_pairs_comes_first() -> None:
    for name in ("best first", "worst first"):
        (order,) = [one for one in ORDERS if one.name == name]
        assert [row.number for row in Arrangement(order=order).of(MEASURED)] == [2, 0, 1, 3]


def test_family_and_split_narrow_what_the_filter_keeps() -> None:
    wanted = Arrangement(parse("how", GRAMMAR), family="count", split="test")
    assert [row.number for row in wanted.of(ROWS)] == [0, 2]
    assert wanted.words == "file order · family count · test"
    assert not Arrangement(family="count", split="train").of(ROWS)
    assert Arrangement(order=ORDERS[-1]).words == "worst first by a"


def test_choices_go_round() -> None:
    assert families_of(ROWS) == ("count", "colour")
    assert [next_of(None, SPLITS), next_of("train", SPLITS), next_of("test", SPLITS)] == ["train", "validation", None]
    assert next_of("gone", SPLITS) is None
    around, order = [], ORDERS[0]
    for _ in ORDERS:
        order = next_order(order, measured=True)
        around.append(order.name)
    assert around == [*(one.name for one in ORDERS[1:]), "file order"]
    assert next_order(ORDERS[2], measured=False) is ORDERS[0] and next_order(ORDERS[3], measured=False) is ORDERS[0]


def test_rows_that_are_measured_alike_are_the_same_rows() -> None:
    again = with_accuracies(MEASURED, {0: 50.0, 2: 50.0})
    assert all(a is b for a, b in zip(MEASURED, again, strict=True))
    assert [row.accuracy for row in with_accuracies(MEASURED, {1: 5.0})] == [None, 5.0, None, None]


@given(width=st.integers(1, 250), methods=st.integers(0, 8), question=st.text(max_size=90), look=st.booleans())
def test_a_row_is_exactly_as_wide_as_its_heading(width: int, methods: int, question: str, look: bool) -> None:
    row = rows_of([task(question or "?", family="自行車 and more")])[0]
    shown, how = columns(width, methods), PLAIN if look else LOOK
    texts = cells(row, shown, [{0: 12.345}] * methods, how)
    assert [cell_len(text) for text in texts] == [column.width for column in shown]
    assert cell_len(heading(shown, how)) == width == cell_len(" ".join(texts))


def test_columns_come_with_room_and_the_first_method_before_others() -> None:
    def titles(width: int, methods: int) -> list[str]:
        return [column.title for column in columns(width, methods)]

    assert titles(20, 2) == ["question"]
    assert titles(32, 2) == ["question", "a %"]
    assert titles(120, 3) == ["question", "split", "family", "answers", "images", "query", "a %", "b %", "c %"]
    assert titles(120, 0) == ["question", "split", "family", "answers", "images", "query"]
    row = cells(MEASURED[2], columns(120, 1), [{2: 50.0}], LOOK)
    assert [text.strip() for text in row] == ["How many red cats?", "test", "count", "2", "44", "40", "50.0"]
    assert cells(ROWS[3], columns(120, 1), [{2: 50.0}], LOOK)[-1].strip() == "-"


# Methods


def measured(method: str = "ldm", seed: int = 0, run: str = "", right: tuple[float, ...] = (0.5, 1.0), **changes: Any):  # type: ignore[no-untyped-def]
    usual: dict[str, Any] = {
        "run": run or f"{method}{seed}", "kind": "cell", "created": "2026", "method": method, "label": method.upper(),
        "setting": "zero-shot", "descriptors": 1.0, "gamma": None, "validated": False, "sampler": None, "control": None,
        "layout": None, "answers": None,
    }  # fmt: skip
    return Measured(seed=seed, accuracies=np.array(right), **{**usual, **changes})


def swept(*found: Measured) -> Any:
    return SimpleNamespace(measured=found)


def test_seeds_of_a_method_are_averaged_and_the_newest_of_each_stays() -> None:
    found = methods_of(
        swept(measured(right=(0.0, 0.0), run="old"), measured(right=(1.0, 0.5), run="new"), measured(seed=1)),
        [3, 7],
        (),
    )
    (method,) = found
    assert method.accuracies == {3: 75.0, 7: 75.0} and method.seeds == 2 and method.mean == 75.0
    assert method.title == "LDM (2 seeds)"


def test_only_selected_runs_count_where_they_measured_something() -> None:
    runs = swept(measured("a", run="a"), measured("b", run="b"))
    assert [method.name for method in methods_of(runs, [0, 1], ("b", "hvae-1"))] == ["B"]
    assert [method.name for method in methods_of(runs, [0, 1], ("hvae-1",))] == ["A", "B"]


def test_methods_stand_best_first_zero_shot_before_others() -> None:
    found = methods_of(
        swept(
            measured("few", setting="few-shot", right=(1.0, 1.0)), measured("low", right=(0.1, 0.1)),
            measured("high", right=(0.9, 0.9)), measured("ldm", gamma=1.0, seed=0, validated=True),
            measured("ldm", gamma=2.0, seed=1, validated=True),
        ),
        [0, 1],
        (),
    )  # fmt: skip
    assert [method.title for method in found] == [
        "HIGH", "LDM, γ validated (2 seeds)", "LOW", "FEW, few-shot",
    ]  # fmt: skip


def test_at_first_the_validated_scale_is_shown_not_the_best_on_these_tasks() -> None:
    found = methods_of(
        swept(
            measured("ldm", gamma=2.0, right=(1.0, 1.0)), measured("ldm", gamma=1.0, validated=True),
            measured("plain", right=(0.2, 0.2)),
        ),
        [0, 1],
        (),
    )  # fmt: skip
    usual = chosen(found, ())[1]
    assert [method.title for method in usual] == ["LDM, γ validated (1)", "PLAIN"]
    best = found[0].key
    assert chosen(found, (best, ("gone",)))[1] == (found[0],) and chosen(found, (best, ("gone",)))[0] == (best,)
    assert chosen(found, (("gone",),)) == ((), usual) and chosen((), (best,)) == ((), ())
    assert shown_at_first(found)[0] == usual[0].key


# Details


def told(of: Task, methods: tuple[Method, ...] = (), width: int = 60, look: Look = LOOK) -> str:
    return details(of, 0, methods, width, look).plain


METHODS = methods_of(swept(measured(right=(0.25, 0.5)), measured("other", right=(1.0, 0.5))), [0, 1], ())


def test_a_task_is_told_with_its_answers_counted() -> None:
    text = told(task("How many?", answers=2, support=30, query=10, novelty="family"), METHODS)
    assert text.splitlines()[:3] == ["How many?", "Statement: it is {}", "test · family count · a new family"]
    assert "2 answers in 30 support █ + 10 query ▒ images" in text
    bar = next(line for line in text.splitlines() if line.startswith("answer a"))
    assert bar.endswith(" 15 + 5") and bar.count("█") == 3 * bar.count("▒")
    assert "Right of 10 query pairs" in text and "One pair is 10.0 points; few pairs" in text
    assert "Chance is 50.0" in text
    lines = [line for line in text.splitlines() if line[:2] in ("a ", "b ")]
    assert [line.split()[:2] for line in lines] == [["a", "100.0"], ["b", "25.0"]]
    assert "OTHER" in lines[0] and "LDM" in lines[1]


def test_what_cannot_be_told_is_said() -> None:
    assert "this one is for training" in told(task("?", split="train"), METHODS)
    assert "this one is for validation" in told(task("?", split="validation"), METHODS)
    assert "metavqa eval" in told(task("?"))
    assert "not measured" in details(task("?"), 5, METHODS, 60, LOOK).plain
    assert "few pairs" not in told(task("?", query=200), METHODS)
    assert "family unknown" in told(task("?", family=""))


@given(width=st.integers(10, 120), answers=st.integers(1, 12), support=st.integers(0, 300), query=st.integers(1, 90))
def test_bars_stay_within_the_width_and_in_ascii(width: int, answers: int, support: int, query: int) -> None:
    text = told(task("Wie viele Vögel 自行車?", answers, support, query), METHODS, width, PLAIN)
    assert text.isascii()
    bars = [line for line in text.splitlines() if line.startswith("answer") or "..." in line]
    assert all(len(line) <= max(width, 30) for line in bars)
    counts = [line.split()[-3:] for line in bars if " + " in line]
    assert sum(int(a) for a, _, _ in counts) == support and sum(int(b) for _, _, b in counts) == query


def test_foreign_text_is_not_read_as_markup_and_has_no_control_characters() -> None:
    text = told(task("[red]Which\x1b[31m?[/red]"), METHODS)
    assert text.startswith("[red]Which") and "\x1b" not in text


def test_letters_are_enough_for_what_may_be_shown() -> None:
    assert len(set(LETTERS)) == len(LETTERS) == 8


# Pages of images


def pair(answer: str, part: Any, number: int) -> Pair:
    return Pair(f"{part}{answer}{number}", answer, part, None)


def test_a_page_has_both_sets_and_all_answers_and_pages_leave_nothing_out() -> None:
    pairs = [pair(a, part, n) for a in "xyz" for part in ("support", "query") for n in range(20 if a == "x" else 5)]
    page, rest = next_page(pairs, 12)
    assert len(page) == 12 and [one.part for one in page].count("query") == 6
    assert {one.answer for one in page} == set("xyz") and page == [one for one in pairs if one in page]
    seen = [*page]
    while rest:
        page, rest = next_page(rest, 12)
        assert page
        seen += page
    assert sorted(one.image for one in seen) == sorted(one.image for one in pairs)
    assert len(next_page([pair("x", "support", n) for n in range(30)], 12)[0]) == 12
    assert next_page([], 12) == ([], [])


def test_a_filter_without_words_keeps_all() -> None:
    assert Arrangement(Filter()).of(ROWS) == list(ROWS)
