"""Several processes that work as one, started as torchrun starts them but without the seconds that itself takes.

``python -m tests.engine.two_processes WORKSPACE OUT TASK…`` is one of them. A task is ``steps`` (a few steps of every
training on the miniature in WORKSPACE), ``begin`` (the first of them), ``go on`` (those that are left of what another
number of processes began in OUT/begun), ``differ``, ``spoil``, or a command line of metavqa as a JSON list.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metavqa_cli.cli import app
from metavqa_cli.engine import loop, world
from metavqa_cli.schema.errors import InterruptedJob, JobError
from metavqa_cli.schema.events import StepLogged
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature

ROOT = Path(__file__).parents[2]
BATCH, STEPS = 13, 7  # of 27 tasks: batches of 13, 13 and 1, of which a process gets 6 or 7, and 1 or none
Stepped = tuple[dict[str, Tensor], dict[str, float]]
Fault = tuple[int, int, signal.Signals]  # this process, before this step, raises this signal


def start(workspace: Path, out: Path, tasks: Sequence[str], fault: Fault | None = None) -> list[subprocess.Popen[str]]:
    """Start two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAVQA_")}
    shared = {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "FAULT": json.dumps(fault)}  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.two_processes", str(workspace), str(out), *tasks],
            env={**kept, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def ended(processes: Sequence[subprocess.Popen[str]], seconds: float = 240) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each; all are over when this returns or fails."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def steps(out: Path, kinds: Sequence[str], begin: bool = False) -> dict[str, Stepped]:
    """Take ``STEPS`` steps of each kind of training, or those that are left of a training that was begun in ``out``;
    the first process writes what came out to ``out``. With ``begin``, end them after some steps."""
    from tests.engine.test_loop import PLAN, make

    here, found = world.join(miniature.CPU), dict[str, Stepped]()
    for kind in kinds:
        # One question alone has no contrast: its gradient is rounding, which Adam makes a step of full size.
        training, scores = make(kind, BATCH + 1 if kind == "hyperclip" else BATCH), count()
        training.validate = lambda module, scores=scores: {"accuracy": float(next(scores))}  # type: ignore[method-assign]
        run = Run(out / "runs" / here.decide(lambda kind=kind: _new_run(out, kind)))  # type: ignore[misc]
        plan = replace(PLAN, steps=STEPS, validate_every=STEPS, ema=0.9 if kind == "ldm" else 0.0)
        if begin:
            training.loss = _told_to_stop(training.loss)  # type: ignore[method-assign]
        try:
            events = [*loop.train(run, training, plan, miniature.CPU)]
        except InterruptedJob:
            continue
        metrics = [event.metrics for event in events if isinstance(event, StepLogged)]
        state = {name: value.detach() for name, value in training.module.state_dict().items()}
        found[kind] = state, {name: value for name, value in metrics[-1].items() if name != "tasks_per_s"}
        if here.first:
            save_tensors(out / f"{kind}.safetensors", *found[kind])
    return found


def _told_to_stop(loss: Callable[[int, torch.Generator], Any]) -> Callable[[int, torch.Generator], Any]:
    """``loss``, during whose third step the last process is told to stop."""

    def stopping(step: int, generator: torch.Generator) -> Any:
        if step == 2 and world.here().rank == world.here().size - 1:
            signal.raise_signal(signal.SIGTERM)
        return loss(step, generator)

    return stopping


def differ() -> None:
    """Compare the parameters of all processes when they are the same, and when those of one have changed."""
    here, module = world.here(), nn.Linear(2, 1)
    nn.init.zeros_(module.bias)
    nn.init.ones_(module.weight)
    here.check_same(module, 1)
    module.weight.data[0, 0] += here.rank
    try:
        here.check_same(module, 2)
    except JobError as error:
        print(f"{error} {error.said}")


def spoil(out: Path) -> None:
    """Take steps of which the second one's loss is infinite in the last process alone, with a gradient that is not."""
    from tests.engine.test_loop import PLAN, make

    here, training = world.here(), make("regression", BATCH)
    real = training.loss

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        found, metrics = real(step, generator)
        return found + (torch.inf if step == 1 and here.rank == here.size - 1 else 0.0), metrics

    training.loss = loss  # type: ignore[method-assign]
    run = Run(out / "runs" / here.decide(lambda: _new_run(out, "spoiled")))
    try:
        [*loop.train(run, training, replace(PLAN, steps=STEPS, validate_every=STEPS), miniature.CPU)]
    except JobError as error:
        print(f"{error} {error.said}")


def _new_run(folder: Path, kind: str) -> str:
    key = runs.run_key(kind, {}, {}, "")
    return runs.create(Workspace(folder), "ldm", key, {}, {}, {"name": "none", "fingerprint": "none"}).id


def _with_fault(fault: Fault) -> None:
    rank, at, number = fault
    real = loop._step

    def step(*args: Any) -> Any:
        if world.here().rank == rank and at in args[3:]:
            signal.raise_signal(number)
        return real(*args)

    loop._step = step


def main() -> None:
    """One of the processes."""

    workspace, out = Workspace(Path(sys.argv[1])), Path(sys.argv[2])
    miniature.finished = lambda: workspace  # type: ignore[assignment]
    part, world.leave = world.leave, lambda: None  # they stay together from command to command
    if fault := json.loads(os.environ["FAULT"]):
        _with_fault(fault)
    for task in sys.argv[3:]:
        if task == "steps":
            from tests.engine.test_loop import METHODS

            steps(out, METHODS)
        elif task in ("begin", "go on"):
            from tests.engine.test_loop import METHODS

            folder = "begun" if task == "go on" else "left"
            steps(out / folder, METHODS, begin=task == "begin")
        elif task == "differ":
            differ()
        elif task == "spoil":
            spoil(out)
        elif code := app.run(["--workspace", str(workspace.root), *json.loads(task)]):
            sys.exit(code)
    part()


if __name__ == "__main__":
    main()
