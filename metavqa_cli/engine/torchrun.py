"""Which of several processes this one is, as torchrun says it in the environment. Without torch."""

import os
from dataclasses import dataclass

from metavqa_cli.schema.errors import UsageError


@dataclass(frozen=True)
class Place:
    """The number of this process and of all, from 0; and of those that run on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def met(self) -> bool:
        """Whether the environment also says where the processes meet."""
        return "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ


def place() -> Place:
    """Where torchrun put this process; without it, alone. ``UsageError`` for an environment it cannot have made."""
    rank, size = counted("RANK", 0), counted("WORLD_SIZE", 1)
    if rank >= size:
        raise UsageError(f"the environment says RANK={rank} of WORLD_SIZE={size}; unset both, or use torchrun")
    return Place(rank, size, counted("LOCAL_RANK", 0), counted("LOCAL_WORLD_SIZE", 1))


def counted(variable: str, default: int) -> int:
    """A number in the environment."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UsageError(f"the environment says {variable}={text!r}, expected a number, as torchrun sets it; unset it")
    return int(text)
