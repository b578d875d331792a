"""What an evaluation answered, and predictions of one method in VQA's results format. Needs no torch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from metavqa_cli.engine.judged import Answers, Row
from metavqa_cli.engine.kept import kept_arrays
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.store.atomic import write_text
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.annotations import Annotations
from metavqa_cli.tasks.taskset import Task, TaskSet

ANSWERS = "answers"  # ends the name of a tensor [sample, pair] of answers, beside that of their accuracies


def answers_of(run: Run) -> dict[int, Answers]:
    """What a finished evaluation answered, by the number of its row; rows not about query pairs have none.

    ``MissingError`` when an earlier version measured it, which kept no answers.
    """
    arrays = kept_arrays(run)
    found = {int(name.partition(".")[0]): value for name, value in arrays.items() if name.endswith(ANSWERS)}
    if not found:
        raise MissingError(f"run {run.id} was measured by an earlier version of metavqa, which kept no answers; "
                           "measure it again with --force")  # fmt: skip
    return found


@dataclass(frozen=True)
class Wanted:
    """Which row of an evaluation predictions are of: a run's, and for a HyperLDM at which γ (None: the validated)."""

    run: str
    setting: str
    guided: bool = False
    gamma: float | None = None

    def row(self, rows: Sequence[Row]) -> tuple[int, Row]:
        """The row and its number."""
        return next((number, row) for number, row in enumerate(rows) if self._is(row))

    def _is(self, row: Row) -> bool:
        validated = str(row["method"]).endswith("-validated")
        scale = not self.guided or (validated if self.gamma is None else row["gamma"] == self.gamma and not validated)
        return row["run"] == self.run and row["setting"] == self.setting and scale


def wanted_of(models: Sequence[Run], gammas: Sequence[float], few_shot: bool) -> Wanted:
    """What predictions of ``models`` mean. ``UsageError`` naming the choices where it is not one row."""
    if len(models) != 1:
        names = ", ".join(run.id for run in models)
        raise UsageError(f"--predictions writes the answers of one run, and there are {len(models)}; name one: {names}")
    (run,) = models
    if run.kind == "ldm" and few_shot:
        generator = run.manifest()["parents"].get("generator")
        raise UsageError(f"run {run.id} is of kind ldm, which has zero-shot answers here; "
                         f"leave --few-shot out, or name its generator {generator}")  # fmt: skip
    if run.kind == "ldm" and len({*gammas}) > 1:
        raise UsageError("--predictions writes the answers at one guidance scale; "
                         f"give one --gamma of {', '.join(f'{gamma:g}' for gamma in gammas)}")  # fmt: skip
    if run.kind == "hvae" and not few_shot:
        raise UsageError(f"run {run.id} is of kind hvae, which has no zero-shot answers; "
                         "add --few-shot, or name a HyperLDM that was trained on it")  # fmt: skip
    gamma = gammas[0] if gammas and run.kind == "ldm" else None
    return Wanted(run.id, "few-shot" if few_shot else "zero-shot", run.kind == "ldm", gamma)


def question_ids(tasks: TaskSet, annotations: Annotations | None) -> list[int]:
    """The number of each query pair of the test tasks: VQA's; without annotations, the position of the pair over all
    tasks (support before query) in file order, from 1. ``JobError`` for a pair without a number, or one with another's.
    """
    if annotations is None:
        return [number for task, number in _numbered(tasks) if task.split == "test"]
    found: dict[int, str] = {}
    again = "build the dataset again with --force"
    for task in tasks.of("test"):
        for image, _ in task.query:
            place, annotation = f"{task.question!r} about image {image}", annotations.get(task.question, {}).get(image)
            if annotation is None:
                raise JobError(f"annotations.jsonl has no question id for {place}; {again}")
            number = annotation.question_id
            if number in found:
                raise JobError(
                    f"annotations.jsonl gives question id {number} to {found[number]} and to {place}; {again}"
                )
            found[number] = place
    return list(found)


def _numbered(tasks: TaskSet) -> Iterator[tuple[Task, int]]:
    """Every query pair's task with the pair's position."""
    position = 0
    for task in tasks.tasks:
        position += len(task.support)
        for _ in task.query:
            position += 1
            yield task, position


def predictions(answers: Int[np.ndarray, " pair"], tasks: TaskSet, annotations: Annotations | None) -> list[Row]:
    """The answers to all query pairs of the test tasks as VQA wants results: ``question_id`` and ``answer``, sorted by
    id; no id twice. ``JobError`` as ``question_ids``."""
    texts = [task.answers for task in tasks.of("test") for _ in task.query]
    found = [
        {"question_id": number, "answer": text[answer]}
        for number, text, answer in zip(question_ids(tasks, annotations), texts, answers.tolist(), strict=True)
    ]
    return sorted(found, key=lambda entry: entry["question_id"])


def write_predictions(path: Path, found: Sequence[Row]) -> None:
    """Write predictions in VQA's results format: one JSON list, atomically."""
    write_text(path, json.dumps(list(found), ensure_ascii=False) + "\n")
