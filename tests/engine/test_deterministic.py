"""`--deterministic`: the same bits from the same command, or an error that says what cannot give them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metavqa_cli.engine import diffusion
from metavqa_cli.engine.diffusion import train_ldm
from metavqa_cli.engine.loop import train
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.session import Session, prepare_torch, torch_explained
from metavqa_cli.schema.errors import InterruptedJob, JobError
from metavqa_cli.schema.events import RunFinished, ValidationMeasured
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.test_loop import METHODS, make, new_run, plan
from tests.miniature import CPU, session

ON = {"device": "cpu", "deterministic": True}


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def ldm(here: Session) -> Run:
    prepare_torch(here.config)
    *_, last = train_ldm(here, miniature.run("hvae", "task", here.workspace))
    assert isinstance(last, RunFinished)
    return runs.get(here.workspace, last.run)


def test_two_runs_are_equal_bit_by_bit_and_say_so(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of threads the machine would take."""
    real, on = diffusion.diffusion_loss, []

    def watched(*args: Any) -> Any:
        on.append((torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()))
        return real(*args)

    monkeypatch.setattr(diffusion, "diffusion_loss", watched)
    made = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(ldm(session(workspace, force=True, runtime=ON, ldm={"epochs": 2})))
    assert on == [(True, 1)] * 4
    one, two = (load_model(run, CPU) for run in made)
    assert one.tensors.keys() == two.tensors.keys()
    assert [name for name in one.tensors if not torch.equal(one.tensors[name], two.tensors[name])] == []
    assert one.header["deterministic"] == ["1 thread"] and (made[0].result() or {})["deterministic"] == "1 thread"
    plain = ldm(session(workspace, force=True, ldm={"epochs": 2}))
    assert not torch.are_deterministic_algorithms_enabled() and "deterministic" not in (plain.result() or {})


def test_a_run_that_was_so_in_part_says_that(workspace: Workspace) -> None:
    plain, fixed = session(workspace, ldm={"epochs": 4}), session(workspace, ldm={"epochs": 4}, runtime=ON)
    with pytest.raises(InterruptedJob):
        for event in train_ldm(plain, miniature.run("hvae", "task", workspace)):
            if isinstance(event, ValidationMeasured) and event.step == 2:
                signal.raise_signal(signal.SIGTERM)
    assert (ldm(fixed).result() or {})["deterministic"] == "no, then 1 thread"


@pytest.mark.parametrize("method", METHODS)
def test_every_training_has_deterministic_operations(method: str, tmp_path: Path) -> None:
    prepare_torch(miniature.config(runtime=ON))
    assert len([*train(new_run(tmp_path), make(method), plan(steps=2), CPU)]) >= 4


def test_an_operation_that_cannot_be_so_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    real = diffusion.diffusion_loss

    def scattered(*args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = real(*args)
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        return loss, metrics

    monkeypatch.setattr(diffusion, "diffusion_loss", scattered)
    with pytest.raises(
        JobError, match=r"^put_ does not have a deterministic implementation; choose another --device, or"
    ):
        ldm(session(workspace, runtime=ON, ldm={"epochs": 2}))
    prepare_torch(miniature.config())
    ldm(session(workspace, ldm={"epochs": 2}))


def test_what_cublas_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    prepare_torch(miniature.config(runtime=ON))
    said = "Deterministic behavior was enabled with x, but this uses CuBLAS. You must set CUBLAS_WORKSPACE_CONFIG=:16:8"
    with (
        pytest.raises(JobError, match=r"^with CUBLAS_WORKSPACE_CONFIG=:0:0 products .*; unset it, or"),
        torch_explained(),
    ):
        raise RuntimeError(said)


def test_the_workspace_of_cublas_is_set_before_cuda_starts_and_the_threads_are_as_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare_torch(miniature.config(runtime={**ON, "threads": 2}))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and torch.get_num_threads() == 2
    assert not torch.backends.cudnn.benchmark and not torch.cuda.is_initialized()
