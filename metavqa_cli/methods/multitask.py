"""Uncond. Multitask (Algorithm 2): one W for all tasks."""

from jaxtyping import Float
from torch import Tensor

from metavqa_cli.base_network.adapter import cosine_logits, embed, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.tasks.batches import TaskBatch


def multitask_loss(
    weights: Float[Tensor, " params"], batch: TaskBatch, layout: WeightLayout, logit_scale: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the tasks of the cross-entropy of the shared ``weights``. Metrics: ``loss``, ``accuracy``."""
    # All examples as those of one task: a single matrix product, and no copy of the weights for each task.
    embedded = embed(layout, weights[None], batch.x.flatten(0, 1)[None]).view_as(batch.x)
    logits = cosine_logits(embedded, batch, logit_scale)
    loss = task_loss(logits, batch.labels, batch.example_mask).mean()
    accuracy = task_accuracy(logits, batch.labels, batch.example_mask).mean()
    return loss, {"loss": loss.detach(), "accuracy": accuracy}
