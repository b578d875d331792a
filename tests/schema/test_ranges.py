"""Lists as people type them: every notation, and one sentence for every mistake."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.ranges import MOST, gamma_list, name_list, seed_list, shard_of, share_list


def refused(read: Callable[[Any], Any], given: Any) -> str:
    with pytest.raises(UsageError) as found:
        read(given)
    assert found.value.exit_code == 2
    sentence = str(found.value)
    assert "\n" not in sentence and not sentence.endswith(".")
    return sentence


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1", [0]), ("5", [0, 1, 2, 3, 4]), ("0,3", [0, 3]), ("3,", [3]), ("3,0", [3, 0]), ("2,2,1", [2, 1]),
     (" 1 , 7 ", [1, 7]), (f"{10**17},", [10**17]), (str(MOST), list(range(MOST)))],
)  # fmt: skip
def test_seeds(text: str, seeds: list[int]) -> None:
    assert seed_list(text) == seeds


@pytest.mark.parametrize("text", ["x", "", ",", "1.5", "-1", "-1,2", "1:3", "1,x", "nan", "9" * 19 + ",", "٣x"])
def test_what_are_no_seeds(text: str) -> None:
    assert refused(seed_list, text) == f"--seeds takes how many (5), or which ones (0,3); found {text!r}"


@pytest.mark.parametrize("text", ["0", str(MOST + 1), "1" * 18])
def test_too_few_or_too_many_seeds(text: str) -> None:
    sentence = refused(seed_list, text)
    assert f"1 to {MOST} seeds; found '{text}'" in sentence and f"(one seed alone is {text},)" in sentence


@pytest.mark.parametrize(
    ("texts", "gammas"),
    [(["1"], [1.0]), (["0"], [0.0]), (["1,1.5"], [1.0, 1.5]), (["1", "2"], [1.0, 2.0]),
     (["0:1:0.25"], [0, 0.25, 0.5, 0.75, 1]), (["0:0.3:0.1"], [0, 0.1, 0.2, 0.3]), (["0:1:0.4"], [0, 0.4, 0.8]),
     (["2:2:1"], [2.0]), (["1e0"], [1.0]), (["1:2:0.5,3", "2"], [1.0, 1.5, 2.0, 3.0]), ([" 1 , 2 "], [1.0, 2.0]),
     (["0:3:0.25"], [n / 4 for n in range(13)])],
)  # fmt: skip
def test_gammas(texts: list[str], gammas: list[float]) -> None:
    assert gamma_list(texts) == gammas


@pytest.mark.parametrize(
    ("text", "words"),
    [("0:3:0", "needs a step above 0"), ("3:0:1", "TO not below FROM"), ("0:3", "FROM:TO:STEP"),
     ("0:1:2:3", "FROM:TO:STEP"), ("a", "numbers from 0 up"), ("nan", "numbers from 0 up"),
     ("-1", "numbers from 0 up"), ("", "numbers from 0 up"), ("1,", "numbers from 0 up"),
     ("inf", "numbers from 0 up"), ("0:inf:1", "numbers from 0 up"), ("0:3:-1", "from 0 up"), ("0:3:", "from 0 up"),
     ("0:1:1e-9", f"more than {MOST}"), ("0:1e308:1e-308", f"more than {MOST}"), ("1;2", "from 0 up")],
)  # fmt: skip
def test_what_are_no_gammas(text: str, words: str) -> None:
    sentence = refused(gamma_list, [text])
    assert sentence.startswith("--gamma ") and words in sentence and text in sentence


@given(first=st.integers(0, 30), count=st.integers(1, 200), step=st.integers(1, 40))
def test_both_ends_are_included(first: int, count: int, step: int) -> None:
    """Whatever floating point makes of tenths."""
    last = first + (count - 1) * step
    found = gamma_list([f"{first / 10}:{last / 10}:{step / 10}"])
    assert found == pytest.approx([(first + i * step) / 10 for i in range(count)])


@given(st.text(st.sampled_from("0123456789.:,e-"), max_size=12))
def test_whatever_is_typed_there_are_gammas_or_one_sentence(text: str) -> None:
    try:
        found = gamma_list([text])
    except UsageError as error:
        assert str(error).startswith("--gamma ")
    else:
        assert found and all(math.isfinite(gamma) and gamma >= 0 for gamma in found)
        assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("text", "shares"), [("1", [1.0]), ("0.1,0.5,1", [0.1, 0.5, 1.0]), ("1, 0.5", [0.5, 1.0]), ("0.5,0.5", [0.5])]
)
def test_shares(text: str, shares: list[float]) -> None:
    assert share_list(text) == shares


@pytest.mark.parametrize("text", ["0", "2", "-0.5", "nan", "x", "", "0.5,", "50%", "0.5,2", "inf", "0:1:0.5"])
def test_what_are_no_shares(text: str) -> None:
    assert refused(share_list, text) == (
        f"--descriptors takes shares above 0 and up to 1, as in 0.1,0.5,1; found {text!r}"
    )


@pytest.mark.parametrize(("text", "part"), [(None, (1, 1)), ("1/1", (1, 1)), ("2/8", (2, 8)), ("8/8", (8, 8))])
def test_shards(text: str | None, part: tuple[int, int]) -> None:
    assert shard_of(text) == part


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "x", "", "3", "1/", "/3", "1/0", "-1/3", "1.5/3", "1/3/4", f"1/{MOST + 1}"]
)
def test_what_are_no_shards(text: str) -> None:
    assert refused(shard_of, text) == f"--shard takes PART/PARTS, from 1/8 to 8/8; found {text!r}"


def test_names() -> None:
    assert name_list(None) == []
    assert name_list(["a,b", "c", " a , d,"]) == ["a", "b", "c", "d"]
