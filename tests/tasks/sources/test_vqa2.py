"""Reading VQA v2: what is kept, how the files are joined, where images are, and what is said of bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError, UsageError
from metavqa_cli.tasks.annotations import Annotation
from metavqa_cli.tasks.sources import vqa2
from tests.tasks.sources import vqa
from tests.tasks.sources.tables import broken
from tests.tasks.sources.vqa import JSON, TRAIN, VAL, annotation, config, question

Files = dict[tuple[str, str], Any]
QUESTIONS, ANNOTATIONS = ("questions", TRAIN), ("annotations", TRAIN)


def with_rows(*rows: tuple[int, int, str, str], split: str = TRAIN, **more: Any) -> Files:
    """The small VQA with more (question id, image, question, answer) rows at the end of a split."""
    files = vqa.small()
    for number, image, text, answer in rows:
        files["questions", split]["questions"].append(question(number, image, text))
        files["annotations", split]["annotations"].append(annotation(number, image, answer, **more))
    return files


def test_the_small_vqa_is_one_task_cut_by_the_protocol(tmp_path: Path) -> None:
    (task,) = vqa2.read(config(vqa.write(tmp_path, vqa.small()))).tasks.tasks
    assert (task.question, task.template) == ("What color is the car?", "the car is {}")
    assert task.answers == ("red", "blue", "green")
    assert (task.split, task.family, len(task.support), len(task.query)) == ("train", "what color is the", 18, 6)
    images = sorted(image for image, _ in (*task.support, *task.query))
    parts = ((TRAIN, 100), (VAL, 500))
    assert images == [f"COCO_{split}_{first + i:012d}" for split, first in parts for i in range(12)]


def test_questions_and_annotations_are_joined_on_their_ids(tmp_path: Path) -> None:
    files = vqa.small()
    straight = vqa2.read(config(vqa.write(tmp_path, files)))
    files[ANNOTATIONS]["annotations"].reverse()
    assert vqa2.read(config(vqa.write(tmp_path, files))).tasks == straight.tasks
    files[QUESTIONS]["questions"].reverse()
    assert vqa2.read(config(vqa.write(tmp_path, files))).tasks != straight.tasks  # theirs is the order that counts


def test_only_the_wanted_types_of_answer_are_kept(tmp_path: Path) -> None:
    rows = [(i, i, "Is it old?", ("yes", "no")[i % 2]) for i in range(30)]
    vqa.write(tmp_path, with_rows(*rows, answer_type="yes/no"))
    asked = [task.question for task in vqa2.read(config(tmp_path)).tasks.tasks]
    assert asked == ["What color is the car?"]
    both = vqa2.read(config(tmp_path, answer_types=["other", "yes/no"])).tasks.tasks
    assert {task.question for task in both} == {"What color is the car?", "Is it old?"}


def test_a_question_asked_again_of_an_image_counts_once_and_with_its_first_annotators(tmp_path: Path) -> None:
    vqa.write(
        tmp_path, with_rows((9, 100, "What color is the car?", "pink"), (10, 101, "What color is the car?", "pink"))
    )
    found = vqa2.read(config(tmp_path))
    assert found.tasks.tasks[0].answers == ("red", "blue", "green")
    assert found.annotations is not None
    first = found.annotations["What color is the car?"][f"COCO_{TRAIN}_{100:012d}"]
    assert first == Annotation(100_000, {"red": 1, "so": 1})


def test_annotators_are_counted_in_their_own_words(tmp_path: Path) -> None:
    files = vqa.small()
    said = ["Red!", "red", "red", "", "a\nb", "\ud83d"]
    files[ANNOTATIONS]["annotations"][0]["answers"] = [{"answer": text} for text in said]
    files[ANNOTATIONS]["annotations"][1].pop("answers")
    found = vqa2.read(config(vqa.write(tmp_path, files))).annotations
    assert found is not None
    pairs = found["What color is the car?"]
    assert pairs[f"COCO_{TRAIN}_{100:012d}"].human == {"Red!": 1, "red": 2, "": 1, "a\nb": 1, "?": 1}
    assert pairs[f"COCO_{TRAIN}_{101:012d}"].human == {}


def test_the_family_is_the_most_frequent_kind_or_found_by_its_opening(tmp_path: Path) -> None:
    files = vqa.small()
    for record in files[ANNOTATIONS]["annotations"][:11]:
        record["question_type"] = "rare"
    for record in files["annotations", VAL]["annotations"]:
        record["question_type"] = "frequent"
    assert vqa2.read(config(vqa.write(tmp_path, files))).tasks.tasks[0].family == "frequent"
    for split in (TRAIN, VAL):
        for record in files["annotations", split]["annotations"]:
            record.pop("question_type")
    assert vqa2.read(config(vqa.write(tmp_path, files))).tasks.tasks[0].family == "what color is the"


@pytest.mark.parametrize(("protocol", "smallest"), [("hyperclip", 21), ("paper", 20)])
def test_the_protocol_says_how_small_a_task_may_be(tmp_path: Path, protocol: str, smallest: int) -> None:
    rows = [(i, i, f"What {size} things?", "ab"[i % 2]) for size in (19, 20, 21)
            for i in range(100 * size, 101 * size)]  # fmt: skip
    found = vqa2.read(config(vqa.write(tmp_path, with_rows(*rows)), protocol=protocol)).tasks.tasks
    assert {task.question for task in found if "things" in task.question} == {
        f"What {size} things?" for size in (20, 21) if size >= smallest
    }


def test_questions_are_chosen_before_the_split(tmp_path: Path) -> None:
    rows = [(1000 * k + i, i, f"What is number {k}?", "ab"[i % 2]) for k in range(10) for i in range(24)]
    vqa.write(tmp_path, with_rows(*rows))
    found = vqa2.read(config(tmp_path, match="number", exclude="[789]")).tasks
    assert {task.question for task in found.tasks} == {f"What is number {k}?" for k in range(7)}
    assert (len(found.of("test")), len(found.tasks)) == (2, 7)
    with pytest.raises(UsageError, match=r"dataset\.match is '\[', which is no regular expression \(.*\); mend it"):
        vqa2.read(config(tmp_path, match="["))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["24 questions with an annotation", "24 of answer type number or other",
              "1 different questions", "1 with 21 images"]),
        ({"answer_types": ["colour"]}, ["0 of answer type colour (dataset.answer_types)"]),
        ({"match": "elephant"}, ["24 of answer type", "0 that dataset.match and dataset.exclude leave"]),
        ({"min_pairs": 25}, ["0 with 25 images or more", "--min-pairs"]),
        ({"min_answers": 4}, ["1 with 21 images or more", "0 with 4 such answers or more (--min-answers)"]),
    ],
)  # fmt: skip
def test_when_nothing_is_left_the_counts_at_each_filter_are_told(
    tmp_path: Path, values: dict[str, Any], words: list[str]
) -> None:
    files = vqa.small()
    if not values:  # a question that offers a choice
        for split in (TRAIN, VAL):
            for record in files["questions", split]["questions"]:
                record["question"] = "Is it red or blue?"
        words = [*words, "0 that offer no choice"]
    vqa.write(tmp_path, files)
    message = broken(JobError, lambda: vqa2.read(config(tmp_path, **values)))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "answer", "reason"),
    [
        ("", "red", "without a letter or digit"),
        ("?!… _", "red", "without a letter or digit"),
        ("What\0?", "red", "with characters that no text has"),
        ("What \ud800?", "red", "with characters that no text has"),
        ("What?", "re\x07d", "with characters that no text has"),
        ("What?", " ", "with an empty answer"),
    ],
)
def test_a_question_that_cannot_be_a_task_is_left_out_and_counted(
    tmp_path: Path, text: str, answer: str, reason: str
) -> None:
    rows = [(i, i, text, answer if i % 3 else f"{answer}{answer}") for i in range(30)]
    found = vqa2.read(config(vqa.write(tmp_path, with_rows(*rows))))
    assert found.notes == (f"left out 30 questions {reason}",)
    assert [task.question for task in found.tasks.tasks] == ["What color is the car?"]


def change(key: tuple[str, str], at: int, **values: Any) -> Callable[[Files], Any]:
    return lambda files: files[key][key[0]][at].update(values)


def drop(key: tuple[str, str], at: int, name: str) -> Callable[[Files], Any]:
    return lambda files: files[key][key[0]][at].pop(name)


BAD: list[tuple[Callable[[Files], Any], tuple[str, str], list[str]]] = [
    (drop(QUESTIONS, 3, "question"), QUESTIONS, ["questions[3]", "question_id 100003", "'question' is missing"]),
    (drop(QUESTIONS, 3, "question_id"), QUESTIONS, ["questions[3]", "'question_id' is missing"]),
    (drop(QUESTIONS, 0, "image_id"), QUESTIONS, ["questions[0]", "'image_id' is missing"]),
    (drop(ANNOTATIONS, 2, "answer_type"), ANNOTATIONS, ["annotations[2]", "'answer_type' is missing"]),
    (drop(ANNOTATIONS, 2, "multiple_choice_answer"), ANNOTATIONS, ["question_id 100002", "'multiple_choice_answer'"]),
    (change(QUESTIONS, 1, question_id=True), QUESTIONS, ["questions[1]", "'question_id' is true", "whole number"]),
    (change(QUESTIONS, 1, question_id="7"), QUESTIONS, ['\'question_id\' is "7"']),
    (change(QUESTIONS, 1, question_id=7.0), QUESTIONS, ["'question_id' is 7.0"]),
    (change(QUESTIONS, 1, question_id=-1), QUESTIONS, ["'question_id' is -1"]),
    (change(QUESTIONS, 1, question_id=2**63), QUESTIONS, ["from 0 to 9223372036854775807"]),
    (change(QUESTIONS, 1, image_id=10**12), QUESTIONS, ["'image_id' is 1000000000000", "from 0 to 999999999999"]),
    (change(QUESTIONS, 1, image_id=None), QUESTIONS, ["'image_id' is null"]),
    (change(QUESTIONS, 1, image_id=7), QUESTIONS, ["'image_id' of question_id 100001 is 7, in the annotations 101"]),
    (change(QUESTIONS, 1, question=["What?"]), QUESTIONS, ["'question' is [\"What?\"]", "a text"]),
    (change(QUESTIONS, 1, question="q" * 10_000), QUESTIONS, ["question_id 100001", "question has 10,000 characters"]),
    (change(QUESTIONS, 1, question_id=100_000), QUESTIONS, ["question_id 100000", "a second time"]),
    (change(ANNOTATIONS, 1, question_id=100_000), ANNOTATIONS, ["annotations[1]", "question_id 100000 comes a second"]),
    (change(ANNOTATIONS, 1, multiple_choice_answer="a" * 10_000), ANNOTATIONS,
     ["question_id 100001", "answer has 10,000 characters", "at most 1,000"]),
    (change(ANNOTATIONS, 1, answers=[{"answer": "a" * 10_000}]), ANNOTATIONS, ["question_id 100001", "10,000"]),
    (change(ANNOTATIONS, 1, answers="red"), ANNOTATIONS, ["question_id 100001", "'answers' is not a list of answers"]),
    (change(ANNOTATIONS, 1, answers=[{"answer": 1}]), ANNOTATIONS, ["'answers' is not a list of answers"]),
    (change(ANNOTATIONS, 1, question_type=0), ANNOTATIONS, ["'question_type' is 0"]),
    (lambda files: files[QUESTIONS]["questions"].insert(5, [1]), QUESTIONS, ["questions[5]", "a list stands there"]),
    (lambda files: files[QUESTIONS].update(questions={}), QUESTIONS, ["'questions' is an object"]),
    (lambda files: files[QUESTIONS].pop("questions"), QUESTIONS, ["no list 'questions'"]),
    (lambda files: files.update({QUESTIONS: files[ANNOTATIONS]}), QUESTIONS, ["no list 'questions'"]),
    (lambda files: files.update({QUESTIONS: []}), QUESTIONS, ["line 1, column 1", "where an object"]),
    (lambda files: files[ANNOTATIONS]["annotations"].pop(4), QUESTIONS,
     ["1 question without annotation", "question_id 100004", JSON[ANNOTATIONS]]),
    (lambda files: files[QUESTIONS].update(questions=files[QUESTIONS]["questions"][:4]), ANNOTATIONS,
     ["8 annotations without question", "question_id 100004", JSON[QUESTIONS]]),
    (lambda files: files.update({("questions", VAL): files[QUESTIONS]}), ("questions", VAL), ["a second time"]),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "file", "words"), BAD)
def test_a_bad_record_is_named(
    tmp_path: Path, spoil: Callable[[Files], Any], file: tuple[str, str], words: list[str]
) -> None:
    files = vqa.small()
    spoil(files)
    vqa.write(tmp_path, files)
    message = broken(JobError, lambda: vqa2.read(config(tmp_path)))
    assert message.startswith(str(tmp_path / JSON[file])), message
    assert all(word in message for word in words), message


def test_images_are_found_once_and_the_others_are_named(tmp_path: Path) -> None:
    vqa.write(tmp_path, vqa.small())
    for split, numbers in ((TRAIN, range(100, 111)), (VAL, range(500, 512))):
        (tmp_path / split).mkdir()
        for i in numbers:
            (tmp_path / split / f"COCO_{split}_{i:012d}.jpg").touch()
    steps: list[tuple[str, int, int]] = []
    found = vqa2.read(config(tmp_path, tasks_only=False), lambda *step: steps.append(step))
    assert len(found.images) == 23 and found.missing == (f"COCO_{TRAIN}_{111:012d}",)
    assert steps[-1] == (f"looking for images in {VAL}", 23, 24)
    assert steps[0][0] == f"reading {JSON[ANNOTATIONS]}" and steps[0][1] == steps[0][2]


def test_where_images_are_must_be_said_before_anything_is_read(tmp_path: Path) -> None:
    vqa.write(tmp_path, vqa.small())
    (tmp_path / JSON[QUESTIONS]).write_text("damaged")
    with pytest.raises(MissingError, match=r"nowhere \(in dataset.image_roots\) is no folder and no zip"):
        vqa2.read(config(tmp_path, tasks_only=False, image_roots=[str(tmp_path / "nowhere")]))


@settings(max_examples=40)
@given(st.sampled_from(list(JSON)), st.integers(0, 10**9))
def test_any_cut_of_a_file_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str], at: int
) -> None:
    path = vqa.write(tmp_path_factory.mktemp("cut"), vqa.small()) / JSON[file]
    data = path.read_bytes()
    path.write_bytes(data[: at % len(data)])
    assert str(path) in broken(MetaVQAError, lambda: vqa2.read(config(path.parent)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@given(
    st.sampled_from(list(JSON)),
    st.integers(0, 11),
    st.sampled_from(["question_id", "image_id", "question", "answer_type", "multiple_choice_answer", "answers"]),
    VALUES,
)
def test_any_value_in_any_place_is_read_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str], at: int, key: str, value: Any
) -> None:
    files = vqa.small()
    files[file][file[0]][at][key] = value
    folder = tmp_path_factory.mktemp("odd")
    vqa.write(folder, files)
    try:
        found = vqa2.read(config(folder, min_pairs=4))
    except MetaVQAError as error:
        assert "\n" not in str(error)
    else:
        assert json.dumps([found.notes, found.annotations], ensure_ascii=False).encode()


@settings(max_examples=40)
@given(st.permutations(range(24)), st.lists(st.sampled_from(["red", "blue", "green"]), min_size=24, max_size=24))
def test_any_table_written_and_read_gives_its_instances(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], answers: list[str]
) -> None:
    records = [(question(i, i, "What?"), annotation(i, i, answer)) for i, answer in enumerate(answers)]
    files = {**vqa.documents(TRAIN, records[:12]), **vqa.documents(VAL, records[12:])}
    for split in (TRAIN, VAL):
        files["annotations", split]["annotations"].sort(key=lambda record: order[record["question_id"]])
    folder = vqa.write(tmp_path_factory.mktemp("table"), files)
    kept = {answer for answer in answers if answers.count(answer) > 1}
    try:
        (task,) = vqa2.read(config(folder, min_pairs=2)).tasks.tasks
    except JobError:
        assert len(kept) < 2
    else:
        assert task.answers == tuple(dict.fromkeys(answer for answer in answers if answer in kept))
        pairs = {int(image[-12:]): task.answers[label] for image, label in (*task.support, *task.query)}
        assert pairs == {i: answer for i, answer in enumerate(answers) if answer in kept}
