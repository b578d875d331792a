"""VQA v2 as published: its question and annotation files become tasks exactly as those of the Meta-VQA release did.

Pools train2014 and val2014 in the order of their questions, keeps the wanted types of answer, and cuts by the
release's protocol. Questions and annotations are joined on ``question_id``; the two files need no common order.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError
from metavqa_cli.tasks.annotations import Annotation, Annotations
from metavqa_cli.tasks.kinds import kind_of
from metavqa_cli.tasks.prompts import to_template
from metavqa_cli.tasks.protocol import CutTask, group_instances
from metavqa_cli.tasks.sources.cutting import Funnel, make_tasks, most_frequent, wanted_questions
from metavqa_cli.tasks.sources.image_files import find_coco, image_roots
from metavqa_cli.tasks.sources.material import Material, Progress, unwatched
from metavqa_cli.tasks.sources.packed import Source
from metavqa_cli.tasks.sources.texts import has_words, oddity, writable
from metavqa_cli.tasks.sources.vqa2_files import Split, find_splits
from metavqa_cli.tasks.sources.vqa2_records import Question, Said, read_annotations, read_questions, refuse
from metavqa_cli.tasks.taskset import TaskSet

SUBTYPE = re.compile(r"(?:train|val|test)20\d\d")

ODD_CHARACTERS = "with characters that no text has"


class Instance(NamedTuple):
    """One question asked of one image, and what was said."""

    image: str
    question: str
    answer: str
    question_id: int
    said: Said


Asked = dict[str, dict[str, Instance]]  # question -> image -> its first instance


def inputs(config: Dataset) -> list[Path]:
    """The files that decide the tasks, in the order in which they are pooled. Errors as ``find_splits``."""
    return [source.path for split in find_splits(config) for source in (split.questions, split.annotations)]


def read(config: Dataset, progress: Progress = unwatched) -> Material:
    """VQA v2's tasks, where their images are, and what the annotators said.

    ``MissingError`` for a file that is not there; ``JobError`` naming file and record for one that is damaged, and with
    the counts at each filter when no task is left; ``UsageError`` for a configuration that cannot be followed.
    """
    pool = _Pool(config, progress)
    splits = find_splits(config)
    roots = [] if config.tasks_only else image_roots(config)
    asked: Asked = {}
    groups = group_instances(_remembered((instance for split in splits for instance in pool.read(split)), asked))
    tasks = make_tasks(groups, config, lambda task: _describe(task, asked), pool.funnel(config))
    images, missing = find_coco(tasks.image_ids(), roots, progress) if roots else ({}, ())
    return Material(tasks, images, missing, _annotations(tasks, asked), tuple(pool.notes()))


def _remembered(instances: Iterator[Instance], asked: Asked) -> Iterator[tuple[str, str, str]]:
    for instance in instances:
        asked.setdefault(instance.question, {}).setdefault(instance.image, instance)
        yield instance[:3]


def _describe(task: CutTask, asked: Asked) -> tuple[str, str]:
    pairs = asked[task.question]
    family = most_frequent([pairs[image].said.kind for image, _ in (*task.support, *task.query)])
    return to_template(task.question).text, writable(family) or kind_of(task.question)


def _annotations(tasks: TaskSet, asked: Asked) -> Annotations:
    said = cache(writable)
    return {
        task.question: {
            image: Annotation(pairs[image].question_id, dict(Counter(map(said, pairs[image].said.human))))
            for image, _ in (*task.support, *task.query)
        }
        for task in tasks.tasks
        for pairs in (asked[task.question],)
    }


class _Pool:
    """Joins split after split, and counts what is kept and what is left out."""

    def __init__(self, config: Dataset, progress: Progress) -> None:
        self.types, self.progress = frozenset(config.answer_types), progress
        self.is_wanted = wanted_questions(config)
        self.question_flaw, self.answer_flaw = cache(_question_flaw), cache(_answer_flaw)
        self.seen: set[int] = set()  # question ids
        self.counts: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()

    def read(self, split: Split) -> Iterator[Instance]:
        """The wanted instances of one split, in the order of its questions."""
        header: dict[str, Any] = {}
        said = read_annotations(split.annotations, self.types, self.progress, header)
        lonely: list[int] = []
        subtype = ""
        for question in read_questions(split.questions, self.progress, header):
            if question.question_id in self.seen:
                refuse(
                    question.place, f"question_id {question.question_id} comes a second time", "each once in all files"
                )
            self.seen.add(question.question_id)
            answer = said.pop(question.question_id, None)
            if answer is None:
                lonely.append(question.question_id)
            elif self._keeps(question, answer):
                subtype = subtype or _subtype(split, header)
                image = intern(f"COCO_{subtype}_{question.image:012d}")
                yield Instance(image, question.text, answer.answer or "", question.question_id, answer)
        _check_joined(split.questions, lonely, "question", "annotation", split.annotations)
        _check_joined(split.annotations, list(said), "annotation", "question", split.questions)

    def _keeps(self, question: Question, said: Said) -> bool:
        if said.image not in (None, question.image):
            found = (
                f"'image_id' of question_id {question.question_id} is {question.image}, in the annotations {said.image}"
            )
            refuse(question.place, found, "the same")
        self.counts["questions"] += 1
        if said.answer is None:
            return False
        self.counts["typed"] += 1
        if flaw := self.question_flaw(question.text) or self.answer_flaw(said.answer):
            self.unusable[flaw] += 1
            return False
        wanted = self.is_wanted(question.text)
        self.counts["wanted"] += wanted
        return wanted

    def funnel(self, config: Dataset) -> Funnel:
        """What was kept at each filter of the reader."""
        return [
            ("questions with an annotation", self.counts["questions"]),
            (f"of answer type {' or '.join(config.answer_types)} (dataset.answer_types)", self.counts["typed"]),
            ("that dataset.match and dataset.exclude leave", self.counts["wanted"]),
        ]

    def notes(self) -> list[str]:
        """What a person should know of the reading."""
        return [f"left out {count:,} questions {reason}" for reason, count in sorted(self.unusable.items())]


def _question_flaw(question: str) -> str | None:
    """Why a question cannot be a task; that some are so must not stop the build of the others."""
    return ODD_CHARACTERS if oddity(question) else None if has_words(question) else "without a letter or digit"


def _answer_flaw(answer: str) -> str | None:
    return ODD_CHARACTERS if oddity(answer) else None if answer.strip() else "with an empty answer"


def _subtype(split: Split, header: dict[str, Any]) -> str:
    """The part of COCO that a split's images are from."""
    said = (split.questions.name, split.annotations.name, str(header.get("data_subtype")))
    match = next((match for text in said if (match := SUBTYPE.search(text))), None)
    if match is None:
        raise JobError(
            f"neither the name of {split.questions} nor its 'data_subtype' says train2014 or val2014; "
            "put one of them into the file's name"
        )
    return match[0]


def _check_joined(source: Source, lonely: list[int], what: str, other: str, other_source: Source) -> None:
    if lonely:
        number = f"{len(lonely):,} {what}{'s' if len(lonely) > 1 else ''}"
        raise JobError(
            f"{source} has {number} without {other} in {other_source} (the first is question_id {lonely[0]}), expected "
            "one for each; name two files that belong together"
        )
