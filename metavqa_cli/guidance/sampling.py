"""Samplers: from a noise prediction to latents. Pure functions; sample i depends on seed i alone, not on its batch."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import expm1, log

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.guidance.schedule import Schedule
from metavqa_cli.tasks.transfer import to_device

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(z_t [batch latent], t [batch]) -> predicted noise [batch latent]."""
Seeds = Sequence[int] | Int64[Tensor, " batch"]

LONGEST_STEP, LEAST_SIGNAL = 1.0, 3e-3
"""Of few steps, in λ, and in the first of them. A tiny preset's denoiser is wrong by 0.07 about the noise at T − 1,
which is more than √ᾱ = 0.005 of the paper's schedule: 6 steps from there end 1.5 s.d. from where 60 do, these 0.3."""


def seeded_noise(
    seeds: Seeds, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch ..."]:
    """Standard normal noise [batch, *shape], row i from its own CPU generator with ``seeds[i]``."""
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(int(seed)), dtype=dtype) for seed in seeds]
    return to_device(torch.stack(rows), device)


def trailing_timesteps(T: int, steps: int) -> list[int]:
    """``steps`` times from T − 1 down, T/steps apart ("trailing" spacing). Raises ValueError unless 1 ≤ steps ≤ T."""
    _check_steps(T, steps)
    return [round(T - k * T / steps) - 1 for k in range(steps)]


def even_snr_timesteps(schedule: Schedule, steps: int) -> list[int]:
    """``steps`` falling times to t = 0, as evenly apart in λ_t as whole times can be, none twice (one: the first).

    λ_t = log(√ᾱ_t/√(1 − ᾱ_t)) is half the logarithm of the signal-to-noise ratio. They begin at T − 1 if that leaves
    them at most ``LONGEST_STEP`` apart. Fewer begin later, but never after ᾱ_t = ``LEAST_SIGNAL``: a step of h from
    pure noise multiplies the denoiser's error there by e^h − 1, and what is not yet signal need not be denoised.
    Raises ValueError unless 1 ≤ steps ≤ T.
    """
    _check_steps(schedule.T, steps)
    lambdas, times = schedule.half_log_snr, [schedule.T]
    first, last = float(lambdas[-1]), float(lambdas[0])
    first = max(first, min(log(LEAST_SIGNAL / (1 - LEAST_SIGNAL)) / 2, last - LONGEST_STEP * (steps - 1)))
    wanted = torch.linspace(first, last, steps, dtype=lambdas.dtype)
    for k, t in enumerate((lambdas - wanted[:, None]).abs().argmin(1).tolist()):
        times.append(max(min(t, times[-1] - 1), steps - 1 - k))  # steps − 1 − k more have to fit below
    return times[1:]


def _check_steps(T: int, steps: int) -> None:
    if not 1 <= steps <= T:
        raise ValueError(f"cannot take {steps} sampling steps through a schedule of {T}; choose from 1 to {T}")


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


def dpmpp_2m(
    denoise: Denoise,
    schedule: Schedule,
    seeds: Seeds,
    latent: int,
    steps: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    temperature: float = 1.0,
) -> Float[Tensor, "batch latent"]:
    """DPM-Solver++(2M) (Lu et al., 2022, Algorithm 2): DDIM's deterministic flow, solved to second order in λ.

    Each step predicts z0 once and extrapolates it along λ from the step before; the first has none before it, and is
    DDIM's. The last ends at ᾱ = 1, where λ is infinite and no polynomial in λ has a limit: it is the predicted z0
    itself, of first order, and leaves √(s²/(s² + 1/ᾱ − 1)) of a s.d. of s. That is why times are even in λ down to
    t = 0 and not trailing: ten trailing steps of the paper's schedule end at 1 − ᾱ = 0.1 and leave 75 % of a s.d. of
    0.4 and 28 % of 0.1; six of these leave 99 and 95 % (six of DDIM's, trailing: 53 and 17 %). Even steps also keep
    the weight of the extrapolation near 1/2. ``temperature`` as in ``ddim``. Raises ValueError unless 1 ≤ steps ≤ T.
    """
    times = even_snr_timesteps(schedule, steps)
    bars = schedule.alphas_cumprod[times].tolist()
    h = [after - before for before, after in pairwise(schedule.half_log_snr[times].tolist())]
    z = temperature * seeded_noise(seeds, (latent,), device, dtype)
    z0 = z0_before = z
    for k, t in enumerate(times):
        eps = denoise(z, torch.full((len(z),), t, device=z.device))
        z0_before, z0 = z0, (z - (1 - bars[k]) ** 0.5 * eps) / bars[k] ** 0.5
        if k + 1 < steps:
            ahead = z0 if k == 0 else z0 + h[k] / (2 * h[k - 1]) * (z0 - z0_before)
            z = ((1 - bars[k + 1]) / (1 - bars[k])) ** 0.5 * z - bars[k + 1] ** 0.5 * expm1(-h[k]) * ahead
    return z0
