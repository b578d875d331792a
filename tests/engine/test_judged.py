"""Measures over the query pairs of a few tasks, against numbers worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metavqa_cli.engine import judged as judging
from metavqa_cli.engine.judged import Judged, judged_tasks, kind_rows, secondary
from metavqa_cli.tasks.annotations import Annotation, Annotations
from metavqa_cli.tasks.taskset import Split, Task, TaskSet
from tests.cli.terminal import python

RESAMPLES = 100


def task(question: str, support: str, query: str, split: Split = "test", family: str = "", answers: int = 3) -> Task:
    """Each letter of ``support`` and ``query`` is an image; its label is the place of the letter modulo the answers."""
    pairs = [tuple((image, i % answers) for i, image in enumerate(images)) for images in (support, query)]
    names = ("red", "two", "t-shirt", "blue")[:answers]
    return Task(question, "it is {}", names, *pairs, split, family)


TASKS = TaskSet((
    task("train?", "ab", "c", "train"),
    task("1?", "pq", "axyz", family="what color is the"),  # labels 0 1 2 0; a is a training image
    task("held?", "d", "e", "validation"),
    task("2?", "ax", "ez", family="what color is the"),  # labels 0 1; e is a validation image
    task("3?", "a", "b", family="how many", answers=2),  # label 0; b is a training image
    task("4?", "a", "w", family="how many", answers=4),  # label 0
    task("5?", "a", "v"),  # label 0
))  # fmt: skip
ONE = np.array([[0, 0, 0, 0, 0, 0, 1, 3, 0]], np.int16)  # right: 1 0 0 1 | 1 0 | 0 | 0 | 1
TWO = np.array([[0, 1, 2, 0, 1, 1, 0, 0, 1]], np.int16)  # right: 1 1 1 1 | 0 1 | 1 | 1 | 0
BOTH = np.concatenate([ONE, TWO])
HUMAN = {
    "1?": {"a": {"red": 10}, "x": {"red": 3, "Two": 2, "blue": 5}, "y": {"red": 1, "pink": 9}, "z": {}},
    "2?": {"e": {"2": 4, "red": 6}},
    "3?": {"b": {"red": 10}},
}
ANNOTATIONS: Annotations = {
    question: {image: Annotation(7, human) for image, human in images.items()} for question, images in HUMAN.items()
}


def known() -> Judged:
    return judged_tasks(TASKS, None)


def test_what_is_judged_are_the_query_pairs_of_the_test_tasks() -> None:
    found = known()
    assert found.questions == ("1?", "2?", "3?", "4?", "5?")
    assert found.families == ("what color is the", "what color is the", "how many", "how many", "")
    assert found.mask.sum(1).tolist() == [4, 2, 1, 1, 1] and found.mask.shape == (5, 4)
    assert np.argwhere(found.shared).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert np.argwhere(found.unshared).tolist() == [[0, 1], [0, 2], [0, 3], [1, 1], [3, 0], [4, 0]]
    assert found.key is not None and found.key.labels.tolist() == [0, 1, 2, 0, 0, 1, 0, 0, 0]
    assert found.key.marks is None


def test_correct_is_the_share_of_samples_and_padding_is_never_right() -> None:
    found = known().correct(BOTH)
    assert found.tolist() == [[1, 0.5, 0.5, 1], [0.5, 0.5, 0, 0], [0.5, 0, 0, 0], [0.5, 0, 0, 0], [0.5, 0, 0, 0]]


def test_pooled_is_over_pairs_and_overlap_free_over_images_that_are_new() -> None:
    found = secondary(ONE, known())
    assert found["pooled"] == pytest.approx(100 * 4 / 9)
    assert found["overlap_free"] == pytest.approx(100 * np.mean([1 / 3, 0, 0, 1]))  # nothing is left of task 3
    assert (found["overlap_free_tasks"], found["overlap_free_pairs"]) == (4, 6)
    assert found["soft"] is found["soft_pooled"] is None


def test_soft_is_over_the_pairs_that_people_answered() -> None:
    """Task 1, of ten people each: 10 say red, 3 of 10 red, 1 of 10 red, and z was answered by nobody."""
    found = secondary(ONE, judged_tasks(TASKS, ANNOTATIONS))
    assert found["soft"] == pytest.approx(100 * np.mean([np.mean([1, 0.9, 0.3]), 1, 0]))
    assert found["soft_pooled"] == pytest.approx(100 * np.mean([1, 0.9, 0.3, 1, 0]))
    two = secondary(TWO, judged_tasks(TASKS, ANNOTATIONS))  # red; two: 2 of 10; t-shirt: nobody; two: 4 of 10; red
    assert two["soft_pooled"] == pytest.approx(100 * np.mean([1, 0.6, 0, 1, 1]))
    mean = secondary(BOTH, judged_tasks(TASKS, ANNOTATIONS))["soft"]
    assert mean == pytest.approx((found["soft"] + two["soft"]) / 2)


def test_annotations_without_a_single_answer_give_no_soft_accuracy() -> None:
    for nothing in ({}, {"1?": {"a": Annotation(1, {})}}):
        assert secondary(ONE, judged_tasks(TASKS, nothing))["soft"] is None


def test_what_is_not_about_the_query_pairs_has_none_of_these_numbers() -> None:
    assert secondary(None, judged_tasks(TASKS, ANNOTATIONS)) == dict.fromkeys(secondary(ONE, known()))


def test_without_any_new_image_overlap_free_is_not_known() -> None:
    world = known()
    found = secondary(ONE, replace(world, shared=world.mask))
    assert (found["overlap_free"], found["overlap_free_tasks"], found["overlap_free_pairs"]) == (None, 0, 0)
    assert secondary(ONE, replace(world, shared=world.mask & False))["overlap_free"] == pytest.approx(
        100 * judging.by_task(world.correct(ONE), world.mask).mean()
    )


def test_a_row_for_each_kind_with_most_tasks_first_then_by_name() -> None:
    rows = list(kind_rows(ONE, judged_tasks(TASKS, ANNOTATIONS), RESAMPLES))
    assert [(row["kind"], row["tasks"], row["pairs"]) for row in rows] == [
        ("how many", 2, 2), ("what color is the", 2, 6), ("", 1, 1),
    ]  # fmt: skip
    assert [row["mean"] for row in rows] == [0, 50, 100]
    assert [row["pooled"] for row in rows] == [0, 50, 100]
    assert [row["soft"] for row in rows] == [0, round(100 * np.mean([np.mean([1, 0.9, 0.3]), 1]), 3), None]
    assert all(row["ci_low"] <= row["mean"] <= row["ci_high"] for row in rows)
    assert list(rows[0]) == ["kind", "tasks", "pairs", "mean", "ci_low", "ci_high", "pooled", "soft"]


def test_the_kinds_together_are_the_whole() -> None:
    world = known()
    rows = list(kind_rows(TWO, world, RESAMPLES))
    assert sum(row["tasks"] for row in rows) == 5 and sum(row["pairs"] for row in rows) == 9
    whole = 100 * judging.by_task(world.correct(TWO), world.mask).mean()
    assert sum(row["tasks"] * row["mean"] for row in rows) / 5 == pytest.approx(whole, abs=1e-3)
    assert sum(row["pairs"] * row["pooled"] for row in rows) / 9 == pytest.approx(
        secondary(TWO, world)["pooled"], abs=1e-3
    )


def test_measures_of_files_need_no_torch(tmp_path: Path) -> None:
    code = "import sys, metavqa_cli.engine.predictions; print([n for n in ('torch', 'scipy') if n in sys.modules])"
    assert python("-c", code, cwd=tmp_path).out == "[]\n"
