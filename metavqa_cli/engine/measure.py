"""What trainings and evaluations have in common: the base network of a dataset, accuracies, and a training's plan."""

from typing import Any

import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.build import open_dataset
from metavqa_cli.engine.loop import Plan
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.config import Config
from metavqa_cli.tasks.batches import TaskBatch

VALIDATIONS = 12  # measurements on the validation tasks in the course of a training


def layout_of(session: Session) -> WeightLayout:
    """The base network for the dataset's encoder."""
    encoder = open_dataset(session.workspace, session.config.dataset.name).manifest["encoder"]
    return WeightLayout(encoder["embed"], session.config.base_network.hidden)


@torch.no_grad()
def accuracies(layout: WeightLayout, weights: Tensor, batch: TaskBatch, logit_scale: float) -> Tensor:
    """Top-1 accuracy of each task, 0 to 1; ``weights`` [task, P] or one row [1, P] for all."""
    expanded = weights.expand(batch.n_tasks, -1)
    return task_accuracy(answer_logits(layout, expanded, batch, logit_scale), batch.labels, batch.example_mask)


def mean_accuracy(layout: WeightLayout, weights: Tensor, batch: TaskBatch, logit_scale: float) -> float:
    """Mean over tasks of the top-1 accuracy, in per cent."""
    return 100 * float(accuracies(layout, weights, batch, logit_scale).mean())


def training_plan(config: Config, n: int, pace: Any, **extra: Any) -> Plan:
    """The plan for ``n`` tasks from a section with ``epochs``, ``batch``, ``lr`` and ``grad_clip``."""
    steps = pace.epochs * -(-n // pace.batch)
    return Plan(
        steps=steps, lr=pace.lr, grad_clip=pace.grad_clip, validate_every=max(1, steps // VALIDATIONS),
        seed=config.seed, tasks_per_step=min(n, pace.batch),
        checkpoint_seconds=config.runtime.checkpoint_seconds, **extra,
    )  # fmt: skip
