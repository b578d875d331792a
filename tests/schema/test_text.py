"""What is printed of a text from elsewhere: nothing that steers, reorders or hides, and every letter that is meant."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.text import UNSAFE, json_text, neutral

HIDDEN = {
    "a colour": ("\x1b[31mred", r"\x1b[31mred"),
    "a window's title": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "the clipboard": ("\x1b]52;c;cm0=\x1b\\", "\\x1b]52;c;cm0=\\x1b\\"),
    "a link": ("\x1b]8;;http://x\x1b\\y", "\\x1b]8;;http://x\\x1b\\y"),
    "a sequence of C1": ("\x9b31m\x9d0;t\x9c", r"\x9b31m\x9d0;t\x9c"),
    "an overwritten line": ("good\rbad\x08\x7f", r"good\rbad\x08\x7f"),
    "a reordered name": ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
    "isolated text": ("\u2066a\u2069", r"\u2066a\u2069"),
    "a mark of direction": ("a\u200e\u200f\u061cb", r"a\u200e\u200f\u061cb"),
    "a zero-width space": ("pass\u200bword", r"pass\u200bword"),
    "a soft hyphen": ("re\u00add", r"re\xadd"),
    "a word joiner": ("re\u2060d\ufeff", r"re\u2060d\ufeff"),
    "a filler": ("a\u3164b\uffa0", r"a\u3164b\uffa0"),
    "tags": ("a\U000e0061\U000e007f", r"a\U000e0061\U000e007f"),
    "a joiner between letters of ASCII": ("r\u200de\u200cd", r"r\u200de\u200cd"),
    "joiners in a row": ("👩\u200d\u200d👩", r"👩\u200d\u200d👩"),
    "selectors in a row": ("❤\ufe0f\ufe01\U000e0101", r"❤\ufe0f\ufe01\U000e0101"),
    "a selector behind a letter of ASCII": ("x\ufe0f", r"x\ufe0f"),
    "separators of lines": ("a\u2028b\u2029c\x85d\x0b\x0ce", r"a\u2028b\u2029c\x85d\x0b\x0ce"),
    "what is no UTF-8": ("photo\udcff.png", r"photo\udcff.png"),
}
MEANT = {
    "an accent": "café cafe\u0301",
    "a family": "👩\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 ❤\ufe0f ☎\ufe0e",
    "a key": "1\ufe0f\u20e3 #\ufe0f\u20e3",
    "a skin": "👍🏽",
    "Hebrew and Arabic": "שלום مرحبا",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Devanagari": "क\u094d\u200dष",
    "a variant of an ideograph": "葛\U000e0100城",
    "markup": "[red]x[/red] [link=http://x]y[/link] <b> {} $(id) `id` %s",
    "a tab and a line": "a\tb\nc",
}
LETTERS = st.text(
    st.one_of(st.characters(), st.sampled_from("a1#❤👩क\u200c\u200d\ufe0f\ufe0e\U000e0100\u202e\u200b\x1b\x9b\ud800"))
)


@pytest.mark.parametrize("case", HIDDEN)
def test_what_steers_reorders_or_hides_is_shown(case: str) -> None:
    raw, shown = HIDDEN[case]
    assert neutral(raw) == shown


@pytest.mark.parametrize("case", MEANT)
def test_what_is_meant_stays(case: str) -> None:
    assert neutral(MEANT[case]) == MEANT[case]


def test_every_control_character_and_every_override_is_unsafe() -> None:
    meant = {"\t", "\n", *"\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"}
    for code in (*range(0x3100), *range(0xD800, 0xE000), *range(0xFE00, 0x11100), *range(0xE0000, 0xE0200)):
        letter = chr(code)
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in meant:
            assert UNSAFE.search(letter), hex(code)  # the signs of numbers and abbreviations above are seen


@given(LETTERS)
def test_nothing_unsafe_is_left_and_nothing_is_changed_twice(text: str) -> None:
    once = neutral(text)
    assert UNSAFE.search(once) is None and neutral(once) == once
    assert not set("\n\t") & set(neutral(text, one_line=True))
    assert neutral(text, ascii=True).isascii()


@given(LETTERS, st.booleans())
def test_json_reads_back_the_same_and_has_nothing_unsafe(text: str, ascii: bool) -> None:
    written = json_text({text: [text]}, ascii=ascii)
    assert UNSAFE.search(written) is None
    assert json.loads(written) == {text: [text]} or any(0xD800 <= ord(letter) < 0xE000 for letter in text)
    written.encode("utf-8")


def test_half_a_character_survives_json() -> None:
    assert json.loads(json_text("photo\udcff.png")) == "photo\udcff.png"


def test_strict_json_has_no_nan() -> None:
    assert json_text(float("nan")) == "NaN"
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(float("nan"), strict=True)
