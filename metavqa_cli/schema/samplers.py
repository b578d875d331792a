"""The samplers of latents by name."""

from typing import Literal, get_args

Sampler = Literal["dpmpp_2m", "ddim", "ddpm"]
"""DPM-Solver++(2M), DDIM (η = 0), or DDPM, which takes all T steps of the diffusion."""
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
