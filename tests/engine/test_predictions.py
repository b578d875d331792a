"""Predictions in VQA's results format: one answer for each query pair, under the id that VQA gave the pair."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metavqa_cli.engine.judged import judged_tasks, secondary
from metavqa_cli.engine.predictions import Wanted, predictions, question_ids, wanted_of, write_predictions
from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.annotations import Annotation, Annotations
from tests.engine.test_judged import BOTH, HUMAN, ONE, TASKS
from tests.tasks.test_soft_accuracy import person_by_person

IDS = [42, 7, 3000000001, 9, 1, 8, 2, 6, 5]
IMAGES = [(task.question, image) for task in TASKS.of("test") for image, _ in task.query]


def annotated(ids: list[int]) -> Annotations:
    found: dict[str, dict[str, Annotation]] = {}
    for (question, image), number in zip(IMAGES, ids, strict=True):
        human = HUMAN.get(question, {}).get(image) or {"red": 10}
        found.setdefault(question, {})[image] = Annotation(number, human)
    return found


def test_every_pair_is_answered_under_its_own_id_in_their_order() -> None:
    found = predictions(ONE[0], TASKS, annotated(IDS))
    assert found == [
        {"question_id": 1, "answer": "red"}, {"question_id": 2, "answer": "two"},
        {"question_id": 5, "answer": "red"}, {"question_id": 6, "answer": "blue"},
        {"question_id": 7, "answer": "red"}, {"question_id": 8, "answer": "red"},
        {"question_id": 9, "answer": "red"}, {"question_id": 42, "answer": "red"},
        {"question_id": 3000000001, "answer": "red"},
    ]  # fmt: skip


def test_without_ids_a_pair_is_numbered_by_its_place_among_all_pairs() -> None:
    """Task by task, support before query: train? has 3 pairs; 1? begins with its support at 4."""
    assert question_ids(TASKS, None) == [6, 7, 8, 9, 14, 15, 17, 19, 21]
    assert sum(len(task.support) + len(task.query) for task in TASKS.tasks) == 21


def test_an_id_that_is_missing_or_given_twice_is_named() -> None:
    lacking = {question: dict(images) for question, images in annotated(IDS).items()}
    del lacking["2?"]["z"]
    with pytest.raises(JobError, match=r"no question id for '2\?' about image z; build the dataset again"):
        question_ids(TASKS, lacking)
    with pytest.raises(JobError, match=r"question id 7 to '1\?' about image x and to '5\?' about image v; build"):
        question_ids(TASKS, annotated([*IDS[:-1], 7]))


def test_the_file_is_one_json_list_and_texts_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "new" / "out.json"
    found = [{"question_id": 1, "answer": "crème “brûlée”"}, {"question_id": 2, "answer": 'a\n"b"'}]
    write_predictions(file, found)
    assert json.loads(file.read_text("utf-8")) == found
    assert "crème" in file.read_text("utf-8") and [path.name for path in file.parent.iterdir()] == ["out.json"]


def test_our_soft_accuracy_of_a_file_is_that_of_the_official_rule(tmp_path: Path) -> None:
    """A reader who knows nothing but the file and the annotations finds the number that stands in the row."""
    known, file = annotated(IDS), tmp_path / "out.json"
    write_predictions(file, predictions(ONE[0], TASKS, known))
    people = {
        number: [text.lower().replace("two", "2") for text, n in human.items() for _ in range(n)]
        for images in known.values()
        for number, human in images.values()
    }
    scores = [
        person_by_person(entry["answer"].replace("two", "2"), people[entry["question_id"]])
        for entry in json.loads(file.read_text("utf-8"))
    ]
    assert len(scores) == 9
    found = secondary(ONE, judged_tasks(TASKS, known))["soft_pooled"]
    assert found == pytest.approx(100 * np.mean(scores)) and 0 < found < 100


# Whose answers


class Made(Run):
    """A run that is nowhere on disk."""

    def manifest(self) -> dict[str, Any]:
        return {"kind": self.id.partition("-")[0], "parents": {"generator": "hvae-1"}}


LDM, HVAE, BASELINE = (Made(Path(name)) for name in ("ldm-1", "hvae-1", "baseline-1"))


@pytest.mark.parametrize(
    ("run", "gammas", "few_shot", "expected"),
    [
        (LDM, [], False, Wanted("ldm-1", "zero-shot", True, None)),
        (LDM, [1.5], False, Wanted("ldm-1", "zero-shot", True, 1.5)),
        (LDM, [1.5, 1.5], False, Wanted("ldm-1", "zero-shot", True, 1.5)),
        (BASELINE, [], False, Wanted("baseline-1", "zero-shot")),
        (BASELINE, [1.0, 2.0], True, Wanted("baseline-1", "few-shot")),
        (HVAE, [], True, Wanted("hvae-1", "few-shot")),
    ],
)
def test_one_run_has_one_row_that_is_meant(run: Any, gammas: list[float], few_shot: bool, expected: Wanted) -> None:
    assert wanted_of([run], gammas, few_shot) == expected


@pytest.mark.parametrize(
    ("runs", "gammas", "few_shot", "sentence"),
    [
        ([LDM, BASELINE], [], False, "of one run, and there are 2; name one: ldm-1, baseline-1$"),
        ([LDM], [1.0, 1.5], False, "at one guidance scale; give one --gamma of 1, 1.5$"),
        ([LDM], [], True, "run ldm-1 is of kind ldm, .* leave --few-shot out, or name its generator hvae-1$"),
        ([HVAE], [], False, "run hvae-1 is of kind hvae, which has no zero-shot answers; add --few-shot"),
    ],
)
def test_what_could_mean_several_rows_names_the_choices(
    runs: Any, gammas: list[float], few_shot: bool, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        wanted_of(runs, gammas, few_shot)


def row(method: str, run: str | None, setting: str, gamma: float | None = None) -> dict[str, Any]:
    return {"method": method, "run": run, "setting": setting, "gamma": gamma}


ROWS = [
    row("clip", None, "zero-shot"), row("multitask", "baseline-1", "zero-shot"),
    row("multitask", "baseline-1", "few-shot"), row("task", "hvae-1", "reconstruction"),
    row("task", "hvae-1", "few-shot"), row("task-ldm", "ldm-1", "zero-shot", 1.0),
    row("task-ldm-shuffled", "ldm-1", "control", 1.5), row("task-ldm-validated", "ldm-1", "zero-shot", 1.5),
    row("task-ldm", "ldm-1", "zero-shot", 1.5),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Wanted("baseline-1", "zero-shot"), 1), (Wanted("baseline-1", "few-shot"), 2),
        (Wanted("hvae-1", "few-shot"), 4), (Wanted("ldm-1", "zero-shot", True, 1.0), 5),
        (Wanted("ldm-1", "zero-shot", True, 1.5), 8),
        (Wanted("ldm-1", "zero-shot", True, None), 7),
    ],
)  # fmt: skip
def test_the_row_is_the_runs_own(wanted: Wanted, number: int) -> None:
    assert wanted.row(ROWS) == (number, ROWS[number])


def test_predictions_are_of_one_sample() -> None:
    known = annotated(IDS)
    first, second = (predictions(answers, TASKS, known) for answers in BOTH)
    assert [entry["question_id"] for entry in first] == [entry["question_id"] for entry in second] == sorted(IDS)
    assert first != second
