"""The one training loop: step, average, validate, keep the best, checkpoint, stop, resume.

A step's randomness comes from a generator seeded by (seed, step) and the batch order from (seed, epoch), so a resumed
run repeats exactly what an uninterrupted one does without storing any generator's state.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from metavqa_cli.engine.finite import Average, Finite
from metavqa_cli.engine.precision import Arithmetic, computing
from metavqa_cli.schema.errors import InterruptedJob
from metavqa_cli.schema.events import CheckpointSaved, Event, RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, save_tensors

LOG_SECONDS = 1.0
SCORE = "accuracy"  # the validation metric that decides which parameters are kept, in per cent


M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Trainable(Protocol[M]):
    """What a method gives to the loop: parameters, a loss for one step, and a score on the validation tasks."""

    @property
    def module(self) -> M:
        """The parameters to be trained; at the end it holds the best ones."""
        ...

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the batch of ``step``, and metrics for the log."""
        ...

    def validate(self, module: M) -> dict[str, float]:
        """Metrics of ``module`` on the validation tasks; ``accuracy`` (per cent) decides which parameters are kept."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how fast. ``tasks_per_step`` only serves the displayed rate."""

    steps: int
    lr: float
    grad_clip: float
    validate_every: int
    seed: int
    tasks_per_step: int
    checkpoint_seconds: float
    ema: float = 0.0
    patience: int = 0
    """Validations without a new best after which training stops; 0 never stops early."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Learning rates of parameters that have their own, by name."""
    weight_decay: float = 0.0
    """Decoupled (Loshchilov and Hutter, 2019), of the parameters without a rate of their own."""
    decay: float = 0.0
    """Last share of the steps in which the learning rates fall linearly to zero."""
    arithmetic: Arithmetic = "fp32"
    """Of the loss; parameters, their average and the optimiser stay in fp32."""
    clip_apart: tuple[str, ...] = ()
    """Parts of the module whose gradient norms are limited each by itself; what is left, together."""


@dataclass
class Progress:
    """Where a training stands."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    since_best: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)


def batch_indices(n: int, batch: int, step: int, seed: int) -> Tensor:
    """The ``step``-th batch of endless epochs over ``n`` items, each epoch a new permutation, none dropped."""
    per_epoch = math.ceil(n / batch)
    epoch, position = divmod(step, per_epoch)
    return _order(n, mix(seed, epoch))[position * batch : (position + 1) * batch].clone()


@lru_cache(maxsize=2)  # a step must not cost as much as an epoch: 10 ms for a million items
def _order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def mix(seed: int, number: int) -> int:
    """One seed from two numbers."""
    return (seed * 1_000_003 + number * 7_919 + 17) % 2**48


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request; the second ends the process at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen for interruptions while the body runs; in another thread than the main one, nothing is installed."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(run: Run, trainable: Trainable[M], plan: Plan, device: torch.device) -> Iterator[Event]:
    """Train to the end, leaving the best parameters in ``trainable.module``; resumes from the run's last checkpoint.

    Raises ``InterruptedJob`` after a checkpoint when asked to stop, and ``JobError`` when the loss is not finite.
    """
    module = trainable.module
    clipped = clipping_groups(module, plan.clip_apart)
    groups = [
        {"params": [p], "lr": plan.lr, "weight_decay": plan.weight_decay}
        | ({"lr": plan.rates[name], "weight_decay": 0.0} if name in plan.rates else {})
        for name, p in module.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.lr, fused=device.type in ("cpu", "cuda"))
    finite = Finite(device)
    rates = [group["lr"] for group in optimizer.param_groups]
    average = Average(module, plan.ema) if plan.ema else None
    averaged = module if average is None else cast(M, average.module)
    progress = Progress()
    if run.state_path.exists():
        progress = _restore(run, module, average, optimizer)
    yield RunStarted(run.id, run.kind, plan.steps, progress.step)
    logged = saved = started = time.monotonic()
    first = progress.step
    with stop_request() as stop:
        while progress.step < plan.steps and not (plan.patience and progress.since_best >= plan.patience):
            factor = rate_factor(plan, progress.step)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = factor * rate
            metrics = _step(trainable, optimizer, clipped, plan, finite, progress.step)
            if average is not None:
                average.update_parameters(module)
            progress.step += 1
            now = time.monotonic()
            last = progress.step == plan.steps
            due = last or progress.step % plan.validate_every == 0
            if due or stop.asked or now - logged >= LOG_SECONDS or now - saved >= plan.checkpoint_seconds:
                finite.check()
            if now - logged >= LOG_SECONDS or last:
                logged = now
                pace = (progress.step - first) * plan.tasks_per_step / max(now - started, 1e-9)
                yield StepLogged(progress.step, {**metrics(), "lr": factor * plan.lr, "tasks_per_s": pace})
            if due:
                yield _validate(trainable, averaged, progress)
            if stop.asked or now - saved >= plan.checkpoint_seconds:
                saved = now
                _save(run, module, average, optimizer, progress)
                yield CheckpointSaved(progress.step)
            if stop.asked:
                again = f"`metavqa train {run.kind} --resume {run.id}`, or the same command (without --force),"
                raise InterruptedJob(f"interrupted at step {progress.step} of {plan.steps}; {again} goes on from there")
    module.load_state_dict(progress.best_state)


def rate_factor(plan: Plan, step: int) -> float:
    """What multiplies the learning rates at ``step``: 1, then linearly down to 1/steps of the decay at the last."""
    left, falling = plan.steps - step, plan.decay * plan.steps
    return 1.0 if left >= falling else left / falling


def clipping_groups(module: nn.Module, apart: tuple[str, ...]) -> list[list[nn.Parameter]]:
    """The parameters of each part named in ``apart``, then those of no such part; none empty."""
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (*apart, "")}
    for name, parameter in module.named_parameters():
        groups[next((part for part in apart if name.startswith(f"{part}.")), "")].append(parameter)
    return [group for group in groups.values() if group]


def _step(
    trainable: Trainable[M],
    optimizer: torch.optim.Optimizer,
    clipped: list[list[nn.Parameter]],
    plan: Plan,
    finite: Finite,
    step: int,
) -> Callable[[], dict[str, float]]:
    """One update; returns a function that reads the metrics, so that a device is only waited for to show them."""
    with computing(finite.failed.device, plan.arithmetic):
        loss, metrics = trainable.loss(step, torch.Generator().manual_seed(mix(plan.seed, step)))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.stack([nn.utils.clip_grad_norm_(group, plan.grad_clip) for group in clipped]).norm()
    finite.watch(norm, loss.detach(), step)
    if optimizer.defaults["fused"]:
        optimizer.found_inf = finite.failed  # type: ignore[attr-defined]
    else:  # no other one can be told on the device
        finite.check()
    optimizer.step()
    return lambda: {**{name: float(value) for name, value in metrics.items()}, "grad_norm": float(norm)}


def _validate(trainable: Trainable[M], module: M, progress: Progress) -> ValidationMeasured:
    with torch.no_grad():
        metrics = trainable.validate(module)
    best = metrics[SCORE] > progress.best
    if best:
        progress.best, progress.best_step, progress.since_best = metrics[SCORE], progress.step, 0
        progress.best_state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    else:
        progress.since_best += 1
    return ValidationMeasured(progress.step, metrics, best)


def _save(run: Run, module: nn.Module, average: Average | None, optimizer: Any, progress: Progress) -> None:
    tensors = {f"model/{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in progress.best_state.items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    finite = progress.best if math.isfinite(progress.best) else None
    header = {"step": progress.step, "best": finite, "best_step": progress.best_step, "since_best": progress.since_best}
    save_tensors(run.state_path, tensors, header)


def _restore(run: Run, module: nn.Module, average: Average | None, optimizer: Any) -> Progress:
    tensors, header = load_tensors(run.state_path, remedy=f"start again with `metavqa runs rm {run.id}`")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

    module.load_state_dict(part("model/"))
    if average is not None:
        average.load_state_dict(part("average/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimizer/").items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    best = -math.inf if header["best"] is None else header["best"]
    return Progress(header["step"], best, header["best_step"], header["since_best"], part("best/"))
