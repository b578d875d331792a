"""Uncond. MNet-MAML and MNet-FOMAML (Algorithm 3): the W from which a few gradient steps lead furthest."""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.descent import adapted_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.cond_multitask import generated_loss
from metavqa_cli.tasks.batches import TaskBatch


def meta_loss(
    decode: Callable[[Tensor], Tensor],
    start: Float[Tensor, "task point"],
    support: TaskBatch,
    query: TaskBatch,
    layout: WeightLayout,
    logit_scale: float,
    inner_lr: float,
    steps: int | Int64[Tensor, " task"],
    order: Literal["first", "second"],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the tasks of the query loss after ``steps`` steps of size ``inner_lr`` on the support loss (Eq. 1).

    The inner loop moves each task's own point, from ``start``; ``decode`` maps points [task D] to weights [task P].
    What ``decode`` depends on is the same in every step, and gets its gradient from the query loss at the adapted
    point (``order`` "first"), or from the path to it as well ("second"). Metrics, both on the query sets after
    adaptation: ``loss``, ``accuracy``.
    """

    def support_loss(point: Tensor) -> Tensor:
        logits = answer_logits(layout, decode(point), support, logit_scale)
        return task_loss(logits, support.labels, support.example_mask)

    adapted = inner_loop(support_loss, start, steps, inner_lr, order)
    return generated_loss(decode(adapted), query, layout, logit_scale)


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
    """``meta_loss`` of weights that are themselves adapted, all tasks from the same ones; the loop is written out.

    The gradient of the result is MAML's for ``order`` "second" and FOMAML's for "first". Metrics: as ``meta_loss``.
    """
    start = weights.expand(support.n_tasks, -1)
    adapted = adapted_weights(layout, start, support, steps, inner_lr, logit_scale, order)
    return generated_loss(adapted, query, layout, logit_scale)
