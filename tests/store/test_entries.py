"""A head that promises what its file cannot hold is refused before anything is allocated."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.schema.errors import DeviceError, JobError
from metavqa_cli.store.tensors import load_tensors, read_layout

SOUND = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def written(path: Path, head: Any, size: int = 24) -> Path:
    """A file with this head and ``size`` bytes of data, which takes no place on the disk."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + size)
    return path


def with_entry(**changes: Any) -> dict[str, Any]:
    return {"a": {**SOUND, **changes}}


BAD: dict[str, tuple[Any, str]] = {
    "a list": ([], "its header is no object"),
    "an entry that is a number": ({"a": 1}, "'a' needs dtype, shape and data_offsets"),
    "one thing too many": (with_entry(extra=1), "'a' needs dtype"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, "'a' needs dtype"),
    "an unknown type": (with_entry(dtype="F24"), "'a' is of an unknown type"),
    "a type that is a list": (with_entry(dtype=["F32"]), "'a' is of an unknown type"),
    "a negative size": (with_entry(shape=[-2, -3]), "'a' has an impossible shape"),
    "a size of true": (with_entry(shape=[True, 6]), "'a' has an impossible shape"),
    "a size that is a fraction": (with_entry(shape=[2.0, 3]), "'a' has an impossible shape"),
    "a size that is a text": (with_entry(shape=["6"]), "'a' has an impossible shape"),
    "a shape that is a number": (with_entry(shape=6), "'a' has an impossible shape"),
    "far too many axes": (with_entry(shape=[1] * 33), "'a' has an impossible shape"),
    "sizes that overflow": (with_entry(shape=[2**32, 2**32]), "'a' has an impossible shape"),
    "nothing, sixteen exabytes long": (with_entry(shape=[0, 2**62], data_offsets=[0, 0]), "impossible shape"),
    "more elements than bytes": (with_entry(shape=[7]), "'a' needs 28 bytes, and its offsets are 24 apart"),
    "offsets that run back": (with_entry(data_offsets=[24, 0]), "'a' has impossible offsets"),
    "one offset": (with_entry(data_offsets=[24]), "'a' has impossible offsets"),
    "offsets of true": (with_entry(data_offsets=[False, 24]), "'a' has impossible offsets"),
    "a hole": ({**with_entry(), "b": {**SOUND, "data_offsets": [28, 52]}}, "'b' begins at byte 28, .* ends at 24"),
    "an overlap": ({**with_entry(), "b": {**SOUND, "data_offsets": [20, 44]}}, "'b' begins at byte 20, .* ends at 24"),
    "a hole at the start": (with_entry(shape=[5], data_offsets=[4, 24]), "'a' begins at byte 4"),
    "metadata of numbers": ({**with_entry(), "__metadata__": {"a": 1}}, "its metadata is no object of texts"),
    "metadata that is a list": ({**with_entry(), "__metadata__": ["a"]}, "its metadata is no object of texts"),
    "a tensor twice": (b'{"a": %b, "a": %b}' % ((json.dumps(SOUND).encode(),) * 2), "the key 'a' comes twice"),
    "NaN": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 24]}}', "NaN stands where"),
    "a size of 5000 digits": (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", "is too large"),
    "100,000 deep": (b'{"a":' * 100_000, "nested too deeply"),
    "a name that steers a terminal": ({"\x1b[2J\n": 1}, r"tensor '\\x1b\[2J\\n' needs"),
}


@pytest.mark.parametrize(("head", "message"), BAD.values(), ids=BAD)
def test_a_head_that_cannot_be_is_one_sentence(tmp_path: Path, head: Any, message: str) -> None:
    path = written(tmp_path / "model.safetensors", head)
    with pytest.raises(JobError, match=message) as caught:
        read_layout(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_sound_head_is_read(tmp_path: Path) -> None:
    empty = {"dtype": "I64", "shape": [0, 9], "data_offsets": [24, 24]}
    path = written(tmp_path / "model.safetensors", {"b": empty, **with_entry(), "__metadata__": {"k": "v"}})
    layout = read_layout(path)
    assert layout.tensors == {"a": SOUND, "b": empty} and layout.metadata == {"k": "v"}


@pytest.mark.parametrize("length", [2**63, 2**40, 10**8])
def test_a_head_as_long_as_it_claims_is_never_allocated(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match="not a safetensors file"):
            read_layout(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_more_than_all_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    size = 2**43
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    head = {"a": entry, "__metadata__": {"metavqa": "{}", "sha256": "0"}}
    try:
        path = written(tmp_path / "model.safetensors", head, size)
    except OSError:
        pytest.skip("no file of 8 TiB fits on this file system")
    with pytest.raises(DeviceError, match=r"holds 8,192\.0 GiB, and this machine has .* GiB of memory"):
        load_tensors(path)
