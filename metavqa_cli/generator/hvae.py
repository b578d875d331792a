"""HVAE: a variational autoencoder of fine-tuned base-network weights (Section 3, Algorithm 8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.generator.layers import mlp, normal_like

LOGVAR_OFFSET = -1.0
"""Added to the log-variance head, as released: posteriors start narrower than the prior."""
LOGVAR_MIN, LOGVAR_MAX = -8.0, 4.0
"""Without these bounds the HVAE went to NaN within 500 steps."""


@dataclass(frozen=True, eq=False)
class WeightScaler:
    """Differences from an initialisation ``mean``, over one scalar s.d., clamped at ±``clamp``."""

    mean: Float[Tensor, " params"]
    std: Float[Tensor, ""]
    clamp: float

    @classmethod
    def fit(cls, weights: Float[Tensor, "task params"], mean: Float[Tensor, " params"], clamp: float) -> "WeightScaler":
        """The scaler that gives the differences a root mean square of 1. Raises ValueError when all of them are 0."""
        std = (weights - mean).square().mean().sqrt()
        if not std > 0:
            raise ValueError("every weight vector equals the initialisation; adapt with more steps or a higher rate")
        return cls(mean, std, clamp)

    def standardise(self, weights: Float[Tensor, "task params"]) -> Float[Tensor, "task params"]:
        return ((weights - self.mean) / self.std).clamp(-self.clamp, self.clamp)


class HVAE(nn.Module):
    """Encoder d(W, ω): P → reversed(hidden) → 2L on standardised weights; decoder h(z, θ): L → hidden → P.

    The decoder's ``base`` and ``scale`` are the scaler's mean and s.d., so that it returns weights in their own units.
    """

    def __init__(
        self, scaler: WeightScaler, latent: int, hidden: Sequence[int], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.latent, self.clamp = latent, scaler.clamp
        self.encoder = mlp([len(scaler.mean), *reversed(hidden), 2 * latent], generator)
        self.decoder = Hypernetwork(latent, hidden, scaler.mean, scaler.std, generator)

    @property
    def scaler(self) -> WeightScaler:
        return WeightScaler(self.decoder.base, self.decoder.scale, self.clamp)

    def encode(
        self, weights: Float[Tensor, "batch params"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Mean and bounded log-variance of the latent of each weight vector."""
        return self._posterior(self.scaler.standardise(weights))

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]:
        """The weights of each latent."""
        return self.decoder(z)

    def _posterior(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(standardised).to(standardised).chunk(2, dim=-1)
        return mu, (logvar + LOGVAR_OFFSET).clamp(LOGVAR_MIN, LOGVAR_MAX)


def hvae_loss(
    model: HVAE,
    weights: Float[Tensor, "batch params"],
    generator: torch.Generator,
    kl_weight: float,
    rows: slice = slice(None),
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the batch of (squared error of standardised weights + ``kl_weight``·KL)/√P, scaled as released.

    With ``rows``, the mean over these alone, with the noise that they have in the whole batch.
    Metrics: ``loss``; ``squared_error``, the mean per weight (1.0 is the initialisation); ``kl`` in nats per latent.
    """
    target = model.scaler.standardise(weights[rows])
    mu, logvar = model._posterior(target)
    noise = normal_like(mu.new_empty(len(weights), model.latent), generator)[rows]
    z = mu + (logvar / 2).exp() * noise
    squared_error = (model.decoder.mlp(z) - target).square().sum(-1)
    kl = (mu.square() + logvar.exp() - logvar - 1).sum(-1) / 2
    n_weights = weights.shape[-1]
    loss = (squared_error + kl_weight * kl).mean() / sqrt(n_weights)
    metrics = {"loss": loss, "squared_error": squared_error.mean() / n_weights, "kl": kl.mean()}
    return loss, {name: value.detach() for name, value in metrics.items()}
