"""Variance schedules of the forward diffusion process (Eqs. 5 and 6)."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """β_t for t = 0 … T−1 in float64, and what follows from it; index t here is the paper's step t + 1."""

    betas: Float64[Tensor, " T"]
    _factors: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

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
        signal, spread = self.factors(z0)
        return signal[t][:, None] * z0 + spread[t][:, None] * noise

    def factors(self, like: Tensor) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
        """√ᾱ_t and √(1 − ᾱ_t) of all t, on the device and in the type of ``like``: taken there once and kept."""
        kept = self._factors.get((like.device, like.dtype))
        if kept is None:
            both = (self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt())
            kept = self._factors[like.device, like.dtype] = (both[0].to(like), both[1].to(like))
        return kept


def linear_schedule(T: int, beta_start: float, beta_end: float) -> Schedule:
    """β linear in t (DDPM; the paper's: T = 350, from 1e-4 to 0.06)."""
    return Schedule(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))


def scaled_linear_schedule(T: int, beta_start: float, beta_end: float) -> Schedule:
    """√β linear in t (latent diffusion; what the release calls ``linear``)."""
    return Schedule(torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=torch.float64).square())
