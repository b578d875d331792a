"""Small random tasks for the tests of the maths rooms."""

import torch
from torch.nn import functional as F

from metavqa_cli.tasks.batches import TaskBatch


def random_batch(
    sizes: list[int],
    answers: list[int],
    embed: int,
    seed: int = 0,
    padding: int = 0,
    dtype: torch.dtype = torch.float64,
) -> TaskBatch:
    """Tasks with ``sizes`` examples and ``answers`` answers each; ``padding`` more columns than the largest needs."""
    g = torch.Generator().manual_seed(seed)
    n, a = max(sizes) + padding, max(answers) + padding
    example_mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    answer_mask = torch.arange(a) < torch.tensor(answers)[:, None]
    labels = torch.zeros(len(sizes), n, dtype=torch.int64)
    x = torch.zeros(len(sizes), n, embed, dtype=dtype)
    answer_embeddings = torch.zeros(len(sizes), a, embed, dtype=dtype)
    for i, (size, count) in enumerate(zip(sizes, answers, strict=True)):
        x[i, :size] = F.normalize(torch.randn(size, embed, generator=g, dtype=dtype), dim=-1)
        answer_embeddings[i, :count] = F.normalize(torch.randn(count, embed, generator=g, dtype=dtype), dim=-1)
        labels[i, :size] = torch.randint(0, count, (size,), generator=g)
    return TaskBatch(x, labels, example_mask, answer_embeddings, answer_mask)


def random_weights(n_tasks: int, size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n_tasks, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
