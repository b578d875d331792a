"""JSON is read piece by piece with the result of reading it whole, and every mistake is placed."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.tasks.sources import json_files, packed
from metavqa_cli.tasks.sources.json_files import items
from metavqa_cli.tasks.sources.packed import Source, text_of
from tests.tasks.sources.tables import broken


def read(path: Path) -> dict[str, Any]:
    """The whole object again, from its pieces."""
    found: dict[str, Any] = {}
    for key, index, value in items(Source(path)):
        if index is None:
            found[key] = value
        elif index == -1:
            found[key] = []
        else:
            assert len(found.setdefault(key, [])) == index
            found[key].append(value)
    return found


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8),
)


@settings(max_examples=40)
@given(DOCUMENTS, st.integers(1, 40), st.sampled_from([None, 0, 3]), st.booleans())
def test_the_pieces_are_the_whole_however_the_file_is_cut_into_chunks(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "CHUNK", chunk)
        assert read(path) == json.loads(text)


@given(st.binary(), st.integers(1, 10))
def test_arbitrary_bytes_are_json_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "CHUNK", chunk)
        try:
            assert read(path) == json.loads(data)
        except JobError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("chunk", [1, 7, 1024**2])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", 'line 1, column 1: "[" stands where an object'),
        ('"a"', 'column 1: "\\"" stands where an object'),
        (" \n ", "line 2, column 2: the end of the file stands where an object"),
        ('{\n"a": [1, 2,', "line 2, column 12: the file ends in the middle"),
        ('{"a": [1, 2', "column 12: the end of the file stands where a comma or the end of the list"),
        ('{"a": "b', "column 7: the file ends in the middle"),
        ('{"a": {"b": 1', "column 14: the file ends in the middle"),
        ('{"a"', "column 5: the end of the file stands where a colon"),
        ('{"a": 1', "column 8: the end of the file stands where a comma or the end of the object"),
        ('{"a": 1,}', 'column 9: "}" stands where a key'),
        ('{"a": [1,]}', "column 10: expecting value"),
        ('{"a": [1 2]}', 'column 10: "2" stands where a comma or the end of the list'),
        ('{"a" 1}', 'column 6: "1" stands where a colon'),
        ("{a: 1}", 'column 2: "a" stands where a key'),
        ('{"a": 1, "a": 2}', 'column 14: the key "a" comes a second time'),
        ('{"a": NaN}', "column 7: NaN is not JSON"),
        ('{"a": [-Infinity]}', "column 8: -Infinity is not JSON"),
        ('{"a": 1} {}', "column 10: something follows the end of the object"),
        ('{"a": "b\x01"}', "invalid control character"),
        ('{"a": ' + "9" * 5000 + "}", "column 7: a number has too many digits"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + '{"b":' * 100_000, "nested too deeply"),
    ],
)
def test_a_mistake_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str, chunk: int
) -> None:
    if chunk == 1 and len(text) > 1000:
        chunk = 1000
    monkeypatch.setattr(packed, "CHUNK", chunk)
    (tmp_path / "a.json").write_text(text)
    message = broken(JobError, lambda: read(tmp_path / "a.json"))
    assert message.startswith(f"{tmp_path / 'a.json'}, line ") and words in message, message


def test_a_record_without_an_end_costs_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "CHUNK", 1000)
    monkeypatch.setattr(json_files, "MAX_VALUE", 10_000)
    (tmp_path / "a.json").write_text('{"a": ["' + "b" * 1_000_000)
    taken: list[int] = []
    with pytest.raises(JobError, match=r"unterminated string.*|the file ends"):
        list(items(Source(tmp_path / "a.json"), lambda what, done, total: taken.append(done)))
    assert taken[-1] < 50_000


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + b'{"a": "\xc3\xa9"}')
    assert read(tmp_path / "a.json") == {"a": "é"}


@pytest.mark.parametrize("chunk", [1, 3, 1024])
@pytest.mark.parametrize(
    ("data", "byte"), [(b"\xff\xfe{\0", 1), (b'{"a": "\xe9"}', 8), (b'{"a": "\xc3', 8), (b'{"\xe2\x82\xac\xe2"', 6)]
)
def test_the_first_byte_that_is_not_utf_8_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, byte: int, chunk: int
) -> None:
    monkeypatch.setattr(packed, "CHUNK", chunk)
    (tmp_path / "a.json").write_bytes(data)
    message = broken(JobError, lambda: "".join(text_of(Source(tmp_path / "a.json"))))
    assert f"is not UTF-8 text (byte {byte})" in message


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.json cannot be read: No such file"):
        read(tmp_path / "a.json")
    with pytest.raises(JobError, match="is not a file"):
        read(tmp_path)
    (tmp_path / "a.json").touch()
    with pytest.raises(JobError, match=r"is empty \(0 bytes\)"):
        read(tmp_path / "a.json")
