"""The runs of generators and HyperLDMs record how they were judged, and learn at the rates that are configured."""

from pathlib import Path
from typing import Any

import pytest
import torch

from metavqa_cli.engine import diffusion, generators
from metavqa_cli.engine.loop import Plan
from metavqa_cli.engine.models import load_model
from metavqa_cli.schema.events import RunFinished, ValidationMeasured
from metavqa_cli.store import runs
from tests import miniature
from tests.miniature import session


@pytest.mark.parametrize("objective", ["weights", "task"])
def test_the_chosen_gamma_is_the_best_one_on_the_validation_tasks(objective: str) -> None:
    result = miniature.run("ldm", objective).result()
    assert result is not None
    measured = {float(gamma): accuracy for gamma, accuracy in result["gamma_validation"].items()}
    assert tuple(measured) == diffusion.GAMMA_GRID
    assert measured[result["gamma"]] == max(measured.values()) > min(measured.values())


def test_the_saved_run_samples_with_the_gamma_and_trust_that_were_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trust, too, is what is best on the validation tasks, here by a score that no two classifiers share."""

    def score(layout: Any, weights: torch.Tensor, *rest: Any) -> float:
        return float(weights.double().square().mean())

    workspace = miniature.copy(tmp_path / "ws")
    monkeypatch.setattr(diffusion, "mean_accuracy", score)
    monkeypatch.setattr(diffusion, "GAMMA_GRID", (2.0,))
    measured: dict[tuple[float, float], float] = {}
    real = diffusion.chosen_guidance

    def remember(training: diffusion.LdmTraining) -> Any:
        gamma, trust, found = real(training)
        measured.update(found)
        return gamma, trust, found

    monkeypatch.setattr(diffusion, "chosen_guidance", remember)
    doing = session(workspace, ldm={"anchor": True}, sampling={"temperature": 0.3})
    *_, last = diffusion.train_ldm(doing, miniature.run("hvae", "task", workspace))
    assert isinstance(last, RunFinished)
    assert {trust for _, trust in measured} == set(diffusion.TRUST_GRID) and len(set(measured.values())) == 3
    chosen = last.result["gamma"], last.result["trust"]
    assert measured[chosen] == max(measured.values())
    ldm = diffusion.HyperLdm(runs.get(workspace, last.run), miniature.CPU, doing.config.sampling)
    tasks = miniature.dataset().arena("validation", miniature.CPU)
    weights = ldm.weights(tasks.e, ldm.gamma, diffusion.question_seeds(tasks, 0, 0))
    assert last.result["validation"]["accuracy"] == pytest.approx(score(None, weights), rel=1e-6)


def test_decoded_accuracy_on_training_tasks_is_logged_while_the_hvae_trains() -> None:
    events, _ = miniature.run("hvae", "weights").events()
    logged = [event.metrics["train_decoded_accuracy"] for event in events if isinstance(event, ValidationMeasured)]
    assert len(logged) >= 2 and all(0 < value <= 100 for value in logged)


def test_no_two_samples_share_a_seed() -> None:
    seeds = {diffusion.mix_sample(seed, sample) for seed in (0, 1, 4096, 2**62) for sample in (0, 1, 4096, 9999)}
    assert len(seeds) == 16


class Caught(Exception):
    """Ends a job where its plan is known."""


@pytest.mark.parametrize(
    ("objective", "rates", "decay", "apart"),
    [("weights", {}, 0.0, ("encoder", "decoder")), ("task", {"mu": 0.7}, 0.2, ())],
)
def test_the_plan_has_the_configured_rates(
    objective: str,
    rates: dict[str, float],
    decay: float,
    apart: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans: list[Plan] = []

    def catch(run: Any, training: Any, plan: Plan, device: torch.device) -> Any:
        plans.append(plan)
        raise Caught

    monkeypatch.setattr(generators, "train", catch)
    changes = {"hvae": {"objective": objective, "latent": 3}, "task_latents": {"z_lr": 0.7, "weight_decay": 0.2}}
    doing = session(miniature.copy(tmp_path / "ws"), **changes)
    with pytest.raises(Caught):
        list(generators.train_generator(doing, miniature.run("baseline", workspace=doing.workspace)))
    assert (dict(plans[0].rates), plans[0].weight_decay, plans[0].clip_apart) == (rates, decay, apart)


def test_the_anchor_has_a_learned_metric_only_where_it_serves_the_validation_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, validation = (miniature.dataset().arena(split, miniature.CPU) for split in ("train", "validation"))
    decoder = diffusion.Decoder(load_model(miniature.run("hvae", "task"), miniature.CPU))
    config = miniature.config(ldm={"anchor": True})
    plain = torch.eye(data.e.shape[1])
    found = []
    for better in (True, False):
        scores = iter((1.0, 2.0) if better else (2.0, 1.0))  # as they are, with the metric
        monkeypatch.setattr(diffusion, "mean_accuracy", lambda *rest, scores=scores: next(scores))
        training = diffusion.LdmTraining(config, decoder, data, validation)
        found.append(torch.equal(training.anchor.metric, plain))
        e = training.questions.e
        assert torch.equal(training.rest, diffusion.QuestionAnchor.fit(e, training.whole, training.anchor.metric)[1])
    assert found == [False, True]
