"""The exact noise prediction for latents that are N(mean, std²) in every coordinate."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metavqa_cli.guidance.schedule import Schedule


def gaussian_denoiser(schedule: Schedule, mean: float | Tensor, std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """E[noise | z_t]: z_t is N(√ᾱ·mean, ᾱ·std² + 1 − ᾱ), jointly Gaussian with the noise."""

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        bar = schedule.alphas_cumprod[t][:, None].to(z_t)
        return (1 - bar).sqrt() * (z_t - bar.sqrt() * mean) / (bar * std**2 + 1 - bar)

    return denoise


class GaussianDenoiser(nn.Module):
    """The same, where the question moves the mean: N(shift·e, std²)."""

    def __init__(self, schedule: Schedule, shift: float, std: float) -> None:
        super().__init__()
        self.schedule, self.shift, self.std = schedule, shift, std
        self.calls: list[int] = []

    def forward(self, z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        self.calls.append(len(z_t))
        return gaussian_denoiser(self.schedule, self.shift * e, self.std)(z_t, t)


def rows(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
