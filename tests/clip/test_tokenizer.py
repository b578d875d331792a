"""The built-in model's tokenizer gives open_clip's tokens, whatever the text, and reads nothing else of open_clip."""

from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.clip.tiny import tokenizer
from metavqa_cli.clip.tiny.tokenizer import END, START, Tokenizer
from metavqa_cli.schema.errors import MissingError
from metavqa_cli.tasks.sources.scenes.questions import all_questions
from tests.cli.terminal import python

OWN, OTHER = Tokenizer(12), open_clip.SimpleTokenizer(context_length=12)
WORDS = (
    "What", "isn't", "WE'LL", "42", "<start_of_text>", "<End_of_text>", "&lt;b&gt;", "&eacute;", "&amp;amp;", "...",
    "h\u00e9llo", "nai\u0308ve", "\ufb01n", "\u00bd", "\u00b2", "\u2167", "\u4e00\u4e8c", "что", "\u017f", "'\u017f",
    "\u0130", "\uff21\uff22", "\u201cquoted\u201d", "\U0001f469\u200d\U0001f680", "a_b", "\t", "\u00a0", "\u2028",
    "\x1b[31m", "sch\u00c3\u00b6n", "antidisestablishmentarianism", "zzzz", "aaaaaaa",
)  # fmt: skip


def assert_equal(texts: list[str]) -> None:
    assert [OWN.encode(text) for text in texts] == [OTHER.encode(text) for text in texts]
    assert torch.equal(OWN(texts), OTHER(texts))


def test_every_question_of_the_world_is_read_alike() -> None:
    assert_equal([question.text for question in all_questions(2021)])


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_is_read_alike(texts: list[str]) -> None:
    assert_equal(texts)


@given(st.text(alphabet=[chr(code) for code in range(128)], max_size=60))
def test_any_ascii_is_read_alike(text: str) -> None:
    assert_equal([text])


@given(st.lists(st.sampled_from(WORDS), max_size=8), st.sampled_from(["", " "]))
def test_words_that_are_read_in_a_special_way_are_read_alike(words: list[str], between: str) -> None:
    assert_equal([between.join(words)])


def test_a_long_text_is_cut_before_the_mark_of_its_end() -> None:
    rows = OWN(["red " * 10, "red " * 11, ""])
    assert rows[0].tolist() == rows[1].tolist() and rows[0, -1] == END
    assert rows[2].tolist() == [START, END, *[0] * 10]
    assert OWN([]).shape == (0, 12)


def test_plain_words_need_no_library_to_mend_them(tmp_path: Path) -> None:
    code = (
        "import sys; from metavqa_cli.clip.tiny.tokenizer import Tokenizer; print(Tokenizer(8).encode('a red car'));"
        "print([name for name in ('open_clip', 'ftfy', 'regex') if name in sys.modules])"
    )
    assert python("-c", code, cwd=tmp_path).out.splitlines() == [str(OTHER.encode("a red car")), "[]"]


def test_without_the_list_of_merges_no_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MERGES_FILE", "nothing.gz")
    tokenizer._ranks.cache_clear()
    with pytest.raises(MissingError, match=r"nothing\.gz cannot be read .*install open_clip_torch again"):
        OWN.encode("neverseen")
    monkeypatch.undo()
    assert_equal(["neverseen"])
