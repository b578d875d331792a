"""Whether a training's numbers stay finite and its loss within bounds, and a running mean of parameters, without a GPU
being waited for in any step."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

RING = 4096  # losses between two looks at them: a second has fewer steps
SMOOTH = 20  # steps whose losses are averaged
FIRST = 10  # steps whose mean loss is where the training begins
LASTING = 50  # steps for which the loss is beyond all bounds when a training is said to diverge


class Finite:
    """Watches the gradients and the loss of a training on the device itself.

    ``failed`` is 1 from the first step whose gradient was not finite. The fused optimiser reads it as its
    ``found_inf`` and leaves parameters and state alone, so that nothing that is kept can be spoiled before somebody
    asks by ``found``, which waits for the device: before a log, a validation and a checkpoint.
    """

    def __init__(self, device: torch.device) -> None:
        self.failed = torch.zeros((), device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._losses = torch.zeros(RING, device=device)
        self._taken = 0
        self.trend = Trend()

    @torch.no_grad()
    def watch(self, norm: Tensor, loss: Tensor, step: int) -> None:
        """Remember ``step`` if it is the first whose gradient's ``norm`` is not finite; and its ``loss``."""
        now = norm.isfinite().logical_not_()
        first = now.logical_and(self.failed == 0)
        self._step = torch.where(first, step, self._step)
        self.failed = torch.maximum(self.failed, now.to(self.failed.dtype))
        self._losses[self._taken % RING] = loss
        self._taken += 1

    def found(self) -> int | None:
        """The first step whose gradient was not finite; None if there is none."""
        return int(self._step) if self.failed.item() else None

    def diverged(self, step: int) -> bool:
        """Whether, with the losses since the last time, up to that of the step before ``step``, the training is now
        known to diverge; true once."""
        losses = self._losses.roll(-self._taken) if self._taken > RING else self._losses[: self._taken]
        before, taken = self.trend.diverging, losses.tolist()
        self._taken = 0
        self.trend.extend(taken, step - len(taken))
        return before is None and self.trend.diverging is not None


def poisoned(loss: Tensor) -> Tensor:
    """``loss``, whose gradient is NaN where it is not finite itself: DDP then tells every process of it."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan).to(loss.dtype)


@dataclass
class Trend:
    """Where a loss has been: the mean of the first steps, the lowest smoothed one, and that of now.

    It diverges when the smoothed loss has risen over its lowest, for ``LASTING`` steps, by more than twice as far as it
    had fallen, and by more than the lowest's own size. No noise does that, nor a loss that rises to where it began, nor
    a spike, of which only a part as high as the bound is counted.
    """

    steps: int = 0
    last: float = 0.0
    smooth: float = 0.0
    first: float = 0.0
    lowest: float = 0.0
    beyond: int = 0
    """Steps in a row in which it is out of bounds."""
    diverging: int | None = None
    """The step from which on it has been, once it is said to diverge."""

    def extend(self, losses: Iterable[float], step: int) -> None:
        """Go on with the losses of ``step`` and the ones after it; those that are not finite are another matter."""
        for step, loss in enumerate(losses, step):  # noqa: B020
            if not math.isfinite(loss):
                continue
            most = math.inf if self.steps < FIRST else 2 * self.bound - self.lowest
            self.steps, self.last = self.steps + 1, loss
            self.smooth += (min(loss, most) - self.smooth) / min(self.steps, SMOOTH)
            if self.steps <= FIRST:
                self.first = self.lowest = self.smooth
            self.lowest = min(self.lowest, self.smooth)
            self.beyond = self.beyond + 1 if self.smooth > self.bound else 0
            if self.beyond == LASTING and self.diverging is None:
                self.diverging = step - LASTING + 1

    @property
    def bound(self) -> float:
        """What no smoothed loss is above unless it diverges."""
        return self.lowest + 2 * (self.first - self.lowest) + abs(self.lowest)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
