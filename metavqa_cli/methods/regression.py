"""Regression: a plain MLP from a question's embedding to a latent, or to weights.

Not in the paper. A control for HyperLDM: it predicts the mean of what diffusion draws samples of.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from metavqa_cli.generator.layers import mlp


class Regression(nn.Module):
    """E → ``hidden`` → ``target``, with ReLU between. ``target`` is the length of the predicted vectors.

    ``generator`` draws the parameters; None leaves them to ``load_state_dict(..., assign=True)``.
    """

    def __init__(self, embed: int, hidden: int, target: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.embed = embed
        self.mlp = mlp([embed, hidden, target], generator)

    def predict(self, e: Float[Tensor, "batch embed"]) -> Float[Tensor, "batch target"]:
        """The standardised vector expected of each question."""
        # √E as in ConditionalHypernetwork: coordinates of s.d. about 1.
        return self.mlp(self.embed**0.5 * e)


def regression_loss(
    model: Regression, e: Float[Tensor, "batch embed"], target: Float[Tensor, "batch target"]
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean squared error per coordinate: 1.0 for predicting the mean of standardised targets. Metrics: ``loss``."""
    loss = F.mse_loss(model.predict(e), target)
    return loss, {"loss": loss.detach()}
