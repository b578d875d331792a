"""The tasks of a dataset as numbers: what a batch needs of them, found without reading the tasks.

``compile_index`` makes the arrays from the tasks once. Those with an entry for each task are in the order of the
splits (training, validation, test), and within one in the order of the file, so that a split is a slice of each.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, overload
from weakref import finalize

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.strict import MOST_BYTES
from metavqa_cli.store.mapped import MappedRows
from metavqa_cli.tasks.taskset import Novelty, Split, Task, read_task

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
SPLITS: tuple[Split, ...] = get_args(Split)
NOVELTIES = ("", *get_args(Novelty))
# One number for each task: where its line begins, how long and the how manieth it is; the row of its question and
# where that is written; where its pairs (support first) and answers begin, and how many they are.
BY_TASK = (
    "line", "line_bytes", "number", "novelty", "question", "text", "text_bytes",
    "pairs", "n_pairs", "n_support", "query", "n_query", "answers", "n_answers",
)  # fmt: skip
# One for each pair (row of the image, answer), for each answer (row of the statement), and the questions' bytes.
ENTRIES = {"image": "i", "label": "i", "statement": "i", "letter": "B"}
KEPT = 4096  # tasks that stay parsed: all of a dataset like Meta-VQA, and 50 MB of a larger one


@dataclass(frozen=True, eq=False)
class Names:
    """The row of each image or text. ``absent`` and ``remedy`` frame an error's sentence."""

    rows: Mapping[str, int]
    absent: str = "there are no features of"
    remedy: str = "build the dataset again with --force"

    def numbers(self, names: Iterable[str]) -> list[int]:
        """The rows of ``names``. ``JobError`` for a name without one."""
        try:
            return [self.rows[name] for name in names]
        except KeyError as missing:
            raise JobError(f"{self.absent} {missing}; {self.remedy}") from None


Place = tuple[int, int]  # the byte at which a line begins, and how many it has


def compile_index(
    tasks: Iterable[tuple[Place, Task]], images: Names, texts: Names
) -> "tuple[dict[str, np.ndarray], dict[Split, int]]":
    """The arrays of ``BY_TASK`` (int64) and ``ENTRIES`` (int32, uint8), and how many tasks each split has.

    Takes the tasks one at a time; ``JobError`` when an image or text has no row.
    """
    import numpy as np

    kinds = dict.fromkeys(BY_TASK, "q") | ENTRIES
    made: dict[str, Any] = {name: array(kind) for name, kind in kinds.items()}
    splits = array("B")
    for number, (place, task) in enumerate(tasks):
        splits.append(SPLITS.index(task.split))
        for name, value in _numbers(number, place, task, made, images, texts).items():
            made[name].append(value)
    arrays = {name: np.frombuffer(each, each.typecode) if len(each) else np.zeros(0, each.typecode)
              for name, each in made.items()}  # fmt: skip
    split = np.frombuffer(splits, np.uint8) if len(splits) else np.zeros(0, np.uint8)
    order = np.argsort(split, kind="stable")
    counts = np.bincount(split, minlength=len(SPLITS)).tolist()
    arrays = {name: each[order] if name in BY_TASK else each for name, each in arrays.items()}
    return arrays, dict(zip(SPLITS, counts, strict=True))


def _numbers(
    number: int, place: Place, task: Task, made: dict[str, Any], images: Names, texts: Names
) -> dict[str, int]:
    """The task's numbers; its entries are added to those that are made."""
    pairs, letters = (*task.support, *task.query), task.question.encode()
    begins = {"text": len(made["letter"]), "pairs": len(made["image"]), "answers": len(made["statement"])}
    made["image"].extend(images.numbers(image for image, _ in pairs))
    made["label"].extend([label for _, label in pairs])
    made["statement"].extend(texts.numbers(task.statements))
    made["letter"].frombytes(letters)
    n_support, n_query = len(task.support), len(task.query)
    return begins | {
        "line": place[0], "line_bytes": place[1], "number": number,
        "novelty": NOVELTIES.index(task.novelty or ""),
        "question": texts.numbers([task.question])[0], "text_bytes": len(letters),
        "n_pairs": len(pairs), "n_support": n_support, "query": begins["pairs"] + n_support, "n_query": n_query,
        "n_answers": len(task.answers),
    }  # fmt: skip


@dataclass(frozen=True, eq=False)
class TaskIndex:
    """The arrays of ``compile_index``, in memory or on the disk, and how many tasks each split has."""

    arrays: Mapping[str, MappedRows]
    counts: Mapping[Split, int]

    @staticmethod
    def of(arrays: "Mapping[str, np.ndarray]", counts: Mapping[Split, int]) -> "TaskIndex":
        """Of arrays that are in memory."""
        return TaskIndex({name: MappedRows([each]) for name, each in arrays.items()}, counts)

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.arrays.values())

    def rows(self, split: Split) -> range:
        """Which entries of the arrays by task are those of ``split``."""
        ends = list(accumulate(self.counts[each] for each in SPLITS))
        place = SPLITS.index(split)
        return range(ends[place] - self.counts[split], ends[place])

    @cached_property
    def in_file(self) -> "np.ndarray":
        """The entry of each task in the order of the file, int64 ``[task]``."""
        import numpy as np

        return np.argsort(self.arrays["number"].whole())

    def question(self, row: int) -> str:
        """The question of the task at ``row``."""
        start, size = (int(self.arrays[name].between(row, row + 1)[0]) for name in ("text", "text_bytes"))
        try:
            return self.arrays["letter"].between(start, start + size).tobytes().decode()
        except UnicodeDecodeError:
            raise JobError("the index of the tasks is damaged; build the dataset again with --force") from None


class Chosen(Sequence[T]):
    """What is at ``rows`` of something, each read when asked for."""

    def __init__(self, read: Callable[[int], T], rows: "range | np.ndarray") -> None:
        self._read, self.rows = read, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> "Chosen[T]": ...
    def __getitem__(self, place: int | slice) -> "T | Chosen[T]":
        return self._of(self.rows[place]) if isinstance(place, slice) else self._read(int(self.rows[place]))

    def __iter__(self) -> Iterator[T]:
        return (self._read(int(row)) for row in self.rows)

    def at(self, places: "np.ndarray") -> "Chosen[T]":
        """What is at ``places``, in that order."""
        return self._of(chosen(self.rows, places))

    def _of(self, rows: "range | np.ndarray") -> "Chosen[T]":
        return Chosen(self._read, rows)


def questions_at(index: TaskIndex, rows: "range | np.ndarray") -> Chosen[str]:
    """The questions of the tasks at ``rows`` of an index."""
    return Chosen(index.question, rows)


def chosen(rows: "range | np.ndarray", places: "np.ndarray") -> "np.ndarray":
    """The entries of ``rows`` at ``places`` (from 0)."""
    if not isinstance(rows, range):
        return rows[places]
    if places.size and not 0 <= places.min() <= places.max() < len(rows):
        raise IndexError(f"places {places.min()} to {places.max()} of {len(rows)}")
    return places + rows.start


class TaskFile:
    """``tasks.jsonl`` with its index: a task is read when it is asked for; ``KEPT`` of them stay.

    The file stays open and is not mapped: one that is shortened meanwhile is a ``JobError`` at the line that is cut.
    """

    def __init__(self, path: Path, index: TaskIndex) -> None:
        self.path, self.index = path, index
        self._file = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._file)
        self._images: dict[str, str] = {}  # each is named by one string in all tasks
        self.task = lru_cache(KEPT)(self._task)

    def _task(self, row: int) -> Task:
        start, size, number = (
            int(self.index.arrays[name].between(row, row + 1)[0]) for name in ("line", "line_bytes", "number")
        )
        if start < 0 or not 0 < size <= MOST_BYTES:
            raise JobError(f"the index of {self.path} is damaged; build the dataset again with --force")
        return read_task(self.path, number + 1, os.pread(self._file, size, start), self._images)


class IndexedTasks(Chosen[Task]):
    """Tasks of a ``TaskFile``, those at ``rows`` of its index; equal to the same tasks in memory."""

    def __init__(self, file: TaskFile, rows: "range | np.ndarray") -> None:
        super().__init__(file.task, rows)
        self.file = file

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(own == theirs for own, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _of(self, rows: "range | np.ndarray") -> "IndexedTasks":
        return IndexedTasks(self.file, rows)

    def of(self, split: Split) -> "IndexedTasks":
        """Those of ``split``, of all tasks of the file."""
        return IndexedTasks(self.file, self.file.index.rows(split))
