"""Uncond. HNet-MAML (Algorithm 4): a hypernetwork, and the z from which a few gradient steps on z lead furthest."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.methods.maml import meta_loss
from metavqa_cli.tasks.batches import TaskBatch


class HNet(nn.Module):
    """The decoder h(z, θ) and ``z0`` [L], drawn from N(0, I), at which every task's adaptation starts."""

    def __init__(self, decoder: Hypernetwork, generator: torch.Generator | None) -> None:
        super().__init__()
        self.latent, self.decoder = decoder.latent, decoder
        device = "meta" if generator is None else generator.device
        self.z0 = nn.Parameter(torch.empty(decoder.latent, dtype=decoder.base.dtype, device=device))
        nn.init.normal_(self.z0, generator=generator)

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]:
        """The weights of each latent."""
        return self.decoder(z)


def hnet_maml_loss(
    model: HNet,
    support: TaskBatch,
    query: TaskBatch,
    layout: WeightLayout,
    logit_scale: float,
    inner_lr: float,
    steps: int | Int64[Tensor, " task"],
    order: Literal["first", "second"],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """``meta_loss`` of the latents: the inner loop adapts z alone, the gradient of the result reaches θ and ``z0``.

    Metrics, both on the query sets after adaptation: ``loss``, ``accuracy``.
    """
    start = model.z0.expand(support.n_tasks, -1)
    return meta_loss(model.decode, start, support, query, layout, logit_scale, inner_lr, steps, order)
