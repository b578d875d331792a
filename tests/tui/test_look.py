"""Whatever is drawn keeps its width in ASCII, and no text from elsewhere reaches the terminal as a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color

from metavqa_cli.tui.look import SINGLE, AsciiFilter, Look, ascii_cells

ANY = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(st.sampled_from("a\x1b[\udcff\ud800é\u202e"))
DRAWN = st.text(st.sampled_from("─│╭╮╰╯█░▌▶✓★…γ数据👩\u0301\u200dé\u00a0ä±↑\ufe0f"), max_size=40)
STEERING = {*map(chr, (*range(32), *range(127, 160))), *"\u200e\u200f\u2028\u2029\u202a\u202d\u202e\u2066\u2069"}


@given(st.text(st.characters(exclude_categories=("Cc",)), max_size=60) | DRAWN)
def test_ascii_cells_are_ascii_and_as_wide(text: str) -> None:
    found = ascii_cells(text)
    assert found.isascii()
    assert len(found) == sum(map(cell_len, text))


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_stays_as_it_is(text: str) -> None:
    assert ascii_cells(text) == text


@pytest.mark.parametrize(("fine", "plain"), [
    ("╭─ Runs ─╮", "+- Runs -+"), ("███░░░", "###:::"), ("γ 1.5 ± 0.2", "g 1.5 ~ 0.2"), ("数据", "????"),
    ("▶✓★", ">x*"),
])  # fmt: skip
def test_what_is_drawn_has_a_counterpart(fine: str, plain: str) -> None:
    assert ascii_cells(fine) == plain


def test_every_counterpart_is_one_ascii_character_for_one_cell() -> None:
    for letter, plain in SINGLE.items():
        assert isinstance(plain, str) and len(plain) == 1 and plain.isascii() and cell_len(chr(letter)) == 1


def test_the_filter_changes_the_text_and_nothing_else() -> None:
    segments = [Segment("█ ", "red"), Segment("γ")]  # type: ignore[arg-type]
    assert AsciiFilter().apply(segments, Color(0, 0, 0)) == [Segment("# ", "red"), Segment("g")]  # type: ignore[arg-type]


@given(ANY, st.booleans())
def test_foreign_text_cannot_steer_the_terminal(text: str, ascii: bool) -> None:
    shown = Look(ascii).text(text)
    assert not set(shown) & STEERING
    assert shown.isascii() or not ascii
    shown.encode("utf-8")  # a file's name may be no UTF-8


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp")), max_size=60))
def test_harmless_text_is_shown_as_it_is(text: str) -> None:
    assert Look().text(text) == text


def test_line_ends_are_kept_only_where_asked() -> None:
    assert Look().text("a\n\tb") == r"a\n\tb"
    assert Look().text("a\nb", one_line=False) == "a\nb"
    assert Look().text("\x1b[2Jaway") == r"\x1b[2Jaway"


def test_pick_takes_the_plain_one_for_ascii() -> None:
    assert (Look().pick("★", "*"), Look(ascii=True).pick("★", "*")) == ("★", "*")
