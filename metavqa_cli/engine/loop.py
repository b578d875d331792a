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
from functools import lru_cache, partial
from types import FrameType
from typing import cast

import torch
from torch import Tensor, nn

from metavqa_cli.engine.checkpoint import Progress, State, saved_step
from metavqa_cli.engine.diagnosis import NotFinite, all_finite, explain
from metavqa_cli.engine.finite import Average, Finite, poisoned
from metavqa_cli.engine.precision import Arithmetic, computing
from metavqa_cli.engine.together import Team, team_of
from metavqa_cli.engine.trainable import M, Trainable
from metavqa_cli.engine.world import LostProcess, heeding, here, is_lost, lost_text
from metavqa_cli.schema.errors import InterruptedJob, JobError
from metavqa_cli.schema.events import (
    CheckpointSaved,
    Event,
    RunStarted,
    StepLogged,
    TrainingDiverged,
    ValidationMeasured,
)
from metavqa_cli.store.runs import Run

LOG_SECONDS = 1.0
CHEAP_SECONDS = 1.0  # that a checkpoint may take as often as it is wished
SAVING_RATIO = 20  # of training to saving, in time, for others: one of the paper's checkpoints has 12 GB
SCORE = "accuracy"  # the validation metric that decides which parameters are kept, in per cent


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

    Raises ``InterruptedJob`` after a checkpoint when asked to stop, ``JobError`` when something is not finite, and
    ``LostProcess``, after a checkpoint as well, when another process of the job is missing.
    """
    module, world = trainable.module, here()
    groups = [
        {"params": [p], "lr": plan.lr, "weight_decay": plan.weight_decay}
        | ({"lr": plan.rates[name], "weight_decay": 0.0} if name in plan.rates else {})
        for name, p in module.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.lr, fused=device.type in ("cpu", "cuda"))
    average = Average(module, plan.ema) if plan.ema else None
    state = State(module, average, optimizer, Finite(device))
    if world.decide(run.state_path.exists):
        state.restore(run)
    yield RunStarted(run.id, run.kind, plan.steps, state.progress.step)
    with stop_request() as stop, heeding(lambda: stop.asked):
        try:
            yield from _steps(run, trainable, plan, state, stop)
        except Exception as error:
            if world.size == 1 or not is_lost(error):
                raise
            if state.rescue(run, world):
                yield CheckpointSaved(state.progress.step)
            raise LostProcess(f"{lost_text(error)}; {_again(run)}") from error
    module.load_state_dict(state.progress.best_state)


def _steps(run: Run, trainable: Trainable[M], plan: Plan, state: State, stop: StopRequest) -> Iterator[Event]:
    """Take the steps that are left."""
    world, progress, optimizer, average = here(), state.progress, state.optimizer, state.average
    averaged = trainable.module if average is None else cast(M, average.module)
    clipped = clipping_groups(trainable.module, plan.clip_apart)
    rates = [plan.rates.get(name, plan.lr) for name, _ in trainable.module.named_parameters()]
    team, check = team_of(trainable, world), partial(_check, run, trainable, plan, state)
    logged = saved = started = time.monotonic()
    interval = plan.checkpoint_seconds
    first = progress.step
    if progress.validated < first and (_is_due(plan, first) or _ends(plan, progress)):
        # another process was lost in between, or fewer steps are wanted by now
        yield _validate(trainable, averaged, progress)
    while not _ends(plan, progress):
        factor = rate_factor(plan, progress.step)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = factor * rate
        metrics = _step(team, optimizer, clipped, plan, state.finite, progress.step)
        if average is not None:
            average.update_parameters(trainable.module)
        progress.step += 1
        now = time.monotonic()
        logging = team.agreed("log", now - logged >= LOG_SECONDS) or progress.step == plan.steps
        if logging or _is_due(plan, progress.step):
            yield from check()
        if logging:
            logged = now
            pace = (progress.step - first) * plan.tasks_per_step / max(now - started, 1e-9)
            yield StepLogged(progress.step, {**world.mean(metrics()), "lr": factor * plan.lr, "tasks_per_s": pace})
        if _is_due(plan, progress.step):
            yield _validate(trainable, averaged, progress)
        stopping = team.agreed("stop", stop.asked) or (_ends(plan, progress) and world.any(stop.asked))
        if team.agreed("save", world.first and now - saved >= interval) or stopping:
            began = time.monotonic()
            yield from check()
            world.check_same(trainable.module, progress.step)
            if world.first:
                state.save(run)
            saved = time.monotonic()
            interval = _interval(plan, saved - began)
            yield CheckpointSaved(progress.step)
        if stopping:
            text = f"interrupted at step {progress.step} of {plan.steps}; {_again(run)}"
            raise world.common(InterruptedJob(text))


def _again(run: Run) -> str:
    return f"`metavqa train {run.kind} --resume {run.id}`, or the same command (without --force), goes on from there"


def _is_due(plan: Plan, step: int) -> bool:
    return step % plan.validate_every == 0 or step == plan.steps


def _interval(plan: Plan, took: float) -> float:
    """How long after a checkpoint, whose saving ``took`` so many seconds, the next one is due."""
    return max(plan.checkpoint_seconds, SAVING_RATIO * took if took > CHEAP_SECONDS else 0.0)


def _ends(plan: Plan, progress: Progress) -> bool:
    return progress.step >= plan.steps or (plan.patience > 0 and progress.since_best >= plan.patience)


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
    team: Team,
    optimizer: torch.optim.Optimizer,
    clipped: list[list[nn.Parameter]],
    plan: Plan,
    finite: Finite,
    step: int,
) -> Callable[[], dict[str, float]]:
    """One update; returns a function that reads the metrics, so that a device is only waited for to show them."""
    with computing(finite.failed.device, plan.arithmetic):
        loss, metrics = team.loss(step, torch.Generator().manual_seed(mix(plan.seed, step)))
    optimizer.zero_grad(set_to_none=True)
    poisoned(loss).backward()
    team.settle()
    norm = torch.stack([nn.utils.clip_grad_norm_(group, plan.grad_clip) for group in clipped]).norm()
    finite.watch(norm, loss.detach(), step)
    if optimizer.defaults["fused"]:
        optimizer.found_inf = finite.failed  # type: ignore[attr-defined]
    if optimizer.defaults["fused"] or not finite.failed.item():  # no other optimiser can be told on the device
        optimizer.step()
    return lambda: {**{name: float(value) for name, value in metrics.items()}, "grad_norm": float(norm)}


def _check(run: Run, trainable: Trainable[M], plan: Plan, state: State) -> Iterator[Event]:
    """``JobError`` if anything was not finite, before it is shown, measured with or kept; says if the loss diverges."""
    progress, finite = state.progress, state.finite
    failed = finite.found()
    if failed is None and not all_finite(trainable.module):
        failed = progress.step
    if failed is not None:
        generator = torch.Generator().manual_seed(mix(plan.seed, failed))
        what, way_out = explain(trainable, failed, generator, plan.arithmetic)
        raise here().common(JobError(f"{what}; {way_out or _again_slower(run, plan)}"))
    if finite.diverged(progress.step):
        trend = finite.trend
        yield TrainingDiverged(
            trend.diverging or 0,
            trend.last,
            trend.lowest,
            f"stop it and train anew with a lower learning rate, {_slower(run, plan)}",
        )


def _again_slower(run: Run, plan: Plan) -> str:
    kept = max(0, saved_step(run))
    command = f"metavqa train {run.kind} --resume {run.id} --override {_slower(run, plan)}"
    return f"the last checkpoint, of step {kept}, is good: go on from it with a lower learning rate (`{command}`)"


def _slower(run: Run, plan: Plan) -> str:
    """The option for a tenth of the learning rate."""
    section = "task_latents" if run.kind == "hvae" and run.manifest().get("variant") == "task" else run.kind
    return f"--set {section}.lr={plan.lr / 10:g}"


def _validate(trainable: Trainable[M], module: M, progress: Progress) -> ValidationMeasured:
    try:
        with torch.no_grad():
            found = trainable.validate(module)
    except NotFinite as error:
        text = f"{error} (validation at step {progress.step}); lower the learning rates"
        raise here().common(JobError(text)) from error
    metrics = here().decide(lambda: found)  # rounding on another machine must not lead it another way
    best = metrics[SCORE] > progress.best
    if best:
        progress.best, progress.best_step, progress.since_best = metrics[SCORE], progress.step, 0
        progress.best_state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    else:
        progress.since_best += 1
    progress.validated = progress.step
    return ValidationMeasured(progress.step, metrics, best)
