"""Arithmetic: bf16 only where it was asked for or does no harm, parameters always in fp32, and every run says which."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metavqa_cli.engine import precision
from metavqa_cli.engine.diffusion import HyperLdm, for_sampling, in_arithmetic, question_seeds, train_ldm
from metavqa_cli.engine.loop import train
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.precision import arithmetic, parts_of
from metavqa_cli.engine.regression import train_regression
from metavqa_cli.engine.session import Session
from metavqa_cli.guidance.hyperldm import Denoiser
from metavqa_cli.guidance.replay import Replayed
from metavqa_cli.schema.config import Runtime
from metavqa_cli.schema.errors import DeviceError
from metavqa_cli.schema.events import CheckpointSaved, Reused, RunFinished, RunStarted
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.test_loop import make, new_run, plan
from tests.miniature import CPU, session

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "device", "part", "expected"),
    [
        ("auto", CPU, "safe", "fp32"), ("fp32", CPU, "safe", "fp32"), ("bf16", CPU, "delicate", "bf16"),
        ("auto", CUDA, "safe", "bf16"), ("auto", CUDA, "delicate", "tf32"), ("bf16", CUDA, "delicate", "bf16"),
        ("fp32", CUDA, "safe", "fp32"), ("bf16", CUDA, "zoo", "tf32"), ("bf16", CPU, "zoo", "fp32"),
    ],
)  # fmt: skip
def test_bf16_is_used_where_it_was_asked_for_or_does_no_harm(
    asked: Any, device: torch.device, part: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "TOLERANT", ("safe",))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: True)
    assert arithmetic(asked, device, part) == expected


def test_a_card_without_bf16_computes_in_tf32_and_says_no_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: False)
    assert {arithmetic("auto", CUDA, part) for part in precision.TOLERANT} == {"tf32"}
    with pytest.raises(DeviceError, match="'cuda' cannot compute in bf16; use --precision auto or fp32") as refused:
        arithmetic("bf16", CUDA, "ldm")
    assert refused.value.exit_code == 4


def test_every_kind_of_run_is_a_part() -> None:
    assert parts_of("baseline", "film") == ("film",) and parts_of("hvae", "weights") == ("weights",)
    assert parts_of("ldm", "task") == ("ldm", "sampling") and parts_of("zoo", None) == ("zoo",)
    assert parts_of("cell", "task-ldm") == parts_of("eval", None, ["hvae0", "ldm1"]) == ("sampling",)
    assert parts_of("cell", "mnet-maml") == parts_of("eval", None, ["baseline0"]) == ("measuring",)


def test_a_training_that_samples_otherwise_than_it_trains_says_both(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = precision.arithmetic
    monkeypatch.setattr(
        "metavqa_cli.engine.session.arithmetic",
        lambda asked, device, part: "bf16" if part == "sampling" else real(asked, device, part),
    )
    doing = session(workspace, ldm={"epochs": 1})
    run = finished(doing, train_ldm(doing, miniature.run("hvae", "task", workspace)))
    assert run.manifest()["precision"] == ["fp32, sampling in bf16"]


@pytest.mark.parametrize("method", ["ldm", "hvae weights"])
def test_in_bf16_products_are_reduced_and_nothing_that_is_kept(method: str, tmp_path: Path) -> None:
    training, products = make(method), set()
    usual = training.loss

    def watched(step: int, generator: torch.Generator) -> Any:
        products.add((torch.ones(2, 2, requires_grad=True) @ torch.ones(2, 2)).dtype)
        return usual(step, generator)

    training.loss = watched  # type: ignore[method-assign]
    run = new_run(tmp_path)
    events = train(run, training, plan(steps=2, arithmetic="bf16", ema=0.9, checkpoint_seconds=1e-9), CPU)
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert products == {torch.bfloat16} and len(saved) == 2
    kept = runs_tensors(run)
    assert {value.dtype for name, value in kept.items() if value.is_floating_point()} == {torch.float32}
    assert all(value.isfinite().all() for value in kept.values())


def runs_tensors(run: runs.Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.state_path)


def test_bf16_trains_almost_as_fp32_but_not_the_same(tmp_path: Path) -> None:
    ends = []
    for how in ("fp32", "bf16"):
        training = make("regression")
        list(train(new_run(tmp_path / how), training, plan(steps=5, arithmetic=how), CPU))
        ends.append(nn.utils.parameters_to_vector(training.module.parameters()).detach())
    assert 0 < float((ends[0] - ends[1]).norm() / ends[0].norm()) < 0.02


def test_a_denoiser_in_bf16_predicts_nearly_the_same_and_returns_what_it_was_given() -> None:
    exact = Denoiser(8, 12, (64, 128), 16, torch.Generator().manual_seed(0))
    nn.init.normal_(exact.out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    reduced = in_arithmetic(exact, "bf16")
    assert in_arithmetic(exact, "fp32") is exact and exact.out.weight.dtype == torch.float32
    z, t = torch.randn(5, 8, generator=torch.Generator().manual_seed(2)), torch.arange(5)
    e = nn.functional.normalize(torch.ones(5, 12), dim=1)
    with torch.no_grad():
        one, two = exact(z, t, e), reduced(z, t, e)
    assert two.dtype == torch.float32 and reduced.out.weight.dtype == torch.bfloat16
    assert 0 < float((one - two).norm() / one.norm()) < 0.03


def test_sampling_in_bf16_gives_nearly_the_same_weights() -> None:
    run, sampling = miniature.run("ldm", "task"), miniature.config().sampling
    tasks = miniature.dataset().arena("test", CPU)
    seeds = question_seeds(tasks, 0)
    exact, reduced = (HyperLdm(run, CPU, sampling, Runtime(precision=how)).sampler(tasks.e, 1.5, seeds)
                      for how in ("fp32", "bf16"))  # fmt: skip
    assert exact.dtype == reduced.dtype == torch.float32
    assert 0 < float((exact - reduced).norm() / exact.norm()) < 0.05


def test_only_a_gpu_samples_from_a_recorded_step_and_only_where_that_is_wanted() -> None:
    exact = Denoiser(8, 12, (16,), 8, torch.Generator())
    fp32 = Runtime(precision="fp32")
    assert for_sampling(exact, CPU, fp32) is exact
    assert for_sampling(exact, CUDA, fp32.model_copy(update={"cuda_graphs": False})) is exact
    recorded = for_sampling(exact, CUDA, fp32)
    assert isinstance(recorded, Replayed) and recorded.denoiser is exact


def finished(doing: Session, events: Any) -> runs.Run:
    *_, last = events
    assert isinstance(last, RunFinished)
    return runs.get(doing.workspace, last.run)


def test_the_precision_is_recorded_and_is_no_part_of_what_a_run_is(workspace: Workspace) -> None:
    bf16 = session(workspace, runtime={"precision": "bf16"}, regression={"epochs": 1})
    run = finished(bf16, train_regression(bf16, miniature.run("hvae", "task", workspace)))
    result = run.result()
    assert result is not None and result["precision"] == "bf16"
    assert run.manifest()["precision"] == load_model(run, CPU).header["precision"] == ["bf16"]
    again = session(workspace, regression={"epochs": 1})
    assert next(train_regression(again, miniature.run("hvae", "task", workspace))) == Reused("regression", run.id)
    zoo = miniature.run("zoo").result()
    assert zoo is not None and zoo["precision"] == "fp32"


def test_a_run_may_go_on_in_another_precision_and_says_so(workspace: Workspace) -> None:
    generator = miniature.run("hvae", "task", workspace)
    first = session(workspace, runtime={"checkpoint_seconds": 1e-9}, ldm={"epochs": 2})
    events = train_ldm(first, generator)
    begun = next(event for event in events if isinstance(event, CheckpointSaved))
    events.close()  # type: ignore[attr-defined]
    second = session(workspace, runtime={"precision": "bf16"}, ldm={"epochs": 2})
    resumed = list(train_ldm(second, generator))
    assert isinstance(resumed[0], RunStarted) and resumed[0].resumed_at == begun.step
    run = finished(second, resumed)
    assert run.manifest()["precision"] == ["fp32", "bf16"]
    assert (run.result() or {})["precision"] == "fp32, then bf16"
