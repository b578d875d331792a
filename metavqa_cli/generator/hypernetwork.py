"""h(z, θ): from a latent to the flat weights of the base network (Section 2.3, Appendix A.2)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metavqa_cli.generator.layers import mlp


class Hypernetwork(nn.Module):
    """base + scale·MLP(z), with ReLU between the layers and Kaiming initialisation.

    ``base`` [P] is the initialisation that latents move away from, ``scale`` how far an output of 1 moves a weight.
    Both are buffers. ``generator`` draws the parameters; None leaves them to ``load_state_dict(..., assign=True)``.
    """

    base: Tensor
    scale: Tensor

    def __init__(
        self,
        latent: int,
        hidden: Sequence[int],
        base: Float[Tensor, " params"],
        scale: float | Float[Tensor, ""],
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.mlp = mlp([latent, *hidden, len(base)], generator)
        self.register_buffer("base", base)
        self.register_buffer("scale", torch.as_tensor(scale, dtype=base.dtype, device=base.device))

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]:
        return self.base + self.scale * self.mlp(z)

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]:
        """The weights of each latent."""
        return self(z)
