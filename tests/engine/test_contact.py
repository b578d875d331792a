"""A task to look at: counts, a fair choice of images, and the contact sheet."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metavqa_cli.engine import contact
from metavqa_cli.engine.contact import (
    COLUMNS,
    FOOT,
    GAP,
    HEAD,
    TILE,
    Pair,
    choose,
    image_places,
    layout,
    pairs_of,
    tally,
)
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.images import ImageFile, write_index
from metavqa_cli.tasks.taskset import Task

COLORS = {"red": (250, 0, 0), "blue": (0, 0, 250), "green": (0, 250, 0)}
TASK = Task(
    question="What color is the car?", template="the car is {}", answers=("red", "blue", "green"),
    support=(("a", 0), ("b", 1), ("c", 1)), query=(("d", 1), ("e", 2), ("f", 2)), split="test",
    family="color_kind", novelty="wording",
)  # fmt: skip


@pytest.fixture
def places(tmp_path: Path) -> dict[str, ImageFile]:
    """An image of the answer's colour for each pair of the task."""
    for image, label in (*TASK.support, *TASK.query):
        Image.new("RGB", (64, 48), COLORS[TASK.answers[label]]).save(tmp_path / f"{image}.png")
    return {image: ImageFile(tmp_path, f"{image}.png") for image in "abcdef"}


def pixel(sheet: Image.Image, number: int) -> object:
    """The colour in the middle of the tile in the ``number``-th place of the first row."""
    top = contact.LARGE + 2 * contact.MIDDLE + 4 * GAP
    return sheet.getpixel((GAP + number * (TILE + GAP) + TILE // 2, top + HEAD + TILE // 2))


def test_answers_are_counted_and_the_most_frequent_comes_first() -> None:
    rows = [(row.answer, row.support, row.query, row.total, row.statement) for row in tally(TASK)]
    assert rows == [
        ("blue", 2, 1, 3, "the car is blue"),
        ("green", 0, 2, 2, "the car is green"),
        ("red", 1, 0, 1, "the car is red"),
    ]


def test_pairs_are_grouped_by_answer_with_the_support_set_first(places: dict[str, ImageFile]) -> None:
    pairs = pairs_of(TASK, places)
    assert [(pair.image, pair.answer, pair.part) for pair in pairs] == [
        ("b", "blue", "support"), ("c", "blue", "support"), ("d", "blue", "query"),
        ("e", "green", "query"), ("f", "green", "query"), ("a", "red", "support"),
    ]  # fmt: skip
    assert [pair.image for pair in pairs_of(TASK, places, ["query"])] == ["d", "e", "f"]
    assert pairs[0].place == places["b"] and pairs_of(TASK, {})[0].place is None


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=5), number=st.integers(0, 40))
def test_a_choice_is_even_over_the_answers_and_keeps_the_order(counts: list[int], number: int) -> None:
    pairs = [Pair(f"{a}-{i}", str(a), "support", None) for a, count in enumerate(counts) for i in range(count)]
    chosen = choose(pairs, number)
    assert len(chosen) == min(number, len(pairs))
    assert chosen == [pair for pair in pairs if pair in chosen]
    taken = [sum(pair.answer == str(answer) for pair in chosen) for answer in range(len(counts))]
    most = max(taken)
    assert all(count >= most - 1 or count == there for count, there in zip(taken, counts, strict=True))


@given(sizes=st.lists(st.integers(1, 20), max_size=8), columns=st.integers(1, 9))
def test_groups_fill_rows_without_overlap_and_small_ones_stay_in_one(sizes: list[int], columns: int) -> None:
    spots = layout(sizes, columns)
    assert [len(spot) for spot in spots] == sizes
    flat = [place for spot in spots for place in spot]
    assert flat == sorted(set(flat)) and all(0 <= column < columns for _, column in flat)
    for spot in spots:
        rows = {row for row, _ in spot}
        assert len(rows) == -(-len(spot) // columns)  # no more rows than needed


def test_a_sheet_shows_each_image_under_its_answer(tmp_path: Path, places: dict[str, ImageFile]) -> None:
    path = tmp_path / "out" / "sheet.png"
    assert contact.write_contact(path, TASK, pairs_of(TASK, places)) == []
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.width == GAP + COLUMNS * (TILE + GAP)
        shown = [pixel(sheet.convert("RGB"), number) for number in range(6)]
    blue, green, red = COLORS["blue"], COLORS["green"], COLORS["red"]
    assert shown == [blue, blue, blue, green, green, red]
    before = path.read_bytes()
    contact.write_contact(path, TASK, pairs_of(TASK, places))
    assert path.read_bytes() == before


def test_a_broken_a_missing_and_an_unlisted_image_are_empty_tiles_that_are_told(
    tmp_path: Path, places: dict[str, ImageFile]
) -> None:
    places["b"].path.write_bytes(b"\x89PNG\r\n\x1a\n cut")
    places["c"].path.unlink()
    del places["d"]
    problems = contact.write_contact(tmp_path / "sheet.png", TASK, pairs_of(TASK, places))
    assert [name for name, said in zip(("b.png", "c.png", "image d"), problems, strict=True) if name not in said] == []
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert [pixel(sheet, number) for number in (3, 5)] == [COLORS["green"], COLORS["red"]]
        frames = [sheet.getpixel((GAP + n * (TILE + GAP), sheet.height - FOOT - GAP - 1)) for n in range(3)]
    assert frames == [contact.PALE] * 3


def test_letters_that_no_font_has_are_told(
    tmp_path: Path, places: dict[str, ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "FONTS", ())
    contact._lettering.cache_clear()
    task = Task("какого цвета?", "{}", ("red", "blue", "green"), TASK.support, TASK.query, "train")
    (problem,) = contact.write_contact(tmp_path / "sheet.png", task, pairs_of(task, places))
    contact._lettering.cache_clear()
    assert problem.startswith("no font here has 'авгекот") and "shows ? instead" in problem


@given(text=st.text(max_size=20))
def test_any_text_can_be_lettered(text: str) -> None:
    font, drawn = contact._lettering(text, 12)
    assert len(drawn) == len(text) and font.getlength(drawn) >= 0
    assert all(letter == shown or shown == "?" for letter, shown in zip(text, drawn, strict=True))


def test_images_are_found_in_the_index_else_in_the_datasets_own_folder(tmp_path: Path) -> None:
    assert image_places(tmp_path, ["a"]) == {}
    (tmp_path / "images").mkdir()
    assert image_places(tmp_path, ["a"]) == {"a": ImageFile(tmp_path / "images", "a.png")}
    elsewhere = ImageFile(tmp_path / "coco", "x/1.jpg")
    write_index(tmp_path / "images.jsonl", {"a": elsewhere, "unused": elsewhere})
    assert image_places(tmp_path, ["a", "lost"]) == {"a": elsewhere}
    (tmp_path / "images.jsonl").write_text("not json\n")
    with pytest.raises(JobError, match="line 1 is damaged"):
        image_places(tmp_path, ["a"])


def test_an_image_that_the_index_does_not_have_says_what_to_do() -> None:
    with pytest.raises(MissingError, match=r"image 7 is not listed in images\.jsonl; `metavqa dataset verify`"):
        contact.open_pair(Pair("7", "red", "query", None))


def test_looking_at_images_needs_no_torch() -> None:
    modules = "metavqa_cli.engine.contact, metavqa_cli.engine.verify, metavqa_cli.engine.remove"
    code = f"import sys, {modules}; print({{'torch', 'numpy', 'PIL'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
