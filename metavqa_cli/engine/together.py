"""One training in several processes: each computes its share of a step's loss, DDP averages the gradients."""

import time
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metavqa_cli.engine.world import LostProcess, World

WISHES = ("log", "save", "stop")
GRACE_SECONDS = 5.0  # that a step on GPUs may still take when this process was told to stop


@runtime_checkable
class Loss(Protocol):
    """What has parameters and a loss for each step."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]: ...


@runtime_checkable
class Stop(Protocol):
    """Whether this process was told to stop."""

    asked: bool


@runtime_checkable
class Team(Protocol):
    """Who computes the loss of a step of ``module``, each its share."""

    module: nn.Module

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss whose gradient, after ``backward`` and ``settle``, is the whole batch's; and the metrics."""
        ...

    def settle(self) -> None:
        """Wait for the gradients."""
        ...

    def agreed(self, name: str, wish: bool) -> bool:
        """Whether all do ``name`` ("log", "save" or "stop") now; to be asked after the backward pass."""
        ...


def team_of(trainable: Loss, world: World, stop: Stop) -> Team:
    """This process alone, or all of the world."""
    return Alone(trainable) if world.size == 1 else Together(trainable, world, stop)


class Alone:
    """The training of one process, which does what it wishes."""

    def __init__(self, trainable: Loss) -> None:
        self.module, self.loss = trainable.module, trainable.loss

    def settle(self) -> None:
        """Nobody else has to be waited for."""

    def agreed(self, name: str, wish: bool) -> bool:
        return wish


class Together:
    """The training of all processes, seen from one of them.

    What a process wishes travels with the gradients of its next step, at no cost, so that all do the same after the
    same step: a wish is the gradient of a parameter that nothing else depends on.
    """

    def __init__(self, trainable: Loss, world: World, stop: Stop) -> None:
        self.module, self.stop = trainable.module, stop
        self.device = next(trainable.module.parameters()).device
        self.wishes = dict.fromkeys(WISHES, False)
        self.heard: dict[str, bool] = {}
        self.shared = _Shared(trainable, world, self.device)
        self.averaged = DistributedDataParallel(self.shared)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's share, times their number: what DDP then averages is the whole."""
        self.heard, self.shared.wishes.grad = {}, None
        wishes = torch.tensor([float(self.wishes[name]) for name in WISHES], device=self.device)
        self.wishes = dict.fromkeys(WISHES, False)
        found: tuple[Tensor, dict[str, Tensor]] = self.averaged(step, generator, wishes)
        return found

    def settle(self) -> None:
        """On GPUs in a way that a signal interrupts: ``LostProcess`` when the gradients do not come and this process
        is told to stop, as torchrun does when another one ended."""
        if self.device.type != "cuda":
            return
        arrived, told = torch.cuda.Event(), 0.0
        arrived.record()
        while not arrived.query():
            if self.stop.asked:
                told = told or time.monotonic()
                if time.monotonic() - told > GRACE_SECONDS:
                    raise LostProcess("the gradients of another process of this job did not come")

    def agreed(self, name: str, wish: bool) -> bool:
        """Whether any process wished it before this step; ``wish`` goes with the next, if it is not fulfilled now."""
        if not self.heard:
            given = self.shared.wishes.grad
            assert given is not None, "agreed() is asked after a backward pass"
            self.heard = {known: share > 0 for known, share in zip(WISHES, given.tolist(), strict=True)}
        self.wishes[name] = wish and not self.heard[name]
        return self.heard[name]


class _Shared(nn.Module):
    """DDP averages what is computed in the forward pass of a module."""

    def __init__(self, trainable: Loss, world: World, device: torch.device) -> None:
        super().__init__()
        self.loss_of, self.size = trainable.loss, world.size
        self.trained = nn.ParameterList(trainable.module.parameters())  # without the buffers, which nothing changes
        self.wishes = nn.Parameter(torch.zeros(len(WISHES), device=device))

    def forward(self, step: int, generator: torch.Generator, wishes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.loss_of(step, generator)
        whole = self.size * loss + (self.wishes * wishes).sum().to(loss)
        return whole, {name: self.size * value for name, value in metrics.items()}
