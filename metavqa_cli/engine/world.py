"""The processes that do one job together: how work is divided among them, and what they tell each other.

All of them run the same code on the same data and draw the same random numbers; each computes its share of the rows
and hears of the others' results. The first one alone reads what may change meanwhile (``decide``), writes and prints.
Without torchrun the world is one process, and everything here passes its arguments through.
"""

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from metavqa_cli.engine.torchrun import Place, place
from metavqa_cli.schema import errors
from metavqa_cli.schema.errors import JobError, MetaVQAError, UsageError

PATIENCE = timedelta(minutes=30)  # that one process may work alone, or hang, while the others wait
GRACE_SECONDS = 5.0  # that what is queued on a GPU may still take when this process was told to stop
LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Socket", "Broken pipe", "Timed out", "process group")
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element
T = TypeVar("T")


class LostProcess(JobError):
    """Another process of the job ended or cannot be reached. Exit code 1."""


@dataclass(frozen=True)
class Share:
    """The ``rows`` of a batch that one process computes, and what part of the whole they are.

    Where a batch has fewer rows than there are processes, some of them compute its first row for nothing: ``weight`` 0.
    """

    rows: slice
    weight: float

    def of(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of the batch's mean loss and metrics that is due to these rows, whose own means are given."""
        if self.weight == 1:
            return loss, dict(metrics)
        return self.weight * loss, {name: self.weight * value for name, value in metrics.items()}


@dataclass(frozen=True)
class World:
    """This process's number, how many there are, and the device that this one computes on (None: the CPU)."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def endured(self, seconds: float) -> float:
        """How long the first process may wait for something while the others wait for it."""
        return seconds if self.size == 1 else min(seconds, PATIENCE.total_seconds() / 2)

    def bounds(self, n: int) -> slice:
        """Which of ``n`` rows are this process's: like numbers for all, perhaps none."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def share(self, n: int) -> Share:
        """Which of a batch's ``n`` rows this process computes: at least one."""
        own = self.bounds(n)
        return Share(own, (own.stop - own.start) / n) if own.stop > own.start else Share(slice(0, 1), 0.0)

    def decide(self, work: Callable[[], T]) -> T:
        """What ``work`` returns (plain JSON values) in the first process; all fail with it if it fails."""
        return work() if self.size == 1 else _decided(self, work)

    def gathered(self, rows: Tensor, n: int) -> Tensor:
        """All ``n`` rows, of which each process gives its share [own, ...]; gradients find their way back."""
        return rows if self.size == 1 else _Gathered.apply(rows, n, self)

    def dealt(self, parts: Sequence[T]) -> Sequence[T]:
        """The ``parts`` of some work that this process does, perhaps none."""
        return parts[self.rank :: self.size]

    def by_parts(self, parts: Sequence[Tensor], measure: Callable[[Tensor], Tensor]) -> Tensor:
        """``measure(part)`` [row, ...] of every part, in the order of the rows that are numbered in ``parts``.

        Each part is measured by one process, whole: what comes out does not depend on how many there are.
        """
        own = self.dealt(parts)
        with _apart():
            found = [measure(part) for part in own]
        if self.size == 1:
            return torch.cat(found)[torch.cat(list(parts)).argsort()]
        shape = self.decide(lambda: list(found[0].shape[1:]))
        dtype = getattr(torch, self.decide(lambda: str(found[0].dtype).removeprefix("torch.")))
        whole = torch.zeros(sum(map(len, parts)), *shape, dtype=dtype, device=self.device)
        for part, those in zip(own, found, strict=True):
            whole[part] = those
        self.summed(whole)
        settled(whole.device)
        return whole

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place. ``LostProcess`` when one is missing."""
        if self.size > 1:
            with explained():
                dist.all_reduce(tensor.view(torch.uint8) if tensor.dtype is torch.bool else tensor)
        return tensor

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        if self.size == 1:
            return dict(values)
        total = self.summed(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process."""
        return self.mean({"flag": float(flag)})["flag"] > 0

    def meeting(self, seconds: float) -> Callable[[], None]:
        """What waits, up to ``seconds``, until all processes have called it; all make it together."""
        if self.size == 1:
            return lambda: None
        with explained():
            group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds)))

        def meet() -> None:
            with explained():
                coming = dist.barrier(group, async_op=True)
                assert coming is not None
                while not coming.is_completed():  # in C++ no signal would be heard
                    time.sleep(0.05)
                coming.wait()
                dist.destroy_process_group(group)

        return meet

    def check_same(self, module: nn.Module, step: int) -> None:
        """``JobError`` when the parameters are not the same, bit by bit, in all processes."""
        if self.size == 1:
            return
        sums = [value.detach().contiguous().view(INTEGERS[value.element_size()]).sum(dtype=torch.int64)
                for value in module.parameters()]  # fmt: skip
        found = torch.stack(sums).sum().cpu()
        extremes = torch.stack([found, -found])
        with explained():
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        if extremes[0] != -extremes[1]:
            raise self.common(JobError(
                f"the parameters differ between the processes at step {step}: their machines do not compute alike; "
                "use machines of one kind, or one process; the last checkpoint is from before"
            ))  # fmt: skip

    def common(self, error: MetaVQAError) -> MetaVQAError:
        """``error``, which every process raises; the first one says it for all."""
        error.said = not self.first
        return error


_world = World()
_told: Callable[[], bool] = bool  # False


def here() -> World:
    """The world that this process is in."""
    return _world


@contextmanager
def _apart() -> Iterator[None]:
    """In the body this process is alone: what it does there for its part, the others do not do with it."""
    global _world
    before, _world = _world, World()
    try:
        yield
    finally:
        _world = before


def join(device: torch.device) -> World:
    """Meet the other processes that torchrun started; returns at once when there are none, or they have met.

    Gradients and rows travel over NCCL between GPUs, everything else over gloo. Raises ``UsageError`` when the
    environment does not say where to meet, and ``LostProcess`` when not all processes come.
    """
    global _world
    mine = place()
    if mine.size > 1 and _world.size == 1:
        if not mine.met:
            raise UsageError(
                f"the environment says WORLD_SIZE={mine.size}, but not where the processes meet (MASTER_ADDR and "
                "MASTER_PORT); start them with torchrun, or unset RANK and WORLD_SIZE"
            )
        _meet(device, mine)
        _world = World(mine.rank, mine.size, device)
    return _world


def _meet(device: torch.device, mine: Place) -> None:
    on_gpus = device.type == "cuda"
    if on_gpus:
        torch.cuda.set_device(device)
        # When a process is lost NCCL would end this one on the spot; `settled` finds out in time for a checkpoint.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    with explained():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpus else "gloo", rank=mine.rank, world_size=mine.size, timeout=PATIENCE
        )


def leave() -> None:
    """Part from the others, when the job is done."""
    global _world
    if dist.is_initialized():
        dist.destroy_process_group()
        _world = World()


@contextmanager
def heeding(told: Callable[[], bool]) -> Iterator[None]:
    """In the body, ``told`` says whether this process was told to stop, which ends its waiting for others."""
    global _told
    before, _told = _told, told
    try:
        yield
    finally:
        _told = before


def settled(device: torch.device) -> None:
    """Wait for what is queued on ``device``, if that is a GPU, in a way that a signal interrupts (``awaited``)."""
    if device.type == "cuda":
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(device))
        awaited(arrived.query)


def awaited(done: Callable[[], bool]) -> None:
    """Wait until ``done``, which others have a part in.

    ``LostProcess`` after ``PATIENCE``, or ``GRACE_SECONDS`` after this process was told to stop, as torchrun does when
    another one ended.
    """
    began, told = time.monotonic(), math.inf
    while not done():
        now = time.monotonic()
        if _told():
            told = min(told, now)
        if now - began > PATIENCE.total_seconds() or now - told > GRACE_SECONDS:
            raise LostProcess("what another process of this job has to compute did not come")
        if now - began > 1:  # no longer a step, but somebody's work or loss
            time.sleep(1e-3)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the failure of a collective into ``LostProcess``, if it says that a process is missing."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise LostProcess(lost_text(error)) from error


def lost_text(error: BaseException) -> str:
    """The sentence of ``LostProcess`` for an error that ``is_lost``."""
    if isinstance(error, LostProcess):
        return str(error)
    reason = re.sub(r"^\[[^\]]*\] *", "", (str(error).splitlines() or [""])[0])  # less the place in torch's source
    return f"another process of this job ended or cannot be reached ({reason.partition('. ')[0]})"


def is_lost(error: BaseException) -> bool:
    """Whether ``error`` says that another process is missing."""
    known = isinstance(error, (LostProcess, dist.DistError))
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in LOST))


def _decided(world: World, work: Callable[[], T]) -> T:
    if not world.first:
        heard = json.loads(_broadcast(b""))
        if "error" in heard:
            kind, text = heard["error"]
            raise world.common(getattr(errors, kind)(text))
        value: T = heard["value"]
        return value
    try:
        value = work()
    except Exception as error:
        kind = type(error).__name__ if type(error).__module__ == errors.__name__ else JobError.__name__
        _broadcast(json.dumps({"error": [kind, str(error)]}).encode())
        raise
    _broadcast(json.dumps({"value": value}).encode())
    return value


def _broadcast(data: bytes) -> bytes:
    """The first process's bytes."""
    with explained():
        length = torch.tensor([len(data)])
        dist.broadcast(length, 0)
        sent = torch.empty(int(length), dtype=torch.uint8)
        if data:
            sent = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        dist.broadcast(sent, 0)
    return sent.numpy().tobytes()


class _Gathered(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is the sum of what all of them find for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, n: int, world: World) -> Tensor:
        ctx.world, ctx.given = world, len(rows)
        own = world.bounds(n)
        whole = rows.new_zeros(n, *rows.shape[1:])
        whole[own] = rows[: own.stop - own.start]
        return world.summed(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = ctx.world.summed(gradients[0].clone())
        own = ctx.world.bounds(len(gradient))
        mine = gradient.new_zeros(ctx.given, *gradient.shape[1:])
        mine[: own.stop - own.start] = gradient[own]
        return mine, None, None
