"""The training loop: what was interrupted ends as if it had not been, and what is kept is what was best."""

import math
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine import loop
from metavqa_cli.engine.baselines import baseline_training
from metavqa_cli.engine.checkpoint import Progress, State
from metavqa_cli.engine.contrast import HyperclipTraining
from metavqa_cli.engine.diffusion import LdmTraining
from metavqa_cli.engine.finite import Finite
from metavqa_cli.engine.generators import Decoder, HvaeTraining, TaskLatentTraining
from metavqa_cli.engine.loop import Plan, StopRequest, batch_indices, stop_request, train
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.regression import RegressionTraining, Target
from metavqa_cli.engine.run_audit import audit_run
from metavqa_cli.engine.together import Alone
from metavqa_cli.engine.trainable import Trainable
from metavqa_cli.engine.world import World
from metavqa_cli.schema.config import BaselineMethod
from metavqa_cli.schema.errors import InterruptedJob, JobError
from metavqa_cli.schema.events import CheckpointSaved, Event, RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, read_header, save_tensors
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena
from tests import miniature
from tests.miniature import CPU

BASELINES = get_args(BaselineMethod)
METHODS = (*BASELINES, "hvae weights", "hvae task", "ldm", "hyperclip", "regression", "regression to weights")
PLAN = Plan(steps=10, lr=1e-2, grad_clip=10.0, validate_every=1, seed=3, tasks_per_step=8, checkpoint_seconds=1e9)


def make(method: str, batch: int = 8) -> Trainable[Any]:
    """A fresh training of each kind on the miniature's tasks."""
    arenas = [miniature.dataset().arena(split, CPU) for split in ("train", "validation")]
    baseline = {"method": method, "batch": batch} if method in BASELINES else {}
    others = ("hvae", "task_latents", "ldm", "hyperclip", "regression")
    config = miniature.config(baseline=baseline, **{section: {"batch": batch} for section in others})
    model = {kind: load_model(miniature.run(kind), CPU) for kind in ("baseline", "zoo", "hvae")}
    layout = WeightLayout.from_dict(model["baseline"].header["layout"])
    if method == "hvae weights":
        return HvaeTraining(config, layout, model["zoo"], *arenas)
    if method == "hvae task":
        return TaskLatentTraining(config, layout, model["baseline"].tensors["W"], *arenas)
    if method == "ldm":
        return LdmTraining(config, Decoder(model["hvae"]), *arenas)
    if method == "hyperclip":
        return HyperclipTraining(config, Decoder(model["hvae"]), model["zoo"].tensors["train"], *arenas)
    if method.startswith("regression"):
        return RegressionTraining(config, Target(model["zoo" if "weights" in method else "hvae"]), *arenas)
    return cast(Trainable[Any], baseline_training(config, layout, *arenas))


def new_run(folder: Path) -> Run:
    return runs.create(Workspace(folder), "ldm", "0" * 64, {}, {}, {"name": "none", "fingerprint": "none"})


def plan(**changes: Any) -> Plan:
    return Plan(**{**vars(PLAN), **changes})


def interrupted(events: Iterator[Event], at: int) -> list[Event]:
    """Follow ``events`` and press Ctrl-C after the validation at step ``at``; the events until the job stops."""
    seen: list[Event] = []
    with pytest.raises(InterruptedJob) as stopped:
        for event in events:
            seen.append(event)
            if isinstance(event, ValidationMeasured) and event.step == at:
                signal.raise_signal(signal.SIGINT)
    assert stopped.value.exit_code == 130
    assert f"step {at} of" in str(stopped.value) and "--resume" in str(stopped.value)
    return seen


def validations(events: list[Event]) -> list[ValidationMeasured]:
    return [event for event in events if isinstance(event, ValidationMeasured)]


def assert_equal(one: nn.Module, two: nn.Module) -> None:
    left, right = one.state_dict(), two.state_dict()
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_changes(method: str, tmp_path: Path) -> None:
    training = make(method)
    before = {name: value.clone() for name, value in training.module.named_parameters()}
    scores = count()
    training.validate = lambda module: {"accuracy": float(next(scores))}  # type: ignore[method-assign]
    list(train(new_run(tmp_path), training, plan(steps=4), CPU))
    assert before
    assert [name for name, value in training.module.named_parameters() if torch.equal(value, before[name])] == []


def some_tasks(step: int) -> Arena:
    """Five tasks of the miniature, as if they were the batch of ``step``."""
    return miniature.dataset().arena("train", CPU).select(torch.arange(step, step + 5))


class Toy:
    """One parameter that follows the step's number, with given scores."""

    def __init__(self, scores: Callable[[int], float] = float, loss_at: dict[int, float] | None = None) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.scores, self.loss_at, self.measured = scores, loss_at or {}, 0
        self.seen: list[float] = []

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append(self.weight)
        loss = (self.module.weight - step - 1).square().sum() * self.loss_at.get(step, 1.0)
        return loss, {"loss": loss.detach()}

    def tasks(self, step: int) -> Arena:
        return some_tasks(step)

    @property
    def weight(self) -> float:
        return self.module.weight.item()

    def validate(self, module: nn.Linear) -> dict[str, float]:
        self.measured += 1
        return {"accuracy": self.scores(self.measured)}


def test_the_best_parameters_are_kept(tmp_path: Path) -> None:
    toy = Toy(lambda n: {1: 10.0, 2: 30.0, 3: 20.0, 4: 30.0}[n])
    events = list(train(new_run(tmp_path), toy, plan(steps=4), CPU))
    assert [(event.step, event.best) for event in validations(events)] == [(1, True), (2, True), (3, False), (4, False)]
    assert toy.weight == toy.seen[2] != toy.seen[3]


def test_the_averaged_parameters_are_validated_and_kept(tmp_path: Path) -> None:
    toy = Toy()
    list(train(new_run(tmp_path), toy, plan(steps=4, ema=0.75), CPU))
    raw = Toy()
    list(train(new_run(tmp_path / "raw"), raw, plan(steps=4), CPU))
    after = [*raw.seen[1:], raw.weight]
    average = after[0]
    for value in after[1:]:
        average = 0.75 * average + 0.25 * value
    assert toy.weight == pytest.approx(average, rel=1e-6)
    assert toy.weight != pytest.approx(after[-1], rel=1e-3)


def test_training_stops_early_when_nothing_gets_better(tmp_path: Path) -> None:
    toy = Toy(lambda n: -abs(n - 3.0))
    events = list(train(new_run(tmp_path), toy, plan(steps=10, patience=2), CPU))
    assert validations(events)[-1].step == 5
    assert toy.weight == toy.seen[3]


@pytest.mark.parametrize("last", [{"steps": 4}, {"patience": 1}])
def test_a_request_in_the_last_step_is_heard_though_wishes_take_one(
    last: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several processes, each hears in a step what the others wished before it; after the last comes none."""

    class Late(Alone):
        def agreed(self, name: str, wish: bool) -> bool:
            return False

    monkeypatch.setattr(loop, "team_of", lambda trainable, *_: Late(trainable))
    run, toy = new_run(tmp_path), Toy(lambda n: -abs(n - 3.0))
    seen = interrupted(train(run, toy, plan(**last), CPU), at=4)
    assert seen[-1] == CheckpointSaved(4)


def test_a_process_that_is_left_keeps_no_step_after_a_gradient_that_was_not_finite(tmp_path: Path) -> None:
    run, module = new_run(tmp_path), Toy().module
    state = State(module, None, torch.optim.AdamW(module.parameters()), Finite(CPU))
    assert state.rescue(run, World(0, 2)) and read_header(run.state_path)["step"] == 0
    state.progress.step, state.finite.failed = 5, torch.ones(())
    assert not state.rescue(run, World(0, 2)) and read_header(run.state_path)["step"] == 0


def test_saving_takes_a_small_part_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, a checkpoint three: 60 s are between two, though 5 s would be enough."""
    clock = [0.0]

    class Slow(Toy):
        def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            clock[0] += 1
            return super().loss(step, generator)

    def save(self: State, run: Run) -> None:
        clock[0] += 3

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(State, "save", save)
    events = train(new_run(tmp_path), Slow(), plan(steps=130, validate_every=1000, checkpoint_seconds=5), CPU)
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [5, 65, 125]


@pytest.mark.usefixtures("checkpoint_at_every_step")
def test_a_killed_job_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole, toy, run = Toy(), Toy(), new_run(tmp_path / "killed")
    list(train(new_run(tmp_path / "whole"), whole, PLAN, CPU))
    events = train(run, toy, plan(checkpoint_seconds=1e-9), CPU)
    for event in events:
        if event == CheckpointSaved(7):
            events.close()  # type: ignore[attr-defined]
    again = Toy(lambda n: n + 7.0)
    resumed = list(train(run, again, PLAN, CPU))
    assert resumed[0] == RunStarted(run.id, "ldm", 10, resumed_at=7)
    assert_equal(again.module, whole.module)


@pytest.mark.usefixtures("checkpoint_at_every_step")
def test_a_checkpoint_vouches_for_the_log_so_far(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with pytest.raises(JobError, match="stopped here"):
        for event in train(run, Toy(), plan(checkpoint_seconds=1e-9), CPU):
            run.append(event)
            if event == CheckpointSaved(7):
                raise JobError("stopped here")
    assert not [finding for finding in audit_run(run) if finding.is_bad]
    kept = run.events_path.read_bytes()
    run.events_path.write_bytes(b"".join(kept.splitlines(keepends=True)[:4]))
    assert [found.detail for found in audit_run(run) if found.is_bad] == [
        "lines that it had when the checkpoint was written are not there, or not in their place"
    ]
    list(train(run, Toy(), PLAN, CPU))  # it can go on all the same


def test_gradients_are_clipped_before_the_step(tmp_path: Path) -> None:
    norms = []
    for limit in (1e9, 1e-6):
        toy = Toy()
        events = list(train(new_run(tmp_path / str(limit)), toy, plan(steps=1, grad_clip=limit), CPU))
        norms.append(next(event.metrics["grad_norm"] for event in events if isinstance(event, StepLogged)))
        assert toy.module.weight.grad is not None
        assert float(toy.module.weight.grad.abs()) == pytest.approx(min(2.0, limit), rel=1e-3)
    assert norms == [2.0, 2.0]


class TwoParts:
    """A network of two parts, one of whose gradients is a thousand times as large as the other's."""

    def __init__(self) -> None:
        parts = {"encoder": nn.Linear(1, 1, bias=False), "decoder": nn.Linear(1, 1, bias=False)}
        self.module = nn.ModuleDict(parts)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        weights = [parameter.sum() for parameter in self.module.parameters()]
        return 3000 * weights[0] + 4 * weights[1], {}

    def tasks(self, step: int) -> Arena:
        return some_tasks(step)

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {"accuracy": 0.0}


@pytest.mark.parametrize(("apart", "expected"), [(("encoder", "decoder"), (2.0, 2.0)), ((), (2.0, 4 * 2 / 3000))])
def test_encoder_and_decoder_are_clipped_apart_when_asked(
    apart: tuple[str, ...], expected: tuple[float, float], tmp_path: Path
) -> None:
    toy = TwoParts()
    events = list(train(new_run(tmp_path), toy, plan(steps=1, grad_clip=2.0, clip_apart=apart), CPU))
    gradients = [float(p.grad) for p in toy.module.parameters() if p.grad is not None]
    assert gradients == pytest.approx(expected, rel=1e-3)
    logged = next(event.metrics["grad_norm"] for event in events if isinstance(event, StepLogged))
    assert logged == pytest.approx(math.hypot(3000, 4), rel=1e-5)


@given(n=st.integers(1, 50), batch=st.integers(1, 60), epoch=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_an_epoch_uses_every_task_once(n: int, batch: int, epoch: int, seed: int) -> None:
    per_epoch = math.ceil(n / batch)
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    order = torch.cat([batch_indices(n, batch, step, seed) for step in steps])
    assert sorted(order.tolist()) == list(range(n))


def test_epochs_differ_in_their_order() -> None:
    first, second = (batch_indices(50, 50, epoch, seed=0) for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_the_second_request_ends_at_once_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_request() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert isinstance(stop, StopRequest) and Progress().best == -math.inf


def test_weight_decay_pulls_all_parameters_but_those_with_a_rate_of_their_own(tmp_path: Path) -> None:
    """With a loss of zero nothing else moves them: each step multiplies by 1 - lr times the decay."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.usual = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    class Still(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.module = Two()  # type: ignore[assignment]

        def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            loss = 0.0 * sum(p.sum() for p in self.module.parameters())
            return cast(Tensor, loss), {"loss": cast(Tensor, loss).detach()}

    for decay, left in ((0.0, 1.0), (0.5, 0.95**4)):
        toy = Still()
        how = plan(steps=4, lr=0.1, rates={"own": 0.3}, weight_decay=decay)
        list(train(new_run(tmp_path / str(decay)), toy, how, CPU))
        final = {name: value.tolist() for name, value in toy.module.named_parameters()}
        assert final == {"own": [1.0, 1.0], "usual": [pytest.approx(left)] * 2}


@pytest.mark.parametrize(
    ("tensors", "header"),
    [({}, {}), ({"model/other": torch.ones(2)}, {}), ({"optimizer/first/step": torch.ones(1)}, {}),
     (None, {"step": "7"}), (None, {"best": "high"}), (None, {"trend": {"speed": 1}})],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_refused_in_one_sentence(
    tmp_path: Path, tensors: dict[str, Tensor] | None, header: dict[str, Any]
) -> None:
    run = new_run(tmp_path)
    interrupted(train(run, Toy(), PLAN, CPU), at=3)
    whole, sound = load_tensors(run.state_path)
    save_tensors(run.state_path, whole if tensors is None else tensors, {**sound, **header})
    with pytest.raises(JobError, match=f"is no checkpoint of this training .*metavqa runs rm {run.id}"):
        list(train(run, Toy(), PLAN, CPU))
