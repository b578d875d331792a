"""Tasks as values: one question with its answers, its images, and where it stands in the splits."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.schema.strict import parse_line
from metavqa_cli.store.atomic import write_text
from metavqa_cli.tasks.prompts import check_template, fill

Split = Literal["train", "validation", "test"]
Novelty = Literal["wording", "combination", "family"]
Example = tuple[str, int]  # image id, index into the answers


@dataclass(frozen=True)
class Task:
    """T_i: a question, its answers, and its (image, answer) examples.

    ``template`` turns an answer into the statement that is compared with images. ``family`` and ``novelty`` (test tasks
    only: what is new in the question) are empty where the source does not know them.
    """

    question: str
    template: str
    answers: tuple[str, ...]
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    split: Split
    family: str = ""
    novelty: Novelty | None = None

    @cached_property
    def statements(self) -> list[str]:
        """The template completed with each answer."""
        return [fill(self.template, answer) for answer in self.answers]


@runtime_checkable
class Divided(Protocol):
    """Tasks that know their splits without being read."""

    def of(self, split: Split) -> Sequence[Task]:
        """Those of ``split``."""
        ...


@dataclass(frozen=True)
class TaskSet:
    """All tasks of a dataset, in file order: in memory, or each read when asked for (``IndexedTasks``)."""

    tasks: Sequence[Task]

    def of(self, split: Split) -> Sequence[Task]:
        """The tasks of ``split``, in file order."""
        if isinstance(self.tasks, Divided):
            return self.tasks.of(split)
        return [task for task in self.tasks if task.split == split]

    def image_ids(self) -> list[str]:
        """Every image that a task uses, sorted."""
        return sorted({image for task in self.tasks for image, _ in (*task.support, *task.query)})

    def texts(self) -> list[str]:
        """Every question and statement, each once, in order of appearance."""
        return list(dict.fromkeys(text for task in self.tasks for text in (task.question, *task.statements)))

    def summary(self) -> dict[str, Any]:
        """The counts that describe a dataset; accuracies of the two trivial guesses in per cent over the test tasks."""
        tasks, test = self.tasks, self.of("test")
        pairs = sum(len(t.support) + len(t.query) for t in tasks)
        sides = [
            {i for t in self.tasks if (t.split == "test") == side for i, _ in (*t.support, *t.query)} for side in (0, 1)
        ]
        return {
            "tasks": len(tasks),
            **{split: len(self.of(split)) for split in ("train", "validation", "test")},
            "meta_train": len(tasks) - len(test),  # with the validation tasks: the release's two parts
            "meta_test": len(test),
            "pairs": pairs,
            "images": len(self.image_ids()),
            "images_shared_by_train_and_test": len(sides[0] & sides[1]),
            "families": len({t.family for t in tasks if t.family}),
            "answers_per_task": _mean(len(t.answers) for t in tasks),
            "pairs_per_task": round(pairs / max(1, len(tasks)), 2),
            "support_per_task": _mean(len(t.support) for t in tasks),
            "query_per_task": _mean(len(t.query) for t in tasks),
            "chance": round(100 * _mean(1 / len(t.answers) for t in test), 2),
            "majority": round(100 * _mean(_majority(t) for t in test), 2),
            "novelty": dict(sorted(Counter(t.novelty for t in test if t.novelty).items())),
        }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 4) if numbers else 0.0


def _majority(task: Task) -> float:
    """Accuracy on the query set of always giving the support set's most frequent answer."""
    counts = Counter(label for _, label in task.support)
    best = max(counts, key=counts.__getitem__, default=None)
    return sum(label == best for _, label in task.query) / max(1, len(task.query))


def dump_tasks(path: Path, tasks: TaskSet) -> None:
    """One JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(asdict(task), ensure_ascii=False) + "\n" for task in tasks.tasks))


def load_tasks(path: Path, examples: bool = True) -> TaskSet:
    """Read ``dump_tasks``'s file whole. Errors as ``read_tasks``.

    Without ``examples`` support and query of every task are empty, and reading takes a tenth of the time.
    """
    ids: dict[str, str] = {}  # an image of many tasks is named by one string: a third of the memory
    return TaskSet(tuple(task for _, task in read_tasks(path, ids, examples)))


def read_tasks(
    path: Path, ids: dict[str, str] | None = None, examples: bool = True
) -> Iterator[tuple[tuple[int, int], Task]]:
    """The tasks of ``dump_tasks``'s file one after another, each with its place: where its line begins, and its bytes.

    With ``ids`` (empty at first) an image of many tasks is named by one string in all of them. ``MissingError`` when
    the file is absent, ``JobError`` naming the line when damaged.
    """
    if path.exists() and not path.is_file():
        raise JobError(f"{path} is not a file; build the dataset again with --force")
    try:
        with path.open("rb") as lines:  # of bytes: a question may hold a character at which text would be cut
            begin = 0
            for number, line in enumerate(lines, 1):
                yield (begin, len(line)), read_task(path, number, line, ids, examples)
                begin += len(line)
    except FileNotFoundError:
        raise MissingError(f"{path} is missing; build the dataset again with `metavqa dataset build`") from None


def read_task(path: Path, number: int, line: bytes, ids: dict[str, str] | None = None, examples: bool = True) -> Task:
    """The task of one line. ``ids`` are the names of images so far; ``JobError`` names the line when it is damaged."""
    try:
        record = parse_line(line if examples else _shortened(line))
        if not examples:
            record |= {"support": [], "query": []}
        return _parse(record, {} if ids is None else ids)
    except (ValueError, TypeError, KeyError, UsageError) as error:
        raise JobError(f"{path}, line {number} is damaged ({error}); build the dataset again with --force") from None


def _shortened(line: bytes) -> bytes:
    """The line without its examples, which are not parsed: in JSON no text holds a bare quotation mark.

    A line in which other things may stand between them is left as it is.
    """
    begin, end = line.find(b', "support": ['), line.rfind(b', "split": ')
    only = 0 <= begin < end and line.count(b'": ', begin, end) == 2  # support and query
    return line[:begin] + line[end:] if only else line


def _parse(record: Any, ids: dict[str, str]) -> Task:
    if not isinstance(record, dict):
        raise TypeError("not an object")
    texts = [record["question"], record["template"], record.get("family", ""), *record["answers"]]
    if not isinstance(record["answers"], list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("question, template, family and each of the answers must be text")
    "".join(texts).encode()  # UnicodeEncodeError, a ValueError, for half of a character
    for name, allowed in (("split", get_args(Split)), ("novelty", (None, *get_args(Novelty)))):
        if record.get(name) not in allowed:
            raise ValueError(f"{name} {record.get(name)!r}")
    pairs = {
        key: tuple((ids.setdefault(image, image), label) for image, label in record[key])
        for key in ("support", "query")
    }
    check_template(record["template"])
    answers = tuple(record["answers"])
    examples = (*pairs["support"], *pairs["query"])
    if {type(image) for image, _ in examples} - {str} or {type(label) for _, label in examples} - {int}:
        raise TypeError("an example is not the name of an image and a label")
    if not all(0 <= label < len(answers) for _, label in examples):
        raise ValueError("a label that no answer has")
    return Task(**{**record, **pairs, "answers": answers})
