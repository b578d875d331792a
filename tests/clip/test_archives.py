"""Images inside zip archives are the same as files; an archive that lies costs one sentence and no memory."""

import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from metavqa_cli.clip import archives
from metavqa_cli.clip.archives import HELD, read_member
from metavqa_cli.clip.images import open_image
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.store.images import ImageFile

NAMES = ["train/a.jpg", "train/b.png"]


def picture(kind: str = "JPEG", colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.mkdir("train")
        for name in NAMES:
            file.writestr(name, picture("JPEG" if name.endswith("jpg") else "PNG"))
        file.writestr("readme.txt", "hello " * 100)
        file.writestr("empty.png", b"")
    return path


def test_a_member_is_the_image_that_a_file_would_be(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "out")
    for name in NAMES:
        packed, plain = open_image(ImageFile(archive, name, True)), open_image(ImageFile(tmp_path / "out", name))
        assert packed.tobytes() == plain.tobytes() == open_image(tmp_path / "out" / name).tobytes()


def flip(path: Path, find: bytes, byte: int, offset: int = 0, from_end: bool = False) -> None:
    data = bytearray(path.read_bytes())
    at = (data.rindex(find) if from_end else data.index(find)) + offset
    data[at] ^= byte
    path.write_bytes(data)


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def no_zip(path: Path) -> None:
    path.write_bytes(b"this is no archive" * 100)


def bad_crc(path: Path) -> None:
    flip(path, b"train/a.jpg", 0xFF, 60)


def encrypted(path: Path) -> None:
    flip(path, b"PK\x01\x02", 1, 8)
    data = bytearray(path.read_bytes())
    at = data.index(b"train/a.jpg", data.index(b"PK\x01\x02")) - 46
    data[at + 8] |= 1
    path.write_bytes(data)


def compressed_otherwise(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"train/a.jpg", data.index(b"PK\x01\x02")) - 46
    data[at + 10 : at + 12] = struct.pack("<H", 98)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (gone, MissingError, r"images.zip does not exist; check the path of the zip"),
        (a_folder, MissingError, r"images.zip cannot be read: Is a directory"),
        (truncated, JobError, r"images.zip is not a complete zip archive .*; download or copy it again"),
        (no_zip, JobError, r"images.zip is not a complete zip archive"),
        (bad_crc, JobError, r"train/a.jpg in .*images.zip is damaged \(.*\); download"),
        (encrypted, JobError, r"train/a.jpg in .*images.zip is encrypted; unpack"),
        (compressed_otherwise, JobError, r"train/a.jpg in .*images.zip cannot be unpacked \(.*; unpack"),
    ],
)
def test_a_damaged_archive_is_one_sentence(
    archive: Path, damage: Callable[[Path], None], error: type[MetaVQAError], message: str
) -> None:
    open_image(ImageFile(archive, NAMES[0], True))  # what was opened before must not answer for what is there now
    damage(archive)
    os.utime(archive.parent, ns=(0, 0))
    with pytest.raises(error, match=message) as caught:
        open_image(ImageFile(archive, NAMES[0], True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none.jpg", MissingError, "none.jpg is not in .*images.zip; check"),
        ("train/", JobError, "train/ in .*images.zip is a folder"),
        ("empty.png", JobError, "empty.png in .*images.zip is empty"),
        ("readme.txt", JobError, "readme.txt in .*images.zip is not an image that can be read"),
    ],
)
def test_a_member_that_is_no_image_is_named(archive: Path, name: str, error: type[MetaVQAError], message: str) -> None:
    with pytest.raises(error, match=message):
        open_image(ImageFile(archive, name, True))


def test_a_large_member_is_refused_before_it_is_read(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER", 500)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was read"))
    with pytest.raises(JobError, match=r"readme.txt in .* unpacks to 600 bytes, more than 500"):
        read_member(archive, "readme.txt")


def test_a_member_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(30_000_000))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(JobError, match=r"a.png in .*bomb.zip is damaged \(Bad CRC-32"):
        read_member(path, "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_an_archive_that_was_replaced_is_opened_anew(archive: Path) -> None:
    first = open_image(ImageFile(archive, NAMES[1], True)).getpixel((0, 0))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(NAMES[1], picture("PNG", "red"))
    assert open_image(ImageFile(archive, NAMES[1], True)).getpixel((0, 0)) == (255, 0, 0) != first


def test_few_archives_are_held_open(tmp_path: Path) -> None:
    for i in range(HELD + 3):
        with zipfile.ZipFile(tmp_path / f"{i}.zip", "w") as file:
            file.writestr("a.png", picture("PNG"))
        open_image(ImageFile(tmp_path / f"{i}.zip", "a.png", True))
    assert len(archives._archives) == HELD
    assert open_image(ImageFile(tmp_path / "0.zip", "a.png", True)).size == (40, 30)
