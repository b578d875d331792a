"""Curves as text: every mark where its point is, nothing wider than asked, nothing left out."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.tui.plot import Level, Series, plot
from tests.cli.terminal import python

GAMMAS = [0.0, 1.0, 2.0, 3.0, 4.0]
RISING = Series("rising", GAMMAS, [50.0, 51.0, 52.0, 53.0, 54.0])
FALLING = Series("falling", GAMMAS, [54.0, 53.0, 52.5, 51.0, 50.0], [0.5] * 5)
MULTITASK, CEILING = Level("Uncond. Multitask", 50.5), Level("few-shot", 55.25)


def test_the_whole_picture_in_ascii() -> None:
    assert plot([Series("HVAE, γ", [0, 1, 2], [10, 30, 20], [None, 0, 5])], [Level("base", 12.5)], 32, 13, True) == [
        "accuracy in per cent",
        "30 +              o.",
        "   |            ..  ...::",
        "   |          ..       ...:::::",
        "   |         .           :...::",
        "20 +       ..              ::.o",
        "   |      .                 :::",
        "   |    ..                    :",
        "   |--..------------------------",
        "10 + o",
        "   +-+------------+-----------+-",
        "     0            1           2",
        "               gamma",
        "o HVAE, gamma   --- base: 12.50",
        "::: +- s.d. over seeds",
    ]


@pytest.mark.parametrize("ascii", [False, True])
def test_marks_stand_where_the_points_are(ascii: bool) -> None:
    lines = plot([RISING], width=60, height=24, ascii=ascii)[1:21]
    mark = "o" if ascii else "●"
    places = [(line.index(mark), row) for row, line in enumerate(lines) if mark in line]
    across, down = ([place[i] for place in sorted(places)] for i in (0, 1))
    assert len(places) == 5
    assert down == sorted(down, reverse=True) and down[0] - down[-1] >= 16
    steps = [b - a for a, b in pairwise(across)]
    assert max(steps) - min(steps) <= 1


def test_the_numbers_at_the_axes_are_those_of_the_rows_and_columns() -> None:
    lines = plot([RISING], width=70, height=30)
    for y, x in zip((50, 51, 52, 53, 54), "01234", strict=True):
        row = next(line for line in lines if line.startswith(f"{y} ┤") or line.startswith(f"{y}.0 ┤"))
        assert row[lines[-3].index(x)] == "●"
    assert lines[-2].strip() == "γ"


def test_series_and_levels_can_be_told_apart_without_colour() -> None:
    lines = plot([RISING, FALLING], [MULTITASK, CEILING], 80, 24)
    legend = " ".join(lines[24:])
    for entry in ("● rising", "▲ falling", "╌╌╌ Uncond. Multitask: 50.50", "┈┈┈ few-shot: 55.25", "░░░ ± s.d."):
        assert entry in legend
    drawn = "\n".join(lines[1:21])
    assert drawn.count("●") >= 4 and drawn.count("▲") == 5
    assert sum("╌╌╌╌╌╌" in line for line in lines[1:21]) == sum("┈┈┈┈┈┈" in line for line in lines[1:21]) == 1


def test_more_series_than_marks_are_still_drawn() -> None:
    many = [Series(f"method {i}", [0, 1], [float(i), i + 1.0]) for i in range(12)]
    lines = plot(many, [Level(f"level {i}", 13.0 + i) for i in range(6)])
    assert all(f" method {i}" in " ".join(lines[20:]) for i in range(12)) and "level 5" in lines[-1]


def test_a_band_is_as_high_as_its_spread() -> None:
    def shaded(spread: float) -> int:
        flat = Series("flat", [0, 1], [50, 50], [spread, spread])
        rows = plot([flat], [Level("a", 40), Level("b", 60)], 60, 44)[1:41]
        return sum("░░░" in line or "⠒⠒" in line or "⣀⣀" in line or "⠤⠤" in line or "⠉⠉" in line for line in rows)

    assert shaded(0) == 1
    assert shaded(5) == pytest.approx(2 * 5 * 40 / 22, abs=1.5)
    assert shaded(8) == pytest.approx(2 * 8 * 40 / 22, abs=1.5)
    assert "s.d." not in plot([RISING])[-1]


@pytest.mark.parametrize("series", [[], [Series("one", [1.5], [50.0])], [Series("flat", [0, 1, 2], [50.0] * 3)]])
@pytest.mark.parametrize("ascii", [False, True])
def test_a_single_value_or_none_is_drawn_too(series: list[Series], ascii: bool) -> None:
    lines = plot(series, width=40, height=12, ascii=ascii)
    marks = "".join(lines[1:9]).count("o" if ascii else "●")
    assert marks == sum(len(one.xs) for one in series)
    assert sum("┤" in line or line.partition("|")[0].rstrip().endswith("+") for line in lines[1:9]) >= 1


def test_the_order_of_the_points_does_not_matter() -> None:
    turned = Series(FALLING.label, FALLING.xs[::-1], FALLING.ys[::-1], FALLING.spread)
    assert plot([turned]) == plot([FALLING])


def test_crowded_points_get_round_numbers_at_the_axis() -> None:
    xs = [i / 20 for i in range(41)]
    numbers = plot([Series("many", xs, xs)], width=60)[18].split()
    assert numbers[0] == "0.0" and numbers[-1] == "2.0" and 3 <= len(numbers) <= 6


def test_long_numbers_at_the_ends_of_the_axis_are_whole_and_apart() -> None:
    lines = plot([Series("far", [-1000.75, 1234567.0], [0, 1])], width=40, height=10)
    assert lines[8].split() == ["-1000.75", "1.23457e+06"]


def test_the_legend_folds_and_is_never_cut() -> None:
    label = "a generator of weights with a rather long name, guided by HyperLDM"
    lines = plot([Series(label, [0, 1], [0, 1])], [Level(label, 0.5)], 36, 10)
    assert all(len(line) <= 36 for line in lines)
    assert " ".join(" ".join(lines[10:]).split()).count(label) == 2


NUMBERS = st.floats(-1e4, 1e4).map(lambda value: round(value, 2))
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0, 100)), min_size=1, max_size=8)


@given(
    POINTS, POINTS, st.lists(NUMBERS, max_size=2), st.integers(10, 150), st.integers(3, 40), st.booleans()
)  # fmt: skip
def test_it_is_as_wide_and_high_as_asked(
    one: list[tuple[float, float, float]], two: list[tuple[float, float, float]], levels: list[float], width: int,
    height: int, ascii: bool,
) -> None:  # fmt: skip
    series = [Series(name, *map(list, zip(*points, strict=True))) for name, points in (("a", one), ("b", two))]  # type: ignore[arg-type]
    lines = plot(series, [Level("level", y) for y in levels], width, height, ascii)
    assert all(len(line) <= max(width, 32) for line in lines)
    assert any(line.startswith(("o a", "● a")) for line in lines[max(height, 8) :])
    assert lines[max(height, 8) - 1].strip() == ("gamma" if ascii else "γ")
    assert not ascii or "".join(lines).isascii()


def test_a_band_may_reach_farther_below_than_above() -> None:
    lines = plot([Series("skewed", [0, 1], [50, 50], [(10.0, 0.0)] * 2)], [Level("top", 60), Level("low", 40)], 60, 44)
    rows = [row for row, line in enumerate(lines[1:41]) if "░" in line]
    (curve,) = [row for row, line in enumerate(lines[1:41]) if "●" in line]
    assert rows and min(rows) > curve and len(rows) == pytest.approx(10 * 40 / 22, abs=1.5)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ascii", [False, True])
def test_what_is_not_finite_is_left_out(odd: float, ascii: bool) -> None:
    holes = Series("holes", [0.0, odd, 1.0, 2.0], [50.0, 51.0, odd, 52.0], [1.0, 1.0, 1.0, (1.0, odd)])
    whole = Series("holes", [0.0, 2.0], [50.0, 52.0], [1.0, None])
    level = Level("level", 51.0)
    assert plot([holes], [Level("gone", odd), level], ascii=ascii, rule=odd) == plot([whole], [level], ascii=ascii)


def test_a_level_has_its_note() -> None:
    assert plot([], [Level("base", 12.5, " (2 seeds)")])[-1].endswith("base: 12.50 (2 seeds)")


def test_the_band_is_called_what_it_is() -> None:
    assert plot([FALLING], band="95 % interval over 13 tasks")[-1].endswith("░░░ 95 % interval over 13 tasks")


@pytest.mark.parametrize(("ascii", "rule"), [(False, "┆"), (True, "!")])
def test_a_rule_stands_in_its_column_behind_the_curves(ascii: bool, rule: str) -> None:
    lines = plot([RISING], width=60, height=24, ascii=ascii, rule=2.0)
    column = lines[-3].index("2")
    upright = [line[column] if len(line) > column else "" for line in lines[1:21]]
    assert upright.count(rule) >= 18 and upright.count("o" if ascii else "●") == 1
    assert not any(rule in line[:column] + line[column + 1 :] for line in lines[1:21])


def test_a_rule_beyond_the_points_widens_the_axis() -> None:
    lines = plot([RISING], width=60, height=24, rule=8.0)
    marks = [line.index("●") for line in lines[1:21] if "●" in line]
    assert max(marks) < 35 < 50 < lines[5].index("┆")


def test_a_mark_of_its_own_and_no_entry_in_the_legend() -> None:
    lines = plot([RISING, Series("", [2.25], [51], mark="★"), FALLING], width=60, height=24)
    assert lines[22].split() == ["0", "1", "2", "3", "4"], "nor a number at the axis"
    assert sum("★" in line for line in lines) == 1
    assert lines[-1] == "● rising   ▲ falling   ░░░ ± s.d. over seeds"


def test_it_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "[name for name in ('numpy', 'rich', 'matplotlib') if name in sys.modules]"
    assert python("-c", f"import sys, metavqa_cli.tui.plot; print({heavy})", cwd=tmp_path).out == "[]\n"
