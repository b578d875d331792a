"""Results as text: bars, columns, what changed, one line of the history; and the command line that gives the same."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from metavqa_cli.engine.classifier import Judgement
from metavqa_cli.engine.proposal import Neighbour
from metavqa_cli.engine.request import Request
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.tui import answer_text
from metavqa_cli.tui.answer_text import (
    ResultLines,
    bar,
    changes,
    columns,
    comparison,
    cut,
    history_line,
)
from metavqa_cli.tui.ask_history import JUDGED, KEPT, History, recent
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.results import Result, command, file_name, read_choices, stepped

PLAIN, FINE = Look(ascii=True, color=False), Look()
ANSWERS = ("red", "blue", "a very long answer that nobody gives")


def result(gamma: float = 1.0, tops: tuple[str, ...] = ("red",), question: str = "What color?", **more: Any) -> Result:
    """A result whose images img0, img1, … have these first answers."""
    judgements = [
        Judgement(
            f"/pictures/img{number}.png",
            ((top, 0.75), *((answer, 0.125) for answer in ANSWERS if answer != top)),
            (("blue", 0.5), ("red", 0.25), (ANSWERS[2], 0.25)),
        )
        for number, top in enumerate(tops)
    ]
    made = SimpleNamespace(
        question=question, answers=more.get("answers", ANSWERS), template="it is {}", gamma=gamma, seed=0,
        sampler={"sampler": more.get("sampler", "ddim"), "steps": 10, "samples": more.get("samples", 4)},
        runs={"ldm": more.get("run", "ldm-1")},
    )  # fmt: skip
    answer = SimpleNamespace(
        classifier=made, judgements=judgements, nearest=[Neighbour("What colour?", 0.9)],
        milliseconds={"encode": 1.0, "generate": 20.4, "judge": 3.0}, warnings=["it is far away"],
    )  # fmt: skip
    files = tuple(Path(judgement.image) for judgement in judgements)
    return Result(more.get("request", Request(question)), answer, files, more.get("wrong", ()), 5.0)  # type: ignore[arg-type]


def shown(*args: Any, **how: Any) -> str:
    """The lines of a result as one text."""
    return "\n".join(line.plain for line in ResultLines(*args, **how))


@pytest.mark.parametrize(
    ("share", "fine", "plain"),
    [(0, "    ", "    "), (1, "████", "####"), (0.5, "██  ", "##  "), (0.28125, "█▏  ", "#   "), (7, "████", "####"),
     (-1, "    ", "    ")],
)  # fmt: skip
def test_a_bar_is_as_long_as_its_share(share: float, fine: str, plain: str) -> None:
    assert bar(share, 4) == fine
    assert bar(share, 4, ascii=True) == plain


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 60), st.booleans())
def test_a_larger_share_never_has_a_shorter_bar(one: float, two: float, width: int, ascii: bool) -> None:
    first, second = (bar(share, width, ascii) for share in sorted((one, two)))
    assert len(first) == len(second) == width
    assert len(first.rstrip()) <= len(second.rstrip())


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5), st.integers(28, 200))
def test_the_columns_of_a_result_fit_into_its_width(answers: list[str], width: int) -> None:
    widths = columns(answers, width)
    assert widths.answer >= 4 and widths.bar >= 1
    assert 2 + widths.answer + 2 * (6 + widths.bar) <= width


@given(st.text(max_size=30), st.integers(3, 20))
def test_cut_text_has_exactly_the_width(text: str, width: int) -> None:
    assert cell_len(cut(FINE.text(text), width, FINE)) == width


@pytest.mark.parametrize("width", [28, 34, 50, 100])
@pytest.mark.parametrize("look", [PLAIN, FINE])
def test_every_row_of_bars_has_the_same_columns_and_fits(width: int, look: Look) -> None:
    text = shown(result(tops=("red", "blue")), width, look)
    rows = [line for line in text.splitlines() if line.startswith("  ") and " 0." in line]
    assert len(rows) == 6 and all(cell_len(row) <= width for row in rows)
    assert len({row.index(" 0.") for row in rows}) == 1
    assert text.isascii() or not look.ascii
    words = "zero-shot CLIP" if width >= 50 else "CLIP"
    header = next(line for line in text.splitlines() if line.startswith("   ") and words in line)
    assert header.index(words) == rows[0].index(" 0.", rows[0].index(" 0.") + 1) + 1


def test_a_result_says_everything_about_itself() -> None:
    text = shown(result(wrong=("b.png is empty",), samples=1), 100, FINE)
    for words in ("What color?", "[it is {}]", "γ 1", "ddim 10 steps", "1 sample,", "seed 0", "ldm-1", "0.75", "0.50",
                  "! it is far away", "! b.png is empty", "generate 20 ms", "images 5 ms", "What colour? 0.90",
                  "img0.png: red (CLIP: blue)"):  # fmt: skip
        assert words in text


def test_an_answer_that_changed_is_marked_in_words() -> None:
    before, after = result(1.0, ("red", "blue")), result(1.5, ("blue", "blue"))
    assert changes(before, after) == {"/pictures/img0.png": "red"}
    assert comparison(before, after) == "1 of 2 first answers changed with γ 1 → 1.5"
    text = shown(after, 80, PLAIN, before)
    assert "img0.png: red -> blue, changed" in text and "img1.png: blue\n" in text
    assert "1 of 2 first answers changed with gamma 1 -> 1.5" in text


@pytest.mark.parametrize("brief", [False, True])
def test_no_line_is_wider_than_the_view(brief: bool) -> None:
    question = "Is " + "very " * 30 + "long?"
    long = result(question=question, wrong=("x" * 100,), tops=("red", ANSWERS[2]))
    before = result(2.0, tops=("blue", "red"), question=question)
    for width in (28, 60, 120):
        lines = ResultLines(long, width, FINE, before, brief=brief)
        assert all(cell_len(line.plain.rstrip()) <= width for line in lines)


@pytest.mark.parametrize("answers", [2, 5, 6, 9])
def test_lines_of_thousands_of_images_are_made_when_they_are_looked_at(
    answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(f"answer{number}" for number in range(answers))
    judgements = [
        Judgement(f"img{number}.png", *[tuple((name, 1 / answers) for name in names)] * 2) for number in range(5000)
    ]
    one = result(answers=names)
    one.answer.judgements[:] = judgements
    made: list[str] = []
    usual = answer_text.judgement_lines

    def noted(judgement: Judgement, *rest: Any) -> Any:
        made.append(judgement.image)
        return usual(judgement, *rest)

    monkeypatch.setattr(answer_text, "judgement_lines", noted)
    lines = ResultLines(one, 80, FINE)
    assert not made
    assert lines[len(lines) - 1].plain.startswith("nearest training questions")
    assert lines[len(lines) - 2].plain == "" and made == ["img4999.png"]
    whole = [line.plain for line in lines]
    assert [line.split(":")[0] for line in whole if line.startswith("img")] == [one.image for one in judgements]
    assert whole == [line.plain for line in lines[:]]


def test_a_result_without_images_says_how_to_get_some() -> None:
    assert "no image was judged: choose some" in shown(result(tops=()), 80, FINE)


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    text = shown(result(question="What\x1b[31m [bold]color[/bold]?"), 80, FINE)
    assert "\x1b" not in text and "[bold]color[/bold]?" in text


def test_a_line_of_the_history_fits_and_marks_the_pinned() -> None:
    line = history_line(result(1.25), FINE, pinned=True, width=40)
    assert line.startswith("◆") and "γ 1.25" in line and line.endswith("1 img") and cell_len(line) == 40
    assert history_line(result(), PLAIN, pinned=True, width=40).startswith("p")
    assert history_line(result(), FINE, pinned=False, width=40).startswith(" ")


# The history


def test_a_result_is_compared_with_the_one_before_it_of_the_same_question_and_images() -> None:
    history = History()
    one = history.add(result(1))
    assert (one.number, history.shown()[0].before) == (1, None)
    two = history.add(result(2))
    assert (two.number, history.shown()[0].before) == (2, one)
    history.add(result(2, question="Where?"))
    assert history.shown()[0].before is None
    history.add(result(2, tops=(), question="Where?"))
    assert history.shown()[0].before is None
    assert history.bring_back(2) is two and history.shown()[0].before is None


def test_two_stay_pinned_and_the_oldest_makes_room() -> None:
    history = History()
    assert history.pin() is None
    results = []
    for gamma in (1, 2, 3):
        results.append(history.add(result(gamma)))
        assert history.pin() is True
    assert history.pinned == results[1:]
    new = history.add(result(4))
    assert [one.result for one in history.shown()] == [*results[1:], new]
    assert [one.pinned for one in history.shown()] == [True, True, False]
    history.bring_back(1)
    assert len(history.shown()) == 2 and history.pin() is False and history.pinned == [results[1]]


def test_the_last_results_are_kept() -> None:
    history = History()
    for gamma in range(KEPT + 5):
        history.add(result(gamma))
    assert len(history.results) == KEPT and history.results[0].number == KEPT + 5


def test_results_of_very_many_images_push_older_ones_out() -> None:
    large = tuple("red" for _ in range(JUDGED // 2 // (2 * len(ANSWERS))))  # half of what is kept
    history = History()
    for gamma in range(4):
        history.add(result(gamma, tops=large))
        assert history.results[0] is history.current
    assert len(history.results) == 2
    assert recent([result(0.0, tops=tuple("red" for _ in range(JUDGED)))]), "the newest always stays"


# Choices


def test_choices_are_read_as_they_are_typed_and_nothing_is_the_runs_own() -> None:
    typed = {"gamma": " 1,5 ", "samples": "2", "sampler": "DDIM", "steps": "7", "seed": "3"}
    assert read_choices(typed) == {"gamma": 1.5, "samples": 2, "sampler": "ddim", "steps": 7, "seed": 3}
    assert read_choices({}) == {"gamma": None, "samples": None, "sampler": None, "steps": None, "seed": 0}
    assert read_choices({"sampler": "ddpm", "steps": "7"})["steps"] is None


@pytest.mark.parametrize("typed", [{"samples": "1.5"}, {"samples": "9" * 5000}, {"seed": "-1"}, {"seed": "²"},
                                   {"gamma": "nan"}, {"gamma": "inf"}, {"steps": "0"}])  # fmt: skip
def test_a_choice_that_makes_no_sense_is_refused_by_name(typed: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(typed))):
        read_choices(typed)


def test_keys_step_gamma_by_a_quarter_samples_by_two_and_turn_the_sampler() -> None:
    one = result(0.1)
    assert stepped(one, {}, "gamma", 1) == {"gamma": "0.35"} and stepped(one, {}, "gamma", -1) == {"gamma": "0"}
    assert stepped(one, {}, "samples", 1) == {"samples": "8"} and stepped(one, {}, "samples", -1) == {"samples": "2"}
    assert stepped(result(samples=1), {}, "samples", -1) == {"samples": "1"}
    assert stepped(one, {}, "sampler", 1) == {"sampler": "ddpm"}
    assert stepped(result(sampler="ddpm"), {}, "sampler", 1) == {"sampler": "dpmpp_2m"}
    assert stepped(result(sampler="dpmpp_2m"), {}, "sampler", 1) == {"sampler": "ddim"}


def test_keys_go_on_from_what_is_typed_though_its_result_is_still_to_come() -> None:
    typed = {"gamma": "2", "samples": "1", "sampler": "ddpm"}
    assert stepped(result(0.1), typed, "gamma", 1) == {"gamma": "2.25"}
    assert stepped(result(0.1), typed, "samples", 1) == {"samples": "2"}
    assert stepped(result(0.1), typed, "sampler", 1) == {"sampler": "dpmpp_2m"}


# The command line


def test_a_command_names_everything_and_survives_odd_words() -> None:
    words = command(result(0.1, question="-v or $HOME?", answers=("-a", "b c")), Path("/my work"))
    assert words[:3] == ["--workspace", "/my work", "ask"]
    assert words[-3:] == ["--", "-v or $HOME?", "/pictures/img0.png"]
    assert "--answers=-a,b c" in words and words[words.index("--gamma") + 1] == "0.1"
    assert "--steps" not in command(result(sampler="ddpm"), Path("/w"))
    assert "--steps" in command(result(sampler="dpmpp_2m"), Path("/w"))


def test_a_command_finds_its_workspace_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(result(0.1), Path("here"))[:2] == ["--workspace", str(tmp_path / "here")]


@pytest.mark.parametrize("question", ["red\x1b[31m?", "no utf-8: \udcff"])
def test_a_command_never_holds_what_steers_a_terminal_or_is_no_text(question: str) -> None:
    with pytest.raises(UsageError, match="no command line can hold"):
        command(result(0.1, question=question), Path("/w"))
    assert "Is it a 👩‍🚀?" in command(result(0.1, question="Is it a 👩‍🚀?"), Path("/w"))


def test_what_no_command_line_can_say_is_refused() -> None:
    with pytest.raises(UsageError, match="no image to judge"):
        command(result(tops=()), Path("/w"))
    with pytest.raises(UsageError, match="has a comma"):
        command(result(answers=("1,000", "2"), request=Request("?", ("1,000", "2"))), Path("/w"))
    assert not any("--answers" in word for word in command(result(answers=("1,000", "2")), Path("/w")))


def test_a_file_is_named_after_its_question() -> None:
    assert file_name(result(question="What color is the dog's hat?")) == "what-color-is-the-dog-s-hat.safetensors"
    assert file_name(result(question="??")) == "classifier.safetensors"
