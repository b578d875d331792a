"""A person's own table becomes tasks; each mistake in it is named with its line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError, UsageError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.prompts import to_template
from metavqa_cli.tasks.sources.folder import inputs, read
from tests.tasks.sources.tables import broken

Rows = list[tuple[str, str, str]]
COLUMNS = ("image", "question", "answer")


def rows(count: int = 24, question: str = "What color is the car?") -> Rows:
    return [(f"photos/{i}.jpg", question, ("red", "blue")[i % 2]) for i in range(count)]


def as_csv(table: Rows, delimiter: str = ",", columns: tuple[str, ...] = COLUMNS, end: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerows([columns, *table])
    return text.getvalue()


def as_jsonl(table: Rows) -> str:
    return "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in table)


WRITERS = {
    "table.csv": as_csv,
    "table.tsv": lambda table: as_csv(table, "\t"),
    "table.jsonl": as_jsonl,
    "TABLE.CSV": lambda table: as_csv(table, end="\r\n"),
}


def config(path: Path | str, **values: Any) -> Dataset:
    return Dataset(**{"name": "x", "source": "folder", "path": str(path), "tasks_only": True, **values})


def write(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_in_any_format_is_cut_into_tasks(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, WRITERS[name](rows()), name)
    found = read(config(path))
    (task,) = found.tasks.tasks
    assert (task.question, task.answers, task.family) == (
        "What color is the car?",
        ("red", "blue"),
        "what color is the",
    )
    assert (task.template, len(task.support), len(task.query)) == ("the car is {}", 16, 8)
    assert {(image, task.answers[i]) for image, i in (*task.support, *task.query)} == {(i, a) for i, _, a in rows()}
    assert (found.notes, found.annotations) == ((), None)
    assert read(config(tmp_path)).tasks == found.tasks
    assert inputs(config(tmp_path)) == [path]


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).map(
    lambda text: " ".join(text.split())
)
QUESTIONS = TEXTS.filter(lambda text: any(c.isalnum() for c in text)).map(lambda text: f'{text}, "quoted"?')
NAMES = st.text("abcdefgh.-_äé ", min_size=1, max_size=8).map(lambda text: f"a{text}b.jpg")


@settings(max_examples=60)
@given(
    st.sampled_from(list(WRITERS)),
    QUESTIONS.filter(lambda text: "or" not in text.split()),
    st.lists(TEXTS.filter(bool), min_size=2, max_size=3, unique=True),
    st.lists(NAMES, min_size=12, max_size=20, unique=True),
)
def test_any_table_written_and_read_gives_its_instances(
    tmp_path_factory: pytest.TempPathFactory, name: str, question: str, answers: list[str], images: list[str]
) -> None:
    table = [(image, question, answers[i % len(answers)]) for i, image in enumerate(images)]
    path = write(tmp_path_factory.mktemp("table"), WRITERS[name](table), name)
    (task,) = read(config(path, min_pairs=12)).tasks.tasks
    assert (task.question, task.answers, task.template) == (question, tuple(answers), to_template(question).text)
    assert {(image, question, task.answers[i]) for image, i in (*task.support, *task.query)} == set(table)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.sampled_from(list(WRITERS)), st.booleans())
def test_arbitrary_bytes_are_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str, with_header: bool
) -> None:
    header = as_csv([], "\t" if "tsv" in name else ",").encode() if with_header else b""
    path = write(tmp_path_factory.mktemp("noise"), header + data, name)
    assert "\n" not in broken(MetaVQAError, lambda: read(config(path)))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(list(WRITERS)))
def test_any_cut_is_read_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, at: int, name: str) -> None:
    data = WRITERS[name](rows(40)).encode()
    path = write(tmp_path_factory.mktemp("cut"), data[: at % len(data)], name)
    try:
        assert len(read(config(path)).tasks.tasks) == 1
    except MetaVQAError as error:
        assert str(path) in str(error) or "no task is left" in str(error)


def test_a_byte_order_mark_crlf_and_quoted_newlines_are_understood(tmp_path: Path) -> None:
    table = [(image, "What color\r\nis  the car?", f" {answer} ") for image, _, answer in rows()]
    text = "\ufeff" + as_csv(table, columns=(" Image", "QUESTION", "answer "), end="\r\n")
    (task,) = read(config(write(tmp_path, text))).tasks.tasks
    assert (task.question, task.answers) == ("What color is the car?", ("red", "blue"))


def test_what_was_passed_over_is_told(tmp_path: Path) -> None:
    table = [
        (*row, "x", "y") for row in [*rows(), ("photos/0.jpg", "What color is the car?", "blue"), ("a", "?!", "b")]
    ]
    text = as_csv(table, columns=(*COLUMNS, "split", "id"))  # type: ignore[arg-type]
    found = read(config(write(tmp_path, text)))
    assert found.notes == (
        'ignored the columns "id", "split" of table.csv',
        "left out 1 rows of table.csv whose question has no letter or digit (the first in line 27)",
        "1 rows ask a question of an image again; the first answer counts",
    )
    (task,) = found.tasks.tasks
    assert ("photos/0.jpg", 0) in (*task.support, *task.query)


def test_images_are_files_below_the_table_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    outside = tmp_path / "outside.jpg"
    table = [*rows(20), ("./photos//20.jpg", *rows()[0][1:]), ("photos\\21.jpg", *rows()[0][1:]),
             (str(outside), *rows()[0][1:]), ("..dots.jpg", *rows()[0][1:]),
             ("photos/gone.jpg", *rows()[0][1:])]  # fmt: skip
    for i in range(22):
        (tmp_path / "photos" / f"{i}.jpg").touch()
    outside.touch()
    (tmp_path / "..dots.jpg").touch()
    found = read(config(write(tmp_path, as_csv(table)), tasks_only=False))
    assert found.images["photos/20.jpg"] == ImageFile(tmp_path, "photos/20.jpg")
    assert found.images[str(outside)] == ImageFile(tmp_path, "outside.jpg")
    assert (len(found.images), found.missing) == (24, ("photos/gone.jpg",))
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "photos").mkdir(parents=True)
    (elsewhere / "photos" / "gone.jpg").touch()
    roots = [str(tmp_path), str(elsewhere)]
    assert read(config(tmp_path, tasks_only=False, image_roots=roots)).missing == ()


def test_questions_are_chosen_and_the_counts_told_when_none_is_left(tmp_path: Path) -> None:
    path = write(tmp_path, as_csv([*rows(), *rows(24, "What color is the bus?")]))
    assert [task.question for task in read(config(path, match="bus")).tasks.tasks] == ["What color is the bus?"]
    message = broken(JobError, lambda: read(config(path, exclude="color", min_pairs=25)))
    assert "48 rows, 0 that dataset.match and dataset.exclude leave" in message
    message = broken(JobError, lambda: read(config(path, min_pairs=25)))
    assert "48 that dataset.match" in message and "2 different questions, 0 with 25 images or more" in message


HEAD = "image,question,answer\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,question\na.jpg,What?\n", ["line 1", "no column answer", '"image", "question"']),
        ("a.jpg;What?;red\n", ["line 1", "no column image and no column question and no column answer"]),
        ("image|question|answer\n", ['"image|question|answer"', 'separated by ","']),
        ("image,question,answer,answer\n", ["line 1", "2 columns answer"]),
        (f"{HEAD}a.jpg,What?\n", ["line 2", "2 cells", "3, as in the header"]),
        (f"{HEAD}a.jpg,What?,red\n\nb.jpg,What, then?,red\n", ["line 4", "4 cells"]),
        (f'{HEAD}"a\n\n.jpg",What?,red\nb.jpg,What?,\n', ["line 2", "the image has the control character U+000A"]),
        (f'{HEAD}a.jpg,"What\n\nis?",red\nb.jpg,What?,\n', ["line 5", "the answer is empty"]),
        (f"{HEAD} ,What?,red\n", ["line 2", "the image is empty"]),
        (f"{HEAD}a.jpg,  ,red\n", ["line 2", "the question is empty"]),
        (f"{HEAD}a.jpg,Wh\x07at?,red\n", ["line 2", "the question has the control character U+0007"]),
        (f"{HEAD}a.jpg,What?,r\0ed\n", ["line 2"]),
        (f"{HEAD}a.jpg,What?,{'x' * 10_000}\n", ["line 2", "answer has 10,000 characters", "at most 1,000"]),
        (f"{HEAD}a.jpg,{'x' * 10_000},red\n", ["line 2", "question has 10,000 characters"]),
        (f"{HEAD}a.jpg,What?,{'x' * 200_000}\n", ["line 2"]),
        (f'{HEAD}a.jpg,"What?,red\n', ["line 2", "unexpected end of data", "quotes"]),
        (f'{HEAD}a.jpg,"What"?,red\n', ["line 2", "quotes"]),
        (f"{HEAD}../a.jpg,What?,red\n", ["line 2", "'../a.jpg' leads out of the table's folder", "absolute"]),
        (f"{HEAD}b/../../a.jpg,What?,red\n", ["line 2", "leads out"]),
        (HEAD, ["no task is left", "0 rows"]),
        (HEAD.encode() + b"a.jpg,What?,caf\xe9\n", ["is not UTF-8 text (byte 38)"]),
        ("image,question,answer\n".encode("utf-16"), ["is not UTF-8 text (byte 1)"]),
        ("", ["is empty (0 bytes)"]),
        ("\n", ["line 1", "no column image"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_csv_is_named_with_its_line(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    path = write(tmp_path, text)
    message = broken(JobError, lambda: read(config(path)))
    assert message.startswith(str(path)) or text == HEAD
    assert all(word in message for word in words), message


GOOD = '{"image": "a.jpg", "question": "What?", "answer": "red"}\r\n\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"image": "a.jpg", "question": "What?"}', ["there is no answer"]),
        ('{"image": "a.jpg", "question": "What?", "answer": 3}', ["the answer is 3", "a text"]),
        ('{"image": "a.jpg", "question": null, "answer": "3"}', ["the question is null"]),
        ('{"image": "a.jpg", "question": "What?", "answer": "\\ud83d"}', ["the answer has the half character U+D83D"]),
        ('{"image": "a\\u0000.jpg", "question": "What?", "answer": "red"}', ["the image has the control character"]),
        ('["a.jpg", "What?", "red"]', ["a list stands there", "an object with image, question, answer"]),
        ('{"image": "a.jpg", "quest', ["not JSON"]),
        ('{"image": NaN}', ["not JSON (NaN"]),
        ("[" * 100_000, ["nested too deeply"]),
        ("9" * 5000, ["not JSON"]),
    ],
)
def test_a_mistake_in_a_jsonl_is_named_with_its_line(tmp_path: Path, line: str, words: list[str]) -> None:
    path = write(tmp_path, GOOD + line, "table.jsonl")
    message = broken(JobError, lambda: read(config(path)))
    assert message.startswith(f"{path}, line 3: ")
    assert all(word in message for word in words), message


def test_the_table_must_be_the_only_one_in_its_folder_or_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset\.path is empty, expected a CSV, TSV or JSONL table"):
        inputs(config(""))
    with pytest.raises(MissingError, match=r"no CSV, TSV or JSONL table in .*columns image, question, answer"):
        inputs(config(tmp_path))
    write(tmp_path, "text", "notes.txt")
    with pytest.raises(UsageError, match=r"notes\.txt, expected a folder or a file ending in"):
        inputs(config(tmp_path / "notes.txt"))
    with pytest.raises(MissingError, match=r"gone\.csv cannot be read: No such file"):
        inputs(config(tmp_path / "gone.csv"))
    with pytest.raises(MissingError, match=r"gone cannot be read: No such file"):
        inputs(config(tmp_path / "gone"))
    for name in ("a.csv", "b.jsonl"):
        write(tmp_path, as_csv(rows()), name)
    with pytest.raises(UsageError, match=r"has 2 tables \(a\.csv, b\.jsonl\), expected one; name the file with --path"):
        inputs(config(tmp_path))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_with_another_usual_delimiter_is_read(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path, as_csv(rows(), delimiter))
    assert read(config(path)).tasks == read(config(write(tmp_path, as_csv(rows())))).tasks
