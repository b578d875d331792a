"""Cond. HNet-MAML (Algorithm 7): a hypernetwork h(e, θ) trained for what a few gradient steps on e make of it."""

from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.cond_multitask import ConditionalHypernetwork
from metavqa_cli.methods.maml import meta_loss
from metavqa_cli.tasks.batches import TaskBatch


def cond_hnet_maml_loss(
    model: ConditionalHypernetwork,
    e: Float[Tensor, "task embed"],
    support: TaskBatch,
    query: TaskBatch,
    layout: WeightLayout,
    logit_scale: float,
    inner_lr: float,
    steps: int | Int64[Tensor, " task"],
    order: Literal["first", "second"],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """``meta_loss`` of the embeddings: each task adapts its own e, and only θ is learned.

    ``inner_lr`` is in units of e. The decoder sees √E·e, so its input moves by E·``inner_lr`` times its own gradient.
    Metrics, both on the query sets after adaptation: ``loss``, ``accuracy``.
    """
    return meta_loss(model.decode, e, support, query, layout, logit_scale, inner_lr, steps, order)
