"""Many tasks of unequal size as one set of padded tensors with masks."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """Examples and answers of a batch of tasks.

    Rows are padded at the end with zeros; the masks are true for what is real. ``x`` are unit-norm CLIP image
    embeddings, ``answers`` the unit-norm CLIP text embeddings of each task's answers, and ``labels`` index ``answers``.
    """

    x: Float[Tensor, "task example embed"]
    labels: Int64[Tensor, "task example"]
    example_mask: Bool[Tensor, "task example"]
    answers: Float[Tensor, "task answer embed"]
    answer_mask: Bool[Tensor, "task answer"]

    @property
    def n_tasks(self) -> int:
        return self.x.shape[0]

    def select(self, indices: Int64[Tensor, " selected"]) -> "TaskBatch":
        """The tasks at ``indices``, in that order, padded no further than the largest of them needs."""
        n_examples, n_answers = _width(self.example_mask[indices]), _width(self.answer_mask[indices])
        return TaskBatch(
            x=self.x[:, :n_examples][indices],
            labels=self.labels[:, :n_examples][indices],
            example_mask=self.example_mask[:, :n_examples][indices],
            answers=self.answers[:, :n_answers][indices],
            answer_mask=self.answer_mask[:, :n_answers][indices],
        )

    def to(self, device: torch.device | str) -> "TaskBatch":
        """The same batch on another device."""
        return TaskBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def _width(mask: Bool[Tensor, "task column"]) -> int:
    """One past the last column that is real in any row."""
    columns = mask.any(dim=0).nonzero()
    return int(columns.max()) + 1 if len(columns) else 0
