"""Whether gradients stay finite, and a running mean of parameters, without a GPU being waited for in any step."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from metavqa_cli.engine.world import here
from metavqa_cli.schema.errors import JobError


class Finite:
    """Watches the gradients of a training on the device itself.

    ``failed`` is 1 from the first step whose gradient was not finite. The fused optimiser reads it as its
    ``found_inf`` and leaves parameters and state alone, so that nothing that is kept can be spoiled before somebody
    asks by ``check``, which waits for the device: before a log, a validation and a checkpoint.
    """

    def __init__(self, device: torch.device) -> None:
        self.failed = torch.zeros((), device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)

    @torch.no_grad()
    def watch(self, norm: Tensor, loss: Tensor, step: int) -> None:
        """Remember ``step`` and its ``loss`` if it is the first whose gradient's ``norm`` is not finite."""
        now = norm.isfinite().logical_not_()
        first = now.logical_and(self.failed == 0)
        self._step = torch.where(first, step, self._step)
        self._loss = torch.where(first, loss.to(self._loss.dtype), self._loss)
        self.failed = torch.maximum(self.failed, now.to(self.failed.dtype))

    def check(self) -> None:
        """``JobError`` that names the step, if a gradient was not finite."""
        if self.failed.item():
            step, loss = int(self._step), float(self._loss)
            text = f"the gradient is not finite at step {step} (loss {loss:.4g}); lower the learning rate"
            raise here().common(JobError(text))


class Average(AveragedModel):
    """Parameters averaged with ``decay``, as ``AveragedModel`` does it.

    That takes its counter to the device in every step, which waits for all that is queued there, though the average
    does not depend on it. Buffers are constants in every module that is trained here.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self._mix = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        ours, theirs = ([*map(Tensor.detach, each.parameters())] for each in (self.module, model))
        if self.n_averaged == 0:  # on the CPU
            torch._foreach_copy_(ours, theirs)
        else:
            self._mix(ours, theirs, self.n_averaged)
        self.n_averaged += 1
