"""Classifier-free guidance (Section 5.2)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


def guided_noise(
    denoiser: nn.Module,
    z_t: Float[Tensor, "batch latent"],
    t: Int64[Tensor, " batch"],
    e: Float[Tensor, "batch embed"],
    gamma: float | Float[Tensor, " batch"],
) -> Float[Tensor, "batch latent"]:
    """(1 − γ)·ε(z_t, t, 0) + γ·ε(z_t, t, e), Eq. 10, both from one call of the denoiser.

    A ``gamma`` of exactly 1 is one plain conditional call, exactly 0 one plain unconditional call.
    """
    if not isinstance(gamma, Tensor) and gamma in (0, 1):
        return denoiser(z_t, t, e if gamma == 1 else torch.zeros_like(e))
    both = denoiser(torch.cat([z_t, z_t]), torch.cat([t, t]), torch.cat([torch.zeros_like(e), e]))
    unconditional, conditional = both.chunk(2)
    weight = torch.as_tensor(gamma).to(z_t).reshape(-1, 1)
    return (1 - weight) * unconditional + weight * conditional
