"""Tasks as tensors: every split of a dataset, padded once, ready for batches of any tasks."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.taskset import Example, Task

Lookup = Callable[[Sequence[str]], np.ndarray]  # ids or texts -> float32 [n, E]


@dataclass(frozen=True, eq=False)
class Arena:
    """The tasks of one split with their question embeddings ``e`` [task, E]. ``pairs`` holds support, then query."""

    tasks: tuple[Task, ...]
    e: Float[Tensor, "task embed"]
    pairs: TaskBatch
    support: TaskBatch
    query: TaskBatch

    def __len__(self) -> int:
        return len(self.tasks)

    def select(self, indices: Int64[Tensor, " selected"]) -> "Arena":
        """The tasks at ``indices``, in that order."""
        parts = {name: getattr(self, name).select(indices) for name in ("pairs", "support", "query")}
        return Arena(tuple(self.tasks[i] for i in indices.tolist()), self.e[indices], **parts)

    def random_support(self, seed: int, fraction: float = 0.7) -> tuple[TaskBatch, TaskBatch]:
        """All pairs of each task divided at random; a task's division depends on ``seed`` and its question alone."""
        mask = self.pairs.example_mask
        scores = torch.stack([
            torch.rand(mask.shape[1], generator=torch.Generator().manual_seed(task_seed(seed, task.question)))
            for task in self.tasks
        ]).to(mask.device)  # fmt: skip
        order = scores.masked_fill(~mask, 2.0).argsort(dim=1, stable=True).argsort(1)
        chosen = (order < (mask.sum(1, keepdim=True) * fraction).round()) & mask
        return replace(self.pairs, example_mask=chosen), replace(self.pairs, example_mask=mask & ~chosen)


def task_seed(seed: int, question: str) -> int:
    """A seed for one question, the same in any batch, order and process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{question}".encode()).digest()[:6], "big")


def make_arena(tasks: Sequence[Task], images: Lookup, texts: Lookup, device: torch.device) -> Arena:
    """Pad ``tasks`` into tensors on ``device``. ``images`` and ``texts`` look up unit-norm embeddings."""
    answers, answer_mask = _pad([texts(task.statements) for task in tasks])
    e = texts([task.question for task in tasks])

    def batch(examples_of: Callable[[Task], tuple[Example, ...]]) -> TaskBatch:
        x, mask = _pad([images([image for image, _ in examples_of(task)]) for task in tasks])
        labels = np.zeros(mask.shape, np.int64)
        for row, task in enumerate(tasks):
            labels[row, : len(examples_of(task))] = [label for _, label in examples_of(task)]
        arrays = (x, labels, mask, answers, answer_mask)
        return TaskBatch(*(torch.from_numpy(array).to(device) for array in arrays))

    return Arena(
        tasks=tuple(tasks),
        e=torch.from_numpy(e).to(device),
        pairs=batch(lambda task: (*task.support, *task.query)),
        support=batch(lambda task: task.support),
        query=batch(lambda task: task.query),
    )


def _pad(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """[n_i, E] arrays as one zero-padded [task, max n, E] array and its mask."""
    width, embed = max(len(row) for row in rows), rows[0].shape[1]
    padded = np.zeros((len(rows), width, embed), np.float32)
    mask = np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        padded[i, : len(row)], mask[i, : len(row)] = row, True
    return padded, mask
