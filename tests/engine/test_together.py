"""Several processes do what one does: the same parameters, the same rows, one record; and what if one is lost."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metavqa_cli.engine.diffusion import train_ldm
from metavqa_cli.schema.events import (
    CheckpointSaved,
    RunFailed,
    RunInterrupted,
    RunStarted,
    StepLogged,
    ValidationMeasured,
)
from metavqa_cli.schema.layers import flatten
from metavqa_cli.schema.wording import some
from metavqa_cli.store import removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine import two_processes
from tests.engine.test_loop import METHODS, make

ROUNDING = 1e-4
"""Sums in another order. Adam divides by a gradient's size, so what is zero but for rounding moves differently."""


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where two processes left what some steps of each training made: all of them, the last ones of what one
    process began (``begun``), and the first ones (``left``)."""
    out = tmp_path_factory.mktemp("stepped")
    assert two_processes.steps(out / "begun", METHODS, begin=True) == {}
    processes = two_processes.start(miniature.finished().root, out, ["steps", "differ", "spoil", "go on", "begin"])
    tasks = make("regression", two_processes.BATCH).tasks(1)
    assert len(tasks) == two_processes.BATCH
    found = two_processes.ended(processes)
    assert [(code, error) for code, _, error in found] == [(0, ""), (0, "")]
    for (_, said, _), silent in zip(found, (False, True), strict=True):  # the first one says it for both
        differing, spoiled = said.splitlines()
        assert differing.startswith("the parameters differ between the processes at step 2: ")
        named = some(tasks.questions[6:])  # the second one's share
        assert spoiled.startswith(f"the loss is not finite at step 1 (loss inf), whose batch has the tasks {named}; ")
        assert differing.endswith(str(silent)) and spoiled.endswith(str(silent))
    return out


@pytest.mark.parametrize("kind", METHODS)
def test_the_steps_of_two_processes_are_those_of_one(kind: str, stepped: Path, tmp_path: Path) -> None:
    """Of every kind of training, with batches that cannot be halved and batches of a single task; also where one
    process went on with what two began, and two with what one began."""
    [(alone, metrics)] = two_processes.steps(tmp_path, [kind]).values()
    [(ended, last)] = two_processes.steps(stepped / "left", [kind]).values()  # one process, where two left it
    limit = 1e-2 if kind == "hyperclip" else ROUNDING  # many of its gradients are zero; unsummed ones: 0.4
    assert_close(ended, alone, limit)
    assert last == pytest.approx(metrics, rel=limit)
    for folder in (stepped, stepped / "begun"):
        together, logged = load_tensors(folder / f"{kind}.safetensors")
        assert_close(together, alone, limit)
        assert logged == pytest.approx(metrics, rel=limit)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], limit: float = ROUNDING) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).double().norm() <= limit * value.double().norm(), name


def test_the_whole_story_by_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Build, train, fine-tune, sample, measure: every run, every row, and one record and one voice."""
    made, command = Workspace(tmp_path / "workspace"), json.dumps(["quickstart", *miniature.OPTIONS, "--json"])
    first, second = two_processes.ended(two_processes.start(made.root, tmp_path, [command]))
    assert (first[0], *second) == (0, 0, "", ""), (first, second)
    story, expected = json.loads(first[1]), miniature.run("eval")
    assert story["rows"] == [pytest.approx(row) for row in (expected.result() or {})["rows"]]
    fingerprints = [Run(of.dataset_dir(miniature.NAME)) for of in (made, miniature.finished())]
    one, other = (json.loads((folder.path / "dataset.json").read_text())["fingerprint"] for folder in fingerprints)
    assert one == other
    assert made.run_ids() == miniature.finished().run_ids()
    for run in runs.list_runs(made):
        alone = runs.get(miniature.finished(), run.id)
        assert_close(load_tensors(run.model_path)[0], load_tensors(alone.model_path)[0])
        one, two = ([kinds(event) for event in of.events()[0] if not isinstance(event, StepLogged)]  # by the clock
                    for of in (run, alone))  # fmt: skip
        assert one == two


def numbers(result: dict[str, Any] | None) -> dict[str, Any]:
    """A result without folders in it."""
    return dict(flatten(result or {}))


def kinds(event: Any) -> tuple[str, Any]:
    """What has to be equal in two records of the same work."""
    return type(event).__name__, getattr(event, "step", None)


LDM = json.dumps(["train", "ldm", "--on", "hvae", *miniature.OPTIONS])


def train_with(workspace: Workspace, fault: two_processes.Fault) -> list[tuple[int, str, str]]:
    return two_processes.ended(two_processes.start(workspace.root, workspace.root, [LDM], fault), seconds=120)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_training_survives_the_loss_of_any_process_and_goes_on_with_any_number(workspace: Workspace) -> None:
    """The second process is killed, then the first, then the second one is told to stop, then one process ends it."""
    expected = miniature.run("ldm", "weights")
    removal.remove(run := runs.get(workspace, expected.id), force=True)
    first, second = train_with(workspace, (1, 1, signal.SIGKILL))
    assert (first[:2], second[0]) == ((1, ""), -signal.SIGKILL)
    assert "another process of this job ended" in first[2] and f"--resume {run.id}" in first[2]
    assert "Traceback" not in first[2] and run.state() == "failed"
    first, second = train_with(workspace, (0, 3, signal.SIGKILL))
    assert (first[0], second[:2]) == (-signal.SIGKILL, (1, ""))
    assert "error (process 2 of 2): another process of this job ended" in second[2] and run.state() == "stale"
    first, second = train_with(workspace, (1, 3, signal.SIGTERM))
    assert (first[:2], second) == ((130, ""), (130, "", "")) and "interrupted at step 5 of 6" in first[2]
    assert run.state() == "interrupted"
    miniature.exhaust(train_ldm(miniature.session(workspace), miniature.run("hvae", "weights", workspace)))
    events = run.events()[0]
    assert [event.resumed_at for event in events if isinstance(event, RunStarted)] == [0, 1, 3, 5]
    assert [event.step for event in events if isinstance(event, ValidationMeasured)] == [1, 2, 3, 4, 5, 6]
    assert [kinds(event) for event in events if isinstance(event, CheckpointSaved | RunFailed | RunInterrupted)] == [
        ("CheckpointSaved", 1), ("RunFailed", None), ("CheckpointSaved", 5), ("RunInterrupted", 5),
    ]  # fmt: skip
    assert_close(load_tensors(run.model_path)[0], load_tensors(expected.model_path)[0])
    assert numbers(run.result()) == pytest.approx(numbers(expected.result()))
