"""VQA's files are found in every usual layout, in their archives too; what is wrong with an archive is said."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError, UsageError
from metavqa_cli.tasks.sources import packed, vqa2
from metavqa_cli.tasks.taskset import TaskSet
from tests.tasks.sources import vqa
from tests.tasks.sources.tables import broken
from tests.tasks.sources.vqa import JSON, TRAIN, VAL, ZIPS, config

ORDER = [("questions", TRAIN), ("annotations", TRAIN), ("questions", VAL), ("annotations", VAL)]
QUESTIONS = ZIPS["questions", TRAIN]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> TaskSet:
    return vqa2.read(config(vqa.write(tmp_path_factory.mktemp("flat"), vqa.small()))).tasks


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"questions": "Questions", "annotations": "Annotations"},
        {"questions": "vqa", "annotations": "vqa"},
        {"questions": "vqav2", "annotations": "vqav2"},
        {"questions": "VQA/Questions", "annotations": "VQA/Annotations"},
    ],
)
def test_every_layout_is_known(tmp_path: Path, expected: TaskSet, places: dict[str, str]) -> None:
    vqa.write(tmp_path, vqa.small(), places)
    assert vqa2.read(config(tmp_path)).tasks == expected
    assert vqa2.inputs(config(tmp_path)) == [tmp_path / places.get(key[0], "") / JSON[key] for key in ORDER]


def test_archives_are_read_as_they_are(tmp_path: Path, expected: TaskSet) -> None:
    vqa.write_zips(tmp_path, vqa.small())
    before = sorted(tmp_path.rglob("*"))
    assert vqa2.read(config(tmp_path)).tasks == expected
    assert vqa2.inputs(config(tmp_path)) == [tmp_path / ZIPS[key] for key in ORDER]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_a_file_is_preferred_to_its_archive(tmp_path: Path) -> None:
    vqa.write_zips(tmp_path / "downloads", vqa.small())
    vqa.write(tmp_path, {key: value for key, value in vqa.small().items() if key[1] == VAL}, {"questions": "vqa"})
    names = [path.relative_to(tmp_path).as_posix() for path in vqa2.inputs(config(tmp_path))]
    assert names == [f"downloads/{QUESTIONS}", f"downloads/{ZIPS['annotations', TRAIN]}",
                     f"vqa/{JSON['questions', VAL]}", JSON["annotations", VAL]]  # fmt: skip


def test_files_can_be_named_each(tmp_path: Path, expected: TaskSet) -> None:
    files = vqa.small()
    vqa.write_zip(tmp_path / "a.zip", {"in/here/my_questions.json": json.dumps(files["questions", TRAIN]).encode()})
    for (what, split), name in {("annotations", TRAIN): "b.json", ("questions", VAL): "c.json",
                                ("annotations", VAL): "d"}.items():  # fmt: skip
        (tmp_path / name).write_text(json.dumps(files[what, split]))
    one, two, three, four = (str(tmp_path / name) for name in ("a.zip", "b.json", "c.json", "d"))
    both = config("", question_files=[one, three], annotation_files=[two, four])
    assert vqa2.read(both).tasks == expected  # data_subtype in them says which images they are about
    assert vqa2.inputs(both) == [Path(path) for path in (one, two, three, four)]
    swapped = config("", question_files=[three, one], annotation_files=[four, two])
    assert vqa2.read(swapped).tasks != expected


def test_files_that_are_named_must_come_in_pairs_and_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"question_files has 1 files .* --annotation-file for each --question-file"):
        vqa2.inputs(config("", question_files=["a.json"]))
    with pytest.raises(MissingError, match=r"no file .*a\.json .*check --question-file.*dataset download vqa2"):
        vqa2.inputs(config("", question_files=[str(tmp_path / "a.json")], annotation_files=["b.json"]))
    with pytest.raises(JobError, match="is not a file"):
        vqa2.inputs(config("", question_files=[str(tmp_path)], annotation_files=["b.json"]))


def test_which_part_of_coco_a_split_is_must_be_said(tmp_path: Path) -> None:
    files = vqa.small()
    names = {}
    for what in ("questions", "annotations"):
        files[what, TRAIN]["data_subtype"] = None
        names[what] = tmp_path / f"{what}.json"
        names[what].write_text(json.dumps(files[what, TRAIN]))
    named = config("", question_files=[str(names["questions"])], annotation_files=[str(names["annotations"])])
    assert "says train2014 or val2014" in broken(JobError, lambda: vqa2.read(named))


def test_what_is_missing_is_named_with_the_place_and_the_command(tmp_path: Path) -> None:
    vqa.write(tmp_path, vqa.small())
    (tmp_path / JSON["annotations", VAL]).unlink()
    message = broken(MissingError, lambda: vqa2.inputs(config(tmp_path)))
    for word in (JSON["annotations", VAL], ZIPS["annotations", VAL], str(tmp_path), "`metavqa dataset download vqa2`"):
        assert word in message
    assert "one split" in message and "--question-file and --annotation-file" in message
    with pytest.raises(UsageError, match=r"dataset\.path is empty, expected the folder with the VQA files"):
        vqa2.inputs(config(""))
    with pytest.raises(MissingError, match=r"there is no folder .*nowhere"):
        vqa2.inputs(config(tmp_path / "nowhere"))
    with pytest.raises(MissingError, match="there is no folder"):
        vqa2.inputs(config("a\0b"))
    with pytest.raises(MissingError, match=r"json is a file, expected the folder with the VQA files"):
        vqa2.inputs(config(tmp_path / JSON["questions", VAL]))


def nested() -> bytes:
    inner = io.BytesIO()
    with ZipFile(inner, "w") as archive:
        archive.writestr(JSON["questions", TRAIN], "{}")
    return inner.getvalue()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"inner/a.zip": nested()}, ["no file", "another archive, inner/a.zip; unpack the outer one"]),
        ({"readme.txt": b"hello"}, ["no file", JSON["questions", TRAIN], "readme.txt"]),
        ({}, ["no file", "nothing"]),
        ({f"{i}.txt": b"" for i in range(9)}, ["0.txt, 1.txt, 2.txt and 6 more"]),
        ({f"a/{JSON['questions', TRAIN]}": b"{}", f"b/{JSON['questions', TRAIN]}": b"{}"}, ["2 files"]),
    ],
)
def test_an_archive_without_the_file_is_named(tmp_path: Path, members: dict[str, bytes], words: list[str]) -> None:
    vqa.write_zips(tmp_path, vqa.small())
    vqa.write_zip(tmp_path / QUESTIONS, members)
    message = broken(JobError, lambda: vqa2.read(config(tmp_path)))
    assert message.startswith(str(tmp_path / QUESTIONS))
    assert all(word in message for word in words), message


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def lied_about(data: bytes) -> bytes:
    """The same archive, whose directory and header say that the file is a byte shorter than it is."""
    with ZipFile(io.BytesIO(data)) as archive:
        size = archive.infolist()[0].file_size
    return data.replace(size.to_bytes(4, "little"), (size - 1).to_bytes(4, "little"))


def locked(data: bytes) -> bytes:
    """The same archive with the flag of a password."""
    at = data.index(b"PK\1\2") + 8
    return data[:at] + bytes([data[at] | 1]) + data[at + 1 :]


def flipped(data: bytes) -> bytes:
    """The same archive with a byte of the packed data changed."""
    at = data.index(b"PK\1\2") // 2
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_short, "is no complete zip archive"),
        (lied_about, "is no complete zip archive"),
        (flipped, "is no complete zip archive"),
        (locked, "is locked with a password"),
        (lambda data: b"", "is empty (0 bytes)"),
        (lambda data: b"not a zip at all", "is no complete zip archive"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes], words: str) -> None:
    path = vqa.write_zips(tmp_path, vqa.small()) / QUESTIONS
    path.write_bytes(spoil(path.read_bytes()))
    message = broken(JobError, lambda: vqa2.read(config(tmp_path)))
    assert message.startswith(str(path)) and words in message


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_too_large_to_be_vqa_s_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    (vqa.write_zips if zipped else vqa.write)(tmp_path, vqa.small())
    monkeypatch.setattr(packed, "MAX_BYTES", 1000)
    message = broken(JobError, lambda: vqa2.read(config(tmp_path)))
    assert JSON["annotations", TRAIN] in message and "expected at most 1,000" in message


@given(st.binary(max_size=3000) | st.binary(max_size=300).map(lambda noise: nested()[: len(noise)] + noise))
def test_arbitrary_bytes_are_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = vqa.write(tmp_path_factory.mktemp("noise"), vqa.small())
    path = folder / JSON["questions", TRAIN]
    path.write_bytes(data)
    assert str(path) in broken(MetaVQAError, lambda: vqa2.read(config(folder)))
    path.unlink()
    (folder / QUESTIONS).write_bytes(data)
    assert str(folder / QUESTIONS) in broken(MetaVQAError, lambda: vqa2.read(config(folder)))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_an_archive_with_any_byte_changed_is_read_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, at: int, change: int
) -> None:
    folder = vqa.write_zips(tmp_path_factory.mktemp("changed"), vqa.small())
    data = bytearray((folder / QUESTIONS).read_bytes())
    data[at % len(data)] ^= change
    (folder / QUESTIONS).write_bytes(data)
    try:
        assert len(vqa2.read(config(folder)).tasks.tasks) == 1
    except MetaVQAError as error:
        assert QUESTIONS in str(error)


def test_a_stored_member_is_read_like_a_packed_one(tmp_path: Path, expected: TaskSet) -> None:
    vqa.write_zips(tmp_path, vqa.small())
    with ZipFile(tmp_path / QUESTIONS, "w", ZIP_STORED) as archive:
        archive.writestr("__MACOSX/._" + JSON["questions", TRAIN], b"\0\5\x16\7")
        archive.writestr(JSON["questions", TRAIN], json.dumps(vqa.small()["questions", TRAIN]))
    assert vqa2.read(config(tmp_path)).tasks == expected
