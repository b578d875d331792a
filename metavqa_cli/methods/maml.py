"""Uncond. MNet-MAML and MNet-FOMAML (Algorithm 3): the W from which a few gradient steps lead furthest."""

from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.base_network.adapter import answer_logits, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.tasks.batches import TaskBatch


def maml_loss(
    weights: Float[Tensor, " params"],
    support: TaskBatch,
    query: TaskBatch,
    layout: WeightLayout,
    logit_scale: float,
    inner_lr: float,
    steps: int | Int64[Tensor, " task"],
    order: Literal["first", "second"],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the tasks of the query loss after ``steps`` steps of size ``inner_lr`` on the support loss (Eq. 1).

    The gradient of the result is MAML's for ``order`` "second" and FOMAML's for "first". Metrics, both on the query
    sets after adaptation: ``loss``, ``accuracy``.
    """

    def logits_of(W: Tensor, batch: TaskBatch) -> Tensor:
        return answer_logits(layout, W, batch, logit_scale)

    def support_loss(W: Tensor) -> Tensor:
        return task_loss(logits_of(W, support), support.labels, support.example_mask)

    adapted = inner_loop(support_loss, weights.expand(support.n_tasks, -1), steps, inner_lr, order)
    logits = logits_of(adapted, query)
    loss = task_loss(logits, query.labels, query.example_mask).mean()
    accuracy = task_accuracy(logits, query.labels, query.example_mask).mean()
    return loss, {"loss": loss.detach(), "accuracy": accuracy}
