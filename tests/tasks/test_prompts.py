"""Question → statement: the form of the release, sensible on questions it never had, harmless on everything else."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.errors import UsageError
from metavqa_cli.tasks.prompts import NEUTRAL, check_template, fill, to_template

PAIRS = Path(__file__).parents[2].parent / "shared" / "meta-vqa" / "prompt_meta.json"
FLOOR = 0.96  # measured 0.970; most of the rest is noise of the reference ("the car on the is left {}")

RELEASE_FORM = [
    ("What color is the jacket?", "the jacket is {}"),
    ("What color are the man's shoes?", "the man 's shoes are {}"),
    ("What color is the man's t-shirt?", "the man 's t - shirt is {}"),
    ("What color shirt is the man on the left wearing?", "the man on the left is wearing {} shirt"),
    ("What color is the plate the food is on?", "the plate the food is on is {}"),
    ("What kind of room is this?", "this is {} of room"),
    ("What type of animal is in the picture?", "{} of animal is in the picture"),
    ("What kind of cake?", "{} cake"),
    ("What part of the house is this?", "this is {} of the house"),
    ("What mode of transportation is this?", "this is {}"),
    ("What is in the person's hand?", "{} is in the person 's hand"),
    ("What is covering the ground?", "{} is covering the ground"),
    ("What is the man wearing on his head?", "the man is wearing {} on his head"),
    ("What is the man looking at?", "the man is looking at {}"),
    ("What is the cat in?", "the cat is in {}"),
    ("What is the building made of?", "the building is made of {}"),
    ("What is the man trying to catch?", "the man is trying to catch {}"),
    ("What does the sign say?", "the sign say {}"),
    ("What does the man have on his head?", "the man have {} on his head"),
    ("What room was this picture taken in?", "this picture was taken in {}"),
    ("In what room was this picture taken?", "this picture was taken in {}"),
    ("What's in the sky?", "{} is in the sky"),
    ("What powers this engine?", "{} powers this engine"),
    ("Which hand holds the phone?", "{} holds the phone"),
    ("Which giraffe is taller?", "{} is taller"),
    ("Who is the photographer?", "the photographer is {}"),
    ("Who threw the frisbee?", "{} threw the frisbee"),
    ("How many cars are there?", "there are {} cars"),
    ("How many bears are there in the picture?", "there are in the picture {} bears"),
    ("How many birds can you see?", "you can see {} birds"),
    ("How many stories is the building?", "the building is {} stories"),
    ("How many people are in the boat?", "{} people are in the boat"),
    ("How many people in the boat?", "{} people in the boat"),
    ("How old is this man?", "this man is {} years old"),
    ("How tall is this giraffe?", "this giraffe is {}"),
    ("How is the man's hair styled?", "the man 's hair is styled by {}"),
    ("How does the sky look?", "the sky look {}"),
    ("Where is the bus parked?", "the bus is parked {}"),
    ("When was the picture taken?", "the picture was taken {}"),
    ("Why is the ground wet?", "the ground is wet because {}"),
]

BEYOND_THE_RELEASE = [
    ("What color is the car on the left?", "the car on the left is {}"),
    ("What is the man wearing a hat doing?", "the man wearing a hat is doing {}"),
    ("What is this flying animal?", "this flying animal is {}"),
    ("What is this striped animal called?", "this striped animal is called {}"),
    ("On which side of the road is the car?", "the car is on {} of the road"),
    ("What has the man dropped?", "the man has dropped {}"),
    ("What isn't red?", "{} is n't red"),
    ("How fast is the train going?", "the train is going {}"),
    ("Why is the man in the air?", "the man is in the air because {}"),
    ("What color the jacket is?", "the jacket is {}"),
]

MESSY = [
    ("what color is the jacket", "the jacket is {}"),
    ("  WHAT \t color\nis  THE jacket ??! ", "the jacket is {}"),
    ("What color is the man\u2019s hat?", "the man 's hat is {}"),
    ("\ufeffWhat\x00color\x07is the jac\u200bket?\x1b", "the jacket is {}"),
    ("whats the dog doing", "the dog is doing {}"),
    ("Look at the picture. What color is the car? Thanks!", "the car is {}"),
    ("In this picture, what color is the car?", "the car is {}"),
    ("What color is the car, red or blue?", "the car is {}"),
    ("Which animal is larger, the dog or the cat?", "{} is larger"),
    ("How many red, blue and green cars are there?", "there are {} red blue and green cars"),
    ("What color is the {} jacket {0}?", "the jacket 0 is {}"),
    ("What color is the {{}} jacket?", "the jacket is {}"),
    ("What color is the jalapeño?", "the jalapeño is {}"),
]

UNCONVERTIBLE = [
    "",
    "   \n ",
    "?",
    "what",
    "How many?",
    "What kind of?",
    "Is the man happy?",
    "Are there any dogs?",
    "Name the color of the car.",
    "这是什么颜色?",
    "Какого цвета куртка?",
    "what color is the 车?",
    "what what what",
    "what does the man",
    "Why can't the dog run?",
    "How come the man is sad?",
    "What color is the car and how many dogs are there?",
    "What color is " + "the very " * 1000 + "jacket?",
    "what color is " + "the red " * 30 + "car",
    "what color is the j" + "a" * 1000 + "cket",
]


def exact_match_rate(pairs: dict[str, str]) -> float:
    """Share of questions whose template equals the reference, 0 to 1."""
    return sum(to_template(question).text == reference for question, reference in pairs.items()) / len(pairs)


@pytest.fixture(scope="module")
def release_pairs() -> dict[str, str]:
    if not PAIRS.is_file():
        pytest.skip(f"the released pairs are not part of the project; expected at {PAIRS}")
    return json.loads(PAIRS.read_text(encoding="utf-8"))


def test_agrees_with_the_release(release_pairs: dict[str, str]) -> None:
    rate = exact_match_rate(release_pairs)
    print(f"exact match with {len(release_pairs)} released pairs: {rate:.1%}")
    assert rate >= FLOOR


def test_released_questions_are_all_converted(release_pairs: dict[str, str]) -> None:
    unconverted = [question for question in release_pairs if to_template(question).is_fallback]
    assert len(unconverted) <= 0.001 * len(release_pairs), unconverted


def test_one_question_takes_under_a_millisecond(release_pairs: dict[str, str]) -> None:
    questions = list(release_pairs)[:500]
    start = time.process_time()
    for question in questions:
        to_template(question)
    assert (time.process_time() - start) / len(questions) < 1e-3


@pytest.mark.parametrize(("question", "statement"), RELEASE_FORM + BEYOND_THE_RELEASE + MESSY)
def test_statement(question: str, statement: str) -> None:
    template = to_template(question)
    assert (template.text, template.is_fallback) == (statement, False)


@pytest.mark.parametrize("question", UNCONVERTIBLE)
def test_falls_back_to_the_neutral_statement(question: str) -> None:
    template = to_template(question)
    assert (template.text, template.rule, template.is_fallback) == (NEUTRAL, "neutral", True)


@pytest.mark.parametrize(
    ("question", "rule"),
    [
        ("How many cars are there?", "existential"),
        ("What is in the sky?", "subject_asked"),
        ("What color is the jacket?", "inverted"),
        ("How many people in the boat?", "verbless"),
    ],
)
def test_names_the_rule_that_fired(question: str, rule: str) -> None:
    assert to_template(question).rule == rule


QUESTION_WORDS = """
what which who whose where when why how many much old kind of color is are was does can has 's n't there the this his
man man's car sign red left on in next to wearing parked have see it and , . ? {} { } {{}} {0} ' " %s \0 车
"""


@settings(deadline=None, derandomize=True)
@given(st.text() | st.lists(st.sampled_from(QUESTION_WORDS.split()), max_size=12).map(" ".join))
def test_any_text_gives_one_slot(question: str) -> None:
    template = to_template(question)
    assert check_template(template.text) == template.text
    assert template.text == " ".join(template.text.split())
    assert template.text != "{}"
    assert template.text == NEUTRAL or not template.is_fallback


@settings(deadline=None, derandomize=True)
@given(st.text(), st.text(), st.text())
def test_fill_copies_the_answer_character_for_character(before: str, answer: str, after: str) -> None:
    template = before.replace("{}", "") + "{}" + after.replace("{}", "")
    if template.count("{}") == 1:
        head, tail = template.split("{}")
        assert fill(template, answer) == head + answer + tail


@pytest.mark.parametrize("answer", ["red", "{}", "{0}", "{answer!r}", "{{", "%s", 'the "big" one', "l'été", "\\1", ""])
def test_fill_never_interprets_the_answer(answer: str) -> None:
    assert fill("the car is {} today", answer) == f"the car is {answer} today"


@pytest.mark.parametrize(("template", "slots"), [("the car is red", 0), ("", 0), ("{0}", 0), ("{} is {}", 2)])
def test_template_without_exactly_one_slot_is_refused(template: str, slots: int) -> None:
    with pytest.raises(UsageError, match=rf"has {slots} places for the answer, expected exactly one \{{\}}"):
        check_template(template)
    with pytest.raises(UsageError):
        fill(template, "red")
