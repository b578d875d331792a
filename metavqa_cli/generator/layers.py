"""Layers and noise drawn from an explicit generator, so that no model touches the global random state."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metavqa_cli.tasks.transfer import to_device


def linear(n_in: int, n_out: int, generator: torch.Generator | None, nonlinearity: str = "relu") -> nn.Linear:
    """A linear layer with Kaiming-normal weights and zero biases.

    Without a generator the parameters stay on the meta device: they cost nothing, and fail when used, until
    ``load_state_dict(..., assign=True)`` fills them.
    """
    layer = nn.Linear(n_in, n_out, device="meta")
    if generator is None:
        return layer
    layer = layer.to_empty(device=generator.device)
    nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity, generator=generator)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)
    return layer


def mlp(widths: Sequence[int], generator: torch.Generator | None) -> nn.Sequential:
    """Linear layers from ``widths[0]`` to ``widths[-1]`` with ReLU between them (Appendix A.2)."""
    pairs = list(pairwise(widths))
    hidden: list[nn.Module] = []
    for n_in, n_out in pairs[:-1]:
        hidden += [linear(n_in, n_out, generator), nn.ReLU()]
    return nn.Sequential(*hidden, linear(*pairs[-1], generator, nonlinearity="linear"))


def normal_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise in the shape and type of ``tensor``, for a CPU generator the same on every device.

    Drawn in fp32 at least, so that bf16 sees the same numbers, rounded.
    """
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    noise = torch.randn(tensor.shape, generator=generator, device=generator.device, dtype=dtype)
    return to_device(noise, tensor.device).to(tensor.dtype)
