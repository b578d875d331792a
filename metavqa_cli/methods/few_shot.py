"""Few-shot adaptation on support sets, in weight space or in a generator's latent space (Appendix A.8)."""

from jaxtyping import Float
from torch import Tensor

from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.descent import adapted_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.protocol import Generator
from metavqa_cli.tasks.batches import TaskBatch


def adapt_weights(
    layout: WeightLayout,
    start: Float[Tensor, "*task params"],
    batch: TaskBatch,
    steps: int,
    lr: float,
    logit_scale: float,
) -> Float[Tensor, "batch params"]:
    """Each task's weights after ``steps`` gradient steps from ``start``: one vector for all tasks, or one a task."""
    return adapted_weights(layout, start.expand(batch.n_tasks, -1), batch, steps, lr, logit_scale)


def adapt_latents(
    generator: Generator,
    z0: Float[Tensor, "task latent"],
    batch: TaskBatch,
    steps: int,
    lr: float,
    layout: WeightLayout,
    logit_scale: float,
) -> Float[Tensor, "task latent"]:
    """Each task's latent after ``steps`` gradient steps from ``z0`` on the loss of the weights it decodes to."""

    def loss_of(z: Tensor) -> Tensor:
        logits = answer_logits(layout, generator.decode(z), batch, logit_scale)
        return task_loss(logits, batch.labels, batch.example_mask)

    return inner_loop(loss_of, z0, steps, lr)
