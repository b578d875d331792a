"""The rows of the room Tasks as pure functions: which tasks, in which order, and each as cells of text."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.cells import set_cell_size

from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.filters import Filter, Grammar
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import cut

SPLITS = ("train", "validation", "test")
GRAMMAR = Grammar(
    texts=("question", "family", "split", "novelty", "answer"),
    numbers=("answers", "images", "support", "query", "accuracy"),
    words=("question",),
    aliases={"pairs": "images", "word": "question"},
    whole=("answers", "images", "support", "query"),
    units={"accuracy": ({"": 1, "%": 1}, "50")},
)
LETTERS = "abcdefgh"  # of the methods that are shown
Accuracies = Mapping[int, float]
"""Per cent of the query pairs that a method judged rightly, by the task's place in the file."""


class TaskRow(NamedTuple):
    """A task as the list knows it. ``number`` is its place in the file; ``answer`` are the texts of its answers."""

    number: int
    question: str
    family: str
    split: str
    novelty: str
    answer: tuple[str, ...]
    support: int
    query: int
    accuracy: float | None = None
    """Of the first of the shown methods, in per cent; None where the task was not measured."""

    @property
    def answers(self) -> int:
        return len(self.answer)

    @property
    def images(self) -> int:
        """Pairs of an image and an answer, support and query."""
        return self.support + self.query


def rows_of(tasks: Sequence[Task]) -> tuple[TaskRow, ...]:
    """The tasks as rows, in file order."""
    return tuple(
        TaskRow(number, task.question, task.family, task.split, task.novelty or "", task.answers, len(task.support),
                len(task.query))
        for number, task in enumerate(tasks)
    )  # fmt: skip


def with_accuracies(rows: Sequence[TaskRow], accuracies: Accuracies) -> tuple[TaskRow, ...]:
    """The rows with what a method got right."""
    return tuple(
        row if row.accuracy == (new := accuracies.get(row.number)) else row._replace(accuracy=new) for row in rows
    )


def families_of(rows: Sequence[TaskRow]) -> tuple[str, ...]:
    """The question families, that with most tasks first; "" (unknown) is left out."""
    counts = Counter(row.family for row in rows if row.family)
    return tuple(sorted(counts, key=lambda family: (-counts[family], family)))


# Which, and in which order


@dataclass(frozen=True)
class Order:
    """``measured``: makes sense only where a method was measured."""

    name: str
    key: Callable[[TaskRow], Any]
    measured: bool = False


ORDERS = (
    Order("file order", lambda row: row.number),
    Order("question", lambda row: (row.question.casefold(), row.number)),
    Order("family", lambda row: (row.family, row.question.casefold(), row.number)),
    # Of equal tasks the one with more query pairs says more; those that were not measured come last.
    Order("best first", lambda row: (row.accuracy is None, -(row.accuracy or 0), -row.query, row.number), True),
    Order("worst first", lambda row: (row.accuracy is None, row.accuracy or 0, -row.query, row.number), True),
)


def next_order(order: Order, measured: bool) -> Order:
    """The one after ``order``; best and worst only where something was measured."""
    possible = [one for one in ORDERS if measured or not one.measured]
    return possible[(possible.index(order) + 1) % len(possible)] if order in possible else possible[0]


def next_of(now: str | None, choices: Sequence[str]) -> str | None:
    """The choice after ``now`` in the round: all (None), then each of ``choices``."""
    around: list[str | None] = [None, *choices]
    return around[(around.index(now) + 1) % len(around)] if now in around else None


@dataclass(frozen=True)
class Arrangement:
    """Which tasks, and in which order; None: of every family or split."""

    wanted: Filter = Filter()  # noqa: RUF009 - frozen
    order: Order = ORDERS[0]
    family: str | None = None
    split: str | None = None

    def of(self, rows: Sequence[TaskRow]) -> list[TaskRow]:
        """The rows that are wanted, in order."""
        kept = [
            row for row in rows
            if self.family in (None, row.family) and self.split in (None, row.split) and self.wanted(row)
        ]  # fmt: skip
        return sorted(kept, key=self.order.key)

    @property
    def words(self) -> str:
        """The order, and the family and split if only those are shown."""
        by = f" by {LETTERS[0]}" if self.order.measured else ""
        parts = (f"{self.order.name}{by}", f"family {self.family}" if self.family else "", self.split or "")
        return " · ".join(part for part in parts if part)


# As cells of text


@dataclass(frozen=True)
class Column:
    """A column of the list: its title, its width in cells, and whether it holds numbers, which stand to the right."""

    title: str
    width: int
    right: bool = False


QUESTION = "question"
# From the most to the least needed, beside the question: what has no room is left out.
WANTED = (Column("split", 5), Column("query", 5, True), Column("family", 13), Column("answers", 7, True),
          Column("images", 6, True))  # fmt: skip
SHOWN = ("split", "family", "answers", "images", "query")
ACCURACY_WIDTH = 6


def columns(width: int, methods: int) -> tuple[Column, ...]:
    """The columns for ``width`` cells, one cell apart: the question, which takes what is left, and as many others as
    leave it enough room; the first methods before all others."""
    letters = [Column(f"{letter} %", ACCURACY_WIDTH, True) for letter in LETTERS[:methods]]
    least = max(22, 2 * width // 5)  # for the question
    taken: list[Column] = []
    for column in [*letters[:1], *WANTED[:3], *letters[1:3], *WANTED[3:], *letters[3:]]:
        if width - sum(one.width + 1 for one in (*taken, column)) >= least:
            taken.append(column)
    others = [column for title in SHOWN for column in taken if column.title == title]
    others += [column for column in letters if column in taken]
    question = max(1, width - sum(one.width + 1 for one in others))
    return (Column(QUESTION, question), *others)


def cells(row: TaskRow, shown: Sequence[Column], methods: Sequence[Accuracies], look: Look) -> list[str]:
    """The task as one text for each column, exactly as wide."""
    found = {
        QUESTION: row.question, "split": row.split[:5], "family": row.family or "-", "answers": str(row.answers),
        "images": str(row.images), "query": str(row.query),
        **{f"{letter} %": per_cent(of.get(row.number)) for letter, of in zip(LETTERS, methods, strict=False)},
    }  # fmt: skip
    return [_cell(found.get(column.title, ""), column, look) for column in shown]


def per_cent(accuracy: float | None) -> str:
    """The number alone, or a dash for a task that was not measured."""
    return "-" if accuracy is None else f"{accuracy:.1f}"


def heading(shown: Sequence[Column], look: Look) -> str:
    """The titles above the columns."""
    return " ".join(_cell(column.title, column, look) for column in shown)


def _cell(text: str, column: Column, look: Look) -> str:
    text = cut(look.text(text), column.width) if column.width > 3 else look.text(text)
    padded = set_cell_size(text, column.width)
    return text.rjust(column.width) if column.right and len(text) < column.width else padded
