"""CLIP as base model: no adapter at all."""

import torch
from jaxtyping import Float
from torch import Tensor

from metavqa_cli.base_network.layout import WeightLayout


def zero_shot_weights(
    layout: WeightLayout, n_tasks: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "task params"]:
    """Weights of zeros, with which f(x, W) is the CLIP embedding of the image. One stored row, expanded."""
    return torch.zeros(1, layout.size, device=device).expand(n_tasks, -1)
