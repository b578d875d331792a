"""The cut of questions into tasks: the released Meta-VQA tasks come out exactly, and each option does what it says."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.tasks.protocol import (
    Groups,
    Pair,
    Protocol,
    cut_splits,
    cut_tasks,
    filter_groups,
    group_instances,
    image_side,
    split_pairs,
    split_questions,
    split_validation,
)
from metavqa_cli.tasks.taskset import Split, Task, TaskSet

RELEASE = Path(__file__).parents[3] / "shared" / "meta-vqa"
RELEASED = Protocol()
SIDES = ("train", "test")  # the release's names of support and query
needs_release = pytest.mark.skipif(not RELEASE.is_dir(), reason=f"the released Meta-VQA files are not in {RELEASE}")
Released = dict[str, dict[str, Any]]  # question -> {"train": pairs, "test": pairs, "answers": answers}


def read(name: str) -> Any:
    return json.loads((RELEASE / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def released() -> tuple[Released, Released]:
    return read("meta_train.json"), read("meta_test.json")


def unshuffled(pairs: list[Pair], seed: int) -> list[Pair]:
    """The list that ``random.Random(seed).shuffle`` turned into ``pairs``."""
    places = list(range(len(pairs)))
    random.Random(seed).shuffle(places)
    original: list[Pair] = [("", "")] * len(pairs)
    for place, pair in zip(places, pairs, strict=True):
        original[place] = pair
    return original


@pytest.fixture(scope="module")
def original(released: tuple[Released, Released]) -> Groups:
    """Each released task's pairs, answer by answer, in the order they had before they were shuffled."""
    groups: Groups = {}
    for question, task in (released[0] | released[1]).items():
        shuffled: dict[str, list[Pair]] = {answer: [] for answer in task["answers"]}
        for image, answer in (*task["train"], *task["test"]):
            shuffled[answer].append((image, answer))
        groups[question] = [pair for those in shuffled.values() for pair in unshuffled(those, RELEASED.seed)]
    return groups


@needs_release
def test_the_released_task_split_comes_out_exactly(released: tuple[Released, Released]) -> None:
    train, test = split_questions(read("ques_ans_count.json"), RELEASED)
    assert (len(train), len(test)) == (870, 373)
    assert train == list(released[0])
    assert test == list(released[1])


@needs_release
def test_every_released_task_is_cut_again_pair_by_pair(released: tuple[Released, Released], original: Groups) -> None:
    tasks = released[0] | released[1]
    assert filter_groups(original, RELEASED) == original  # none of them is filtered out, no answer is dropped
    for question, pairs in original.items():
        support, query = split_pairs(pairs, RELEASED)
        assert [list(pair) for pair in support] == tasks[question]["train"]
        assert [list(pair) for pair in query] == tasks[question]["test"]


@needs_release
def test_undoing_the_shuffle_finds_the_file_order_of_vqa(original: Groups) -> None:
    """The release pools train2014 before val2014. Only the right permutation undone separates them in every answer."""
    orders: dict[tuple[str, str], list[str]] = {}
    for question, pairs in original.items():
        for image, answer in pairs:
            orders.setdefault((question, answer), []).append(image.split("_")[1])
    assert len(orders) == 11_359
    assert all(order == sorted(order) for order in orders.values())


@needs_release
def test_the_whole_release_comes_out_of_the_whole_protocol(
    released: tuple[Released, Released], original: Groups
) -> None:
    table = read("ques_ans_count.json")
    cut = cut_tasks({question: original[question] for question in table}, RELEASED)
    for tasks, expected in zip(cut, released, strict=True):
        assert [task.question for task in tasks] == list(expected)
        for task in tasks:
            assert task.answers == tuple(expected[task.question]["answers"]) == tuple(table[task.question])
            assert Counter(answer for _, answer in (*task.support, *task.query)) == table[task.question]
            assert (len(task.support), len(task.query)) == tuple(len(expected[task.question][s]) for s in SIDES)


@needs_release
def test_the_summary_of_the_release_is_the_published_one(released: tuple[Released, Released]) -> None:
    def task(question: str, cut: dict[str, Any], split: Split) -> Task:
        label = {answer: i for i, answer in enumerate(cut["answers"])}
        pairs = {new: tuple((image, label[answer]) for image, answer in cut[old])
                 for new, old in (("support", "train"), ("query", "test"))}  # fmt: skip
        return Task(question, "{}", tuple(cut["answers"]), split=split, **pairs)

    sides: tuple[Split, Split] = ("train", "test")
    tasks = [task(q, cut, split) for split, side in zip(sides, released, strict=True) for q, cut in side.items()]
    summary = TaskSet(tuple(tasks)).summary()
    assert summary["tasks"] == 1243
    assert (summary["train"], summary["validation"], summary["test"]) == (870, 0, 373)
    assert (summary["pairs"], summary["images"]) == (104_112, 64_665)
    assert summary["images_shared_by_train_and_test"] == 11_499
    assert summary["answers_per_task"] == pytest.approx(9.14, abs=0.005)
    assert summary["support_per_task"] == pytest.approx(57.86, abs=0.005)
    assert summary["query_per_task"] == pytest.approx(25.90, abs=0.005)
    assert summary["chance"] == pytest.approx(16.1, abs=0.05)
    assert summary["majority"] == pytest.approx(33.8, abs=0.05)


def test_an_image_counts_once_for_a_question() -> None:
    instances = [("a", "What?", "red"), ("b", "What?", "red"), ("a", "Where?", "here"), ("a", "What?", "blue")]
    assert group_instances(iter(instances)) == {
        "What?": [("a", "red"), ("b", "red")],
        "Where?": [("a", "here")],
    }


names = st.sampled_from("abcdefgh")


@settings(max_examples=50)
@given(st.lists(st.tuples(names, st.sampled_from(["Q1", "Q2"]), names)))
def test_grouping_keeps_the_first_instance_of_each_image(instances: list[tuple[str, str, str]]) -> None:
    groups = group_instances(instances)
    assert list(groups) == list(dict.fromkeys(question for _, question, _ in instances))
    for question, pairs in groups.items():
        mine = [(image, answer) for image, asked, answer in instances if asked == question]
        assert {image for image, _ in pairs} == {image for image, _ in mine}
        assert pairs == sorted(pairs, key=lambda pair: [image for image, _ in mine].index(pair[0]))
        assert all(answer == next(a for i, a in mine if i == image) for image, answer in pairs)


def pairs_of(**counts: int) -> list[Pair]:
    """So many pairs of each answer, every image another."""
    return [(f"{answer}-{i}", answer) for answer, count in counts.items() for i in range(count)]


@pytest.mark.parametrize(
    ("question", "pairs", "kept"),
    [
        ("What?", pairs_of(red=11, blue=10), 21),
        ("What?", pairs_of(red=11, blue=10, green=1), 21),  # an answer with a single image is dropped
        ("What?", pairs_of(red=10, blue=10), None),  # 20 pairs are not "more than 20"
        ("What?", pairs_of(red=18, blue=2, green=1), None),  # 21 before the drop, 20 after it
        ("What?", pairs_of(red=40, blue=1), None),  # one answer remains
        ("Is it red or blue?", pairs_of(red=20, blue=20), None),
        ("Is it red OR blue?", pairs_of(red=20, blue=20), 40),  # case-sensitive, as in the release
        ("What orange thing?", pairs_of(red=20, blue=20), 40),  # the word, not the letters
        ("This or?", pairs_of(red=20, blue=20), 40),  # split at spaces only
    ],
)
def test_filters(question: str, pairs: list[Pair], kept: int | None) -> None:
    found = filter_groups({question: pairs}, RELEASED)
    assert {q: len(those) for q, those in found.items()} == ({} if kept is None else {question: kept})


@settings(max_examples=50)
@given(st.dictionaries(names, st.integers(1, 12), min_size=1), st.sampled_from([0.0, 0.5, 0.7, 1.0]))
def test_support_and_query_share_out_every_answer(counts: dict[str, int], fraction: float) -> None:
    pairs = pairs_of(**counts)
    support, query = split_pairs(pairs, Protocol(support_fraction=fraction))
    assert sorted((*support, *query)) == sorted(pairs)
    sizes = Counter(answer for _, answer in support)
    assert {answer: sizes[answer] for answer in counts} == {a: round(fraction * n) for a, n in counts.items()}


def test_support_does_not_depend_on_other_answers() -> None:
    alone, _ = split_pairs(pairs_of(red=10), RELEASED)
    among, _ = split_pairs(pairs_of(blue=7, red=10, green=4), RELEASED)
    assert [pair for pair in among if pair[1] == "red"] == list(alone)


@settings(max_examples=50)
@given(st.integers(0, 60), st.floats(0, 1), st.sets(st.integers(0, 59)), st.integers(0, 5))
def test_held_out_questions_are_never_training_questions(n: int, fraction: float, held: set[int], seed: int) -> None:
    questions = [f"q{i}" for i in range(n)]
    held_out = {f"q{i}" for i in held if i < n}
    train, test = split_questions(questions, Protocol(train_fraction=fraction, seed=seed), held_out)
    assert sorted(train + test) == sorted(questions)
    assert held_out.isdisjoint(train)
    assert len(train) == min(round(fraction * n), n - len(held_out))


def test_the_task_split_depends_on_the_seed() -> None:
    questions = [f"q{i}" for i in range(50)]
    one, other = (split_questions(questions, Protocol(seed=seed))[0] for seed in (1, 2))
    assert set(one) != set(other)
    assert one == split_questions(iter(questions), Protocol(seed=1))[0]


@settings(max_examples=50)
@given(st.integers(0, 60), st.floats(0, 1), st.integers(0, 9))
def test_validation_is_a_share_of_training(n: int, fraction: float, seed: int) -> None:
    train = [f"q{i}" for i in range(n)]
    kept, validation = split_validation(train, fraction, seed)
    assert len(validation) == round(fraction * n)
    assert sorted(kept + validation, key=train.index) == train
    assert kept == [q for q in train if q in set(kept)]
    assert (kept, validation) == split_validation(train, fraction, seed)


def test_validation_depends_on_the_seed() -> None:
    train = [f"q{i}" for i in range(50)]
    assert split_validation(train, 0.2, 0)[1] != split_validation(train, 0.2, 1)[1]


def world(questions: int = 30, images: int = 200) -> Groups:
    """Questions that share a pool of images, with four answers each."""
    rng = random.Random(7)
    return {
        f"q{i}": [(f"image-{k}", f"answer-{rng.randrange(4)}") for k in sorted(rng.sample(range(images), 120))]
        for i in range(questions)
    }


DISJOINT = Protocol(disjoint_images=True, target_pairs=40)


def images_of(tasks: list[Any]) -> set[str]:
    return {image for task in tasks for image, _ in (*task.support, *task.query)}


def test_disjoint_images_meet_in_no_two_sides() -> None:
    train, test = cut_tasks(world(), DISJOINT)
    assert len(train) == 21 and len(test) == 9
    assert images_of(train).isdisjoint(images_of(test))
    shared_train, shared_test = cut_tasks(world(), Protocol())
    assert not images_of(shared_train).isdisjoint(images_of(shared_test))  # without the option they meet


def test_an_image_side_is_a_function_of_seed_and_image() -> None:
    images = [f"image-{i}" for i in range(2000)]
    sides = [image_side(image, DISJOINT) for image in images]
    shares = [sides.count(side) / len(images) for side in ("train", "validation", "test")]
    assert shares == pytest.approx([0.525, 0.175, 0.3], abs=0.03)
    assert [image_side(image, Protocol(seed=1)) for image in images] != sides
    without = [image_side(image, replace(DISJOINT, validation_images=0)) for image in images]
    assert [side == "test" for side in without] == [side == "test" for side in sides]
    assert "validation" not in without


def test_validation_tasks_have_images_of_their_own() -> None:
    cut = cut_splits(world(), DISJOINT, 0.3)
    assert {split: len(tasks) for split, tasks in cut.items()} == {"train": 15, "validation": 6, "test": 9}
    seen = {split: images_of(tasks) for split, tasks in cut.items()}
    assert seen["train"].isdisjoint(seen["validation"]) and seen["validation"].isdisjoint(seen["test"])
    assert seen["train"].isdisjoint(seen["test"])
    shared = cut_splits(world(), Protocol(), 0.3)  # without the option they meet
    assert not images_of(shared["train"]).isdisjoint(images_of(shared["validation"]))


def test_the_test_tasks_do_not_depend_on_how_validation_tasks_are_taken() -> None:
    assert cut_splits(world(), DISJOINT, 0.3)["test"] == cut_tasks(world(), DISJOINT)[1]


def test_target_pairs_is_about_the_size_of_a_task() -> None:
    train, test = cut_tasks(world(60), Protocol(target_pairs=40))
    sizes = [len(task.support) + len(task.query) for task in (*train, *test)]
    assert min(sizes) >= RELEASED.min_pairs and max(sizes) <= 60
    assert sum(sizes) / len(sizes) == pytest.approx(40, abs=5)
    assert len(set(sizes)) > 10


def test_a_sample_keeps_pairs_of_the_question() -> None:
    groups = world()
    for task in (*(cut := cut_tasks(groups, DISJOINT))[0], *cut[1]):
        assert set((*task.support, *task.query)) <= set(groups[task.question])


def test_answers_of_a_cut_task_are_those_of_its_pairs_in_order_of_appearance() -> None:
    groups = world()
    train, _ = cut_tasks(groups, Protocol())
    for task in train:
        assert task.answers == tuple(dict.fromkeys(answer for _, answer in groups[task.question]))


def test_a_task_does_not_depend_on_the_questions_around_it() -> None:
    """Its images, support and query are functions of seed and question; only the side is shared out among questions."""
    groups = world()
    alone = {task.question: task for task in cut_tasks(groups, DISJOINT)[0]}
    fewer = {question: pairs for question, pairs in groups.items() if question != "q0"}
    again = {task.question: task for task in cut_tasks(fewer, DISJOINT)[0]}
    both = alone.keys() & again.keys()
    assert len(both) > 10
    assert all(alone[question] == again[question] for question in both)


def test_cutting_twice_is_cutting_once() -> None:
    assert cut_tasks(world(), DISJOINT, {"q3"}) == cut_tasks(world(), DISJOINT, {"q3"})
