"""The rows of the paper's Table 2: each trains, learns with every parameter, resumes, and is used as it was trained."""

import signal
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine import baselines
from metavqa_cli.engine.baselines import AnyTraining, baseline_training, train_baseline
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.loop import Plan, train
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.perform import sections
from metavqa_cli.engine.sources import Source, source_of
from metavqa_cli.methods.few_shot import adapt_latents, adapt_weights
from metavqa_cli.methods.film import Film
from metavqa_cli.methods.registry import BY_KEY
from metavqa_cli.schema.config import CONDITIONAL, BaselineMethod, Config
from metavqa_cli.schema.errors import InterruptedJob
from metavqa_cli.schema.events import Event, Reused, RunFinished, RunStarted, ValidationMeasured
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena
from tests import miniature
from tests.miniature import CPU, session

METHODS = get_args(BaselineMethod)
FAST = {"lr": 0.03}  # few steps must be seen in the weights
FEW_SHOT = [method for method in METHODS if BY_KEY[method].few_shot]


@cache
def arena(split: str) -> Arena:
    return miniature.dataset().arena(split, CPU)


def fresh(method: str, **changes: Any) -> AnyTraining:
    layout = WeightLayout.from_dict(load_model(miniature.run("baseline"), CPU).header["layout"])
    config = configured(method, **changes)
    return baseline_training(config, layout, arena("train"), arena("validation"))


def configured(method: str, **changes: Any) -> Config:
    return miniature.config(**{**changes, "baseline": {"method": method, **changes.get("baseline", {})}})


def modulating(*args: Any) -> AnyTraining:
    """The training, where FiLM's modulation is not 0 at first: the best of few steps may be the first."""
    training = baseline_training(*args)
    if isinstance(training.module, Film):
        nn.init.normal_(training.module.modulation.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return training


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with nothing but the dataset, to which these tests add the baselines."""
    return miniature.copy(tmp_path_factory.mktemp("baselines") / "workspace", with_runs=False)


@pytest.fixture(scope="module")
def trained(bench: Workspace) -> Callable[[str], tuple[Run, AnyTraining]]:
    """The finished run of a method, with its training as it was in memory at the end."""

    @cache
    def once(method: str) -> tuple[Run, AnyTraining]:
        made: list[AnyTraining] = []

        def remember(*args: Any) -> AnyTraining:
            made.append(modulating(*args))
            return made[-1]

        with patch.object(baselines, "baseline_training", remember):
            *_, last = train_baseline(session(bench, baseline={"method": method, **FAST}))
        assert isinstance(last, RunFinished)
        return runs.get(bench, last.run), made[0]

    return once


Trained = Callable[[str], tuple[Run, AnyTraining]]


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_is_found_again(method: str, trained: Trained, bench: Workspace) -> None:
    run, _ = trained(method)
    assert (run.kind, run.state(), run.manifest()["variant"]) == ("baseline", "finished", method)
    result = run.result() or {}
    adapts = method in ("mnet-maml", "mnet-fomaml", "hnet-maml")
    assert result["method"] == method
    assert result["validation"].keys() == {"accuracy", *(["zero_shot_accuracy"] if adapts else [])}
    assert all(0 < value <= 100 for value in result["validation"].values())
    best = max(event.metrics["accuracy"] for event in run.events()[0] if isinstance(event, ValidationMeasured))
    assert result["validation"]["accuracy"] == pytest.approx(best, abs=1e-6)
    assert not run.state_path.exists()
    again = list(train_baseline(session(bench, baseline={"method": method, **FAST})))
    assert again == [Reused("baseline", run.id), RunFinished(run.id, result)]


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_moves(method: str, tmp_path: Path) -> None:
    training = fresh(method)
    before = {name: value.detach().clone() for name, value in training.module.named_parameters()}
    plan = Plan(steps=4, lr=1e-2, grad_clip=10.0, validate_every=1, seed=3, tasks_per_step=8, checkpoint_seconds=1e9)
    scores = count()
    training.validate = lambda module: {"accuracy": float(next(scores))}  # type: ignore[method-assign,assignment]
    run = runs.create(Workspace(tmp_path), "baseline", "0" * 64, {}, {}, {"name": "none", "fingerprint": "none"})
    for _ in train(run, training, plan, CPU):  # type: ignore[misc,arg-type]
        pass
    assert before
    assert [name for name, value in training.module.named_parameters() if torch.equal(value, before[name])] == []


def interrupted(events: Iterator[Event], at: int) -> str:
    """Press Ctrl-C after the validation at step ``at``; the id of the run."""
    name = ""
    with pytest.raises(InterruptedJob) as stopped:
        for event in events:
            if isinstance(event, RunStarted):
                name = event.run
            if isinstance(event, ValidationMeasured) and event.step == at:
                signal.raise_signal(signal.SIGINT)
    assert f"`metavqa train baseline --resume {name}`" in str(stopped.value) and stopped.value.exit_code == 130
    return name


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_it_ends_as_if_it_had_not_been(
    method: str, trained: Trained, without_runs: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained(method)
    monkeypatch.setattr(baselines, "baseline_training", modulating)
    doing = session(without_runs, baseline={"method": method, **FAST})
    run = runs.get(without_runs, interrupted(train_baseline(doing), at=3))
    assert run.id == whole.id and run.state() == "interrupted" and run.state_path.is_file()
    second = list(train_baseline(doing))
    assert isinstance(second[0], RunStarted) and second[0].resumed_at == 3
    assert run.result() == whole.result()
    steps = [event.step for event in whole.events()[0] if isinstance(event, ValidationMeasured)]
    assert [event.step for event in second if isinstance(event, ValidationMeasured)] == steps[3:] != []
    one, two = load_model(whole, CPU).tensors, load_model(run, CPU).tensors
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


# What was saved is what was trained


def loaded(method: str, run: Run, bench: Workspace) -> Source:
    return source_of(session(bench), method, {"baseline": run}, None, arena("validation"))


def in_memory(training: AnyTraining, method: str) -> Tensor:
    """The zero-shot weights of the test tasks, from the module that was trained."""
    module: Any = training.module
    if method in CONDITIONAL:
        return module.weights(training.questions.whitener(arena("test").e))  # type: ignore[union-attr]
    one = module.decode(module.z0[None]) if method == "hnet-maml" else module.W[None]
    return one.expand(len(arena("test")), -1)


@pytest.mark.parametrize("method", METHODS)
def test_the_saved_run_gives_the_weights_of_the_module_in_memory(
    method: str, trained: Trained, bench: Workspace
) -> None:
    run, training = trained(method)
    source = loaded(method, run, bench)
    assert source.zero_shot is not None and not source.sampled
    with torch.no_grad():
        weights = source.zero_shot(arena("test"), 0)
        assert torch.equal(weights, in_memory(training, method))
    assert (len(weights.unique(dim=0)) > 1) == (method in CONDITIONAL), "weights follow the question, or do not"
    assert source.layout == training.layout and source.logit_scale == training.scale
    assert source.gamma is None and (source.few_shot is not None) == (BY_KEY[method].few_shot is not None)


@pytest.mark.parametrize("method", FEW_SHOT)
def test_it_adapts_what_the_registry_says_from_where_it_was_trained(
    method: str, trained: Trained, bench: Workspace
) -> None:
    run, training = trained(method)
    source, settings, support = loaded(method, run, bench), miniature.config().eval, arena("test").support.padded
    assert source.few_shot is not None
    module: Any = training.module.requires_grad_(False)
    if BY_KEY[method].few_shot == "W":
        W, lr = module.W, training.recipe.inner_lr if "maml" in method else settings.few_shot_lr  # A.8
        expected = adapt_weights(training.layout, W, support, settings.few_shot_steps, lr, training.scale)
    else:
        start = module.z0.expand(len(arena("test")), -1) if method == "hnet-maml" else None
        if start is None:
            start = training.questions.whitener(arena("test").e)  # type: ignore[union-attr]
        recipe = training.recipe if "maml" in method else training.config.recipes.cond_hnet_maml  # A.8
        lr, steps = recipe.inner_lr, settings.few_shot_steps
        z = adapt_latents(module, start, support, steps, lr, training.layout, training.scale)
        expected = module.decode(z)
    found = source.few_shot(arena("test"))
    module.requires_grad_(True)
    assert torch.equal(found, expected)
    assert not torch.equal(found, source.zero_shot(arena("test"), 0))  # type: ignore[misc]


@pytest.mark.parametrize("method", ["hnet-maml", "cond-hnet-maml"])
def test_the_latent_adapts_at_the_rate_that_it_was_trained_for(method: str, without_runs: Workspace) -> None:
    """Also when that came from ``baseline.inner_lr`` and not from the recipe."""
    found = []
    for rate in (0.1, 7.0):
        doing = session(without_runs, baseline={"method": method, "inner_lr": rate, "lr": 1e-12, "epochs": 1})
        *_, last = train_baseline(doing)
        assert isinstance(last, RunFinished)
        source = loaded(method, runs.get(without_runs, last.run), without_runs)
        assert source.few_shot is not None and source.zero_shot is not None
        with torch.no_grad():
            start = source.zero_shot(arena("test"), 0)
        found.append(float((source.few_shot(arena("test")) - start).norm()))
    assert found[1] > 3 * found[0] > 0


def test_an_hnet_keeps_the_latents_that_guidance_learns_from(trained: Trained) -> None:
    run, training = trained("hnet-maml")
    decoder, config = Decoder(load_model(run, CPU)), miniature.config()
    support, _ = arena("train").random_support(config.seed)
    module: Any = training.module.requires_grad_(False)
    start, steps = module.z0.expand(len(arena("train")), -1), config.hnet.adapt_steps
    z = adapt_latents(module, start, support, steps, training.recipe.inner_lr, training.layout, training.scale)
    module.requires_grad_(True)
    assert torch.allclose(decoder.latents, z, atol=1e-6)
    assert decoder.name == "hnet" and torch.equal(decoder.start, module.z0)
    assert (decoder.latents.std(0) > 0).all()


def test_first_and_second_order_are_two_methods(trained: Trained) -> None:
    first, second = (trained(method)[1].module for method in ("mnet-fomaml", "mnet-maml"))
    assert not torch.equal(first.W, second.W)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["hnet-maml", "cond-multitask", "cond-hnet-maml"])
def test_a_hypernetwork_moves_away_from_the_initialisation_or_makes_all_itself(method: str) -> None:
    near: Any = fresh(method).module
    assert near.decoder.base.any()
    paper: Any = fresh(method, base_network={"init": "paper"}).module
    assert not paper.decoder.base.any()


# What a run is


@pytest.mark.parametrize("other", METHODS)
@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_is_part_of_its_own_method_alone(method: str, other: str) -> None:
    changed = {other.replace("-", "_"): {"lr": 0.5}}
    same = sections(configured(method), "baseline") == sections(configured(method, recipes=changed), "baseline")
    assert same == (method != other)


@pytest.mark.parametrize("method", METHODS)
def test_a_hypernetworks_shape_is_part_of_methods_that_have_one(method: str) -> None:
    has_one = method in ("hnet-maml", "cond-multitask", "cond-hnet-maml")
    for change in ({"hidden": (7,)}, {"scale": 0.7}):
        same = sections(configured(method), "baseline") == sections(configured(method, hnet=change), "baseline")
        assert same != has_one


@pytest.mark.parametrize("name", ["epochs", "lr", "batch", "grad_clip", "inner_lr", "inner_steps"])
def test_what_is_wanted_otherwise_goes_before_the_recipe(name: str) -> None:
    """And is the same run as a recipe that says so."""
    own = {"film": {**configured("film").recipe().model_dump(), name: 5}}
    in_recipe = configured("film", recipes=own, baseline={"epochs": None, "batch": None})
    wanted = configured("film", baseline={name: 5})
    assert getattr(wanted.recipe(), name) == getattr(in_recipe.recipe(), name) == 5
    assert sections(wanted, "baseline") == sections(in_recipe, "baseline") != sections(configured("film"), "baseline")


@pytest.mark.parametrize("epochs", [1, 4])
def test_epochs_are_passes_over_the_training_tasks(epochs: int, without_runs: Workspace) -> None:
    events = train_baseline(session(without_runs, baseline={"method": "film", "epochs": epochs}))
    first = next(events)
    events.close()  # type: ignore[attr-defined]
    assert isinstance(first, RunStarted)
    assert first.total_steps == epochs * -(-len(arena("train")) // miniature.VALUES["baseline"]["batch"])
