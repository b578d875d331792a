"""The one reader of JSON: what is sound comes back as it is, everything else is a ValueError in one line."""

import json
import math
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.strict import DEEPEST, parse_json, parse_line

BAD: dict[str, tuple[bytes | str, str]] = {
    "nothing": (b"", "Expecting value"),
    "two values": (b"{} {}", "Extra data"),
    "not UTF-8": (b'"\xff"', "utf-8"),
    "NaN": (b'{"a": NaN}', "NaN stands where a number should"),
    "infinity": (b"[-Infinity]", "-Infinity stands where"),
    "infinity by its size": (b"[1e999]", "too large"),
    "beyond 64 bits": (b"[9223372036854775808]", "a whole number of 19 digits is too large"),
    "a number of 5000 digits": (b"[" + b"9" * 5000 + b"]", "of 5000 digits"),
    "a number of 5000 digits below zero": (b"-" + b"9" * 5000, "of 5001 digits"),
    "a key twice": (b'{"a": {"b": 1, "b": 2}}', "the key 'b' comes twice"),
    "a key of a control character twice": (b'{"\\u001b": 1, "\\u001b": 2}', r"'\\x1b' comes twice"),
    "half a character": (b'"\\ud800"', "half of a character"),
    "half a character as a key": (b'{"\\udfff": 1}', "half of a character"),
    "deep lists": (b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "deep, and whole": (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested more than 64 deep"),
    "a million and one lists": (b"[" + b"[]," * 1_000_000 + b"[]]", "more than 1,000,000 lists"),
    "far too long": (b'"' + b"a" * (64 * 2**20) + b'"', "bytes are more than"),
}
UNCHECKED_IN_LINES = {"infinity by its size", "beyond 64 bits", "deep, and whole"}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_is_not_sound_is_one_line(text: bytes | str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [name for name in BAD if name not in UNCHECKED_IN_LINES and "digits" not in name])
def test_lines_are_checked_alike_but_for_numbers_and_depth(name: str) -> None:
    with pytest.raises(ValueError):
        parse_line(BAD[name][0])


def test_the_deepest_and_the_largest_are_sound() -> None:
    deepest = b"[" * DEEPEST + b"]" * DEEPEST
    assert json.dumps(parse_json(deepest)).encode() == deepest
    assert parse_json(b"[9223372036854775807, -9223372036854775807, 1e308]") == [2**63 - 1, 1 - 2**63, 1e308]
    assert parse_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
    assert parse_json(b'"\\udcff"') == os.fsdecode(b"\xff")  # the name of a file


def test_constants_are_read_where_they_are_meant() -> None:
    nan, infinite = parse_json(b"[NaN, Infinity]", constants=True)
    assert math.isnan(nan) and infinite == math.inf


NUMBERS = st.integers(1 - 2**63, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.text() | NUMBERS


@given(st.recursive(LEAVES, lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside), max_leaves=20))
def test_whatever_is_written_comes_back(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=True)
    halves = any(0xD800 <= ord(c) < 0xDC80 or 0xDD00 <= ord(c) < 0xE000 for c in json.dumps(value, ensure_ascii=False))
    if halves:
        with pytest.raises(ValueError, match="half"):
            parse_json(text)
    else:
        assert parse_json(text) == parse_json(text.encode()) == parse_line(text) == value
