"""The query pairs of the test tasks: what is right, how well they were answered, and predictions in VQA's format.

Pairs stand one after another, task after task in file order ("pair"), or padded to the largest task ("task example").
Needs no torch, as tables are made later from files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64, Num

from metavqa_cli.engine.statistics import estimate
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.atomic import write_text
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors
from metavqa_cli.tasks.annotations import Annotations
from metavqa_cli.tasks.soft_accuracy import soft_accuracies
from metavqa_cli.tasks.taskset import Task, TaskSet

ANSWERS = "answers"  # ends the name of a tensor [sample, pair] of answers, beside that of their accuracies


@dataclass(frozen=True, eq=False)
class Marks:
    """VQA's soft accuracy, 0 to 1, of every answer of a task for each of its query pairs.

    That of answer a to pair p is ``values[start[p] + a]``; NaN for a pair that nobody answered.
    """

    start: Int64[np.ndarray, " pair"]
    values: Float64[np.ndarray, " entry"]

    def of(self, answers: Int[np.ndarray, "sample pair"]) -> Float64[np.ndarray, " pair"]:
        """The soft accuracy of the answers to each pair, mean over the samples."""
        return np.asarray(self.values[self.start + answers].mean(0))


@dataclass(frozen=True, eq=False)
class AnswerKey:
    """The right answers as indices into the answers of each pair's task; marks where people's answers are known."""

    labels: Int64[np.ndarray, " pair"]
    marks: Marks | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """The examples that all scores of one dataset are about; "" where family or novelty of a task are unknown.

    ``mask``: the example is real, not padding (every task has one); ``shared``: a training or validation task has its
    image too.
    """

    questions: tuple[str, ...]
    families: tuple[str, ...]
    novelties: tuple[str, ...]
    mask: Bool[np.ndarray, "task example"]
    shared: Bool[np.ndarray, "task example"]
    key: AnswerKey | None = None

    @property
    def unshared(self) -> Bool[np.ndarray, "task example"]:
        """Examples whose image no training or validation task has."""
        return self.mask & ~self.shared

    def padded(self, values: Num[np.ndarray, " pair"]) -> Float64[np.ndarray, "task example"]:
        """Values of the pairs, with zeros for padding."""
        found = np.zeros(self.mask.shape)
        found[self.mask] = values
        return found

    def correct(self, answers: Int[np.ndarray, "sample pair"]) -> Float64[np.ndarray, "task example"]:
        """The share of samples, 0 to 1, that answer each example rightly."""
        assert self.key is not None
        return self.padded((answers == self.key.labels).mean(0))

    def soft(self, answers: Int[np.ndarray, "sample pair"] | None) -> "Soft | None":
        """Soft accuracies of the answers; None where people's answers, or these answers, are not known."""
        if answers is None or self.key is None or self.key.marks is None:
            return None
        found = self.key.marks.of(answers)
        known = self.mask & (self.padded(~np.isnan(found)) > 0)
        return Soft(self.padded(np.nan_to_num(found)), known) if known.any() else None


@dataclass(frozen=True, eq=False)
class Soft:
    """Soft accuracies, 0 to 1, of the examples in ``mask``: those that people answered."""

    values: Float64[np.ndarray, "task example"]
    mask: Bool[np.ndarray, "task example"]


def judged_tasks(tasks: TaskSet, annotations: Annotations | None) -> Judged:
    """What all measurements on the test tasks have in common."""
    test = tasks.of("test")
    known = {image for task in tasks.tasks if task.split != "test" for image, _ in (*task.support, *task.query)}
    shape = (len(test), max(len(task.query) for task in test))
    mask, shared = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, task in enumerate(test):
        mask[row, : len(task.query)] = True
        shared[row, : len(task.query)] = [image in known for image, _ in task.query]
    labels = np.array([label for task in test for _, label in task.query], np.int64)
    return Judged(
        tuple(task.question for task in test), tuple(task.family or "" for task in test),
        tuple(task.novelty or "" for task in test), mask, shared,
        AnswerKey(labels, None if annotations is None else marks_of(test, annotations)),
    )  # fmt: skip


def marks_of(tasks: Sequence[Task], annotations: Annotations) -> Marks:
    """The soft accuracy of every answer of each task for each of its query pairs."""
    rows = [_marks(task, image, annotations) for task in tasks for image, _ in task.query]
    sizes = np.array([len(row) for row in rows], np.int64)
    return Marks(np.cumsum(sizes) - sizes, np.array(list(chain.from_iterable(rows)), np.float64))


def _marks(task: Task, image: str, annotations: Annotations) -> list[float]:
    annotation = annotations.get(task.question, {}).get(image)
    if annotation is None or sum(annotation.human.values()) < 1:
        return [float("nan")] * len(task.answers)
    return soft_accuracies(task.answers, annotation.human)


def by_task(
    values: Num[np.ndarray, "task example"], mask: Bool[np.ndarray, "task example"]
) -> Float64[np.ndarray, " some"]:
    """The mean over the examples in ``mask`` of each task that has any."""
    counts = mask.sum(1)
    sums = np.where(mask, values, 0).sum(1, dtype=np.float64)
    return np.asarray(sums[counts > 0] / counts[counts > 0])


def pooled(values: Num[np.ndarray, "task example"], mask: Bool[np.ndarray, "task example"]) -> float | None:
    """The mean in per cent over the examples in ``mask``, of whichever task; None without any."""
    return 100 * float(values[mask].mean(dtype=np.float64)) if mask.any() else None


def mean_over_tasks(values: Num[np.ndarray, "task example"], mask: Bool[np.ndarray, "task example"]) -> float | None:
    """The mean in per cent over the tasks that have examples in ``mask``; None without any."""
    return 100 * float(by_task(values, mask).mean()) if mask.any() else None


def secondary(answers: Int[np.ndarray, "sample pair"] | None, judged: Judged) -> dict[str, Any]:
    """What stands beside the per-task mean, with stable keys; in per cent, None where it is not known.

    ``pooled``: over all query pairs, of whichever task. ``overlap_free``: per-task mean over the query images that no
    training or validation task uses, which rests on ``overlap_free_tasks`` and ``overlap_free_pairs``. ``soft``:
    per-task mean of VQA's soft accuracy; ``soft_pooled``: over all pairs, as VQA's own evaluation of a predictions file
    gives it. Without ``answers`` (of a measurement that is not about the query pairs) all are None.
    """
    correct = None if answers is None else judged.correct(answers)
    soft, free = judged.soft(answers), judged.unshared
    return {
        "pooled": None if correct is None else pooled(correct, judged.mask),
        "overlap_free": None if correct is None else mean_over_tasks(correct, free),
        "overlap_free_tasks": None if correct is None else int(free.any(1).sum()),
        "overlap_free_pairs": None if correct is None else int(free.sum()),
        "soft": None if soft is None else mean_over_tasks(soft.values, soft.mask),
        "soft_pooled": None if soft is None else pooled(soft.values, soft.mask),
    }


def of_kinds(families: Sequence[str]) -> list[tuple[str, Bool[np.ndarray, " task"]]]:
    """Each kind of question with its tasks: the kind with most tasks first, then by name."""
    found = np.array(families)
    kinds = sorted({*families}, key=lambda kind: (-int((found == kind).sum()), kind))
    return [(kind, found == kind) for kind in kinds]


def kind_rows(
    answers: Int[np.ndarray, "sample pair"], judged: Judged, resamples: int
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each kind of question (``Task.family``), the kind with most tasks first, with stable keys.

    ``kind`` ("" where it is not known), ``tasks``, ``pairs``; in per cent ``mean`` over the tasks with its 95 %
    interval ``ci_low``, ``ci_high``, ``pooled`` over the pairs, and ``soft`` (None: not known).
    """
    correct, soft = judged.correct(answers), judged.soft(answers)
    for kind, chosen in of_kinds(judged.families):
        mask = judged.mask & chosen[:, None]
        whole = estimate(by_task(correct, mask), resamples)
        numbers = {"mean": whole.mean, "ci_low": whole.low, "ci_high": whole.high, "pooled": pooled(correct, mask),
                   "soft": None if soft is None else mean_over_tasks(soft.values, soft.mask & mask)}  # fmt: skip
        yield {"kind": kind, "tasks": whole.n, "pairs": int(mask.sum()), **rounded(numbers)}


def rounded(value: Any) -> Any:
    """``value`` with its numbers at 3 decimals; there is no −0."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 3) + 0.0 if isinstance(value, float) else value


def answers_of(run: Run) -> dict[int, Int[np.ndarray, "sample pair"]]:
    """What a finished evaluation answered, by the number of its row; rows not about query pairs have none.

    ``MissingError`` when an earlier version measured it, which kept no answers.
    """
    tensors, _ = load_tensors(run.model_path, remedy=f"measure it again: `metavqa runs rm {run.id}`")
    found = {int(name.partition(".")[0]): value.numpy() for name, value in tensors.items() if name.endswith(ANSWERS)}
    if not found:
        raise MissingError(f"run {run.id} was measured by an earlier version of metavqa, which kept no answers; "
                           "measure it again with --force")  # fmt: skip
    return found


def question_ids(tasks: TaskSet, annotations: Annotations | None) -> list[int]:
    """The number of each query pair of the test tasks: VQA's; without annotations, the position of the pair over all
    tasks (support before query) in file order, from 1. ``JobError`` for a pair without a number, or one with another's.
    """
    if annotations is None:
        return [number for task, number in _numbered(tasks) if task.split == "test"]
    found: dict[int, str] = {}
    for task in tasks.of("test"):
        for image, _ in task.query:
            place, annotation = f"{task.question!r} about image {image}", annotations.get(task.question, {}).get(image)
            if annotation is None:
                raise JobError(f"annotations.jsonl has no question id for {place}; build the dataset again with --force")
            other = found.setdefault(annotation.question_id, place)
            if other != place:
                raise JobError(f"annotations.jsonl gives question id {annotation.question_id} to {other} and to {place}; "
                               "build the dataset again with --force")  # fmt: skip
    return list(found)


def _numbered(tasks: TaskSet) -> Iterator[tuple[Task, int]]:
    """Every query pair's task with the pair's position."""
    position = 0
    for task in tasks.tasks:
        position += len(task.support)
        for _ in task.query:
            position += 1
            yield task, position


def predictions(
    answers: Int[np.ndarray, " pair"], tasks: TaskSet, annotations: Annotations | None
) -> list[dict[str, Any]]:
    """The answers to all query pairs of the test tasks as VQA wants results: ``question_id`` and ``answer``, sorted by
    id; no id twice. ``JobError`` as ``question_ids``."""
    texts = [task.answers for task in tasks.of("test") for _ in task.query]
    found = [
        {"question_id": number, "answer": text[answer]}
        for number, text, answer in zip(question_ids(tasks, annotations), texts, answers.tolist(), strict=True)
    ]
    return sorted(found, key=lambda entry: entry["question_id"])


def write_predictions(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Write predictions in VQA's results format: one JSON list, atomically."""
    write_text(path, json.dumps(list(found), ensure_ascii=False) + "\n")
