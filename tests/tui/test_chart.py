"""Charts as rows of text: known pictures, and what holds for all: nothing outside its extent, no extreme left out."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.tui.canvas import ASCII_MARKS, DOTS, MARKS
from metavqa_cli.tui.chart import Curve, Row, chart, layout_of
from metavqa_cli.tui.curve_data import Drawing, reduced
from metavqa_cli.tui.series import Series, doubles

nan, inf = math.nan, math.inf
FEW = st.integers(0, 12)


def text(rows: Sequence[Row]) -> list[str]:
    return ["".join(part for part, _ in row).rstrip() for row in rows]


def area(rows: Sequence[Row]) -> list[str]:
    """What lies within the axes of a labelled chart."""
    return ["".join(part for part, _ in row)[6:] for row in rows[:-1]]


def line(*values: float, number: int = 0) -> Curve:
    return Curve(number, list(range(len(values))), values)


# Known pictures


def test_a_rising_line_in_ascii() -> None:
    assert text(chart([line(0, 1, 2, 3, 4)], 30, 6, (0, 4), ascii=True)) == [
        "    4+                    ...o",
        "     |                .o''",
        "    2+            o.''",
        "     |      o..'''",
        "    0+o..'''",
        "     +0-----------2----------4",
    ]


def test_a_rising_line_in_braille() -> None:
    assert text(chart([line(*range(100))], 30, 6, (0, 99))) == [
        "     │                   ⣀⣠⠤⠖●",
        "     │              ⣀⣠⠤⠖⠋⠁",
        "   50┤         ⢀⣠⠤⠖⠋⠁",
        "     │    ⢀⣠⠤⠖⠋⠉",
        "    0┤⣠⠤⠖⠚⠉",
        "     └0──────────50───────────",
    ]


def test_a_constant_lies_in_the_middle() -> None:
    assert text(chart([line(*[2.0] * 99)], 30, 6, (0, 98), ascii=True)) == [
        "  2.2+",
        "     |",
        "    2+.......................o",
        "     |",
        "  1.8+",
        "     +0----------50-----------",
    ]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-300, 5e-324, 1e308, -1e308])
def test_any_constant_is_drawn_in_the_middle(value: float) -> None:
    rows = chart([line(*[value] * 99)], 31, 8, (0, 98), ascii=True)
    assert [place for place, row in enumerate(rows) for _, style in row if style == "curve 0"] == [3]


def test_a_line_is_broken_where_a_value_is_missing_for_more_than_a_column() -> None:
    values = [nan if 30 < step < 60 or step == 80 else 1.0 for step in range(100)]
    (row,) = {row for row in area(chart([line(*values)], 56, 6, (0, 99), ascii=True)) if row.strip()}
    assert row == "." * 16 + " " * 14 + "." * 19 + "o"


def test_a_band_lies_behind_its_line() -> None:
    curve = Curve(0, [0, 50, 100], [1, 1, 1], [0, 1, 1], [2, 1, 2])
    assert text(chart([curve], 30, 8, (0, 100), ascii=True)) == [
        "    2+::                     :",
        "     |:::::               ::::",
        "     |:::::::::        :::::::",
        "    1+o...........o..........o",
        "     |::::::::::",
        "     |::::::",
        "    0+::",
        "     +0----------50--------100",
    ]
    fine = chart([curve], 30, 8, (0, 100))
    styles = {style for row in fine for _, style in row}
    assert styles == {"axis", "curve 0", "band 0", ""}


def test_an_edge_of_minus_infinity_goes_down_to_the_lower_end() -> None:
    curve = Curve(0, [0, 100], [1, 1], [-inf, -inf], [2, 2])
    rows = area(chart([curve], 30, 6, (0, 100), ascii=True))
    assert rows[-1].startswith("o") and rows[0] == ":" * 24  # the mean is the lowest number, below it nothing fits
    assert text(chart([curve], 30, 6, (0, 100), ascii=True))[4].startswith("    1+")


def test_a_log_axis_is_labelled_with_powers_of_ten() -> None:
    rows = text(chart([line(-2, -1, 0, 1)], 30, 9, (0, 3), log=True, ascii=True))
    labels = {row[:5].strip() for row in rows if row[5] == "+"}
    assert labels == {"10", "1", "0.1", "0.01", ""}


def test_one_point_is_a_mark_in_the_middle() -> None:
    assert text(chart([Curve(1, [5], [3.0])], 30, 6, (5, 5))) == [
        "  3.2┤", "     │", "    3┤            ▲", "     │", "  2.8┤", "     └────────────5───────────"
    ]  # fmt: skip


def test_without_a_point_it_says_why() -> None:
    rows = text(chart([line(nan, nan)], 30, 6, (0, 1), note="nothing measured", ascii=True))
    assert rows[2] == "     |    nothing measured" and rows[0] == "     |"


def test_ten_by_four_has_no_room_for_the_numbers_beside_it() -> None:
    assert text(chart([line(*range(100))], 10, 4, (0, 99))) == [
        "      ⢀⣠⠴●",
        "   ⣀⡤⠞⠉",
        "⣠⠴⠋⠁",
        "0───50────",
    ]


def test_curves_can_be_told_apart_without_colour() -> None:
    steps = list(range(60))
    rows = text(chart([Curve(0, steps, [1] * 60), Curve(1, steps, [2] * 60)], 40, 6, (0, 59), ascii=True))
    assert rows[0].count("x") >= 2 and rows[0].endswith("x") and "o" not in rows[0]
    assert rows[4].count("o") >= 2 and rows[4].endswith("o") and "x" not in rows[4]


def test_every_point_of_a_sparse_curve_is_marked() -> None:
    rows = "".join(text(chart([line(1, 5, 2, 4)], 60, 9, (0, 3))))
    assert rows.count("●") == 4


def test_the_cursor_stands_behind_the_curves() -> None:
    rows = chart([line(*[1.0] * 100)], 40, 6, (0, 99), cursor=49.5)
    column = layout_of(40, 6).column(49.5, (0, 99))
    assert column == 17
    assert [row[column] for row in area(rows)] == ["┊", "┊", "⠤", "┊", "┊"]
    assert sum(part.count("┊") for row in rows for part, style in row if style == "cursor") == 4


def test_a_cursor_out_of_sight_is_not_drawn() -> None:
    assert not any("┊" in row for row in text(chart([line(1, 2)], 40, 6, (0, 1), cursor=1.5)))


# What holds for all


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (10, 4), (23, 4), (24, 3), (24, 4), (80, 20)])
def test_every_size_is_filled_exactly(size: tuple[int, int], ascii: bool) -> None:
    width, height = size
    rows = chart([line(3, 1, 2), line(1, 1, 9, number=1)], width, height, (0, 2), ascii=ascii, cursor=1, note="none")
    assert [sum(len(part) for part, _ in row) for row in rows] == [width] * height
    assert not ascii or all(part.isascii() for row in rows for part, _ in row)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 3)])
def test_no_room_is_no_error(width: int, height: int) -> None:
    assert all(row == [] for row in chart([line(1, 2)], width, height, (0, 1)))


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=40),
    width=st.integers(1, 60), height=st.integers(1, 12), ascii=st.booleans(), log=st.booleans(),
)  # fmt: skip
def test_any_numbers_give_rows_of_the_width(
    values: list[float], width: int, height: int, ascii: bool, log: bool
) -> None:
    rows = chart([line(*values)], width, height, (0, len(values) - 1), ascii=ascii, log=log)
    assert len(rows) == height and {sum(len(part) for part, _ in row) for row in rows} == {width}


def drawn_dots(rows: Sequence[str]) -> dict[int, list[int]]:
    """The raised rows of each column of dots; cells with a mark are left out."""
    dots: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        for column, letter in enumerate(row):
            bits = ord(letter) - 0x2800
            for across in range(2):
                for down in range(4):
                    if 0 < bits < 256 and bits & DOTS[across][down]:
                        dots.setdefault(2 * column + across, []).append(4 * place + down)
    return dots


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60), st.integers(30, 60), st.integers(6, 14))
def test_every_dot_lies_within_the_extent_of_the_points_around_it(values: list[float], width: int, height: int) -> None:
    steps = range(len(values))
    rows = area(chart([line(*values)], width, height, (0, len(values) - 1)))
    across, down = 2 * (width - 6) - 1, 4 * (height - 1) - 1
    low, high = min(values), max(values)
    if high - low <= 1e-6:
        return
    columns = [step / (len(values) - 1) * across for step in steps]
    for column, raised in drawn_dots(rows).items():
        near = [
            values[step]
            for step in steps
            if (step == 0 or columns[step - 1] < column + 1) and (step == steps[-1] or columns[step + 1] > column - 1)
        ]
        heights = [(high - value) / (high - low) * down for value in near]
        assert min(heights) - 1 <= min(raised) and max(raised) <= max(heights) + 1


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), min_size=1, max_size=4), st.booleans()
)  # fmt: skip
def test_the_lowest_and_the_highest_value_are_drawn_at_the_edges(curves: list[list[float]], ascii: bool) -> None:
    longest = max(map(len, curves))
    rows = area(
        chart([line(*values, number=k) for k, values in enumerate(curves)], 50, 10, (0, longest - 1), ascii=ascii)
    )
    everything = [value for values in curves for value in values]
    if max(everything) - min(everything) <= 1e-6:
        return
    for row, extreme in ((rows[0], max(everything)), (rows[-1], min(everything))):
        places = [
            round(step / max(1, longest - 1) * 43) if longest > 1 else 22
            for values in curves for step, value in enumerate(values) if value == extreme
        ]  # fmt: skip
        assert any(row[max(0, place - 1) : place + 2].strip() for place in places)


def test_one_spike_among_a_hundred_thousand_points_is_seen() -> None:
    values = [1.0 + 0.01 * math.sin(step) for step in range(100_000)]
    values[70_123] = 50.0
    series = Series("loss", doubles(range(100_000)), doubles(values))
    found = reduced(0, series, Drawing(columns=100, start=0, stop=99_999))
    assert len(found.curve.steps) <= 200
    rows = area(chart([found.curve], 56, 10, (0, 99_999)))
    assert [row for row in rows[:8] if not row.strip()] == []
    assert rows[0].index(rows[0].strip()) == round(0.70123 * 49)


def test_marks_come_round_again() -> None:
    for ascii, marks in ((False, MARKS), (True, ASCII_MARKS)):
        rows = "".join(text(chart([line(1, 2, number=len(marks) + 2)], 30, 6, (0, 1), ascii=ascii)))
        assert marks[2] in rows
