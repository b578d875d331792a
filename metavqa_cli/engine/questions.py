"""Which training questions conditional parts may read, and how they see them."""

import torch
from torch import Tensor

from metavqa_cli.engine.loop import batch_indices
from metavqa_cli.generator.layers import normal_like
from metavqa_cli.guidance.hyperldm import QuestionWhitener
from metavqa_cli.schema.config import Questions
from metavqa_cli.tasks.arena import Arena, task_seed
from metavqa_cli.tasks.transfer import to_device


def described_tasks(arena: Arena, share: float) -> Tensor:
    """Rows [known] of the tasks whose question is known, in order: a fixed random part, and a smaller share's subset.

    They (on the CPU) depend on the questions alone, so that every method, seed and machine hides the same ones. At
    least one is kept.
    """
    drawn = torch.tensor([task_seed(0, f"described/{question}") for question in arena.questions])
    kept = drawn.argsort(stable=True)[: max(1, round(share * len(arena)))]
    return kept.sort().values


def whitener_of(e: Tensor, settings: Questions) -> QuestionWhitener:
    """Fitted to the known training questions e [known, E]; without ``questions.whiten`` it changes nothing."""
    if settings.whiten:
        return QuestionWhitener.fit(e, settings.floor)
    return QuestionWhitener(torch.zeros_like(e[0]), torch.eye(e.shape[1], dtype=e.dtype, device=e.device))


class KnownQuestions:
    """The described training tasks (``rows`` [known]) and their questions ``e`` [known, E], whitened.

    The embeddings of the other tasks are never read.
    """

    def __init__(self, arena: Arena, settings: Questions) -> None:
        self.rows = described_tasks(arena, settings.descriptors)
        e = arena.select(self.rows).e
        self.whitener = whitener_of(e, settings)
        self.e = self.whitener(e)
        self.noise = settings.noise

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, size: int, step: int, seed: int) -> Tensor:
        """Which of the known [batch] (on the CPU) are in the batch of ``step``."""
        return batch_indices(len(self), size, step, seed)

    def batch(self, size: int, step: int, seed: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which of the known [batch] (on the CPU) are in the batch of ``step``; their noisy questions [batch, E]."""
        chosen = self.chosen(size, step, seed)
        return chosen, self.noisy(self.e[to_device(chosen, self.e.device)], generator)

    def noisy(self, e: Tensor, generator: torch.Generator) -> Tensor:
        """Questions with noise whose length is ``questions.noise`` times theirs on average."""
        if not self.noise:
            return e
        return e + self.noise * e.shape[1] ** -0.5 * normal_like(e, generator)
