"""HyperCLIP: an encoder of base-network weights into CLIP's space, and guidance of latents by it (Section 4)."""

from collections.abc import Callable
from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.base_network.adapter import EPS
from metavqa_cli.generator.layers import linear
from metavqa_cli.guidance.hyperldm import LatentScaler

INITIAL_TEMPERATURE, MAX_TEMPERATURE = 1 / 0.07, 100.0
"""As in CLIP (Radford et al., 2021)."""

Decode = Callable[[Tensor], Tensor]
"""h(z, θ): latents [batch latent] -> weights [batch params]."""


def unit(v: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*batch embed"]:
    """v/‖v‖; zeros stay zeros, with a finite gradient."""
    return v * (v.square().sum(-1, keepdim=True) + EPS).rsqrt()


class HyperCLIP(nn.Module):
    """CLIP_H(W): standardised weights → ``hidden`` (tanh) → E, scaled to unit norm (Section 4.1, Appendix A.2).

    Fine-tuned weights differ little from their initialisation: what tells tasks apart is a small part of the raw
    vector, so ``mean`` [P] is taken away and the rest divided by ``scale`` (one s.d., or one for each weight). Both
    are buffers. Nothing is clamped: tanh bounds outliers, and guidance needs their gradient. ``generator`` draws the
    parameters; None leaves them to ``load_state_dict(..., assign=True)``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        embed: int,
        hidden: int,
        mean: Float[Tensor, " params"],
        scale: float | Float[Tensor, ""] | Float[Tensor, " params"],
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.hidden = linear(len(mean), hidden, generator, nonlinearity="tanh")
        self.out = linear(hidden, embed, generator, nonlinearity="linear")
        device = "meta" if generator is None else generator.device
        self.log_temperature = nn.Parameter(torch.full((), log(INITIAL_TEMPERATURE), device=device))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.as_tensor(scale, dtype=mean.dtype, device=mean.device))

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """What multiplies cosines, at most ``MAX_TEMPERATURE``.

        The gradient ignores the cap: a clamp's gradient of zero would never let the parameter return from beyond it.
        """
        constant = self.log_temperature.detach()
        return (constant.clamp(max=log(MAX_TEMPERATURE)) + (self.log_temperature - constant)).exp()

    def forward(self, weights: Float[Tensor, "batch params"]) -> Float[Tensor, "batch embed"]:
        standardised = (weights - self.mean) / self.scale
        return unit(self.out(self.hidden(standardised).tanh()))


def contrastive_loss(
    model: HyperCLIP,
    weights: Float[Tensor, "row params"],
    e: Float[Tensor, "batch embed"],
    rows: slice = slice(None),
    gathered: Callable[[Tensor], Tensor] = lambda embedded: embedded,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Algorithm 1: mean of the cross-entropies weights → question and question → weights, in nats.

    ``e[i]`` is the question of ``weights[i]``, of any norm; no two are the same question. With ``rows``, the mean over
    these alone: ``weights`` are theirs, and ``gathered`` makes CLIP_H of the whole batch, with which they are
    contrasted, from their own. Metrics: ``loss``; ``accuracy``, the share of weights whose own question is the nearest
    of the batch; ``temperature``.
    """
    logits = model.temperature * (gathered(model(weights)) @ unit(e).mT)
    own = torch.arange(len(e), device=e.device)[rows]
    loss = (F.cross_entropy(logits[rows], own) + F.cross_entropy(logits.mT[rows], own)) / 2
    accuracy = (logits[rows].argmax(-1) == own).to(loss).mean()
    metrics = {"loss": loss, "accuracy": accuracy, "temperature": model.temperature}
    return loss, {name: value.detach() for name, value in metrics.items()}


def similarity(
    model: HyperCLIP, weights: Float[Tensor, "batch params"], e: Float[Tensor, "batch embed"]
) -> Float[Tensor, " batch"]:
    """cos(CLIP_H(W), e) of each weight vector and its own question."""
    return (model(weights) * unit(e)).sum(-1)


def rank_questions(
    model: HyperCLIP, weights: Float[Tensor, "batch params"], candidates: Float[Tensor, "question embed"]
) -> Float[Tensor, "batch question"]:
    """cos(CLIP_H(W), e) of each weight vector and every candidate: task inference (Fig. 3 B)."""
    return model(weights) @ unit(candidates).mT


def probabilities(
    model: HyperCLIP, weights: Float[Tensor, "batch params"], candidates: Float[Tensor, "question embed"]
) -> Float[Tensor, "batch question"]:
    """Softmax over the candidates of temperature·cosine (Fig. 3 C)."""
    return (model.temperature * rank_questions(model, weights, candidates)).softmax(-1)


def question_log_likelihood(
    model: HyperCLIP, decode: Decode, scaler: LatentScaler, e: Float[Tensor, "batch embed"]
) -> Callable[[Tensor], Tensor]:
    """log p(e | z) = temperature·cos(CLIP_H(h(z)), e) of standardised latents [batch latent], for Eq. 11.

    The normaliser over questions is left out, as CLIP guidance does: no other question is known.
    """
    return lambda z: model.temperature.detach() * similarity(model, decode(scaler.restore(z)), e)


def guidance_loss(
    model: HyperCLIP,
    decode: Decode,
    z: Float[Tensor, "batch latent"],
    z0: Float[Tensor, "batch latent"],
    e: Float[Tensor, "batch embed"],
    lam: float,
) -> Float[Tensor, " batch"]:
    """−cos(CLIP_H(h(z)), e) + λ‖z − z0‖, Eq. 4. At z = z0 the gradient of the norm is 0 (torch's subgradient)."""
    return lam * (z - z0).norm(dim=-1) - similarity(model, decode(z), e)


@torch.no_grad()
def guide(
    model: HyperCLIP,
    decode: Decode,
    z0: Float[Tensor, "batch latent"],
    e: Float[Tensor, "batch embed"],
    steps: int,
    lr: float,
    lam: float,
) -> Float[Tensor, "batch latent"]:
    """Descent on Eq. 4 from ``z0``, every question of the batch along its own gradient (Algorithm 11).

    The norm's gradient has length 1 however close z is to z0, so plain descent would jump to and fro across z0 by
    ``lr``·λ. Each step therefore descends on the cosine alone and solves the norm term exactly: z moves back towards
    z0 by ``lr``·λ and stops there (the proximal step of λ‖z − z0‖). A latent leaves z0 only where the cosine's
    gradient is longer than λ, and for a small ``lr`` the path is that of plain descent.
    """
    z = z0.detach()
    for _ in range(steps):
        moved = inner_loop(lambda z: -similarity(model, decode(z), e), z, 1, lr)
        z = _move_back(moved, z0, lr * lam)
    return z


def _move_back(
    z: Float[Tensor, "batch latent"], z0: Float[Tensor, "batch latent"], by: float
) -> Float[Tensor, "batch latent"]:
    distance = (z - z0).norm(dim=-1, keepdim=True)
    kept = (distance - by).clamp_min(0) / distance.clamp_min(torch.finfo(z.dtype).tiny)
    return torch.lerp(z0, z, kept)  # exactly z0 at 0 and exactly z at 1
