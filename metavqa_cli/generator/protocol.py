"""What guidance and methods need to know of a generator."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Generator(Protocol):
    """h(z, θ): ``latent`` is the length of z, ``decode`` maps latents to flat base-network weights."""

    latent: int

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]: ...
