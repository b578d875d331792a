"""Task sets describe themselves truly, survive the disk unchanged, and refuse damaged files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks, load_tasks

CAR = Task(
    question="What color is the car?",
    template="the car is {}",
    answers=("red", "blue"),
    support=(("a", 0), ("b", 0), ("c", 1)),
    query=(("d", 0), ("e", 1), ("f", 1), ("g", 1)),
    split="train",
    family="color_kind",
)
DOG = Task(
    question="Where is the dog?",
    template="the dog is at the {}",
    answers=("top", "left", "right", "bottom"),
    support=(("a", 3), ("x", 3), ("y", 0)),
    query=(("b", 3), ("z", 2)),
    split="test",
    family="position_kind",
    novelty="combination",
)
CAT = Task("Is it a cat?", "{}", ("yes", "no"), (("x", 0),), (("b", 1), ("q", 0), ("r", 1), ("s", 1)), "test")


def test_statements_complete_the_template_with_each_answer() -> None:
    assert CAR.statements == ["the car is red", "the car is blue"]


@pytest.mark.parametrize("answer", ["{}", "{0}", 'say "hi"', "100%", "\\n", "", "日本"])
def test_an_answer_is_filled_in_character_for_character(answer: str) -> None:
    assert Task("Q?", "it is {} now", (answer,), (), (), "train").statements == [f"it is {answer} now"]


def test_a_template_needs_its_place() -> None:
    with pytest.raises(UsageError, match="0 places"):
        _ = Task("Q?", "no place", ("red",), (), (), "train").statements


def test_images_and_texts_are_listed_once() -> None:
    tasks = TaskSet((CAR, DOG))
    assert tasks.image_ids() == sorted(set("abcdefgxyz"))
    assert tasks.texts() == [CAR.question, *CAR.statements, DOG.question, *DOG.statements]
    assert TaskSet((CAR, CAR)).texts() == [CAR.question, *CAR.statements]
    assert tasks.of("test") == [DOG] and tasks.of("validation") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_the_tasks_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tasks.jsonl")
    with pytest.raises(JobError, match="is not a file"):
        load_tasks(tmp_path / "tasks.jsonl")


def test_the_summary_by_hand() -> None:
    summary = TaskSet((CAR, DOG, CAT)).summary()
    assert summary == {
        "tasks": 3,
        "train": 1,
        "validation": 0,
        "test": 2,
        "pairs": 17,
        "images": 13,
        "meta_train": 1,
        "meta_test": 2,
        "images_shared_by_train_and_test": 2,  # a and b
        "families": 2,
        "answers_per_task": 2.6667,
        "pairs_per_task": 5.67,
        "support_per_task": 2.3333,
        "query_per_task": 3.3333,
        "chance": 37.5,  # of 1/4 and 1/2
        "majority": 37.5,  # DOG: "bottom" is right for one of two; CAT: "yes" for one of four
        "novelty": {"combination": 1},
    }


def test_the_summary_of_nothing_and_of_a_task_without_support() -> None:
    assert TaskSet(()).summary()["majority"] == 0.0
    assert TaskSet((Task("Q?", "{}", ("a", "b"), (), (("x", 0),), "test"),)).summary()["majority"] == 0.0


def test_a_set_survives_the_disk(tmp_path: Path) -> None:
    tasks = TaskSet((CAR, DOG, CAT))
    dump_tasks(tmp_path / "tasks.jsonl", tasks)
    assert load_tasks(tmp_path / "tasks.jsonl") == tasks


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)  # what UTF-8 can hold


@settings(max_examples=50)
@given(question=text, answers=st.lists(text, min_size=1, max_size=3, unique=True), image=text)
def test_any_text_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory, question: str, answers: list[str], image: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    tasks = TaskSet((Task(question, "{}", tuple(answers), ((image, 0),), (), "test"), CAR))
    dump_tasks(path, tasks)
    assert load_tasks(path) == tasks


def without_examples(tasks: TaskSet) -> TaskSet:
    return TaskSet(tuple(replace(task, support=(), query=()) for task in tasks.tasks))


@settings(max_examples=100)
@given(st.lists(text, min_size=1, max_size=3, unique=True), st.lists(text | st.sampled_from(['", "split": ', '": '])))
def test_tasks_are_read_without_their_examples(
    tmp_path_factory: pytest.TempPathFactory, answers: list[str], images: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "questions.jsonl"
    pairs = tuple((image, 0) for image in images)
    texts = ('is it in, "support": [ or {}, "split": ', '{}, "support": [["x", 0]], "split": ')
    tasks = TaskSet((Task(*texts, tuple(answers), pairs, pairs[:1], "train", '"family"'), CAR, DOG))
    dump_tasks(path, tasks)
    assert load_tasks(path, examples=False) == without_examples(tasks)


def test_examples_are_left_out_whatever_the_order_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    dump_tasks(path, TaskSet((CAR, DOG)))
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    keys = ("support", "answers", "query", "split", "template", "family", "novelty", "question")
    path.write_text("".join(json.dumps({key: record[key] for key in keys}) + "\n" for record in records))
    assert load_tasks(path, examples=False) == without_examples(TaskSet((CAR, DOG)))


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\r", "\x0b", "\x1e"])
def test_an_unusual_line_end_stays_in_its_question(tmp_path: Path, character: str) -> None:
    tasks = TaskSet((Task(f"What{character}is it?", "{}", ("a",), (("i", 0),), (), "test"),))
    dump_tasks(tmp_path / "tasks.jsonl", tasks)
    assert load_tasks(tmp_path / "tasks.jsonl") == tasks


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"tasks\.jsonl is missing.*dataset build"):
        load_tasks(tmp_path / "tasks.jsonl")


def _changed(line: bytes, **values: object) -> bytes:
    return json.dumps({**json.loads(line), **values}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: b"\xff" + line,
        lambda line: b"[1, 2]",
        lambda line: b"3",
        lambda line: line.replace(b'"split": "test"', b'"split": "tset"'),
        lambda line: line.replace(b'"question"', b'"qestion"'),
        lambda line: line.replace(b'["x", 3]', b'["x", 4]'),
        lambda line: line.replace(b'["x", 3]', b'["x", -1]'),
        lambda line: line.replace(b'["x", 3]', b'["x"]'),
        lambda line: line.replace(b'"support"', b'"sport"'),
        lambda line: _changed(line, question=None),
        lambda line: _changed(line, question=7),
        lambda line: _changed(line, template=None),
        lambda line: _changed(line, template="no slot"),
        lambda line: _changed(line, family=None),
        lambda line: _changed(line, novelty=["wording"]),
        lambda line: _changed(line, novelty="age"),
        lambda line: _changed(line, answers=None),
        lambda line: _changed(line, answers="yes"),
        lambda line: _changed(line, answers=[1, 2, 3, None]),
        lambda line: _changed(line, support=None),
        lambda line: b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "tasks.jsonl"
    dump_tasks(path, TaskSet((CAR, DOG)))
    first, second = path.read_bytes().splitlines()
    damaged = damage(second)  # type: ignore[operator]
    assert damaged != second
    path.write_bytes(first + b"\n" + damaged + b"\n")
    with pytest.raises(JobError, match=r"tasks\.jsonl, line 2 is damaged .*--force"):
        load_tasks(path)
