"""One training in several processes: each computes its share of a step's loss, DDP averages the gradients."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metavqa_cli.engine.world import World, settled

WISHES = ("log", "save", "stop")


@runtime_checkable
class Loss(Protocol):
    """What has parameters and a loss for each step."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]: ...


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
        """Whether all do ``name`` ("log", "save" or "stop") now; to be asked after ``settle``."""
        ...


def team_of(trainable: Loss, world: World) -> Team:
    """This process alone, or all of the world."""
    return Alone(trainable) if world.size == 1 else Together(trainable, world)


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

    def __init__(self, trainable: Loss, world: World) -> None:
        self.module = trainable.module
        self.device = next(trainable.module.parameters()).device
        self.wishes = dict.fromkeys(WISHES, False)
        self.heard: dict[str, bool] = {}
        self.shared = _Shared(trainable, world, self.device)
        self.averaged = DistributedDataParallel(self.shared)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's share, times their number: what DDP then averages is the whole."""
        self.shared.wishes.grad = None
        wishes = torch.tensor([float(self.wishes[name]) for name in WISHES], device=self.device)
        self.wishes = dict.fromkeys(WISHES, False)
        found: tuple[Tensor, dict[str, Tensor]] = self.averaged(step, generator, wishes)
        return found

    def settle(self) -> None:
        """Also hears what the others wished, while nothing is queued that a GPU would first have to do."""
        settled(self.device)
        given = self.shared.wishes.grad
        assert given is not None, "settle() comes after a backward pass"
        self.heard = {name: share > 0 for name, share in zip(WISHES, given.tolist(), strict=True)}

    def agreed(self, name: str, wish: bool) -> bool:
        """Whether any process wished it before this step; ``wish`` goes with the next, if it is not fulfilled now."""
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
