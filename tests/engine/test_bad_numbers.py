"""NaN and infinities stop a job at their step, which says what they were in and keeps what was good; and divergence."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.diffusion import train_ldm
from metavqa_cli.engine.finite import FIRST, LASTING, RING, Finite, Trend
from metavqa_cli.engine.loop import train
from metavqa_cli.engine.trainable import Trainable
from metavqa_cli.engine.zoo import build_zoo
from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.events import RunFailed, RunStarted, StepLogged, TrainingDiverged
from metavqa_cli.store.features import FeatureStore, write_features
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, read_header
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.test_loop import METHODS, Toy, make, new_run, plan, some_tasks
from tests.engine.test_resume import EVERY_STEP
from tests.miniature import CPU, session

AT = 3
pytestmark = pytest.mark.usefixtures("checkpoint_at_every_step")
WAY_OUT = r"the last checkpoint, of step 3, is good: go on from it with a lower learning rate \(`metavqa train ldm "


def named(step: int = AT) -> str:
    one, two, three, *_ = some_tasks(step).questions
    return rf"whose batch has the tasks '{one}', '{two}', '{three}' and 2 more".replace("?", r"\?")


def failure(run: Run, training: Trainable[Any], **how: Any) -> str:
    """What the training of ``run`` is stopped by; its checkpoint is the one of before."""
    with pytest.raises(JobError) as stopped:
        list(train(run, training, plan(checkpoint_seconds=EVERY_STEP, **how), CPU))
    assert stopped.value.exit_code == 1
    return str(stopped.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step_with_its_tasks_and_the_way_out(
    value: float, tmp_path: Path
) -> None:
    run, toy = new_run(tmp_path), Toy(loss_at={AT: value})
    found = failure(run, toy)
    assert f"the loss is not finite at step 3 (loss {value}), " in found
    assert re.search(rf"{named()}; {WAY_OUT}--resume {run.id} --override --set ldm\.lr=0\.001`\)$", found)
    assert next(train(run, Toy(), plan(), CPU)) == RunStarted(run.id, "ldm", 10, resumed_at=AT)


class Spoiled(Toy):
    """Spoils the number of one kind at step ``AT``."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().loss(step, generator)
        if step == AT and self.what == "gradient":  # of the square root at zero
            loss = loss + (self.module.weight * 0).abs().sqrt().sum()
        if step == AT and self.what == "loss alone":  # whose gradient is as if nothing were the matter
            loss = loss + torch.inf
        if step == AT - 1 and self.what == "weights":  # as an optimiser leaves them whose state overflowed
            self.module.weight.register_post_accumulate_grad_hook(_grown)
        return loss, metrics


def _grown(weight: Tensor) -> None:
    with torch.no_grad():
        weight.fill_(math.inf)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [("gradient", r"the gradient of 'weight' is not finite at step 3 \(loss \d+"),
     ("loss alone", r"the loss is not finite at step 3 \(loss inf"),
     ("weights", "the parameter 'weight' is not finite at step 3")],
)  # fmt: skip
@pytest.mark.parametrize("seen", [1, 100])
def test_whatever_is_not_finite_is_told_apart(what: str, sentence: str, seen: int, tmp_path: Path) -> None:
    """Also when nobody looks before the end."""
    run = new_run(tmp_path)
    if seen == 1:
        assert re.search(sentence, failure(run, Spoiled(what), validate_every=1))
        assert read_header(run.state_path)["step"] == (2 if what == "weights" else AT)
    else:
        with pytest.raises(JobError, match=sentence):
            list(train(run, Spoiled(what), plan(validate_every=100), CPU))
        assert not run.state_path.exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_training_names_the_tasks_of_its_step(method: str, tmp_path: Path) -> None:
    """The tasks are those that the step computes with: one whose numbers are spoiled stops it, and is among them."""
    training = make(method)
    real = training.loss

    def loss(step: int, generator: torch.Generator) -> Any:
        value, metrics = real(step, generator)
        return (value * math.nan if step == 1 else value), metrics

    training.loss = loss  # type: ignore[method-assign]
    run = new_run(tmp_path)
    found = failure(run, training)
    tasks = training.tasks(1)
    assert f"the loss is not finite at step 1 (loss nan), whose batch has the tasks {tasks.questions[0]!r}" in found
    everyone = miniature.dataset().arena("train", CPU).questions
    assert len(tasks) == 8 and set(tasks.questions) <= set(everyone) and len(set(tasks.questions)) == 8
    assert all(value.isfinite().all() for value in load_tensors(run.state_path)[0].values())


@pytest.mark.parametrize("method", ["multitask", "mnet-maml", "hnet-maml", "film", "hvae task"])
def test_a_task_is_in_the_batch_that_its_features_spoil(method: str, tmp_path: Path) -> None:
    """The named batch is the one that is computed with: the first step that sees the spoiled image stops."""
    training: Any = make(method)
    spoiled, image = training.data.questions[-1], training.data.tasks[-1].support[0][0]
    row = int(training.data.pairs.x.index[training.data.pairs.x.starts[-1:]][0])
    matrix = training.data.pairs.x.matrix
    kept = matrix[row].clone()
    try:
        matrix[row] = math.nan
        found = failure(new_run(tmp_path), training, validate_every=100)
    finally:
        matrix[row] = kept
    assert f"the features of the images {image!r} are not finite at step" in found
    assert "build the dataset again with `metavqa dataset build --force`" in found
    step = int(found.split("at step ")[1].split(",")[0])
    assert image in {name for task in training.tasks(step).tasks for name, _ in (*task.support, *task.query)}
    assert spoiled in training.data.questions


@pytest.mark.parametrize("method", ["cond-multitask", "cond-hnet-maml", "ldm", "hyperclip", "regression"])
def test_a_task_is_in_the_batch_that_its_question_spoils(method: str, tmp_path: Path) -> None:
    training: Any = make(method)
    known = training.questions
    known.e = known.e.clone()
    known.e[5] = math.nan
    spoiled = training.data.questions[int(known.rows[5])]
    found = failure(new_run(tmp_path), training, validate_every=100)
    step = int(re.search(r"the loss is not finite at step (\d+)", found)[1])  # type: ignore[index]
    assert spoiled in training.tasks(step).questions
    assert all(spoiled not in training.tasks(earlier).questions for earlier in range(step))


def test_a_validation_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    from metavqa_cli.engine.baselines import WeightsTraining

    training: Any = make("mnet-maml")
    assert isinstance(training, WeightsTraining)
    training.recipe = training.recipe.model_copy(update={"inner_lr": 1e30})
    with pytest.raises(JobError, match=r"classifiers of \d+ of \d+ tasks answer with NaN.*\(validation at step 1\)"):
        training.inner_steps = lambda n, generator: torch.zeros(n, dtype=torch.int64)
        list(train(new_run(tmp_path), training, plan(), CPU))


def test_the_record_of_the_run_says_it_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from metavqa_cli.engine import diffusion

    real = diffusion.diffusion_loss
    monkeypatch.setattr(diffusion, "diffusion_loss", lambda *args: (real(*args)[0] * math.nan, {}))
    here = session(workspace, ldm={"epochs": 2})
    with pytest.raises(JobError, match="the loss is not finite at step 0") as stopped:
        list(train_ldm(here, miniature.run("hvae", "task", workspace)))
    [name] = set(workspace.run_ids()) - set(miniature.finished().run_ids())
    run = Run(workspace.runs_dir / name)
    assert run.events()[0][-1] == RunFailed(run.id, str(stopped.value)) and run.state() == "failed"


def test_fine_tuned_weights_that_are_not_finite_are_named_by_their_tasks(workspace: Workspace) -> None:
    here = session(workspace, zoo={"lr": 1e38, "steps": 3})
    with pytest.raises(JobError, match=r"weights are not finite for \d+ of 27 tasks \('.*\); lower zoo.lr"):
        list(build_zoo(here, miniature.run("baseline", workspace=workspace)))


def test_features_with_a_right_checksum_that_are_not_finite_are_refused_by_name(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_dataset(workspace, miniature.NAME).path / "features"
    [path] = [path for path in folder.glob("*.safetensors") if path.name.startswith("images")]
    store = FeatureStore.open(path)
    rows = store.verified()
    rows[4, 2] = math.nan
    with pytest.raises(JobError, match=f"the encoder gives NaN or infinite values for '{store.ids[4]}'; try"):
        write_features(path, store.ids, rows, store.header)
    with monkeypatch.context() as patch:
        patch.setattr("metavqa_cli.store.features.check_finite", lambda *args: None)
        write_features(path, store.ids, rows, store.header)
    with pytest.raises(JobError, match=f"the features of '{store.ids[4]}' are not finite; build it again with"):
        open_dataset(workspace, miniature.NAME).arena("train", CPU)


def test_an_encoder_that_gives_nan_ends_the_build_with_the_image(
    without_runs: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = miniature.encoder()
    real = type(encoder).encode_pixels

    def spoiled(self: Any, pixels: Tensor) -> Tensor:
        found = real(self, pixels).clone()
        found[3] = math.nan
        return found

    monkeypatch.setattr(type(encoder), "encode_pixels", spoiled)
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)
    name = open_dataset(without_runs, miniature.NAME).image_features.ids[3]
    with pytest.raises(JobError, match=f"the encoder gives NaN or infinite values for '{name}'"):
        list(build_dataset(session(without_runs, force=True)))


# Divergence


def losses(*parts: tuple[float, float, int]) -> list[float]:
    """Straight lines from a value to another in so many steps, each with noise."""
    found = []
    generator = torch.Generator().manual_seed(0)
    for start, end, n in parts:
        noise = (1 + 0.3 * torch.randn(n, generator=generator)).tolist()
        found += [(start + (end - start) * i / n) * noise[i] for i in range(n)]
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [(losses((1.2, 0.5, 300), (0.5, 0.5, 300)), None), (losses((1.2, 0.1, 300), (0.1, 1.2, 300)), None),
     (losses((1.2, 0.5, 300), (0.5, 30, 300)), range(300, 420)), (losses((1.2, 300.0, 400)), range(5, 40)),
     (losses((-5, -20, 100), (-20, 200, 200)), range(110, 200)), (losses((1.0, 1.0, 2000)), None),
     (losses((1, 1, 50), (50, 50, 30), (1, 1, 200)), None)],
)  # fmt: skip
def test_what_diverges(values: list[float], expected: range | None) -> None:
    """A spike does not, nor a return to where it began; in one go or bit by bit, it is the same."""
    trend, parts = Trend(), Trend()
    trend.extend(values, 0)
    for step, value in enumerate(values):
        parts = Trend(**parts.to_dict())
        parts.extend([value], step)
    assert trend == parts
    assert trend.diverging is None if expected is None else trend.diverging in expected


class Growing(Toy):
    """Its loss grows by a tenth a step."""

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _ = super().loss(step, generator)
        loss = loss - loss.detach() + 1.1**step
        return loss, {"loss": loss.detach()}


@pytest.mark.parametrize("every", [1, 7, 200])
def test_a_diverging_training_says_so_once_and_goes_on(every: int, tmp_path: Path) -> None:
    how = plan(steps=200, validate_every=every)
    events = list(train(new_run(tmp_path), Growing(), how, CPU))
    [said] = [event for event in events if isinstance(event, TrainingDiverged)]
    assert said.step == next_bound() and said.loss > 100 * said.lowest
    assert said.way_out == "stop it and train anew with a lower learning rate, --set ldm.lr=0.001"
    assert [event.step for event in events if isinstance(event, StepLogged)][-1] == 200


def next_bound() -> int:
    """The step from which the loss of ``Growing`` is out of bounds, found another way."""
    trend = Trend()
    for step in range(200):
        trend.extend([1.1**step], step)
        if trend.beyond == 1:
            return step
    raise AssertionError


def test_losses_that_nobody_looked_at_for_long_are_forgotten_first_to_last() -> None:
    finite = Finite(CPU)
    for step in range(RING + 10):
        finite.watch(torch.ones(()), torch.tensor(9999.0 - step), step)
    assert not finite.diverged(RING + 10)
    assert finite.trend.steps == RING and finite.trend.first == pytest.approx(9989 - (FIRST - 1) / 2)
    assert LASTING < RING
