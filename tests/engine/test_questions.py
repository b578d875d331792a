"""Hidden descriptors stay hidden: a fixed part of the tasks is described, and nothing conditional reads the rest."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine import loop
from metavqa_cli.engine.baselines import HNetTraining, WeightsTraining, baseline_training, train_baseline
from metavqa_cli.engine.contrast import HyperclipTraining
from metavqa_cli.engine.diffusion import LdmTraining
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.loop import Plan, train
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.perform import sections
from metavqa_cli.engine.questions import KnownQuestions, described_tasks, whitener_of
from metavqa_cli.engine.regression import RegressionTraining, Target
from metavqa_cli.engine.trainable import Trainable
from metavqa_cli.guidance.hyperldm import LatentScaler
from metavqa_cli.schema.config import CONDITIONAL, Config
from metavqa_cli.schema.events import Reused, StepLogged, ValidationMeasured
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena
from tests import miniature
from tests.miniature import CPU, session

PLAN = Plan(steps=3, lr=1e-2, grad_clip=10.0, validate_every=1, seed=3, tasks_per_step=8, checkpoint_seconds=1e9)
SHARE = 0.5


@cache
def arenas() -> tuple[Arena, Arena]:
    train, validation = (miniature.dataset().arena(split, CPU) for split in ("train", "validation"))
    return train, validation


def poisoned(arena: Arena, rows: torch.Tensor) -> Arena:
    """The arena with NaN in place of the questions of ``rows``."""
    e = arena.e.clone()
    e[rows] = torch.nan
    return arena.asking(e)


def hidden(arena: Arena, share: float = SHARE) -> torch.Tensor:
    keep = described_tasks(arena, share)
    return torch.tensor([row for row in range(len(arena)) if row not in keep.tolist()])


def decoder(objective: str = "task") -> Decoder:
    return Decoder(load_model(miniature.run("hvae", objective), CPU))


def layout() -> WeightLayout:
    return WeightLayout.from_dict(load_model(miniature.run("baseline"), CPU).header["layout"])


# Which tasks are described


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 1.0])
def test_the_share_is_kept_and_at_least_one_task(share: float) -> None:
    train, _ = arenas()
    rows = described_tasks(train, share).tolist()
    assert len(rows) == max(1, round(share * len(train)))
    assert rows == sorted(set(rows))


@given(one=st.floats(0.001, 1), two=st.floats(0.001, 1))
def test_a_smaller_share_is_part_of_a_larger_one(one: float, two: float) -> None:
    train, _ = arenas()
    small, large = (set(described_tasks(train, share).tolist()) for share in sorted((one, two)))
    assert small <= large


def test_which_tasks_depends_on_the_questions_alone() -> None:
    """Not on their order, their images, or a seed: every method, seed and machine hides the same ones."""
    train, _ = arenas()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(5))
    permuted = train.select(order)
    chosen = {train.tasks[row].question for row in described_tasks(train, SHARE).tolist()}
    assert {permuted.tasks[row].question for row in described_tasks(permuted, SHARE).tolist()} == chosen
    assert described_tasks(train, SHARE).tolist() != list(range(len(chosen))), "it is no random part"


def test_without_whitening_questions_are_seen_as_they_are() -> None:
    train, _ = arenas()
    known = KnownQuestions(train, miniature.config(questions={"whiten": False, "noise": 0}).questions)
    assert torch.equal(known.e, train.e)
    whitened = whitener_of(train.e, miniature.config().questions)(train.e)
    assert whitened.mean(0).abs().max() < 1e-3 < (known.e - whitened).abs().max()


def test_noise_is_as_long_as_configured() -> None:
    train, _ = arenas()
    known = KnownQuestions(train, miniature.config(questions={"noise": 0.5}).questions)
    e = torch.nn.functional.normalize(torch.ones(2000, train.e.shape[1]), dim=1)
    added = known.noisy(e, torch.Generator().manual_seed(0)) - e
    assert float(added.norm(dim=1).mean()) == pytest.approx(0.5, rel=0.05)


# No conditional training reads a hidden descriptor


def _baseline(method: str) -> Callable[[Config, Arena, Arena], Trainable[Any]]:
    def make(config: Config, train: Arena, validation: Arena) -> Trainable[Any]:
        baseline = config.baseline.model_copy(update={"method": method})
        return baseline_training(config.model_copy(update={"baseline": baseline}), layout(), train, validation)

    return make


def _ldm(**settings: Any) -> Callable[[Config, Arena, Arena], Trainable[Any]]:
    def make(config: Config, train: Arena, validation: Arena) -> Trainable[Any]:
        changed = config.ldm.model_copy(update=settings)
        return LdmTraining(config.model_copy(update={"ldm": changed}), decoder(), train, validation)

    return make


def _hyperclip(objective: str) -> Callable[[Config, Arena, Arena], Trainable[Any]]:
    def make(config: Config, train: Arena, validation: Arena) -> Trainable[Any]:
        zoo = load_model(miniature.run("zoo"), CPU).tensors["train"] if objective == "weights" else None
        return HyperclipTraining(config, decoder(objective), zoo, train, validation)

    return make


def _regression(kind: str) -> Callable[[Config, Arena, Arena], Trainable[Any]]:
    def make(config: Config, train: Arena, validation: Arena) -> Trainable[Any]:
        run = miniature.run("zoo") if kind == "zoo" else miniature.run("hvae", kind)
        return RegressionTraining(config, Target(load_model(run, CPU)), train, validation)

    return make


MAKE: dict[str, Callable[[Config, Arena, Arena], Trainable[Any]]] = {
    **{method: _baseline(method) for method in CONDITIONAL},
    **{f"ldm anchor={anchor} unlabelled={unlabelled}": _ldm(anchor=anchor, unlabelled=unlabelled, z_noise=0.1)
       for anchor in (False, True) for unlabelled in (False, True)},
    "hyperclip task": _hyperclip("task"),
    "hyperclip hvae": _hyperclip("weights"),
    "regression task": _regression("task"),
    "regression zoo": _regression("zoo"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usually one a second is: on a busy machine two equal trainings log other steps."""
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)


def trained(training: Trainable[Any], folder: Path) -> dict[str, Any]:
    """The parameters after a few steps, every number that was logged, and a loss and validation afterwards."""
    run = runs.create(Workspace(folder), "ldm", "0" * 64, {}, {}, {"name": "none", "fingerprint": "none"})
    events = list(train(run, training, PLAN, CPU))
    logged = [{name: value for name, value in event.metrics.items() if name != "tasks_per_s"}
              for event in events if isinstance(event, (StepLogged, ValidationMeasured))]  # fmt: skip
    loss, _ = training.loss(7, torch.Generator().manual_seed(7))
    return {"logged": logged, "loss": loss.detach(), "validation": training.validate(training.module),
            **{name: value.detach() for name, value in training.module.state_dict().items()}}  # fmt: skip


def assert_same_and_finite(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.isfinite(value).all() and torch.equal(value, two[name]), name
        else:
            assert value == two[name], name  # NaN would not equal itself


@pytest.mark.parametrize("share", [0.1, SHARE])
@pytest.mark.parametrize("name", MAKE)
def test_a_hidden_descriptor_is_never_read(name: str, share: float, tmp_path: Path) -> None:
    config = miniature.config(questions={"descriptors": share})
    data, validation = arenas()
    rows = hidden(data, share)
    assert len(rows)
    plain = trained(MAKE[name](config, data, validation), tmp_path / "plain")
    assert_same_and_finite(plain, trained(MAKE[name](config, poisoned(data, rows), validation), tmp_path / "poisoned"))


@pytest.mark.parametrize("name", ["cond-multitask", "ldm anchor=True unlabelled=True", "hyperclip task"])
def test_a_known_descriptor_is_read(name: str, tmp_path: Path) -> None:
    """Else nothing above could fail."""
    config = miniature.config(questions={"descriptors": SHARE})
    data, validation = arenas()
    other = data.asking(data.e.roll(1, 0))
    one, two = (trained(MAKE[name](config, arena, validation), tmp_path / key)
                for key, arena in (("one", data), ("two", other)))  # fmt: skip
    assert one["logged"] != two["logged"]


@pytest.mark.parametrize("anchor", [False, True])
def test_tasks_without_a_question_teach_the_ldm_their_latents_only_when_asked(anchor: bool, tmp_path: Path) -> None:
    config = miniature.config(questions={"descriptors": SHARE})
    data, validation = arenas()
    outcomes = []
    for unlabelled in (False, True):
        for moved in (False, True):
            made = decoder()
            if moved:
                made.latents = made.latents.clone()
                made.latents[hidden(data)] += 3.0
            settings = config.ldm.model_copy(update={"anchor": anchor, "unlabelled": unlabelled})
            training = LdmTraining(config.model_copy(update={"ldm": settings}), made, data, validation)
            outcomes.append(trained(training, tmp_path / f"{unlabelled}{moved}"))
    left_out, left_out_moved, used, used_moved = outcomes
    assert_same_and_finite(left_out, left_out_moved)
    assert used["logged"] != used_moved["logged"]


def test_latents_are_standardised_over_all_tasks_that_are_used() -> None:
    data, validation = arenas()
    for unlabelled in (False, True):
        config = miniature.config(questions={"descriptors": SHARE}, ldm={"unlabelled": unlabelled})
        training = LdmTraining(config, decoder(), data, validation)
        used = decoder().latents if unlabelled else decoder().latents[described_tasks(data, SHARE)]
        expected = LatentScaler.fit(used)
        assert torch.equal(training.scaler.mean, expected.mean) and torch.equal(training.scaler.std, expected.std)


# Methods without conditioning

UNCONDITIONAL = ("multitask", "mnet-maml", "mnet-fomaml", "hnet-maml")


@pytest.mark.parametrize("method", UNCONDITIONAL)
def test_an_unconditional_method_sees_every_task_and_no_question(method: str, tmp_path: Path) -> None:
    data, validation = arenas()
    whole, half = (miniature.config(questions={"descriptors": share}) for share in (1.0, SHARE))
    blind = [poisoned(arena, torch.arange(len(arena))) for arena in (data, validation)]
    plain = trained(_baseline(method)(whole, data, validation), tmp_path / "plain")
    training = _baseline(method)(half, *blind)
    assert_same_and_finite(plain, trained(training, tmp_path / "blind"))
    assert isinstance(training, (WeightsTraining, HNetTraining))
    steps = -(-len(data) // training.recipe.batch)
    assert sorted(row for step in range(steps) for row in training.rows(step).tolist()) == list(range(len(data)))


@pytest.mark.parametrize("kind", [*UNCONDITIONAL, "zoo", "hvae"])
def test_hidden_descriptors_are_no_part_of_what_an_unconditional_run_is(kind: str) -> None:
    changes: dict[str, Any] = {"baseline": {"method": kind}} if kind in UNCONDITIONAL else {}
    whole, half = (miniature.config(questions={"descriptors": share}, **changes) for share in (1.0, SHARE))
    name = "baseline" if kind in UNCONDITIONAL else kind
    assert sections(whole, name) == sections(half, name)


@pytest.mark.parametrize("kind", [*CONDITIONAL, "ldm", "hyperclip", "regression"])
def test_hidden_descriptors_make_a_conditional_run_another_one(kind: str) -> None:
    changes: dict[str, Any] = {"baseline": {"method": kind}} if kind in CONDITIONAL else {}
    whole, half = (miniature.config(questions={"descriptors": share}, **changes) for share in (1.0, SHARE))
    name = "baseline" if kind in CONDITIONAL else kind
    assert sections(whole, name) != sections(half, name)


def test_the_finished_multitask_run_serves_every_share(workspace: Workspace) -> None:
    first = next(train_baseline(session(workspace, questions={"descriptors": 0.1})))
    assert first == Reused("baseline", miniature.run("baseline").id)
