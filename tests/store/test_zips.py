"""Zip archives whose directory would fill the memory are refused before it is read, wherever one is opened."""

import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from metavqa_cli.clip.archives import read_member
from metavqa_cli.schema.errors import JobError
from metavqa_cli.store import zips
from metavqa_cli.store.unpack import unpack
from metavqa_cli.tasks.sources.packed import members

WAYS: dict[str, Callable[[Path], object]] = {
    "opened": zips.Zip,
    "as images": lambda path: read_member(path, "0"),
    "as questions": members,
    "unpacked": lambda path: unpack(path, path.parent / "out", lambda _: None),
}


def packed(path: Path, count: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(str(number), b"x")
    return path


@pytest.mark.parametrize("way", WAYS)
def test_too_many_entries_are_refused(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_MEMBERS", 3)
    WAYS[way](packed(tmp_path / "three.zip", 3))
    with pytest.raises(JobError, match=r"four.zip is not safe to open: .* has 4 entries, more than 3; unpack"):
        WAYS[way](packed(tmp_path / "four.zip", 4))


@pytest.mark.parametrize("way", WAYS)
def test_a_directory_of_a_gigabyte_takes_no_memory(way: str, tmp_path: Path) -> None:
    path, size = tmp_path / "large.zip", 1 << 30
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(0, 2)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0))
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match="1,073,741,824 bytes, more than 128,000,000"):
            WAYS[way](path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_the_file_is_closed_with_the_archive_and_after_a_refusal(tmp_path: Path) -> None:
    with zips.Zip(packed(tmp_path / "a.zip", 1)) as archive:
        assert archive.read("0") == b"x"
        file = archive.fp
    assert file is not None and file.closed
    with pytest.raises(zipfile.BadZipFile):  # and pytest sees no file that was left open
        zips.Zip(Path(__file__))
    with pytest.raises(FileNotFoundError):
        zips.Zip(tmp_path / "none.zip")
