"""Tasks as tensors: every split of a dataset, its embeddings held once, padded only as far as a batch needs.

Real tasks are very unequal (21 to 1,776 pairs, 2 to 203 answers in Meta-VQA), so a split is never padded as a whole:
examples are rows of one matrix of image embeddings, and batches are gathered from it when they are asked for. Only the
matrix is on the device; sizes and places stay with the host, which thus never waits to know how large a batch is. What
is large stays on the disk (``Mapped``): a batch costs the same memory and time whatever it is drawn from.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metavqa_cli.store.mapped import MappedRows
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.index import (
    BY_TASK,
    NOVELTIES,
    Chosen,
    Names,
    TaskIndex,
    compile_index,
    questions_at,
)
from metavqa_cli.tasks.taskset import Split, Task
from metavqa_cli.tasks.transfer import to_device

TASKS_AT_ONCE = 128  # most tasks of a chunk, and
CELLS_AT_ONCE = 16_384  # most padded examples (50 MB at E = 768): they bound the memory, results do not depend on them
BUCKET_VALUES = 32_768  # coordinates of padded examples that another bucket must save at least: 256 examples at E = 128
BUCKET_CELLS_ON_GPU = 32_768  # padded examples, there: 600 launches a bucket of MAML take 3 ms, an example 0.04 µs
WORTH = 16  # a batch of so many times fewer is not divided at all


class Mapped:
    """Rows on the disk (or in the memory of the CPU) that are read when asked for, and given on ``device``.

    Integers come as int64, embeddings as float32.
    """

    def __init__(self, rows: MappedRows, device: torch.device | str = "cpu") -> None:
        self.rows, self.device = rows, torch.device(device)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.rows.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Int64[Tensor, "*shape"]) -> Tensor:
        """The rows at ``places``, ``[*shape, ...]``. ``IndexError`` for one that is not there."""
        found = self._tensor(self.rows.take(places.cpu().numpy().reshape(-1)))
        return found.view(*places.shape, *self.shape[1:])

    def masked(self, places: Int64[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Tensor:
        """The rows at ``places`` where ``mask`` is true, and zeros elsewhere, ``[*shape, ...]``; copied once."""
        found = np.zeros((places.numel(), *self.shape[1:]), np.float32)
        real = mask.cpu().numpy().reshape(-1).nonzero()[0]
        self.rows.fill(found, real, places.cpu().numpy().reshape(-1)[real])
        return to_device(torch.from_numpy(found).view(*places.shape, *self.shape[1:]), self.device)

    def whole(self) -> Tensor:
        """All rows."""
        return self._tensor(self.rows.whole())

    def _tensor(self, found: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(found if found.dtype == np.float32 else found.astype(np.int64)), self.device)


Table = Tensor | Mapped  # [row, ...]


def whole(table: Table) -> Tensor:
    """All rows of a table."""
    return table if isinstance(table, Tensor) else table.whole()


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Unit-norm embeddings, and the row of each image or text. ``absent`` and ``remedy`` frame an error's sentence."""

    rows: Mapping[str, int]
    matrix: Float[Tensor, "row embed"] | Mapped
    absent: str = "there are no features of"
    remedy: str = "build the dataset again with --force"

    @property
    def names(self) -> Names:
        return Names(self.rows, self.absent, self.remedy)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of a matrix for each task: those of task i are ``index[starts[i] : starts[i] + counts[i]]``.

    ``index`` [entry], ``starts`` [task] and ``counts`` [task] are integers on the CPU.
    """

    matrix: Float[Tensor, "row embed"] | Mapped
    index: Table
    starts: Table
    counts: Table

    @property
    def sizes(self) -> Int64[Tensor, " task"]:
        """``counts``, in memory."""
        return whole(self.counts)

    def select(self, indices: Int64[Tensor, " selected"]) -> "Ragged":
        """Those of the tasks at ``indices``; nothing is copied but their places."""
        indices = indices.cpu()
        return replace(self, starts=self.starts[indices], counts=self.counts[indices])

    def entries(self) -> tuple[Int64[Tensor, "task column"], Bool[Tensor, "task column"]]:
        """Places in ``index``, padded to the largest task (with any valid place), and the mask of the real ones."""
        starts, counts = whole(self.starts), self.sizes
        columns = torch.arange(int(counts.max()) if len(counts) else 0)
        mask = columns < counts[:, None]
        return torch.where(mask, starts[:, None] + columns, 0), mask

    def padded(self) -> tuple[Float[Tensor, "task column embed"], Bool[Tensor, "task column"]]:
        """The rows as one tensor, zeros where a task has fewer than the largest, and the mask; where the matrix is."""
        entries, mask = self.entries()
        places, on_device = self.index[entries], to_device(mask, self.matrix.device)
        if isinstance(self.matrix, Mapped):
            return self.matrix.masked(places, mask), on_device
        return self.matrix[to_device(places, self.matrix.device)] * on_device[..., None], on_device


@dataclass(frozen=True, eq=False)
class Examples:
    """The support, the query or all pairs of some tasks, not padded yet; ``labels`` belong to the entries of ``x``."""

    x: Ragged
    flat_labels: Table
    answers: Ragged

    @property
    def device(self) -> torch.device:
        return self.x.matrix.device

    @property
    def n_tasks(self) -> int:
        return len(self.x.starts)

    @property
    def example_mask(self) -> Bool[Tensor, "task example"]:
        """True for the real examples, as in the padded batch."""
        return to_device(self.x.entries()[1], self.device)

    @property
    def labels(self) -> Int64[Tensor, "task example"]:
        """As in the padded batch: zeros where a task has fewer examples than the largest."""
        entries, mask = self.x.entries()
        return to_device(self.flat_labels[entries] * mask, self.device)

    def of(self, indices: Int64[Tensor, " selected"]) -> "Examples":
        """Those of the tasks at ``indices``, in that order."""
        return replace(self, x=self.x.select(indices), answers=self.answers.select(indices))

    def only(self, places: Int64[Tensor, "task column"], chosen: Bool[Tensor, "task column"]) -> "Examples":
        """Of each task the pairs that are ``chosen`` among those at ``places`` (of ``x.entries``), in their order."""
        kept, counts = places[chosen], chosen.sum(1)
        x = replace(self.x, index=self.x.index[kept], starts=counts.cumsum(0) - counts, counts=counts)
        return replace(self, x=x, flat_labels=self.flat_labels[kept])

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
        sizes = self.x.sizes
        order = sizes.argsort(stable=True)
        ordered, groups, first = sizes[order].numpy(), [], 0
        while first < len(ordered):
            cells = ordered[first : first + TASKS_AT_ONCE]
            fitting = int((cells * np.arange(1, len(cells) + 1) <= CELLS_AT_ONCE).sum())  # they grow: the first ones
            groups.append(max(1, fitting))
            first += groups[-1]
        return list(order.split(groups)) if groups else []

    def buckets(self, indices: Int64[Tensor, " selected"]) -> list[Int64[Tensor, " bucket"]]:
        """Positions in ``indices``, divided so that batches of the parts pad little: tasks of like size together."""
        on_gpu = self.x.matrix.device.type == "cuda"
        each = BUCKET_CELLS_ON_GPU if on_gpu else BUCKET_VALUES // self.x.matrix.shape[1]
        return [torch.tensor(part) for part in like_sizes(self.x.counts[indices.cpu()].tolist(), each)]


def like_sizes(sizes: Sequence[int], bucket_cells: int) -> list[list[int]]:
    """Positions of ``sizes`` in groups: the division of the sorted sizes with the fewest padded cells, each group
    beyond the first counting as ``bucket_cells`` more. A batch that is small anyway stays whole and in its order."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    if not order or len(sizes) * sizes[order[-1]] <= WORTH * bucket_cells:
        return [list(range(len(sizes)))]
    cost, cut = [0.0], [0]  # of the first n sorted sizes; where their last group begins
    for n in range(1, len(order) + 1):
        widest = sizes[order[n - 1]]
        best = min(range(n), key=lambda first: cost[first] + (n - first) * widest)
        cost.append(cost[best] + (n - best) * widest + bucket_cells)
        cut.append(best)
    groups, end = [], len(order)
    while end:
        groups.append(sorted(order[cut[end] : end]))
        end = cut[end]
    return groups[::-1]


@dataclass(frozen=True, eq=False)
class Arena:
    """The tasks of one split: row ``asked[i]`` of ``texts`` is the embedding of question i, whose text is in
    ``questions`` and the number of its novelty in ``novelties``. ``pairs`` holds support, then query."""

    tasks: Sequence[Task]
    questions: Sequence[str]
    novelties: Table
    texts: Float[Tensor, "row embed"] | Mapped
    asked: Table
    pairs: Examples
    support: Examples
    query: Examples

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.pairs.device

    @property
    def embed(self) -> int:
        """E, the size of an embedding."""
        return int(self.texts.shape[1])

    @cached_property
    def e(self) -> Float[Tensor, "task embed"]:
        """The embeddings of all questions, gathered when first asked for."""
        asked = whole(self.asked)
        return self.texts[asked] if isinstance(self.texts, Mapped) else self.texts[to_device(asked, self.texts.device)]

    def novelty_names(self) -> list[str]:
        """What is new in each question; "" where that is not known."""
        return [NOVELTIES[code] for code in whole(self.novelties).tolist()]

    def select(self, indices: Int64[Tensor, " selected"]) -> "Arena":
        """The tasks at ``indices``, in that order."""
        parts = {name: getattr(self, name).of(indices) for name in ("pairs", "support", "query")}
        places = indices.cpu()
        return Arena(
            _at(self.tasks, indices), _at(self.questions, indices), self.novelties[places], self.texts,
            self.asked[places], **parts,
        )  # fmt: skip

    def asking(self, e: Float[Tensor, "task embed"]) -> "Arena":
        """The same tasks with other embeddings in place of their questions'."""
        return replace(self, texts=e, asked=torch.arange(len(self)))

    def random_support(self, seed: int, fraction: float = 0.7) -> tuple[TaskBatch, TaskBatch]:
        """All pairs of each task divided at random; a task's division depends on ``seed`` and its question alone."""
        places, mask = self.pairs.x.entries()
        scores = torch.stack([
            torch.rand(mask.shape[1], generator=torch.Generator().manual_seed(task_seed(seed, question)))
            for question in self.questions
        ])  # fmt: skip
        order = scores.masked_fill(~mask, 2.0).argsort(dim=1, stable=True).argsort(1)
        chosen = (order < (mask.sum(1, keepdim=True) * fraction).round()) & mask
        return self.pairs.only(places, chosen).padded, self.pairs.only(places, mask & ~chosen).padded


def task_seed(seed: int, question: str) -> int:
    """A seed for one question, the same in any batch, order and process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{question}".encode()).digest()[:6], "big")


def make_arena(tasks: Sequence[Task], images: Embeddings, texts: Embeddings) -> Arena:
    """``tasks`` (of one split) as tensors that refer to the matrices of ``images`` and ``texts``, on their device."""
    index = TaskIndex.of(*compile_index((((0, 0), task) for task in tasks), images.names, texts.names))
    (split,) = {task.split for task in tasks} or {"train"}
    return open_arena(index, split, tuple(tasks), images.matrix, texts.matrix, held=True)


def open_arena(
    index: TaskIndex,
    split: Split,
    tasks: Sequence[Task],
    images: Float[Tensor, "image embed"] | Mapped,
    texts: Float[Tensor, "text embed"] | Mapped,
    held: bool,
) -> Arena:
    """The ``tasks`` of ``split``, which ``index`` describes, over the matrices that its rows refer to.

    With ``held`` the index is in memory.
    """
    rows = index.rows(split)

    def table(name: str) -> Table:
        found = Mapped(index.arrays[name].within(rows.start, rows.stop) if name in BY_TASK else index.arrays[name])
        return found.whole() if held else found

    entries = {name: table(name) for name in ("image", "label", "statement")}
    answers = Ragged(texts, entries["statement"], table("answers"), table("n_answers"))
    parts = (
        Examples(Ragged(images, entries["image"], table(starts), table(counts)), entries["label"], answers)
        for starts, counts in (("pairs", "n_pairs"), ("pairs", "n_support"), ("query", "n_query"))
    )
    return Arena(tasks, questions_at(index, rows), table("novelty"), texts, table("question"), *parts)


def _at(items: Sequence[Any], indices: Tensor) -> Sequence[Any]:
    places = indices.cpu().numpy()
    return items.at(places) if isinstance(items, Chosen) else tuple(items[i] for i in places)
