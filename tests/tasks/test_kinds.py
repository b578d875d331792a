"""VQA's kinds of question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.tasks.kinds import KINDS, NONE_OF_THE_ABOVE, kind_of


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What color is the car?", "what color is the"),
        ("What color is the  CAR?", "what color is the"),
        ("What is the color of the car?", "what is the color of the"),
        ("what color?", "what color"),
        ("What is the manager doing?", "what is the"),  # whole words: not "what is the man"
        ("What is the man doing?", "what is the man"),
        ("How many people are in the room?", "how many people are in"),
        ("What's on the plate?", NONE_OF_THE_ABOVE),
        ("On which side?", NONE_OF_THE_ABOVE),
        ("", NONE_OF_THE_ABOVE),
    ],
)
def test_the_kind_is_the_longest_opening_in_whole_words(question: str, kind: str) -> None:
    assert kind_of(question) == kind


def test_vqa_has_64_kinds_and_each_is_its_own_kind() -> None:
    assert len(KINDS) == 64
    assert all(kind_of(f"{kind} xylophone?") == kind for kind in KINDS)


@given(st.text())
def test_every_text_has_a_kind(question: str) -> None:
    assert kind_of(question) in {*KINDS, NONE_OF_THE_ABOVE}
