"""What trainings and evaluations have in common: the base network of a dataset, accuracies, and a training's plan."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.diagnosis import NotFinite
from metavqa_cli.engine.loop import Plan
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.schema.config import Config
from metavqa_cli.tasks.arena import Examples
from metavqa_cli.tasks.batches import TaskBatch

WEIGHTS_AT_ONCE = 2**22  # 16 MB of one vector a task: copied into memory that the process has, and little padding
VALIDATIONS = 12  # measurements on the validation tasks in the course of a training


def layout_of(session: Session) -> WeightLayout:
    """The base network for the dataset's encoder."""
    encoder = open_dataset(session.workspace, session.config.dataset.name).manifest["encoder"]
    return WeightLayout(encoder["embed"], session.config.base_network.hidden)


def parts_of(examples: Examples, params: int | None = None) -> list[Tensor]:
    """All tasks in parts of like size, a bounded number in each: no batch that is worked on is larger.

    With ``params`` weights of each task, also no more than ``WEIGHTS_AT_ONCE`` weights, except on a GPU, where more
    launches cost more than padding.
    """
    chunks = examples.chunks()
    if params is None or examples.x.matrix.device.type == "cuda":
        return chunks
    return [part for chunk in chunks for part in chunk.split(max(1, WEIGHTS_AT_ONCE // params))]


def by_task(examples: Examples, measure: Callable[[TaskBatch, Tensor], Tensor], params: int | None = None) -> Tensor:
    """``measure(batch, rows)`` [task, ...] for all tasks, part by part (``parts_of``), in their order."""
    return here().by_parts(parts_of(examples, params), lambda rows: measure(examples.select(rows), rows))


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
    """Top-1 accuracy of each task, 0 to 1; ``weights`` [task, P] or one row [1, P] for all.

    ``NotFinite`` when answers are NaN.
    """

    def measure(batch: TaskBatch, rows: Tensor) -> Tensor:
        those = weights[rows] if len(weights) > 1 else weights.expand(len(rows), -1)
        return batch_accuracies(layout, those, batch, logit_scale)

    found = by_task(examples, measure, weights.shape[1])
    if bad := int(found.isnan().sum()):
        text = f"the classifiers of {bad} of {len(found)} tasks answer with NaN: their weights have grown out of bounds"
        raise here().common(NotFinite(text))
    return found


@torch.no_grad()
def batch_accuracies(layout: WeightLayout, weights: Tensor, batch: TaskBatch, logit_scale: float) -> Tensor:
    """Top-1 accuracy of each task of a padded batch, 0 to 1, or NaN where answers are NaN; ``weights`` [task, P]."""
    logits = answer_logits(layout, weights, batch, logit_scale)
    found = task_accuracy(logits, batch.labels, batch.example_mask)
    return torch.where(logits.isnan().flatten(1).any(1), torch.nan, found)


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
