"""Cond. Multitask (Algorithm 5): a hypernetwork h(e, θ) from a question's embedding to the weights of its task."""

from jaxtyping import Float
from torch import Tensor, nn

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.tasks.batches import TaskBatch


class ConditionalHypernetwork(nn.Module):
    """h(e, θ): a ``decoder`` whose latent is √E·e, where E is its ``latent``.

    Embeddings have norm about 1, and Kaiming initialisation expects coordinates of s.d. 1: without √E the first layer
    would start with activations, and gradients of its weights, √E times too small beside its biases.
    """

    def __init__(self, decoder: Hypernetwork) -> None:
        super().__init__()
        self.latent, self.decoder = decoder.latent, decoder

    def weights(self, e: Float[Tensor, "task embed"]) -> Float[Tensor, "task params"]:
        """The weights of each question."""
        return self.decoder(self.latent**0.5 * e)

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]:
        """``weights``, under the name by which a generator is known: its latent is e itself."""
        return self.weights(z)


def generated_loss(
    weights: Float[Tensor, "task params"], batch: TaskBatch, layout: WeightLayout, logit_scale: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the tasks of the cross-entropy of one weight vector each. Metrics: ``loss``, ``accuracy``."""
    logits = answer_logits(layout, weights, batch, logit_scale)
    loss = task_loss(logits, batch.labels, batch.example_mask).mean()
    accuracy = task_accuracy(logits, batch.labels, batch.example_mask).mean()
    return loss, {"loss": loss.detach(), "accuracy": accuracy}


def cond_multitask_loss(
    model: ConditionalHypernetwork,
    e: Float[Tensor, "task embed"],
    batch: TaskBatch,
    layout: WeightLayout,
    logit_scale: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the tasks of the cross-entropy of the weights of their questions. Metrics: ``loss``, ``accuracy``."""
    return generated_loss(model.weights(e), batch, layout, logit_scale)
