"""What a method gives to the training loop."""

from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from metavqa_cli.tasks.arena import Arena

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Trainable(Protocol[M]):
    """What a method gives to the loop: parameters, a loss for one step, and a score on the validation tasks."""

    @property
    def module(self) -> M:
        """The parameters to be trained; at the end it holds the best ones."""
        ...

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the batch of ``step``, and metrics for the log.

        Of several processes (``world.here()``) each returns its share of them: they add up to the whole batch's. The
        loss depends on every parameter in each of them.
        """
        ...

    def tasks(self, step: int) -> Arena:
        """The tasks of the batch of ``step``, in the order in which processes share them; asked when a step failed."""
        ...

    def validate(self, module: M) -> dict[str, float]:
        """Metrics of ``module`` on the validation tasks; ``accuracy`` (per cent) decides which parameters are kept."""
        ...
