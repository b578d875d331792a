"""Padded tensors hold exactly the tasks' embeddings, and random divisions depend on nothing but seed and question."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from metavqa_cli.tasks.arena import Arena, make_arena, task_seed
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.taskset import Task

EMBED = 5


def lookup(names: Sequence[str]) -> np.ndarray:
    """A unit vector for every name, always the same."""
    rows = [np.random.default_rng(sum(map(ord, name))).normal(size=EMBED) for name in names]
    stacked = np.stack(rows) if rows else np.zeros((0, EMBED))
    return (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32)


def task(number: int, support: int, query: int, answers: int) -> Task:
    def examples(kind: str, count: int) -> tuple[tuple[str, int], ...]:
        return tuple((f"{kind}{number}-{i}", i % answers) for i in range(count))

    names = tuple(f"answer {number}.{i}" for i in range(answers))
    return Task(f"question {number}?", "it is {}", names, examples("s", support), examples("q", query), "train")


TASKS = [task(0, 5, 2, 2), task(1, 14, 6, 4), task(2, 3, 1, 3), task(3, 14, 6, 2)]
ARENA = make_arena(TASKS, lookup, lookup, torch.device("cpu"))


@pytest.mark.parametrize("name", ["support", "query", "pairs"])
def test_every_example_is_in_its_place_and_the_rest_is_zero(name: str) -> None:
    batch: TaskBatch = getattr(ARENA, name)
    for row, each in enumerate(TASKS):
        examples = {"support": each.support, "query": each.query, "pairs": (*each.support, *each.query)}[name]
        n = len(examples)
        assert batch.example_mask[row].tolist() == [True] * n + [False] * (batch.x.shape[1] - n)
        assert torch.equal(batch.x[row, :n], torch.from_numpy(lookup([image for image, _ in examples])))
        assert batch.labels[row, :n].tolist() == [label for _, label in examples]
        assert not batch.x[row, n:].any() and not batch.labels[row, n:].any()


def test_answers_are_statements_and_e_is_the_question() -> None:
    for row, each in enumerate(TASKS):
        n = len(each.answers)
        assert torch.equal(ARENA.support.answers[row, :n], torch.from_numpy(lookup(each.statements)))
        assert ARENA.support.answer_mask[row].tolist() == [True] * n + [False] * (4 - n)
        assert not ARENA.support.answers[row, n:].any()
    assert torch.equal(ARENA.e, torch.from_numpy(lookup([each.question for each in TASKS])))
    assert len(ARENA) == len(TASKS)


def test_select_is_the_arena_of_the_selected_tasks() -> None:
    chosen = ARENA.select(torch.tensor([2, 0]))
    direct = make_arena([TASKS[2], TASKS[0]], lookup, lookup, torch.device("cpu"))
    assert chosen.tasks == direct.tasks
    assert torch.equal(chosen.e, direct.e)
    for name in ("pairs", "support", "query"):
        for field in ("x", "labels", "example_mask", "answers", "answer_mask"):
            assert torch.equal(getattr(getattr(chosen, name), field), getattr(getattr(direct, name), field))


def divided(arena: Arena, seed: int) -> dict[str, list[int]]:
    """The places of each question's support examples."""
    support, _ = arena.random_support(seed)
    return {each.question: support.example_mask[row].nonzero()[:, 0].tolist() for row, each in enumerate(arena.tasks)}


def test_random_support_does_not_depend_on_batch_or_order() -> None:
    whole = divided(ARENA, 3)
    for rows in ([3, 1, 0, 2], [2], [0], [2, 0]):
        part = divided(ARENA.select(torch.tensor(rows)), 3)
        assert part == {question: whole[question] for question in part}


def test_random_support_shares_out_all_pairs() -> None:
    support, query = ARENA.random_support(0, 0.7)
    assert torch.equal(support.example_mask | query.example_mask, ARENA.pairs.example_mask)
    assert not (support.example_mask & query.example_mask).any()
    assert support.example_mask.sum(1).tolist() == [5, 14, 3, 14]
    assert support.x is ARENA.pairs.x


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, [0, 0, 0, 0]), (0.5, [4, 10, 2, 10]), (1.0, [7, 20, 4, 20])])
def test_random_support_has_the_fraction_asked_for(fraction: float, expected: list[int]) -> None:
    support, _ = ARENA.random_support(1, fraction)
    assert support.example_mask.sum(1).tolist() == expected


def test_random_support_depends_on_seed_and_question() -> None:
    assert divided(ARENA, 3) == divided(ARENA, 3)
    assert divided(ARENA, 3) != divided(ARENA, 4)
    assert divided(ARENA, 3)["question 1?"] != divided(ARENA, 3)["question 3?"]  # two tasks of equal size


def test_random_support_chooses_every_example_equally_often() -> None:
    arena = ARENA.select(torch.tensor([1]))
    counts = torch.stack([arena.random_support(seed, 0.5)[0].example_mask[0].float() for seed in range(400)]).mean(0)
    assert counts.min() > 0.4 and counts.max() < 0.6


def test_a_task_seed_is_fixed_for_ever() -> None:
    """Samples of finished runs depend on it, in every process and on every machine."""
    assert task_seed(0, "What color is the car?") == 95132142840027
    assert task_seed(1, "What color is the car?") != task_seed(0, "What color is the car?")
    assert task_seed(1, "1/x") != task_seed(11, "/x")
