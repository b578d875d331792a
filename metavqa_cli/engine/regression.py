"""`metavqa train regression`: the control that predicts latents, or weights, from a question without diffusion."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.lineage import check_dataset, check_finished, parent_run
from metavqa_cli.engine.loop import train
from metavqa_cli.engine.measure import mean_accuracy, training_plan
from metavqa_cli.engine.models import Model, load_model, model_layout, save_model
from metavqa_cli.engine.perform import perform
from metavqa_cli.engine.questions import KnownQuestions
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.guidance.hyperldm import LatentScaler, QuestionWhitener
from metavqa_cli.methods.regression import Regression, regression_loss
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.events import Event
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.transfer import to_device


class Target:
    """What is predicted for each training task: the latents of a generator, or the weights of a zoo themselves."""

    def __init__(self, model: Model) -> None:
        self.decoder = None if model.run.kind == "zoo" else Decoder(model)
        self.vectors = model.tensors["train"] if self.decoder is None else self.decoder.latents
        self.layout = model_layout(model)
        self.logit_scale = float(model.header["config"]["base_network"]["logit_scale"])
        if self.decoder is None:  # one scale for all weights, as for the HVAE: most of them hardly move
            mean = self.vectors.mean(0)
            std = (self.vectors - mean).square().mean().sqrt().clamp_min(1e-12)
            self.scaler = LatentScaler(mean, std.expand_as(mean).clone())
        else:
            self.scaler = LatentScaler.fit(self.vectors)

    def weights(self, predicted: Tensor) -> Tensor:
        """Weights [batch, P] of standardised predictions."""
        vectors = self.scaler.restore(predicted)
        return vectors if self.decoder is None else self.decoder.decode(vectors)


class RegressionTraining:
    """Squared error on the described training tasks, validated by the predicted weights of new questions."""

    def __init__(self, config: Config, target: Target, train: Arena, validation: Arena) -> None:
        self.config, self.target, self.data, self.validation = config, target, train, validation
        self.questions = KnownQuestions(train, config.questions)
        self.y = target.scaler.standardise(target.vectors[self.questions.rows])
        generator = torch.Generator().manual_seed(config.seed)
        embed, hidden = train.embed, config.regression.hidden
        self.module = Regression(embed, hidden, self.y.shape[1], generator).to(train.device)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, e = self.questions.batch(self.config.regression.batch, step, self.config.seed, generator)
        share = here().share(len(chosen))
        own = to_device(chosen[share.rows], self.y.device)
        return share.of(*regression_loss(self.module, e[share.rows], self.y[own]))

    def tasks(self, step: int) -> Arena:
        """Those of the batch of ``step``."""
        chosen = self.questions.chosen(self.config.regression.batch, step, self.config.seed)
        return self.data.select(self.questions.rows[chosen])

    def validate(self, module: Regression) -> dict[str, float]:
        """Zero-shot accuracy for the validation tasks' questions, on all their pairs."""
        weights = self.target.weights(module.predict(self.questions.whitener(self.validation.e)))
        target = self.target
        return {"accuracy": mean_accuracy(target.layout, weights, self.validation.pairs, target.logit_scale)}


def train_regression(session: Session, target: Run) -> Iterator[Event]:
    """Train the regression to ``target``, a generator or a zoo; ends with ``RunFinished``."""
    check_dataset(target, open_dataset(session.workspace, session.config.dataset.name))
    check_finished(target)
    variant = "zoo" if target.kind == "zoo" else target.manifest()["variant"]
    work = partial(_train_regression, session, target)
    yield from perform(session, "regression", {"target": target}, {"variant": variant}, work)


def _train_regression(session: Session, target: Run, run: Run) -> Iterator[Event | dict[str, Any]]:
    config = session.config
    dataset = open_dataset(session.workspace, config.dataset.name)
    data, validation = (dataset.arena(split, session.device) for split in ("train", "validation"))
    training = RegressionTraining(config, Target(load_model(target, session.device)), data, validation)
    settings = config.regression
    plan = training_plan(config, len(data), settings, ema=settings.ema, arithmetic=session.arithmetic("regression"))
    yield from train(run, training, plan, session.device)
    tensors = {f"regression.{name}": value.detach() for name, value in training.module.state_dict().items()}
    tensors |= {f"whitener.{name}": value for name, value in training.questions.whitener.state_dict().items()}
    save_model(run, session, tensors, {"embed": data.embed})
    yield {"validation": training.validate(training.module)}


class Regressor:
    """A finished regression: question embeddings to weights."""

    def __init__(self, run: Run, device: torch.device) -> None:
        model = load_model(run, device)
        self.run, self.target = run, Target(load_model(parent_run(run, "target"), device))
        state = {name[11:]: value for name, value in model.tensors.items() if name.startswith("regression.")}
        hidden, embed = state["mlp.0.weight"].shape
        self.module = Regression(embed, hidden, self.target.vectors.shape[1], None)
        self.module.load_state_dict(state, assign=True)
        self.module.requires_grad_(False)
        self.whitener = QuestionWhitener(model.tensors["whitener.mean"], model.tensors["whitener.transform"])

    def weights(self, e: Tensor) -> Tensor:
        """Weights [batch, P] for question embeddings e [batch, E]."""
        return self.target.weights(self.module.predict(self.whitener(e)))
