"""Tasks as tensors: every split of a dataset, its embeddings held once, padded only as far as a batch needs.

Real tasks are very unequal (21 to 1,776 pairs, 2 to 203 answers in Meta-VQA), so a split is never padded as a whole:
examples are rows of one matrix of image embeddings, and batches are gathered from it when they are asked for. Only the
matrix is on the device; sizes and places stay with the host, which thus never waits to know how large a batch is.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metavqa_cli.schema.errors import JobError
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.taskset import Example, Task
from metavqa_cli.tasks.transfer import to_device

TASKS_AT_ONCE = 128  # most tasks of a chunk, and
CELLS_AT_ONCE = 16_384  # most padded examples (50 MB at E = 768): they bound the memory, results do not depend on them
FREE_CELLS = 4_096  # a batch of fewer padded examples is not divided: another call would cost more than the padding
BUCKET_CELLS = 256  # what another bucket must save at least


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Unit-norm embeddings, and the row of each image or text. ``absent`` and ``remedy`` frame an error's sentence."""

    rows: Mapping[str, int]
    matrix: Float[Tensor, "row embed"]
    absent: str = "there are no features of"
    remedy: str = "build the dataset again with --force"

    def index(self, names: Iterable[str]) -> Int64[Tensor, " name"]:
        """The rows of ``names``. ``JobError`` for a name without a row."""
        try:
            rows = [self.rows[name] for name in names]
        except KeyError as missing:
            raise JobError(f"{self.absent} {missing}; {self.remedy}") from None
        return torch.tensor(rows, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of a matrix for each task: those of task i are ``index[starts[i] : starts[i] + counts[i]]``, on the CPU."""

    matrix: Float[Tensor, "row embed"]
    index: Int64[Tensor, " entry"]
    starts: Int64[Tensor, " task"]
    counts: Int64[Tensor, " task"]

    def select(self, indices: Int64[Tensor, " selected"]) -> "Ragged":
        """Those of the tasks at ``indices``; nothing is copied but their places."""
        indices = indices.cpu()
        return replace(self, starts=self.starts[indices], counts=self.counts[indices])

    def entries(self) -> tuple[Int64[Tensor, "task column"], Bool[Tensor, "task column"]]:
        """Places in ``index``, padded to the largest task (with any valid place), and the mask of the real ones."""
        columns = torch.arange(int(self.counts.max()) if len(self.counts) else 0)
        mask = columns < self.counts[:, None]
        return torch.where(mask, self.starts[:, None] + columns, 0), mask

    def padded(self) -> tuple[Float[Tensor, "task column embed"], Bool[Tensor, "task column"]]:
        """The rows as one tensor, zeros where a task has fewer than the largest, and the mask."""
        entries, mask = self.entries()
        places, mask = (to_device(part, self.matrix.device) for part in (self.index[entries], mask))
        return self.matrix[places] * mask[..., None], mask


@dataclass(frozen=True, eq=False)
class Examples:
    """The support, the query or all pairs of some tasks, not padded yet; ``labels`` belong to the entries of ``x``."""

    x: Ragged
    flat_labels: Int64[Tensor, " entry"]
    answers: Ragged

    @property
    def n_tasks(self) -> int:
        return len(self.x.starts)

    @property
    def example_mask(self) -> Bool[Tensor, "task example"]:
        """True for the real examples, as in the padded batch."""
        return to_device(self.x.entries()[1], self.x.matrix.device)

    @property
    def labels(self) -> Int64[Tensor, "task example"]:
        """As in the padded batch: zeros where a task has fewer examples than the largest."""
        entries, mask = self.x.entries()
        return to_device(self.flat_labels[entries] * mask, self.x.matrix.device)

    def of(self, indices: Int64[Tensor, " selected"]) -> "Examples":
        """Those of the tasks at ``indices``, in that order."""
        return replace(self, x=self.x.select(indices), answers=self.answers.select(indices))

    def select(self, indices: Int64[Tensor, " selected"]) -> TaskBatch:
        """The padded batch of the tasks at ``indices``, no wider than the largest of them needs."""
        return self.of(indices).padded

    @cached_property
    def padded(self) -> TaskBatch:
        """All of them as one padded batch."""
        (x, mask), (answers, answer_mask) = self.x.padded(), self.answers.padded()
        return TaskBatch(x, self.labels, mask, answers, answer_mask)

    def chunks(self) -> list[Int64[Tensor, " chunk"]]:
        """All tasks in groups of like size whose padded batches fit into the memory; every task is in one of them."""
        counts = self.x.counts.tolist()
        groups: list[list[int]] = [[]]
        for task in sorted(range(len(counts)), key=counts.__getitem__):
            if len(groups[-1]) == TASKS_AT_ONCE or (len(groups[-1]) + 1) * counts[task] > CELLS_AT_ONCE:
                groups.append([])
            groups[-1].append(task)
        return [torch.tensor(group) for group in groups if group]

    def buckets(self, indices: Int64[Tensor, " selected"]) -> list[Int64[Tensor, " bucket"]]:
        """Positions in ``indices``, divided so that batches of the parts pad little: tasks of like size together."""
        return [torch.tensor(part) for part in like_sizes(self.x.counts[indices.cpu()].tolist())]


def like_sizes(sizes: Sequence[int]) -> list[list[int]]:
    """Positions of ``sizes`` in groups: the division of the sorted sizes with the fewest padded cells, each group
    beyond the first counting as ``BUCKET_CELLS`` more. A batch that is small anyway stays whole and in its order."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    if not order or len(sizes) * sizes[order[-1]] <= FREE_CELLS:
        return [list(range(len(sizes)))]
    cost, cut = [0.0], [0]  # of the first n sorted sizes; where their last group begins
    for n in range(1, len(order) + 1):
        widest = sizes[order[n - 1]]
        best = min(range(n), key=lambda first: cost[first] + (n - first) * widest)
        cost.append(cost[best] + (n - best) * widest + BUCKET_CELLS)
        cut.append(best)
    groups, end = [], len(order)
    while end:
        groups.append(sorted(order[cut[end] : end]))
        end = cut[end]
    return groups[::-1]


@dataclass(frozen=True, eq=False)
class Arena:
    """The tasks of one split with their question embeddings ``e`` [task, E]. ``pairs`` holds support, then query."""

    tasks: tuple[Task, ...]
    e: Float[Tensor, "task embed"]
    pairs: Examples
    support: Examples
    query: Examples

    def __len__(self) -> int:
        return len(self.tasks)

    def select(self, indices: Int64[Tensor, " selected"]) -> "Arena":
        """The tasks at ``indices``, in that order."""
        parts = {name: getattr(self, name).of(indices) for name in ("pairs", "support", "query")}
        return Arena(tuple(self.tasks[i] for i in indices.tolist()), self.e[to_device(indices, self.e.device)], **parts)

    def random_support(self, seed: int, fraction: float = 0.7) -> tuple[TaskBatch, TaskBatch]:
        """All pairs of each task divided at random; a task's division depends on ``seed`` and its question alone."""
        pairs = self.pairs.padded
        mask = pairs.example_mask
        scores = to_device(torch.stack([
            torch.rand(mask.shape[1], generator=torch.Generator().manual_seed(task_seed(seed, task.question)))
            for task in self.tasks
        ]), mask.device)  # fmt: skip
        order = scores.masked_fill(~mask, 2.0).argsort(dim=1, stable=True).argsort(1)
        chosen = (order < (mask.sum(1, keepdim=True) * fraction).round()) & mask
        return replace(pairs, example_mask=chosen), replace(pairs, example_mask=mask & ~chosen)


def task_seed(seed: int, question: str) -> int:
    """A seed for one question, the same in any batch, order and process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{question}".encode()).digest()[:6], "big")


def make_arena(tasks: Sequence[Task], images: Embeddings, texts: Embeddings) -> Arena:
    """``tasks`` as tensors that refer to the matrices of ``images`` and ``texts``, on their device."""
    examples: list[list[Example]] = [[*task.support, *task.query] for task in tasks]
    n_support = torch.tensor([len(task.support) for task in tasks], dtype=torch.int64)
    labels = torch.tensor([label for those in examples for _, label in those], dtype=torch.int64)
    pairs = _ragged([[image for image, _ in those] for those in examples], images)
    answers = _ragged([task.statements for task in tasks], texts)
    support = replace(pairs, counts=n_support)
    query = replace(pairs, starts=pairs.starts + n_support, counts=pairs.counts - n_support)
    e = texts.matrix[texts.index(task.question for task in tasks).to(texts.matrix.device)]
    return Arena(tuple(tasks), e, *(Examples(part, labels, answers) for part in (pairs, support, query)))


def _ragged(names: Sequence[Sequence[str]], found: Embeddings) -> Ragged:
    index = found.index(name for those in names for name in those)
    counts = [len(those) for those in names]
    starts = [0, *accumulate(counts)][:-1]
    sizes = (torch.tensor(part, dtype=torch.int64) for part in (starts, counts))
    return Ragged(found.matrix, index, *sizes)
