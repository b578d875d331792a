"""VQA's soft accuracy: worked out by hand, and against the rule as it is written, person by person."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.tasks.soft_accuracy import CONTRACTIONS, normalised, soft_accuracies, soft_accuracy


def person_by_person(answer: str, people: list[str]) -> float:
    """The mean over the people of min(1, matches among the others / 3), all of them compared as they stand."""
    scores = []
    for i in range(len(people)):
        others = people[:i] + people[i + 1 :]
        scores.append(min(1.0, others.count(answer) / 3))
    return sum(scores) / len(scores)


@pytest.mark.parametrize(
    ("agree", "expected"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (5, 1.0), (9, 1.0), (10, 1.0)],
)
def test_of_ten_people_some_agree(agree: int, expected: float) -> None:
    human = {"red": agree, "blue": 10 - agree}
    assert soft_accuracy("red", {text: n for text, n in human.items() if n}) == pytest.approx(expected, abs=1e-12)


ANSWERS = st.lists(st.sampled_from(["red", "blue", "green", "pink"]), min_size=1, max_size=12)


@given(ANSWERS)
def test_it_is_the_rule_as_written_for_any_number_of_people(people: list[str]) -> None:
    texts = ["red", "blue", "green", "pink", "none of these"]
    assert soft_accuracies(texts, Counter(people)) == pytest.approx([person_by_person(t, people) for t in texts])


@given(st.dictionaries(st.text(max_size=12), st.integers(1, 5), min_size=1, max_size=6), st.text(max_size=12))
def test_it_is_a_share_and_a_person_more_who_agrees_never_lowers_it(human: dict[str, int], answer: str) -> None:
    before = soft_accuracy(answer, human)
    assert 0 <= before <= 1
    if len(human) > 1:  # else it may begin to be normalised
        assert soft_accuracy(answer, {**human, answer: human.get(answer, 0) + 3}) >= before - 1e-12


def test_without_people_there_is_no_soft_accuracy() -> None:
    for nobody in ({}, {"red": 0}):
        with pytest.raises(ValueError, match="at least one person"):
            soft_accuracy("red", nobody)


# Normalisation


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Red", "red"), ("  two   dogs ", "2 dogs"), ("none", "0"), ("Ten", "10"), ("eleven", "eleven"),
        ("the a an", ""), ("a dog", "dog"), ("The man and the dog", "man and dog"), ("theatre", "theatre"),
        ("dont know", "don't know"), ("Its", "its"), ("arent", "aren't"), ("oclock", "o'clock"), ("cant", "can't"),
        ("couldntve", "couldntve"), ("couldn'tve", "couldn't've"), ("couldnt've", "couldn't've"), ("Im", "im"),
        ("somebody'd", "somebodyd"), ("let's", "let's"), ("she'd", "she'd"), ("shed", "shed"),
        ("black/white", "black white"), ("black / white", "black white"), ("black-and-white", "black and white"),
        ("t-shirt", "t shirt"), ("t -shirt", "t shirt"), ("red, white", "red white"), ("red,white", "red white"),
        ("1,000", "1000"), ("1,000 dogs-cats", "1000 dogscats"), ("1, 000", "1 000"), ("yes!", "yes"),
        ("yes.", "yes"), ("2.5", "2.5"), (".5", ".5"), ("5.", "5"), ("u.s.a.", "usa"), ("a.b", "ab"),
        ("1.a", "1a"), ("'red'", "'red'"), ("it's", "it's"), ("10:30", "10:30"), ("a & b", "& b"), ("#1", "#1"),
        ("(red)", "red"), ('"red"', "red"), ("[red]{blue}", "red blue"), ("\\_-><@`", ""), ("?", ""), ("", ""),
    ],
)  # fmt: skip
def test_answers_are_compared_in_this_form(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_a_mark_beside_a_space_disappears_wherever_else_it_stands() -> None:
    assert normalised("t- shirt-red") == "t shirtred"
    assert normalised("t-shirt-red") == "t shirt red"


def test_only_thirty_two_periods_disappear() -> None:
    assert normalised("." * 40) == "." * 8


def test_contractions_lack_one_apostrophe_each() -> None:
    assert len(CONTRACTIONS) == 114
    for key, word in CONTRACTIONS.items():
        assert key == "somebody'd" or (len(key) == len(word) - 1 and key.replace("'", "") == word.replace("'", ""))


@given(st.text(max_size=40))
def test_the_normal_form_is_lower_case_words_without_marks_or_articles(answer: str) -> None:
    words = normalised(answer).split(" ")
    assert not set(words) & {"a", "an", "the"}
    assert not set(normalised(answer)) & set(';/[]"{}()=+\\_-><@`,?!\n\t')
    assert normalised(answer) == normalised(answer).lower()


# When answers are normalised


def test_both_sides_are_normalised_where_people_disagree() -> None:
    human = {"Two": 4, "2": 1, "three": 5}
    assert soft_accuracies(["2", "two", "TWO!", "the 3", "4"], human) == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_people_whose_answers_become_the_same_agree() -> None:
    assert soft_accuracy("t shirt", {"t-shirt": 1, "T-shirt": 1, "a t shirt": 1, "coat": 7}) == pytest.approx(0.9)


def test_neither_side_is_normalised_where_all_people_say_the_same() -> None:
    assert soft_accuracies(["two", "2", "Two"], {"two": 10}) == [1.0, 0.0, 0.0]
    assert soft_accuracies(["a dog", "dog"], {"a dog": 10}) == [1.0, 0.0]


def test_lines_tabs_and_outer_spaces_are_no_disagreement() -> None:
    assert soft_accuracies(["two dogs", "\ttwo\ndogs ", "2 dogs"], {"two dogs": 5, " two\ndogs\t": 5}) == [
        1.0,
        1.0,
        0.0,
    ]


def test_people_who_differ_in_form_alone_disagree_and_are_normalised() -> None:
    assert soft_accuracies(["2", "two"], {"two": 9, "Two": 1}) == [1.0, 1.0]
