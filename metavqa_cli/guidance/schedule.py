"""Variance schedules of the forward diffusion process (Eqs. 5 and 6)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """β_t for t = 0 … T−1 in float64, and what follows from it; index t here is the paper's step t + 1."""

    betas: Float64[Tensor, " T"]

    @property
    def T(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas(self) -> Float64[Tensor, " T"]:
        """α_t = 1 − β_t."""
        return 1 - self.betas

    @cached_property
    def alphas_cumprod(self) -> Float64[Tensor, " T"]:
        """ᾱ_t, the product of α_0 … α_t: the share of the signal's variance left after step t."""
        return self.alphas.cumprod(0)

    @cached_property
    def half_log_snr(self) -> Float64[Tensor, " T"]:
        """λ_t = log(√ᾱ_t/√(1 − ᾱ_t)), which falls with t."""
        return (self.alphas_cumprod / (1 - self.alphas_cumprod)).log() / 2

    def q_sample(
        self, z0: Float[Tensor, "batch latent"], t: Int64[Tensor, " batch"], noise: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch latent"]:
        """z_t = √ᾱ_t·z_0 + √(1 − ᾱ_t)·noise."""
        signal = self.alphas_cumprod.sqrt().to(z0)[t][:, None]
        spread = (1 - self.alphas_cumprod).sqrt().to(z0)[t][:, None]
        return signal * z0 + spread * noise


def linear_schedule(T: int, beta_start: float, beta_end: float) -> Schedule:
    """β linear in t (DDPM; the paper's: T = 350, from 1e-4 to 0.06)."""
    return Schedule(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))


def scaled_linear_schedule(T: int, beta_start: float, beta_end: float) -> Schedule:
    """√β linear in t (latent diffusion; what the release calls ``linear``)."""
    return Schedule(torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=torch.float64).square())
