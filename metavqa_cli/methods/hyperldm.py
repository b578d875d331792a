"""HyperLDM at inference: question embeddings → latents → weights (Algorithm 14)."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.guidance.cfg import LogLikelihood, guided_noise, with_classifier
from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler
from metavqa_cli.guidance.replay import Replayed
from metavqa_cli.guidance.sampling import Denoise, Seeds, ddim, ddpm, dpmpp_2m
from metavqa_cli.guidance.schedule import Schedule
from metavqa_cli.schema.samplers import Sampler


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser | Replayed,
    schedule: Schedule,
    scaler: LatentScaler,
    e: Float[Tensor, "batch embed"],
    gamma: float | Float[Tensor, " batch"],
    seeds: Seeds,
    sampler: Sampler = "dpmpp_2m",
    steps: int = 5,
    log_likelihood: LogLikelihood | None = None,
    eta: float = 0.0,
    anchor: Float[Tensor, "batch latent"] | None = None,
    temperature: float = 1.0,
    trust: float = 1.0,
    before_step: Callable[[], None] | None = None,
) -> Float[Tensor, "batch latent"]:
    """One latent in the generator's own units for each question ``e[i]``, from noise of ``seeds[i]``.

    ``steps`` counts those of DPM-Solver++ or DDIM; DDPM always takes all T. With ``log_likelihood`` its gradient is
    added to the score, times ``eta`` (Eq. 11). With an ``anchor``, what is sampled is the rest of standardised latents
    beside γ times the anchor: at γ = 0 the unconditional latent, beyond 1 the question's part is exaggerated like the
    predicted noise. ``trust`` times γ is then the guidance scale of the denoiser itself: what few questions taught it
    may mislead. ``before_step`` is called before every denoising step: what it raises ends the sampling.
    """

    def plain(z_t: Float[Tensor, "batch latent"], t: Int64[Tensor, " batch"]) -> Float[Tensor, "batch latent"]:
        if before_step is not None:
            before_step()
        return guided_noise(denoiser, z_t, t, e, gamma * trust)

    shift = 0.0 if anchor is None else torch.as_tensor(gamma).to(e).reshape(-1, 1) * anchor
    denoise: Denoise = plain
    if log_likelihood is not None:
        denoise = with_classifier(plain, schedule, lambda rest: log_likelihood(rest + shift), eta)
    sample: Callable[..., Tensor] = ddpm
    if sampler != "ddpm":
        sample = partial(dpmpp_2m if sampler == "dpmpp_2m" else ddim, steps=steps)
    sample = partial(sample, device=e.device, dtype=e.dtype, temperature=temperature)
    return scaler.restore(sample(denoise, schedule, seeds, denoiser.latent) + shift)
