"""Cond. Multitask FiLM (Algorithm 6): one W for all tasks, whose hidden layer the question scales and shifts."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metavqa_cli.base_network.layout import AdapterWeights, WeightLayout
from metavqa_cli.generator.layers import linear
from metavqa_cli.methods.cond_multitask import generated_loss
from metavqa_cli.tasks.batches import TaskBatch


class Film(nn.Module):
    """hidden = a ⊙ relu(W1·x/√E + b1) + c, with (a − 1, c) linear in √E·e (Perez et al., 2017).

    ``W`` starts as a copy of ``weights``, the linear layer at zero: the first network is the unmodulated one for every
    question. With W2 = 0 as well ("near-clip"), the modulation gets its first gradient in the second step.
    Without a ``generator`` the linear layer waits for ``load_state_dict(..., assign=True)``.
    """

    def __init__(
        self, layout: WeightLayout, weights: Float[Tensor, " params"], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.layout = layout
        self.W = nn.Parameter(weights.detach().clone())
        self.modulation = linear(layout.embed, 2 * layout.hidden, generator, nonlinearity="linear")
        nn.init.zeros_(self.modulation.weight)

    def weights(self, e: Float[Tensor, "task embed"]) -> Float[Tensor, "task params"]:
        """The plain weights that compute the modulated network of each question.

        W2·(a ⊙ u + c)/√H + b2 = (W2·diag(a))·u/√H + (b2 + W2·c/√H), so only W2 and b2 differ between questions.
        Raises ValueError when ``W`` has not the layout's length.
        """
        W1, W2, b1, b2 = self.layout.unflatten(self.W)
        # √E as in ConditionalHypernetwork: coordinates of s.d. about 1.
        gain, c = self.modulation(self.layout.embed**0.5 * e).chunk(2, dim=-1)  # [task, H] each
        a, n = 1 + gain, len(e)
        shifted = b2 + c @ W2.mT * self.layout.hidden**-0.5
        return self.layout.flatten(
            AdapterWeights(W1.expand(n, -1, -1), W2 * a[:, None], b1.expand(n, -1), shifted)  # W2·diag(a): [task, E, H]
        )


def film_loss(
    model: Film, e: Float[Tensor, "task embed"], batch: TaskBatch, layout: WeightLayout, logit_scale: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the tasks of the cross-entropy of the modulated networks. Metrics: ``loss``, ``accuracy``."""
    return generated_loss(model.weights(e), batch, layout, logit_scale)
