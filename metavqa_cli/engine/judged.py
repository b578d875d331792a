"""The query pairs of the test tasks: what is right, and how well they were answered, in VQA's measures too.

Pairs stand one after another, task after task in file order ("pair"), or padded to the largest task ("task example").
Needs no torch, as tables are made later from files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, Num

from metavqa_cli.engine.statistics import estimate
from metavqa_cli.tasks.annotations import Annotations
from metavqa_cli.tasks.soft_accuracy import soft_accuracies
from metavqa_cli.tasks.taskset import Task, TaskSet

Row = Mapping[str, Any]
Answers = Int[np.ndarray, "sample pair"]  # indices into the answers of each pair's task


@dataclass(frozen=True, eq=False)
class Marks:
    """VQA's soft accuracy, 0 to 1, of every answer of a task for each of its query pairs.

    That of answer a to pair p is ``values[start[p] + a]``; NaN for a pair that nobody answered.
    """

    start: Int64[np.ndarray, " pair"]
    values: Float64[np.ndarray, " entry"]

    def of(self, answers: Answers) -> Float64[np.ndarray, " pair"]:
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

    def correct(self, answers: Answers) -> Float64[np.ndarray, "task example"]:
        """The share of samples, 0 to 1, that answer each example rightly."""
        assert self.key is not None
        return self.padded((answers == self.key.labels).mean(0))

    def soft(self, answers: Answers | None) -> "Soft | None":
        """Soft accuracies of the answers; None where people's answers, or these answers, are not known."""
        if answers is None or self.key is None or self.key.marks is None:
            return None
        found = self.key.marks.of(answers)
        values = self.padded(found)
        known = self.mask & ~np.isnan(values)
        return Soft(values, known) if known.any() else None


@dataclass(frozen=True, eq=False)
class Soft:
    """Soft accuracies, 0 to 1, of the examples in ``mask``: those that people answered."""

    values: Float64[np.ndarray, "task example"]
    mask: Bool[np.ndarray, "task example"]


def judged_tasks(tasks: TaskSet, annotations: Annotations | None) -> Judged:
    """What all measurements on the test tasks have in common."""
    test = list(tasks.of("test"))  # read once: they are gone over many times
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


def secondary(answers: Answers | None, judged: Judged) -> dict[str, Any]:
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


def kind_rows(answers: Answers, judged: Judged, resamples: int) -> Iterator[Row]:
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


def rows_by_kind(
    rows: Sequence[Row], chosen: Sequence[int], answers: Mapping[int, Answers], judged: Judged, resamples: int
) -> list[Row]:
    """``kind_rows`` of the ``chosen`` rows of an evaluation that have answers, with what they are rows of; by kind."""
    names = ("method", "label", "setting", "run", "gamma", "sampler")
    found = [
        {**kind, **{name: rows[number][name] for name in names}}
        for number in chosen
        if number in answers
        for kind in kind_rows(answers[number], judged, resamples)
    ]
    return sorted(found, key=lambda row: (-row["tasks"], row["kind"]))


def rounded(value: Any) -> Any:
    """``value`` with its numbers at 3 decimals, those of records in it too; there is no −0."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) if isinstance(inner, Mapping) else inner for inner in value]
    return round(value, 3) + 0.0 if isinstance(value, float) else value
