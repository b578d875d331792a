"""Images as characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from rich.segment import Segment

from metavqa_cli.tui.pictures import BETWEEN, NARROWEST, RAMP, UPPER, Lines, Tile, arrange, half_blocks, shades

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


def text(lines: list[list[Segment]]) -> list[str]:
    return ["".join(segment.text for segment in line) for line in lines]


def test_the_upper_and_the_lower_half_of_a_character_are_two_pixels() -> None:
    image = Image.new("RGB", (2, 2), RED)
    image.paste(BLUE, (0, 1, 2, 2))
    (line,) = half_blocks(image, 2)
    assert [segment.text for segment in line] == [UPPER * 2], "one segment of what is alike"
    for segment in line:
        assert segment.style and segment.style.color and segment.style.bgcolor
        assert tuple(segment.style.color.triplet or ()) == RED and tuple(segment.style.bgcolor.triplet or ()) == BLUE


def test_below_an_odd_last_row_the_terminals_own_colour_stays() -> None:
    lines = half_blocks(Image.new("RGB", (3, 3), RED), 3)
    assert len(lines) == 2
    assert all(segment.style and segment.style.bgcolor is None for segment in lines[1])


def test_brightness_becomes_density() -> None:
    image = Image.new("RGB", (3, 2))
    image.paste(WHITE, (2, 0, 3, 2))
    image.paste((128, 128, 128), (1, 0, 2, 2))
    (row,) = text(shades(image, 3))
    assert (row[0], row[2]) == (RAMP[0], RAMP[-1]) and row[1] in RAMP[4:6]


def test_a_dim_image_uses_all_shades() -> None:
    image = Image.new("RGB", (2, 2), (10, 10, 10))
    image.paste((20, 20, 20), (1, 0, 2, 2))
    assert text(shades(image, 2)) == [RAMP[0] + RAMP[-1]]


@settings(max_examples=50)
@given(size=SIZES, width=st.integers(1, 60), color=st.booleans())
def test_a_picture_keeps_its_shape_within_its_width(size: tuple[int, int], width: int, color: bool) -> None:
    lines = (half_blocks if color else shades)(Image.new("RGB", size, RED), width)
    widths = {len(line) for line in text(lines)}
    assert len(widths) == 1 and 1 <= max(widths) <= width
    assert 1 <= len(lines) <= (width + 1) // 2
    assert max(max(widths), 2 * len(lines)) >= width - 1  # it fills one side
    assert color or "".join(text(lines)).isascii()


@settings(max_examples=50)
@given(
    sizes=st.lists(st.none() | SIZES, min_size=1, max_size=4), width=st.integers(4, 90), color=st.booleans(),
    label=st.text("ab 自行車é", max_size=40),
)  # fmt: skip
def test_tiles_never_leave_the_width(sizes: list[tuple[int, int] | None], width: int, color: bool, label: str) -> None:
    tiles = [Tile(Image.new("RGB", size) if size else None, label, "a/b.png") for size in sizes]
    for line in arrange(tiles, width, color=color):
        assert sum(segment.cell_length for segment in line) <= width


def test_as_many_tiles_stand_side_by_side_as_there_is_room() -> None:
    tiles = [Tile(Image.new("RGB", (4, 4)), f"answer {number}") for number in range(5)]
    lines = text(arrange(tiles, 3 * NARROWEST + 2 * BETWEEN, color=False))
    labels = [line for line in lines if "answer" in line]
    assert [line.split() for line in labels] == [
        ["answer", "0", "answer", "1", "answer", "2"],
        ["answer", "3", "answer", "4"],
    ]
    assert len(lines) == 2 * (NARROWEST // 2 + 1) + 1
    assert len([line for line in text(arrange(tiles, 20, color=False)) if "answer" in line]) == 5


def test_labels_of_flat_and_tall_pictures_stand_on_one_line() -> None:
    tiles = [Tile(Image.new("RGB", (40, 10)), "flat"), Tile(Image.new("RGB", (10, 40)), "tall")]
    *_, last = text(arrange(tiles, 2 * NARROWEST + BETWEEN, color=True))
    assert last.split() == ["flat", "tall"]


def test_an_image_that_is_missing_is_a_frame_with_its_name() -> None:
    lines = text(arrange([Tile(None, "red", "003/003123.png")], NARROWEST, color=True))
    assert lines[0] == f"+{'-' * (NARROWEST - 2)}+" == lines[-2] and lines[-1].startswith("red")
    assert "003/003123.png" in "".join(lines)


def test_a_long_label_is_cut_with_dots() -> None:
    *_, last = text(arrange([Tile(None, "a" * 80, "x")], NARROWEST, color=True))
    assert last.rstrip() == "a" * (NARROWEST - 3) + "..."


@pytest.mark.parametrize("color", ["truecolor", None])
def test_a_console_prints_the_lines_as_they_are(color: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(color_system=color, force_terminal=color is not None, width=10)  # type: ignore[arg-type]
    console.print(Lines(half_blocks(Image.new("RGB", (2, 2), RED), 2)))
    out = capsys.readouterr().out
    assert out.count(UPPER) == 2 and ("38;2;255;0;0" in out) == (color is not None)
