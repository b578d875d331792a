"""What the readers share: which questions are wanted, and from grouped questions to tasks."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.tasks.protocol import (
    CutTask,
    Groups,
    Protocol,
    cut_tasks,
    filter_groups,
    frequent_pairs,
    split_validation,
)
from metavqa_cli.tasks.taskset import Split, Task, TaskSet

Describe = Callable[[CutTask], tuple[str, str]]  # a task's template and family
Funnel = list[tuple[str, int]]  # what was kept at each filter, and how much


def protocol_of(config: Dataset) -> Protocol:
    """The protocol with the configuration's numbers."""
    return Protocol(
        min_pairs=config.smallest,
        min_answers=config.min_answers,
        support_fraction=config.support_fraction,
        train_fraction=config.train_fraction,
        seed=config.seed,
    )


def wanted_questions(config: Dataset) -> Callable[[str], bool]:
    """Whether a question passes ``dataset.match`` and ``dataset.exclude``. ``UsageError`` for a bad expression."""
    match, exclude = (_compiled(field, getattr(config, field)) for field in ("match", "exclude"))
    return cache(lambda question: bool(match.search(question)) and not (config.exclude and exclude.search(question)))


def _compiled(field: str, expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(
            f"dataset.{field} is {expression!r}, which is no regular expression ({error}); mend it"
        ) from None


def make_tasks(groups: Groups, config: Dataset, describe: Describe, before: Funnel) -> TaskSet:
    """Cut ``groups`` by the configured protocol, in the release's order: training and validation tasks, test tasks.

    ``JobError`` with the counts at each filter (``before`` are those of the reader) when no task is left.
    """
    protocol = protocol_of(config)
    train, test = cut_tasks(groups, protocol)
    if not train and not test:
        raise none_left([*before, *_funnel(groups, protocol)])
    split_of = validation_splits([task.question for task in train], config)
    tasks = [_task(task, split_of.get(task.question, "test"), *describe(task)) for task in (*train, *test)]
    return TaskSet(tuple(tasks))


def validation_splits(train: list[str], config: Dataset) -> dict[str, Split]:
    """Which of the training questions train, and which are kept for validation: of several, at least one."""
    share = max(config.validation_fraction, 1 / len(train)) if len(train) > 1 else 0.0
    _, validation = split_validation(train, share, config.seed)
    kept = frozenset(validation)
    return {question: "validation" if question in kept else "train" for question in train}


def _task(cut: CutTask, split: Split, template: str, family: str) -> Task:
    label = {answer: i for i, answer in enumerate(cut.answers)}
    support, query = (tuple((image, label[answer]) for image, answer in pairs) for pairs in (cut.support, cut.query))
    return Task(cut.question, template, cut.answers, support, query, split, family)


def none_left(funnel: Funnel) -> JobError:
    """What to say when the filters left no task."""
    counts = ", ".join(f"{count:,} {what}" for what, count in funnel)
    return JobError(f"no task is left after the filters: {counts}; give more data, or loosen the first that left none")


def _funnel(groups: Groups, protocol: Protocol) -> Funnel:
    """How many questions each filter of the protocol leaves."""
    rest = [(question, frequent_pairs(pairs)) for question, pairs in groups.items()]
    large = [(question, pairs) for question, pairs in rest if len(pairs) >= protocol.min_pairs]
    varied = [(q, pairs) for q, pairs in large if len({answer for _, answer in pairs}) >= protocol.min_answers]
    return [
        ("different questions", len(groups)),
        (
            f"with {protocol.min_pairs} images or more (of answers with two images or more; --min-pairs)",
            len(large),
        ),
        (f"with {protocol.min_answers} such answers or more (--min-answers)", len(varied)),
        ("that offer no choice ('or')", len(filter_groups(dict(varied), protocol))),
    ]


def most_frequent(values: Collection[str] | Sequence[str]) -> str:
    """The most frequent of ``values``, the first of them on a tie; empty when there is none."""
    counts = Counter(value for value in values if value)
    return max(counts, key=counts.__getitem__, default="")
