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


class QuestionAnchor(nn.Module):
    """m(e): the posterior mean of a Gaussian process with zero prior mean, from ``known`` questions [known, E].

    Buffers: ``known``, ``weights`` [known, L] and the scalar ``sharpness`` of the kernel.
    """

    known: Tensor
    weights: Tensor
    sharpness: Tensor

    def __init__(
        self, known: Float[Tensor, "known embed"], weights: Float[Tensor, "known latent"], sharpness: Float[Tensor, ""]
    ) -> None:
        super().__init__()
        self.register_buffer("known", known)
        self.register_buffer("weights", weights)
        self.register_buffer("sharpness", sharpness)

    @classmethod
    def none(cls, embed: int, latent: int, device: torch.device | str = "cpu") -> "QuestionAnchor":
        """The anchor that predicts nothing, for the plain HyperLDM."""
        empty = torch.zeros(0, embed, device=device), torch.zeros(0, latent, device=device)
        return cls(*empty, torch.ones((), device=device))

    @classmethod
    def fit(
        cls, e: Float[Tensor, "known embed"], z: Float[Tensor, "known latent"]
    ) -> tuple["QuestionAnchor", Float[Tensor, "known latent"]]:
        """The anchor with the smallest leave-one-out error, and z − m₋ᵢ(e): what is left when each task is left out.

        On the CPU in float64. The leave-one-out residual is α_i/(K + λI)⁻¹_ii with α = (K + λI)⁻¹z (Rasmussen and
        Williams, 2006, Eq. 5.12); residuals of the fit itself would be too small to learn from.
        """
        X, Y = e.detach().cpu().double(), z.detach().cpu().double()
        best: tuple[float, float, Tensor, Tensor] | None = None
        for sharpness in SHARPNESS:
            for weights, left in _solutions(_kernel(X, X, sharpness), Y, RIDGES):
                error = float(left.square().mean())
                if best is None or error < best[0]:
                    best = error, sharpness, weights, left
        assert best is not None
        return cls(e.detach(), best[2].to(z), torch.tensor(best[1]).to(z)), best[3].to(z)

    def forward(self, e: Float[Tensor, "batch embed"]) -> Float[Tensor, "batch latent"]:
        return _kernel(e, self.known, self.sharpness) @ self.weights


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
