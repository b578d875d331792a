"""A resumed training is the one that was never stopped: bit by bit, in every kind of training, wherever it stopped."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metavqa_cli.engine.loop import Plan, train
from metavqa_cli.engine.trainable import Trainable
from metavqa_cli.schema.errors import InterruptedJob
from metavqa_cli.schema.events import CheckpointSaved, Event, RunStarted, ValidationMeasured
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors
from tests.engine.test_loop import METHODS, make, new_run, plan
from tests.miniature import CPU

EVERY_STEP = 1e-9  # seconds between checkpoints
pytestmark = pytest.mark.usefixtures("checkpoint_at_every_step")
HOWS: dict[str, dict[str, Any]] = {
    "as usual": {"validate_every": 1},
    "averaged": {"ema": 0.9},
    "before the first validation": {"validate_every": 7},
    "at a validation": {"validate_every": 5, "decay": 0.7},
    "between validations": {"validate_every": 3, "patience": 1, "weight_decay": 0.1},
    "in bf16": {"arithmetic": "bf16", "validate_every": 5},
    "encoder and decoder apart": {"clip_apart": ("encoder", "decoder"), "grad_clip": 0.1},
}


@contextmanager
def untouched(poison: int) -> Iterator[None]:
    """The body starts with other global generators each time, and leaves torch's and NumPy's as they were.

    Python's own is poisoned only: beartype draws from it which items of a list to look at.
    """
    torch.manual_seed(poison)
    random.seed(poison)
    np.random.seed(poison)

    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), str(np.random.get_state())]

    before = states()
    yield
    assert states() == before, "a training draws from a global generator"


def stopping(training: Trainable[Any], step: int) -> Trainable[Any]:
    """``training``, which is told to stop while it takes the step before ``step``."""
    real = training.loss

    def loss(now: int, generator: torch.Generator) -> Any:
        if now == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return real(now, generator)

    training.loss = loss  # type: ignore[method-assign]
    return training


def told(events: list[Event]) -> list[Event]:
    """The events that do not depend on the clock."""
    return [event for event in events if isinstance(event, ValidationMeasured)]


def assert_same_checkpoint(one: Run, two: Run) -> None:
    """Parameters, best parameters, average, the optimiser's state, step, best score and the rest of the header."""
    (left, first), (right, second) = (load_tensors(run.state_path) for run in (one, two))
    assert first == second
    assert left.keys() == right.keys()
    assert {name.split("/")[0] for name in left} >= {"model", "optimizer"}
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def compare(method: str, how: Plan, folder: Path, cut: int = 5) -> list[Event]:
    """Train ``method`` in one go, and in two with an interruption at step ``cut``; the events of the first."""
    with untouched(0):
        whole, once = make(method), new_run(folder / "whole")
        straight = list(train(once, whole, how, CPU))
    run, first = new_run(folder / "parts"), list[Event]()
    with untouched(1), pytest.raises(InterruptedJob, match=f"interrupted at step {cut} of"):
        first.extend(train(run, stopping(make(method), cut), how, CPU))
    assert first[-1] == CheckpointSaved(cut)
    with untouched(2):
        again = make(method)
        second = list(train(run, again, how, CPU))
    assert second[0] == RunStarted(run.id, "ldm", how.steps, resumed_at=cut)
    assert told(first) + told(second) == told(straight) != []
    left, right = whole.module.state_dict(), again.module.state_dict()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert_same_checkpoint(once, run)
    return straight


@pytest.mark.parametrize("method", METHODS)
def test_five_and_five_resumed_steps_equal_ten(method: str, tmp_path: Path) -> None:
    """Of every training, whatever the global generators hold, down to the optimiser's state at the end."""
    ema = 0.9 if method == "ldm" else 0.0
    compare(method, plan(ema=ema, checkpoint_seconds=EVERY_STEP), tmp_path)


VARIED = ("hvae task", "ldm", "hnet-maml", "film", "regression", "mnet-maml", "hvae weights")


@pytest.mark.parametrize(("method", "how"), [*zip(VARIED, HOWS, strict=True)])
def test_it_does_not_matter_where_and_how_it_stopped(method: str, how: str, tmp_path: Path) -> None:
    compare(method, plan(**HOWS[how], checkpoint_seconds=EVERY_STEP), tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(2 * 3600)
def test_it_matters_to_no_training_where_and_how_it_stopped(tmp_path: Path) -> None:
    tried = 0
    for method in METHODS:
        for name, how in HOWS.items():
            folder, planned = tmp_path / f"{method} {name}", plan(**how, checkpoint_seconds=EVERY_STEP)
            ended = told(compare(method, planned, folder / "1", 1))[-1].step  # with patience maybe before the last step
            cuts = [cut for cut in (2, 5, 9) if cut < ended]
            for cut in cuts:
                compare(method, planned, folder / str(cut), cut)
            tried += 1 + len(cuts)
    print(f"{tried} interrupted trainings, every one ended bit by bit like the uninterrupted one")


@pytest.mark.parametrize("cut", [1, 9])
def test_the_first_and_the_last_step_can_be_the_one(cut: int, tmp_path: Path) -> None:
    compare("ldm", plan(ema=0.9, checkpoint_seconds=EVERY_STEP), tmp_path, cut)
