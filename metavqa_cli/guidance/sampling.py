"""Samplers: from a noise prediction to latents. Pure functions; sample i depends on seed i alone, not on its batch."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.guidance.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(z_t [batch latent], t [batch]) -> predicted noise [batch latent]."""
Seeds = Sequence[int] | Int64[Tensor, " batch"]


def seeded_noise(
    seeds: Seeds, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch ..."]:
    """Standard normal noise [batch, *shape], row i from its own CPU generator with ``seeds[i]``."""
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(int(seed)), dtype=dtype) for seed in seeds]
    return torch.stack(rows).to(device)


def trailing_timesteps(T: int, steps: int) -> list[int]:
    """``steps`` times from T − 1 down, T/steps apart ("trailing" spacing). Raises ValueError unless 1 ≤ steps ≤ T."""
    if not 1 <= steps <= T:
        raise ValueError(f"cannot take {steps} sampling steps through a schedule of {T}; choose from 1 to {T}")
    return [round(T - k * T / steps) - 1 for k in range(steps)]


def ddpm(
    denoise: Denoise,
    schedule: Schedule,
    seeds: Seeds,
    latent: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    temperature: float = 1.0,
) -> Float[Tensor, "batch latent"]:
    """Ancestral sampling with all T steps, Eq. 8, with σ_t² = β_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t); see DDIM's temperature."""
    z, *xi = (temperature * seeded_noise(seeds, (schedule.T + 1, latent), device, dtype)).unbind(1)
    alphas, alphas_cumprod = schedule.alphas.tolist(), [*schedule.alphas_cumprod.tolist(), 1.0]
    for t, xi_t in zip(reversed(range(schedule.T)), xi, strict=True):
        alpha, bar, bar_next = alphas[t], alphas_cumprod[t], alphas_cumprod[t - 1]  # ᾱ_{−1} = 1
        eps = denoise(z, torch.full((len(z),), t, device=z.device))
        sigma = ((1 - alpha) * (1 - bar_next) / (1 - bar)) ** 0.5
        z = (z - (1 - alpha) / (1 - bar) ** 0.5 * eps) / alpha**0.5 + sigma * xi_t
    return z


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    seeds: Seeds,
    latent: int,
    steps: int,
    eta: float = 0.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    temperature: float = 1.0,
) -> Float[Tensor, "batch latent"]:
    """DDIM (Song et al., 2021, Eq. 12) with ``steps`` trailing steps; ``eta`` from 0 (deterministic) to 1 (as DDPM).

    ``temperature`` multiplies all noise: 1 samples the distribution, 0 follows the flow from the noise's mean, which
    ends at the mean of a Gaussian.
    """
    z, *xi = (temperature * seeded_noise(seeds, (steps + 1 if eta else 1, latent), device, dtype)).unbind(1)
    times = trailing_timesteps(schedule.T, steps)
    bars = [*schedule.alphas_cumprod[times].tolist(), 1.0]
    for k, t in enumerate(times):
        bar, bar_next = bars[k], bars[k + 1]
        eps = denoise(z, torch.full((len(z),), t, device=z.device))
        z0 = (z - (1 - bar) ** 0.5 * eps) / bar**0.5
        sigma = eta * ((1 - bar_next) / (1 - bar) * (1 - bar / bar_next)) ** 0.5
        z = bar_next**0.5 * z0 + (1 - bar_next - sigma**2) ** 0.5 * eps
        if eta:
            z = z + sigma * xi[k]
    return z
