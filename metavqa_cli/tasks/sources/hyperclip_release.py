"""The released form of Meta-VQA: tasks exactly as they are in ``meta_train.json`` and ``meta_test.json``.

``{question: {"train": [[image, answer], …], "test": [[image, answer], …], "answers": […]}}``, where "train" are the
support pairs and "test" the query pairs. ``prompt_meta.json`` may say the statement of each question.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import kind
from metavqa_cli.tasks.kinds import kind_of
from metavqa_cli.tasks.prompts import to_template
from metavqa_cli.tasks.sources.cutting import none_left, validation_splits, wanted_questions
from metavqa_cli.tasks.sources.image_files import find_coco, image_roots
from metavqa_cli.tasks.sources.json_files import items, shown
from metavqa_cli.tasks.sources.material import Material, Progress, unwatched
from metavqa_cli.tasks.sources.packed import Source
from metavqa_cli.tasks.sources.texts import check_length, has_words, oddity
from metavqa_cli.tasks.sources.vqa2_files import known_folders, source_folder
from metavqa_cli.tasks.taskset import Example, Split, Task, TaskSet

TRAIN, TEST, PROMPTS = "meta_train.json", "meta_test.json", "prompt_meta.json"
FOLDERS = frozenset({"meta", "annotations", "vqa", "data"})  # those of the authors' repository
SLOT = "{}"


def inputs(config: Dataset) -> list[Path]:
    """The files that decide the tasks: training tasks, test tasks, and the statements if there are any."""
    train, test, prompts = _find(config)
    return [train, test, *([prompts] if prompts else [])]


def read(config: Dataset, progress: Progress = unwatched) -> Material:
    """The released tasks in their order, some of the training tasks marked for validation, and their images.

    ``MissingError`` for a file that is not there, ``JobError`` naming file and task for one that is damaged.
    """
    train_file, test_file, prompts = _find(config)
    roots = [] if config.tasks_only else image_roots(config)
    templates = _templates(prompts) if prompts else {}
    train = dict(_tasks(train_file, "train", templates, progress))
    test = dict(_tasks(test_file, "test", templates, progress))
    if both := next((question for question in test if question in train), None):
        raise JobError(f"{test_file}: the question {shown(both)} is also in {train_file}, expected it in one of them")
    tasks = _wanted(train, test, config)
    images, missing = find_coco(tasks.image_ids(), roots, progress) if roots else ({}, ())
    neutral = sum(task.question not in templates for task in tasks.tasks) if prompts else 0
    notes = (f"{neutral:,} questions have no statement in {prompts}; theirs were derived",) if neutral else ()
    return Material(tasks, images, missing, notes=notes)


def to_release(tasks: TaskSet) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``meta_train.json`` and ``meta_test.json`` hold; ``json.dumps`` of them gives the released bytes."""

    def released(task: Task) -> dict[str, Any]:
        pairs = {
            old: [[image, task.answers[label]] for image, label in new]
            for old, new in (("train", task.support), ("test", task.query))
        }
        return {**pairs, "answers": list(task.answers)}

    train, test = ([task for task in tasks.tasks if (task.split == "test") == side] for side in (False, True))
    return {task.question: released(task) for task in train}, {task.question: released(task) for task in test}


def _find(config: Dataset) -> tuple[Path, Path, Path | None]:
    folders = list(known_folders(source_folder(config, f"{TRAIN} and {TEST}"), FOLDERS))
    found = {name: next((folder / name for folder in folders if (folder / name).is_file()), None)
             for name in (TRAIN, TEST, PROMPTS)}  # fmt: skip
    train, test = found[TRAIN], found[TEST]
    if train is None or test is None:
        absent = " and ".join(name for name in (TRAIN, TEST) if found[name] is None)
        raise MissingError(
            f"there is no {absent} in {folders[0]} (or its folder Meta); copy it from the data/VQA/Meta folder of the "
            "authors' repository, github.com/elvisnava/hyperclip"
        )
    return train, test, found[PROMPTS]


def _wanted(train: dict[str, Task], test: dict[str, Task], config: Dataset) -> TaskSet:
    """All tasks that the configuration wants, with their splits."""
    is_wanted = wanted_questions(config)
    kept_train, kept_test = ([q for q in side if is_wanted(q)] for side in (train, test))
    if not kept_train and not kept_test:
        raise none_left(
            [("tasks in the files", len(train) + len(test)), ("that dataset.match and dataset.exclude leave", 0)]
        )
    splits = validation_splits(kept_train, config)
    tasks = [replace(train[q], split=splits[q]) for q in kept_train] + [test[q] for q in kept_test]
    return TaskSet(tuple(tasks))


def _templates(path: Path) -> dict[str, str]:
    """The statement of each question. ``JobError`` naming one without exactly one place for the answer."""
    found: dict[str, str] = {}
    for question, _, template in items(Source(path)):
        if not isinstance(template, str) or template.count(SLOT) != 1 or oddity(template):
            _refuse(path, question, f"its statement is {shown(template)}", f"a text with one {SLOT}")
        found[question] = template
    return found


def _tasks(path: Path, split: Split, templates: dict[str, str], progress: Progress) -> Iterator[tuple[str, Task]]:
    for question, _, record in items(Source(path), progress):
        check_length(question, "question", str(path))
        if not has_words(question) or oddity(question):
            _refuse(path, question, "the question has no words or odd characters", "a question")
        if not isinstance(record, dict):
            _refuse(path, question, f"{kind(record)} stands there", 'an object with "train", "test" and "answers"')
        answers = _answers(path, question, record.get("answers"))
        support, query = (_pairs(path, question, record.get(key), key, answers) for key in ("train", "test"))
        _check_once(path, question, [image for image, _ in (*support, *query)])
        template = templates.get(question) or to_template(question).text
        yield question, Task(question, template, answers, support, query, split, kind_of(question))


def _answers(path: Path, question: str, answers: Any) -> tuple[str, ...]:
    if not isinstance(answers, list) or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        _refuse(path, question, f'"answers" is {shown(answers)}', "a list of texts")
    for answer in answers:
        check_length(answer, "answer", f"{path}, {shown(question)}")
        if found := oddity(answer):
            _refuse(path, question, f"an answer has {found}", "plain text")
    if len(answers) < 2 or len(set(answers)) < len(answers):
        _refuse(path, question, f'"answers" is {shown(answers)}', "two or more, each once")
    return tuple(answers)


def _pairs(path: Path, question: str, pairs: Any, key: str, answers: tuple[str, ...]) -> tuple[Example, ...]:
    if not isinstance(pairs, list) or not pairs:
        _refuse(path, question, f'"{key}" is {shown(pairs)}', "a list of [image, answer]")
    label = {answer: i for i, answer in enumerate(answers)}
    for at, pair in enumerate(pairs):
        good = isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        if not good or pair[1] not in label or not pair[0] or oddity(pair[0]):
            _refuse(path, question, f'"{key}"[{at}] is {shown(pair)}', "[image, one of the answers]")
    return tuple((image, label[answer]) for image, answer in pairs)


def _check_once(path: Path, question: str, images: list[str]) -> None:
    """An image in both sets would be judged by weights that saw its answer."""
    if len(set(images)) < len(images):
        twice = next(image for image, count in Counter(images).items() if count > 1)
        _refuse(path, question, f'the image {shown(twice)} is there twice in "train" and "test" together', "it once")


def _refuse(path: Path, question: str, found: str, expected: str) -> NoReturn:
    raise JobError(f"{path}, {shown(question)}: {found}, expected {expected}; mend the file, or copy it again")
