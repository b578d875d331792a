"""What trainings and evaluations have in common: the base network of a dataset, accuracies, and a training's plan."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.loop import Plan
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.schema.config import Config
from metavqa_cli.tasks.arena import Examples
from metavqa_cli.tasks.batches import TaskBatch

WEIGHTS_AT_ONCE = 2**22  # of given weights, whose rows are copied: 16 MB are memory that the process has, more is new
VALIDATIONS = 12  # measurements on the validation tasks in the course of a training


def layout_of(session: Session) -> WeightLayout:
    """The base network for the dataset's encoder."""
    encoder = open_dataset(session.workspace, session.config.dataset.name).manifest["encoder"]
    return WeightLayout(encoder["embed"], session.config.base_network.hidden)


def by_task(examples: Examples, measure: Callable[[TaskBatch, Tensor], Tensor], at_once: int | None = None) -> Tensor:
    """``measure(batch, rows)`` [task, ...] for all tasks, a bounded number of like size at a time, in their order.

    ``at_once`` bounds the number further.
    """
    chunks = [part for chunk in examples.chunks() for part in chunk.split(at_once or len(chunk))]
    return here().by_parts(chunks, lambda rows: measure(examples.select(rows), rows))


def mean_loss(
    examples: Examples, rows: Tensor, loss_of: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean over the tasks at ``rows``, which ``loss_of(positions in rows)`` gives for a part of them, with metrics;
    of several processes each gets its part of it.

    Tasks of very unequal size are divided into parts of like size, so that they are not padded to the largest.
    """
    share = here().share(len(rows))
    own = rows[share.rows]
    parts = [share.rows.start + part for part in examples.buckets(own)]
    if len(parts) == 1:
        return share.of(*loss_of(parts[0]))
    found = [(len(part) / len(own), *loss_of(part)) for part in parts]
    loss = torch.stack([part * loss for part, loss, _ in found]).sum()
    names = found[0][2]
    metrics = {name: torch.stack([part * those[name] for part, _, those in found]).sum() for name in names}
    return share.of(loss, metrics)


@torch.no_grad()
def accuracies(layout: WeightLayout, weights: Tensor, examples: Examples, logit_scale: float) -> Tensor:
    """Top-1 accuracy of each task, 0 to 1; ``weights`` [task, P] or one row [1, P] for all."""

    def measure(batch: TaskBatch, rows: Tensor) -> Tensor:
        those = weights[rows] if len(weights) > 1 else weights.expand(len(rows), -1)
        return batch_accuracies(layout, those, batch, logit_scale)

    return by_task(examples, measure, max(1, WEIGHTS_AT_ONCE // weights.shape[1]))


@torch.no_grad()
def batch_accuracies(layout: WeightLayout, weights: Tensor, batch: TaskBatch, logit_scale: float) -> Tensor:
    """Top-1 accuracy of each task of a padded batch, 0 to 1; ``weights`` [task, P]."""
    return task_accuracy(answer_logits(layout, weights, batch, logit_scale), batch.labels, batch.example_mask)


def mean_accuracy(layout: WeightLayout, weights: Tensor, examples: Examples, logit_scale: float) -> float:
    """Mean over tasks of the top-1 accuracy, in per cent."""
    return 100 * float(accuracies(layout, weights, examples, logit_scale).mean())


def training_plan(config: Config, n: int, pace: Any, **extra: Any) -> Plan:
    """The plan for ``n`` tasks from a section with ``epochs``, ``batch``, ``lr`` and ``grad_clip``."""
    steps = pace.epochs * -(-n // pace.batch)
    return Plan(
        steps=steps, lr=pace.lr, grad_clip=pace.grad_clip, validate_every=max(1, steps // VALIDATIONS),
        seed=config.seed, tasks_per_step=min(n, pace.batch),
        checkpoint_seconds=config.runtime.checkpoint_seconds, **extra,
    )  # fmt: skip
