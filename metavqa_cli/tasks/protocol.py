"""How questions with answers and images become tasks: the protocol of the Meta-VQA release, for every source.

Groups (question -> its (image, answer) pairs) are filtered, split into training and test tasks, and each task's images
into support and query. With the defaults the released task lists and splits come out exactly; the options beyond them
are off by default. Every function is pure and uses only the seeds it is given.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from metavqa_cli.tasks.taskset import Split

Pair = tuple[str, str]  # image, answer
Groups = dict[str, list[Pair]]


@dataclass(frozen=True)
class Protocol:
    """The numbers of the release: more than 20 pairs, two answers, 70/30 support/query and 70/30 tasks, seed 2021."""

    min_pairs: int = 21
    min_answers: int = 2
    support_fraction: float = 0.7
    train_fraction: float = 0.7
    seed: int = 2021
    disjoint_images: bool = False
    validation_images: float = 0.25  # of the training side's, with disjoint images
    target_pairs: int | None = None


@dataclass(frozen=True)
class CutTask:
    """One question with its answers (in order of first appearance) and its support and query pairs."""

    question: str
    answers: tuple[str, ...]
    support: tuple[Pair, ...]
    query: tuple[Pair, ...]


def group_instances(instances: Iterable[tuple[str, str, str]]) -> Groups:
    """(image, question, answer) instances by exact question, keeping the first instance of each image."""
    first: dict[str, dict[str, str]] = {}
    for image, question, answer in instances:
        first.setdefault(question, {}).setdefault(image, answer)
    return {question: list(pairs.items()) for question, pairs in first.items()}


def frequent_pairs(pairs: list[Pair]) -> list[Pair]:
    """The pairs whose answer more than one of them has."""
    counts = Counter(answer for _, answer in pairs)
    return [pair for pair in pairs if counts[pair[1]] > 1]


def filter_groups(groups: Groups, protocol: Protocol) -> Groups:
    """Drop answers with a single image, then questions that are too small or offer a choice ("… or …")."""
    kept = {}
    for question, pairs in groups.items():
        rest = frequent_pairs(pairs)
        answers = {answer for _, answer in rest}
        if len(rest) >= protocol.min_pairs and len(answers) >= protocol.min_answers and "or" not in question.split():
            kept[question] = rest
    return kept


def split_questions(
    questions: Iterable[str], protocol: Protocol, held_out: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Training and test questions. ``held_out`` questions go to the test tasks, however many they are."""
    order = list(questions)
    random.Random(protocol.seed).shuffle(order)
    order.sort(key=lambda question: question in held_out)
    free = sum(question not in held_out for question in order)
    cut = min(round(protocol.train_fraction * len(order)), free)
    return order[:cut], order[cut:]


def split_validation(train: list[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Take a random ``fraction`` of the training questions for validation; the rest keep their order.

    The release has no validation tasks and selects on the test tasks; here epochs and gamma are chosen on these.
    """
    chosen = set(random.Random(f"validation/{seed}").sample(train, round(fraction * len(train))))
    return [q for q in train if q not in chosen], [q for q in train if q in chosen]


def split_pairs(pairs: list[Pair], protocol: Protocol) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Support and query pairs: for each answer a fresh shuffle, the first ``round(0.7 n)`` are support."""
    support: list[Pair] = []
    query: list[Pair] = []
    by_answer: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_answer.setdefault(pair[1], []).append(pair)
    for those in by_answer.values():
        random.Random(protocol.seed).shuffle(those)
        cut = round(protocol.support_fraction * len(those))
        support += those[:cut]
        query += those[cut:]
    return tuple(support), tuple(query)


def cut_tasks(
    groups: Groups, protocol: Protocol, held_out: Collection[str] = ()
) -> tuple[list[CutTask], list[CutTask]]:
    """Training and test tasks from grouped questions.

    With ``disjoint_images`` every image belongs to one side (a function of seed and image alone) and a task keeps only
    the pairs of its own side. With ``target_pairs`` a task keeps a random sample of about that many.
    """
    kept = filter_groups(groups, protocol)
    train, test = split_questions(kept, protocol, held_out)
    sides = (_side(kept, train, protocol, ("train", "validation")), _side(kept, test, protocol, ("test",)))
    cut_train, cut_test = ([_cut(question, pairs, protocol) for question, pairs in side.items()] for side in sides)
    return cut_train, cut_test


def cut_splits(
    groups: Groups, protocol: Protocol, validation_fraction: float, held_out: Collection[str] = ()
) -> dict[Split, list[CutTask]]:
    """Training, validation and test tasks; with ``disjoint_images`` no two of the three share an image.

    Validation tasks on training images would reward remembering images: other wordings of one question have the same
    answers on them.
    """
    kept = filter_groups(groups, protocol)
    train, test = split_questions(kept, protocol, held_out)
    train, validation = split_validation(train, validation_fraction, protocol.seed)
    questions: dict[Split, list[str]] = {"train": train, "validation": validation, "test": test}
    return {
        split: [_cut(question, pairs, protocol) for question, pairs in _side(kept, those, protocol, (split,)).items()]
        for split, those in questions.items()
    }


def _side(groups: Groups, questions: list[str], protocol: Protocol, sides: tuple[Split, ...]) -> Groups:
    chosen = {question: groups[question] for question in questions}
    if protocol.disjoint_images:
        belongs = cache(lambda image: image_side(image, protocol) in sides)
        chosen = {q: [pair for pair in pairs if belongs(pair[0])] for q, pairs in chosen.items()}
    if protocol.target_pairs is not None:
        chosen = {q: _sample(q, pairs, protocol.target_pairs, protocol.seed) for q, pairs in chosen.items()}
    return filter_groups(chosen, protocol) if chosen and (protocol.disjoint_images or protocol.target_pairs) else chosen


def image_side(image: str, protocol: Protocol) -> Split:
    """Whose image it is under ``disjoint_images``."""
    drawn = random.Random(f"image-side/{protocol.seed}/{image}").random() / protocol.train_fraction
    return "test" if drawn >= 1 else "validation" if drawn >= 1 - protocol.validation_images else "train"


def _sample(question: str, pairs: list[Pair], target: int, seed: int) -> list[Pair]:
    """A random sample of about ``target`` pairs (half to one and a half times as many), in their original order."""
    rng = random.Random(f"sample/{seed}/{question}")
    size = rng.randint(target // 2, target + target // 2)
    if len(pairs) <= size:
        return pairs
    return [pairs[i] for i in sorted(rng.sample(range(len(pairs)), size))]


def _cut(question: str, pairs: list[Pair], protocol: Protocol) -> CutTask:
    support, query = split_pairs(pairs, protocol)
    return CutTask(question, tuple(dict.fromkeys(answer for _, answer in pairs)), support, query)
