"""The part of a latent that a Gaussian process predicts from the question, so that diffusion samples only the rest.

Not in the paper. With few described tasks a denoiser overfits what questions say about latents; a kernel's posterior
mean does not, and falls back to the mean of all latents far from every known question (compare CARD, Han et al., 2022,
which diffuses around a regression).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

SHARPNESS = (0.1, 0.3, 1.0, 3.0)
"""Kernels tried: exp(−sharpness·‖e − e′‖²) of whitened questions, whose norm is about 1."""
RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
"""Noise variances tried, relative to a kernel that is 1 at distance 0."""
METRIC_RANK, METRIC_STEPS, METRIC_RATE = 64, 8, 0.01
"""How a metric is learned: few steps, since each also fits the leave-one-out error of the known questions better."""
METRIC_SHARPNESS, METRIC_RIDGE = 0.3, 0.1
"""The kernel that it is learned with."""


class QuestionAnchor(nn.Module):
    """m(e): the posterior mean of a Gaussian process with zero prior mean, from ``known`` questions [known, E].

    Buffers: ``known`` and ``metric`` [E, E], which questions are multiplied by before they are compared (``known`` is
    multiplied already), ``weights`` [known, L] and the scalar ``sharpness`` of the kernel.
    """

    known: Tensor
    metric: Tensor
    weights: Tensor
    sharpness: Tensor

    def __init__(
        self,
        known: Float[Tensor, "known embed"],
        metric: Float[Tensor, "embed embed"],
        weights: Float[Tensor, "known latent"],
        sharpness: Float[Tensor, ""],
    ) -> None:
        super().__init__()
        self.register_buffer("known", known)
        self.register_buffer("metric", metric)
        self.register_buffer("weights", weights)
        self.register_buffer("sharpness", sharpness)

    @classmethod
    def none(cls, embed: int, latent: int, device: torch.device | str = "cpu") -> "QuestionAnchor":
        """The anchor that predicts nothing, for the plain HyperLDM."""
        known, weights = torch.zeros(0, embed, device=device), torch.zeros(0, latent, device=device)
        return cls(known, torch.eye(embed, device=device), weights, torch.ones((), device=device))

    @classmethod
    def fit(
        cls,
        e: Float[Tensor, "known embed"],
        z: Float[Tensor, "known latent"],
        metric: Float[Tensor, "embed embed"] | None = None,
    ) -> tuple["QuestionAnchor", Float[Tensor, "known latent"]]:
        """The anchor with the smallest leave-one-out error, and z − m₋ᵢ(e): what is left when each task is left out.

        Without a ``metric`` questions are compared as they are. On the CPU in float64. The leave-one-out residual is
        α_i/(K + λI)⁻¹_ii with α = (K + λI)⁻¹z (Rasmussen and Williams, 2006, Eq. 5.12); residuals of the fit itself
        would be too small to learn from.
        """
        metric = torch.eye(e.shape[1], dtype=e.dtype, device=e.device) if metric is None else metric
        known = e.detach() @ metric
        X, Y = known.cpu().double(), z.detach().cpu().double()
        best: tuple[float, float, Tensor, Tensor] | None = None
        for sharpness in SHARPNESS:
            for weights, left in _solutions(_kernel(X, X, sharpness), Y, RIDGES):
                error = float(left.square().mean())
                if best is None or error < best[0]:
                    best = error, sharpness, weights, left
        assert best is not None
        return cls(known, metric, best[2].to(z), torch.tensor(best[1]).to(z)), best[3].to(z)

    def forward(self, e: Float[Tensor, "batch embed"]) -> Float[Tensor, "batch latent"]:
        return _kernel(e @ self.metric, self.known, self.sharpness) @ self.weights


def learned_metric(
    e: Float[Tensor, "known embed"], z: Float[Tensor, "known latent"], generator: torch.Generator
) -> Float[Tensor, "embed embed"]:
    """I + BV with which a kernel of questions predicts latents best when each is left out; the rank of BV is low.

    Embeddings tell as much about how a question is worded as about what it asks for; this turns them to the latter. A
    few steps of Adam from B = 0 on the leave-one-out error (as in ``QuestionAnchor.fit``), on the CPU in float64.
    """
    X, Y = e.detach().cpu().double(), z.detach().cpu().double()
    n, embed = X.shape
    rank = min(METRIC_RANK, embed)
    B = torch.zeros(embed, rank, dtype=X.dtype, requires_grad=True)
    V = (torch.randn(rank, embed, generator=generator).double() * embed**-0.5).requires_grad_()
    optimizer = torch.optim.Adam([B, V], lr=METRIC_RATE)
    for _ in range(METRIC_STEPS):
        turned = X + X @ B @ V
        K = _kernel(turned, turned, METRIC_SHARPNESS)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(K + METRIC_RIDGE * torch.eye(n, dtype=X.dtype)))
        error = (inverse @ Y / inverse.diagonal()[:, None]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return (torch.eye(embed, dtype=X.dtype) + B @ V).detach().to(e)


def _kernel(a: Tensor, b: Tensor, sharpness: float | Tensor) -> Tensor:
    squared = a.square().sum(-1)[:, None] - 2 * a @ b.mT + b.square().sum(-1)
    return (-sharpness * squared.clamp_min(0)).exp()


def _solutions(
    K: Float64[Tensor, "known known"], Y: Float64[Tensor, "known latent"], ridges: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """α and the leave-one-out residuals for each ridge, from one decomposition of the kernel matrix."""
    values, vectors = torch.linalg.eigh(K)
    projected = vectors.mT @ Y
    found = []
    for ridge in ridges:
        inverse = 1 / (values.clamp_min(0) + ridge)
        alpha = vectors @ (inverse[:, None] * projected)
        found.append((alpha, alpha / (vectors.square() @ inverse)[:, None]))
    return found
