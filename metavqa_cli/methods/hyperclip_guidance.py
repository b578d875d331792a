"""HyperCLIP guidance at inference: start latents and questions → guided latents (Algorithm 11)."""

from jaxtyping import Float
from torch import Tensor

from metavqa_cli.generator.protocol import Generator
from metavqa_cli.guidance.hyperclip import HyperCLIP, guide
from metavqa_cli.guidance.hyperldm import LatentScaler
from metavqa_cli.guidance.sampling import Seeds, seeded_noise


def start_latents(seeds: Seeds, scaler: LatentScaler) -> Float[Tensor, "batch latent"]:
    """z ~ N(0, I) in standardised units, row i from ``seeds[i]``, restored to the generator's own units.

    For generators whose latents have a distribution; a meta-learned HNet starts from its own z0 instead.
    """
    return scaler.restore(seeded_noise(seeds, scaler.mean.shape, scaler.mean.device, scaler.mean.dtype))


def hyperclip_latents(
    model: HyperCLIP,
    generator: Generator,
    z0: Float[Tensor, "#batch latent"],
    e: Float[Tensor, "batch embed"],
    steps: int,
    lr: float,
    lam: float,
) -> Float[Tensor, "batch latent"]:
    """One guided latent for each question ``e[i]``, from ``z0[i]``, or from a single row that all share (HNet)."""
    return guide(model, generator.decode, z0.expand(len(e), -1), e, steps, lr, lam)
