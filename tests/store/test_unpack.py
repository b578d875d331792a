"""Nothing that an archive says leads out of the folder, fills the disk, or leaves half a file."""

import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store import unpack
from metavqa_cli.store.unpack import Limits, Unpacked

GOOD = {"train2014/a.jpg": b"\xff\xd8 one", "train2014/b.jpg": b"\xff\xd8 two", "questions.json": b'{"questions": []}'}


def quiet(event: Event) -> None:
    """Nobody listens."""


def packed(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    """A zip of ``files``, whose entries ``change`` may alter."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor would tidy it
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(info)
            made.writestr(info, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_unsafe(archive: Path, words: str, limits: Limits | None = None) -> None:
    """Refused in words that name the archive, with nothing written anywhere near."""
    target = archive.parent / "inside" / "target"
    target.mkdir(parents=True)
    before = contents(archive.parent)
    with pytest.raises(JobError, match="is not safe to unpack: .*" + words) as caught:
        unpack.unpack(archive, target, quiet, limits)
    assert str(archive) in str(caught.value)
    assert contents(archive.parent) == before
    assert list(target.iterdir()) == []


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    told: list[Event] = []
    archive = packed(tmp_path / "good.zip", GOOD)
    assert unpack.bytes_to_write(archive, tmp_path / "out") == sum(map(len, GOOD.values()))
    assert unpack.unpack(archive, tmp_path / "out", told.append) == Unpacked(3, 0)
    assert contents(tmp_path / "out") == GOOD
    assert unpack.bytes_to_write(archive, tmp_path / "out") == 0
    total = sum(map(len, GOOD.values()))
    assert told[-1] == ProgressMade("unpacking good.zip", total, total, "bytes")


def test_folders_in_the_archive_are_made_and_need_no_entry(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", {"deep/": b"", "deep/er/x.json": b"[]"})
    assert unpack.unpack(archive, tmp_path / "out", quiet) == Unpacked(1, 0)
    assert contents(tmp_path / "out") == {"deep/er/x.json": b"[]"}


def test_what_is_there_is_kept_and_what_differs_is_written(tmp_path: Path) -> None:
    archive, out = packed(tmp_path / "good.zip", GOOD), tmp_path / "out"
    unpack.unpack(archive, out, quiet)
    image, half, text = out / "train2014/a.jpg", out / "train2014/b.jpg", out / "questions.json"
    image.write_bytes(b"same size"[: image.stat().st_size].ljust(image.stat().st_size))
    kept = image.read_bytes()
    half.write_bytes(b"\xff")
    text.write_bytes(b"x" * text.stat().st_size)
    assert unpack.unpack(archive, out, quiet) == Unpacked(2, 1)
    assert contents(out) == {**GOOD, "train2014/a.jpg": kept}, "the size of an image is enough, that of a JSON is not"


def test_an_interrupted_unpacking_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, ProgressMade) and event.done > 10:
            raise Enough

    archive, out = packed(tmp_path / "good.zip", GOOD), tmp_path / "out"
    with pytest.raises(Enough):
        unpack.unpack(archive, out, stop)
    assert contents(out) == {"train2014/a.jpg": GOOD["train2014/a.jpg"]}, "no half file, and nothing temporary"
    (out / ".tmp-unpacking-good.zip").mkdir()
    (out / ".tmp-unpacking-good.zip" / "member").write_bytes(b"what a killed process left")
    assert unpack.unpack(archive, out, quiet) == Unpacked(2, 1)
    assert contents(out) == GOOD


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.json", "leads out"), ("a/../../evil.json", "leads out"), ("a/..", "leads out"),
        ("/etc/evil", "leads out"), ("//host/evil", "leads out"), ("..", "leads out"),
        ("..\\evil", "backslash"), ("C:evil", "colon"), ("C:\\evil", "backslash or a colon"), ("a:stream", "colon"),
        ("a//b", "empty part"), ("./a", "empty part"), ("a/./b", "empty part"), ("a./b", "a dot"), ("a /b", "a space"),
        ("\x1b[31m", "control character"), ("a\nb", "control character"), ("a\0b", "control character"),
        (".tmp-unpacking-evil.zip/member", "temporary"),
    ],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str, words: str) -> None:
    assert_unsafe(packed(tmp_path / "evil.zip", {"good.json": b"[]", name: b"evil"}), words)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "C:", "b.json", "~", " "]), min_size=1, max_size=6))
def test_whatever_the_name_nothing_is_written_outside(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        archive = packed(folder / "x.zip", {"/".join(parts): b"x"})
        try:
            unpack.unpack(archive, folder / "in" / "target", quiet)
        except JobError:
            assert contents(folder).keys() == {"x.zip"}
        else:
            assert all(name == "x.zip" or name.startswith("in/target/") for name in contents(folder))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR])
def test_links_and_special_files_are_refused(tmp_path: Path, mode: int) -> None:
    def special(info: zipfile.ZipInfo) -> None:
        info.external_attr = (mode | 0o777) << 16

    assert_unsafe(
        packed(tmp_path / "evil.zip", {"link": b"/etc"}, special), "member 'link' is a link or a special file"
    )


def test_a_link_that_is_there_already_is_not_followed(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    archive = packed(tmp_path / "good.zip", GOOD)
    (out / "train2014").symlink_to(outside)
    with pytest.raises(JobError, match=r"cannot unpack .*train2014 is in the way"):
        unpack.unpack(archive, out, quiet)
    assert list(outside.iterdir()) == []
    (out / "train2014").unlink()
    (out / "train2014").write_bytes(b"a file")
    with pytest.raises(JobError, match=r"train2014 is in the way"):
        unpack.unpack(archive, out, quiet)
    assert (out / "train2014").read_bytes() == b"a file"


def flagged(path: Path, flags: int) -> Path:
    """A zip whose one member says that it is encrypted (both in its head and in the directory)."""
    data = bytearray(packed(path, {"secret.json": b"[]"}).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(mark) + at, flags)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x2001])
def test_an_encrypted_member_is_refused(tmp_path: Path, flags: int) -> None:
    assert_unsafe(flagged(tmp_path / "evil.zip", flags), "'secret.json' is encrypted")


def test_a_packing_that_few_programs_read_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_BZIP2) as made:
        made.writestr("a.json", "[]")
    assert_unsafe(archive, "packed with method 12")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ("a.json", "a.json", "have one name"),
        ("a.json", "A.JSON", "have one name"),
        ("caf\u00e9.json", "cafe\u0301.json", "have one name"),
        ("a", "a/b.json", "is a file and a folder"),
        ("a/b.json", "A", "is a file and a folder"),
    ],
)
def test_two_members_for_one_place_are_refused(tmp_path: Path, one: str, two: str, words: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(one, b"1")
        made.writestr(two, b"2")
    assert_unsafe(archive, words)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "evil.zip", {f"{i}.json": b"[]" for i in range(11)})
    assert unpack.unpack(archive, tmp_path / "fits", quiet, Limits(members=11)) == Unpacked(11, 0)
    assert_unsafe(archive, "11 members, more than 10", Limits(members=10))


def test_more_than_the_most_bytes_are_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "evil.zip", {"a.json": b"12345", "b.json": b"67890"})
    assert unpack.unpack(archive, tmp_path / "fits", quiet, Limits(bytes=10)) == Unpacked(2, 0)
    assert_unsafe(archive, "unpack to 10 bytes, more than 9", Limits(bytes=9))


def test_a_bomb_is_refused_by_its_growth_and_a_regular_small_file_is_not(tmp_path: Path) -> None:
    small = packed(tmp_path / "small.zip", {"zeros.json": b"0" * 1_000_000})
    assert unpack.unpack(small, tmp_path / "fits", quiet) == Unpacked(1, 0)
    bomb = packed(tmp_path / "bomb.zip", {"zeros.json": b"0" * 3_000_000})
    assert_unsafe(bomb, r"'zeros\.json' would grow from \d+ to 3000000 bytes, more than 200 times")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The bomb without a large ratio: many entries of the directory point to the same packed bytes."""
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("0.json", b"x" * 5000)
        for i in range(1, 20):
            twin = zipfile.ZipInfo(f"{i}.json")
            first = made.filelist[0]
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, name, getattr(first, name))
            made.filelist.append(twin)
    assert_unsafe(archive, "members overlap: packed they have 100000 bytes")


def resized(path: Path, data: bytes, claimed: int) -> Path:
    """A zip whose one member claims ``claimed`` bytes, in its head and in the directory."""
    whole = bytearray(packed(path, {"a.json": data}).read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", whole, whole.index(mark) + at, claimed)
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("claimed", [99, 101, 5000])
def test_a_member_of_another_size_than_it_claims_is_damaged(tmp_path: Path, claimed: int) -> None:
    archive = resized(tmp_path / "liar.zip", bytes(range(100)), claimed)
    with pytest.raises(JobError, match=r"liar\.zip is damaged: member 'a\.json'.*download it again"):
        unpack.unpack(archive, tmp_path / "out", quiet)
    assert contents(tmp_path / "out") == {}


def test_a_member_never_writes_more_than_it_claims(tmp_path: Path) -> None:
    most: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, ProgressMade):
            most.append(event.done)

    archive = resized(tmp_path / "liar.zip", b"ab" * 400_000, 10)
    with pytest.raises(JobError, match="is damaged"):
        unpack.unpack(archive, tmp_path / "out", watch)
    assert max(most, default=0) <= 10


def test_a_flipped_bit_is_found_and_what_was_unpacked_before_stays(tmp_path: Path) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.json", b"[1]")
        made.writestr("b.json", b"[222222]")
    data = bytearray(archive.read_bytes())
    data[data.index(b"[222222]") + 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(JobError, match=r"member 'b\.json': Bad CRC"):
        unpack.unpack(archive, tmp_path / "out", quiet)
    assert contents(tmp_path / "out") == {"a.json": b"[1]"}


@pytest.mark.parametrize("keep", [0, 3, 50, -1, -30])
def test_a_truncated_archive_is_damaged(tmp_path: Path, keep: int) -> None:
    archive = packed(tmp_path / "cut.zip", GOOD)
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(JobError, match=r"cut\.zip is damaged: .*download it again"):
        unpack.unpack(archive, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_one_wrong_byte_anywhere_is_an_explained_error_or_harmless(at: int, value: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        archive = packed(folder / "x.zip", GOOD)
        data = bytearray(archive.read_bytes())
        data[at % len(data)] = value
        archive.write_bytes(data)
        try:
            unpack.unpack(archive, folder / "out", quiet)
        except JobError as error:
            assert str(archive) in str(error) or "cannot write" in str(error)
        assert all(data in GOOD.values() for data in contents(folder / "out").values())


def test_an_archive_in_an_archive_is_a_file(tmp_path: Path) -> None:
    inner = packed(tmp_path / "inner.zip", {"../evil": b"x"}).read_bytes()
    unpack.unpack(packed(tmp_path / "outer.zip", {"inner.zip": inner}), tmp_path / "out", quiet)
    assert contents(tmp_path / "out") == {"inner.zip": inner}


def test_a_full_disk_is_explained_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    archive = packed(tmp_path / "good.zip", GOOD)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(JobError, match=r"cannot write .*a\.jpg: the disk is full"):
        unpack.unpack(archive, tmp_path / "out", quiet)
    monkeypatch.undo()
    assert contents(tmp_path / "out") == {}
    shutil.rmtree(tmp_path / "out")
