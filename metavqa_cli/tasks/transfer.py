"""From the host's memory to a GPU's, without waiting for what the GPU still has to do."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` (on the CPU) on ``device``.

    A plain copy from pageable memory waits until everything that was queued before it is done, and with it the host,
    which could be queueing the next step. From pinned memory it is queued as a kernel is, and PyTorch keeps the pinned
    block until it has been read.
    """
    return copied(tensor, torch.device(device))


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """The copy itself."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
