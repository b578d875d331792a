"""HyperLDM: the noise prediction ε_ψ(z_t, t, e) in the generator's latent space, and its loss (Section 5)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from metavqa_cli.generator.layers import linear, normal_like
from metavqa_cli.guidance.schedule import Schedule
from metavqa_cli.tasks.transfer import to_device

SE_REDUCTION = 16
"""Ratio between a layer's width and its squeeze (Hu et al., 2018)."""


def time_embedding(t: Int64[Tensor, " batch"], size: int) -> Float[Tensor, "batch size"]:
    """Sines, then cosines, of t at ``size``/2 frequencies from 1 down to almost 1/10,000."""
    half = (size + 1) // 2
    frequencies = 10_000 ** (-torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :size]


class ResidualBlock(nn.Module):
    """skip(h) + gate·silu(linear([h, condition])), where squeeze-and-excitation computes the gate of each unit."""

    def __init__(self, n_in: int, condition: int, n_out: int, generator: torch.Generator | None) -> None:
        super().__init__()
        squeezed = max(n_out // SE_REDUCTION, 4)
        self.main = linear(n_in + condition, n_out, generator)
        self.squeeze = linear(n_out, squeezed, generator)
        self.excite = linear(squeezed, n_out, generator, nonlinearity="linear")
        self.skip = nn.Identity() if n_in == n_out else linear(n_in, n_out, generator, nonlinearity="linear")

    def forward(
        self, h: Float[Tensor, "batch n_in"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch n_out"]:
        u = F.silu(self.main(torch.cat([h, condition], dim=-1)))
        gate = self.excite(F.relu(self.squeeze(u))).sigmoid()
        return self.skip(h) + gate * u


class Denoiser(nn.Module):
    """ε_ψ(z_t, t, e): a residual MLP that sees the question and the time at the input and at every layer (A.2).

    ``e`` is unit-norm, or zeros for "no question"; inside it is multiplied by √E, so that its coordinates are as large
    as those of z_t. The last layer starts at zero: the first prediction is "no noise". ``generator`` draws the
    initial parameters; None leaves them to ``load_state_dict(..., assign=True)``.
    """

    def __init__(
        self, latent: int, embed: int, hidden: Sequence[int], time_dim: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.latent, self.embed, self.time_dim = latent, embed, time_dim
        condition = embed + time_dim
        widths = zip([latent, *hidden[:-1]], hidden, strict=True)
        self.blocks = nn.ModuleList(ResidualBlock(n_in, condition, n_out, generator) for n_in, n_out in widths)
        self.out = linear(hidden[-1] + condition, latent, generator)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, z_t: Float[Tensor, "batch latent"], t: Int64[Tensor, " batch"], e: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch latent"]:
        own = self.out.weight  # in bf16 when it samples so; the latents that it moves stay as they are
        condition = torch.cat([e * self.embed**0.5, time_embedding(t, self.time_dim).to(e)], dim=-1).to(own)
        h = z_t.to(own)
        for block in self.blocks:
            h = block(h, condition)
        return self.out(torch.cat([h, condition], dim=-1)).to(z_t)


class LatentScaler(nn.Module):
    """Latents z-scored by coordinate: diffusion starts and ends at unit variance."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " latent"], std: Float[Tensor, " latent"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def fit(cls, z: Float[Tensor, "batch latent"]) -> "LatentScaler":
        """The scaler of latents that exist; a coordinate that never varies keeps a s.d. of 1e-6."""
        return cls(z.mean(0), z.std(0, correction=0).clamp_min(1e-6))

    def standardise(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        return (z - self.mean) / self.std

    def restore(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """The exact inverse of ``standardise``, up to rounding."""
        return z * self.std + self.mean


class QuestionWhitener(nn.Module):
    """Question embeddings centred and whitened, to norm 1 on average over those it was fitted to.

    CLIP's embeddings of questions lie close together (mean cosine 0.94 for the tiny model), and what tells two of them
    apart is a small part of their variance. The transform is the symmetric one (ZCA), which depends on the covariance
    alone: the principal axes themselves are arbitrary where variances are equal, and differ between machines.
    """

    mean: Tensor
    transform: Tensor

    def __init__(self, mean: Float[Tensor, " embed"], transform: Float[Tensor, "embed embed"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("transform", transform)

    @classmethod
    def fit(cls, e: Float[Tensor, "batch embed"], floor: float) -> "QuestionWhitener":
        """The whitener of the embeddings of the training questions, computed on the CPU in float64.

        ``floor`` keeps directions that hardly vary from being magnified: ``floor`` times the largest s.d. is added to
        theirs in quadrature.
        """
        known = e.detach().cpu().double()
        mean = known.mean(0)
        centred = known - mean
        if centred.abs().max() <= 1e-7 * known.abs().max():  # copies of one question do not say how questions vary
            return cls(mean.to(e), torch.eye(e.shape[1], dtype=e.dtype, device=e.device))
        values, vectors = torch.linalg.eigh(centred.mT @ centred / len(e))
        std = (values.clamp_min(0) + floor**2 * values.max()).sqrt().clamp_min(1e-12)
        transform = (vectors / std) @ vectors.mT
        norm = (centred @ transform).norm(dim=-1).mean().clamp_min(1e-12)
        return cls(mean.to(e), (transform / norm).to(e))

    def forward(self, e: Float[Tensor, "batch embed"]) -> Float[Tensor, "batch embed"]:
        return (e - self.mean) @ self.transform


def diffusion_loss(
    denoiser: nn.Module,
    schedule: Schedule,
    z0: Float[Tensor, "batch latent"],
    e: Float[Tensor, "batch embed"],
    dropout: float,
    generator: torch.Generator,
    unconditional: Float[Tensor, "batch latent"] | None = None,
    rows: slice = slice(None),
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Eq. 9 per coordinate (1.0 when nothing is predicted), at a random time for each standardised latent.

    Each question is replaced by zeros with probability ``dropout``, independently (Section 5.2); its row of z0 is then
    the one of ``unconditional``, where the latents diffused without a question are others. With ``rows``, the mean over
    these alone, with the times and the noise that they have in the whole batch.
    """
    draw_on = generator.device
    t = to_device(torch.randint(schedule.T, (len(z0),), generator=generator, device=draw_on), z0.device)
    dropped = to_device(torch.rand(len(z0), 1, generator=generator, device=draw_on) < dropout, z0.device)
    if unconditional is not None:
        z0 = torch.where(dropped, unconditional, z0)
    noise = normal_like(z0, generator)
    z_t, e = schedule.q_sample(z0, t, noise), e.masked_fill(dropped, 0)
    loss = F.mse_loss(denoiser(z_t[rows], t[rows], e[rows]), noise[rows])
    return loss, {"loss": loss.detach()}
