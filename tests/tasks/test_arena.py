"""Padded tensors hold exactly the tasks' embeddings, and random divisions depend on nothing but seed and question."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.engine.loop import batch_indices
from metavqa_cli.schema.errors import JobError
from metavqa_cli.tasks import arena as module
from metavqa_cli.tasks.arena import Arena, Embeddings, like_sizes, make_arena, task_seed
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.taskset import Task

EMBED = 5
RELEASE = Path(__file__).parents[3] / "shared" / "meta-vqa"


def lookup(names: Sequence[str]) -> np.ndarray:
    """A unit vector for every name, always the same."""
    rows = [np.random.default_rng(zlib.crc32(name.encode())).normal(size=EMBED) for name in names]
    stacked = np.stack(rows) if rows else np.zeros((0, EMBED))
    return (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32)


def task(number: int, support: int, query: int, answers: int) -> Task:
    def examples(kind: str, count: int) -> tuple[tuple[str, int], ...]:
        return tuple((f"{kind}{number}-{i}", i % answers) for i in range(count))

    names = tuple(f"answer {number}.{i}" for i in range(answers))
    return Task(f"question {number}?", "it is {}", names, examples("s", support), examples("q", query), "train")


TASKS = [task(0, 5, 2, 2), task(1, 14, 6, 4), task(2, 3, 1, 3), task(3, 14, 6, 2)]


def embedded(names: list[str]) -> Embeddings:
    """The vectors of ``names``, and of one that nobody asks for."""
    every = ["unused", *dict.fromkeys(names)]
    return Embeddings({name: row for row, name in enumerate(every)}, torch.from_numpy(lookup(every)))


def arena_of(tasks: list[Task]) -> Arena:
    images = embedded([image for each in tasks for image, _ in (*each.support, *each.query)])
    return make_arena(tasks, images, embedded([text for each in tasks for text in (each.question, *each.statements)]))


ARENA = arena_of(TASKS)


@pytest.mark.parametrize("name", ["support", "query", "pairs"])
def test_every_example_is_in_its_place_and_the_rest_is_zero(name: str) -> None:
    batch: TaskBatch = getattr(ARENA, name).padded
    for row, each in enumerate(TASKS):
        examples = {"support": each.support, "query": each.query, "pairs": (*each.support, *each.query)}[name]
        n = len(examples)
        assert batch.example_mask[row].tolist() == [True] * n + [False] * (batch.x.shape[1] - n)
        assert torch.equal(batch.x[row, :n], torch.from_numpy(lookup([image for image, _ in examples])))
        assert batch.labels[row, :n].tolist() == [label for _, label in examples]
        assert not batch.x[row, n:].any() and not batch.labels[row, n:].any()


def test_answers_are_statements_and_e_is_the_question() -> None:
    batch = ARENA.support.padded
    for row, each in enumerate(TASKS):
        n = len(each.answers)
        assert torch.equal(batch.answers[row, :n], torch.from_numpy(lookup(each.statements)))
        assert batch.answer_mask[row].tolist() == [True] * n + [False] * (4 - n)
        assert not batch.answers[row, n:].any()
    assert torch.equal(ARENA.e, torch.from_numpy(lookup([each.question for each in TASKS])))
    assert len(ARENA) == len(TASKS)


def test_select_is_the_arena_of_the_selected_tasks() -> None:
    chosen = ARENA.select(torch.tensor([2, 0]))
    direct = arena_of([TASKS[2], TASKS[0]])
    assert chosen.tasks == direct.tasks
    assert torch.equal(chosen.e, direct.e)
    for name in ("pairs", "support", "query"):
        for field in ("x", "labels", "example_mask", "answers", "answer_mask"):
            assert torch.equal(
                getattr(getattr(chosen, name).padded, field), getattr(getattr(direct, name).padded, field)
            )


def places(batch: TaskBatch, row: int, pairs: TaskBatch) -> list[int]:
    """Where the real examples of a task stand among its ``pairs``, whose images all differ."""
    alike = (batch.x[row, batch.example_mask[row], None] == pairs.x[row, pairs.example_mask[row]]).all(-1)
    assert (alike.sum(1) == 1).all()
    found = alike.int().argmax(1)
    assert torch.equal(batch.labels[row, batch.example_mask[row]], pairs.labels[row, found])
    return found.tolist()


def divided(arena: Arena, seed: int, fraction: float = 0.7) -> dict[str, list[int]]:
    """The places of each question's support examples."""
    support, _ = arena.random_support(seed, fraction)
    return {each.question: places(support, row, arena.pairs.padded) for row, each in enumerate(arena.tasks)}


def test_random_support_does_not_depend_on_batch_or_order() -> None:
    whole = divided(ARENA, 3)
    for rows in ([3, 1, 0, 2], [2], [0], [2, 0]):
        part = divided(ARENA.select(torch.tensor(rows)), 3)
        assert part == {question: whole[question] for question in part}


def test_random_support_shares_out_all_pairs() -> None:
    support, query = ARENA.random_support(0, 0.7)
    for row, size in enumerate([7, 20, 4, 20]):
        ours, theirs = (places(batch, row, ARENA.pairs.padded) for batch in (support, query))
        assert sorted(ours + theirs) == list(range(size))
        assert ours == sorted(ours) and theirs == sorted(theirs)
    assert support.example_mask.sum(1).tolist() == [5, 14, 3, 14]
    assert support.x.shape[1] == 14 and query.x.shape[1] == 6, "no wider than the largest needs"
    assert torch.equal(support.answers, ARENA.pairs.padded.answers)


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
    chosen = [divided(arena, seed, 0.5)["question 1?"] for seed in range(400)]
    counts = torch.bincount(torch.tensor(chosen).flatten(), minlength=20) / 400
    assert counts.min() > 0.4 and counts.max() < 0.6


def test_a_task_seed_is_fixed_for_ever() -> None:
    """Samples of finished runs depend on it, in every process and on every machine."""
    assert task_seed(0, "What color is the car?") == 95132142840027
    assert task_seed(1, "What color is the car?") != task_seed(0, "What color is the car?")
    assert task_seed(1, "1/x") != task_seed(11, "/x")


@given(st.lists(st.integers(1, 2000), max_size=60))
def test_groups_of_like_size_hold_every_task_once(sizes: list[int]) -> None:
    groups = like_sizes(sizes, 256)
    assert sorted(position for group in groups for position in group) == list(range(len(sizes)))


def padded_cells(sizes: list[int], groups: list[list[int]]) -> int:
    return sum(len(group) * max(sizes[i] for i in group) for group in groups)


def test_small_batches_stay_whole_and_unequal_ones_are_divided() -> None:
    assert len(like_sizes([30] * 16 + [1500] * 16, 32_768)) == 1 < len(like_sizes([30] * 16 + [1500] * 16, 256))
    assert like_sizes([84] * 32, 256) == [list(range(32))]
    assert like_sizes([42, 126, 60, 90] * 8, 256) == [list(range(32))]
    assert len(like_sizes([42, 126, 60, 90] * 8, 42)) > 1, "where an example costs more, fewer are padded"
    unequal = [30] * 20 + [1776] + [40] * 10 + [900]
    groups = like_sizes(unequal, 256)
    assert sum(unequal) > 0.9 * padded_cells(unequal, groups)
    assert all(len({unequal[i] > 500 for i in group}) == 1 for group in groups)


@pytest.mark.parametrize("cells", [1, 15, 40, 10_000])
def test_chunks_hold_every_task_once_and_not_more_cells_than_allowed(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CELLS_AT_ONCE", cells)
    chunks = ARENA.pairs.chunks()
    assert sorted(torch.cat(chunks).tolist()) == [0, 1, 2, 3]
    for chunk in chunks:
        batch = ARENA.pairs.select(chunk)
        assert batch.example_mask.numel() <= cells or len(chunk) == 1
    assert len(chunks) == {1: 4, 15: 3, 40: 2, 10_000: 1}[cells]


def test_the_matrix_of_embeddings_is_not_copied() -> None:
    images, texts = embedded(["s0-0", "s0-1", "q0-0"]), embedded(TEXTS)
    arena = make_arena([task(0, 2, 1, 2)], images, texts)
    for part in (arena, arena.select(torch.tensor([0]))):
        assert part.pairs.x.matrix is part.query.x.matrix is images.matrix
        assert part.pairs.answers.matrix is texts.matrix


TEXTS = ["question 0?", "it is answer 0.0", "it is answer 0.1"]


def test_a_name_without_features_is_an_error_that_names_it() -> None:
    images = Embeddings({"s0-0": 0}, torch.zeros(1, EMBED), "features/x has no features of", "build it again")
    with pytest.raises(JobError, match="features/x has no features of 's0-1'; build it again"):
        make_arena([task(0, 2, 1, 2)], images, embedded(TEXTS))


@pytest.mark.skipif(not RELEASE.is_dir(), reason=f"the released Meta-VQA files are not in {RELEASE}")
@pytest.mark.parametrize("batch", [32, 128])
def test_batches_of_the_real_tasks_are_padded_by_less_than_a_quarter(batch: int) -> None:
    released = json.loads((RELEASE / "meta_train.json").read_text("utf-8"))
    sizes = [len(each["train"]) + len(each["test"]) for each in released.values()]
    assert (len(sizes), max(sizes)) == (870, 1776)
    padded = whole = 0
    for step in range(-(-len(sizes) // batch)):
        chosen = [sizes[row] for row in batch_indices(len(sizes), batch, step, seed=0).tolist()]
        padded += padded_cells(chosen, like_sizes(chosen, 42))
        whole += len(chosen) * max(chosen)
    assert sum(sizes) > 0.75 * padded
    assert sum(sizes) < 0.35 * whole  # what it would be without groups
