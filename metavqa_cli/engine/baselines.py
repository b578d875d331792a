"""`metavqa train baseline`: the rows of the paper's Table 2, each a ``Trainable`` for the loop."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metavqa_cli.base_network.adapter import initial_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.loop import batch_indices, mix, train
from metavqa_cli.engine.measure import by_task, layout_of, mean_accuracy, mean_loss, training_plan
from metavqa_cli.engine.models import save_model
from metavqa_cli.engine.perform import perform
from metavqa_cli.engine.questions import KnownQuestions
from metavqa_cli.engine.session import Session
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.methods.cond_hypernet_maml import cond_hnet_maml_loss
from metavqa_cli.methods.cond_multitask import ConditionalHypernetwork, cond_multitask_loss
from metavqa_cli.methods.few_shot import adapt_latents, adapt_weights
from metavqa_cli.methods.film import Film, film_loss
from metavqa_cli.methods.hypernet_maml import HNet, hnet_maml_loss
from metavqa_cli.methods.maml import maml_loss
from metavqa_cli.methods.multitask import multitask_loss
from metavqa_cli.schema.config import CONDITIONAL, Config
from metavqa_cli.schema.events import Event
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.transfer import to_device

PATIENCE = 4  # validations without a new best after which a baseline stops


class SharedWeights(nn.Module):
    """W [P], the only parameter of the baselines without a hypernetwork."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.W = nn.Parameter(W)


class _Training:
    """What the baselines share: their recipe, the tasks, and how a batch is drawn and divided."""

    def __init__(self, config: Config, layout: WeightLayout, train: Arena, validation: Arena) -> None:
        self.config, self.layout, self.data, self.validation = config, layout, train, validation
        self.recipe, self.method = config.recipe(), config.baseline.method
        self.scale = config.base_network.logit_scale
        self.order: Literal["first", "second"] = "first" if self.method == "mnet-fomaml" else "second"

    def start(self, generator: torch.Generator) -> Tensor:
        """The weights [P] that training begins at."""
        return initial_weights(self.layout, self.config.base_network.init, generator)

    def hypernetwork(self, latent: int, generator: torch.Generator) -> Hypernetwork:
        """A fresh h. The paper's outputs are all its own; near CLIP, they are differences from the initialisation."""
        settings, W = self.config.hnet, self.start(generator)
        base = torch.zeros_like(W) if self.config.base_network.init == "paper" else W
        return Hypernetwork(latent, settings.hidden, base, settings.scale, generator)

    def batch(self, rows: Tensor) -> TaskBatch:
        """All pairs of the tasks at ``rows``."""
        return self.data.pairs.select(rows)

    def mean(
        self, rows: Tensor, loss_of: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the tasks at ``rows``, taken in parts of like size where sizes differ much."""
        return mean_loss(self.data.pairs, rows, loss_of)

    def split(self, rows: Tensor, step: int) -> tuple[TaskBatch, TaskBatch]:
        """Support and query sets of the tasks at ``rows``, divided anew in each step."""
        return self.data.select(rows).random_support(mix(self.config.seed, step))

    def inner_steps(self, n: int, generator: torch.Generator) -> Tensor:
        """How many inner steps each of ``n`` tasks takes."""
        return torch.randint(self.recipe.inner_steps + 1, (n,), generator=generator)

    def rows(self, step: int) -> Tensor:
        """The training tasks of ``step``, described or not."""
        return batch_indices(len(self.data), self.recipe.batch, step, self.config.seed)

    def tasks(self, step: int) -> Arena:
        """Those of the batch of ``step``."""
        return self.data.select(self.rows(step))

    def accuracy(self, weights: Tensor) -> float:
        """Of ``weights`` on the validation tasks' query sets."""
        return mean_accuracy(self.layout, weights, self.validation.query, self.scale)


class WeightsTraining(_Training):
    """Uncond. Multitask (Algorithm 2) and MNet-MAML / FOMAML (Algorithm 3)."""

    def __init__(self, config: Config, layout: WeightLayout, train: Arena, validation: Arena) -> None:
        super().__init__(config, layout, train, validation)
        self.module = SharedWeights(self.start(torch.Generator().manual_seed(config.seed)).to(train.device))

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        rows, W = self.rows(step), self.module.W
        if self.method == "multitask":
            return self.mean(rows, lambda part: multitask_loss(W, self.batch(rows[part]), self.layout, self.scale))
        steps, lr = self.inner_steps(len(rows), generator), self.recipe.inner_lr

        def loss_of(part: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            support, query = self.split(rows[part], step)
            return maml_loss(W, support, query, self.layout, self.scale, lr, steps[part], self.order)

        return self.mean(rows, loss_of)

    def validate(self, module: SharedWeights) -> dict[str, float]:
        """Zero-shot accuracy for multitask, accuracy after the inner loop for MAML, on the validation tasks' query."""
        W = module.W.detach()[None]
        if self.method == "multitask":
            return {"accuracy": self.accuracy(W)}
        steps, lr = self.recipe.inner_steps, self.recipe.inner_lr
        adapted = by_task(
            self.validation.support,
            lambda batch, rows: adapt_weights(self.layout, W, batch, steps, lr, self.scale),
            self.layout.size,
        )
        return {"accuracy": self.accuracy(adapted), "zero_shot_accuracy": self.accuracy(W)}

    def extra(self) -> dict[str, Tensor]:
        """Nothing but the parameters is kept."""
        return {}


class HNetTraining(_Training):
    """Uncond. HNet-MAML (Algorithm 4)."""

    def __init__(self, config: Config, layout: WeightLayout, train: Arena, validation: Arena) -> None:
        super().__init__(config, layout, train, validation)
        generator = torch.Generator().manual_seed(config.seed)
        self.module = HNet(self.hypernetwork(config.hnet.latent, generator), generator).to(train.device)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        rows = self.rows(step)
        steps, lr = self.inner_steps(len(rows), generator), self.recipe.inner_lr

        def loss_of(part: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            support, query = self.split(rows[part], step)
            return hnet_maml_loss(self.module, support, query, self.layout, self.scale, lr, steps[part], self.order)

        return self.mean(rows, loss_of)

    def validate(self, module: HNet) -> dict[str, float]:
        """Accuracy after the inner loop, and before it, on the validation tasks' query."""
        steps = self.recipe.inner_steps
        z = by_task(self.validation.support, lambda support, rows: self.adapted(module, support, steps))
        z0 = module.z0.detach()[None]
        return {"accuracy": self.accuracy(module.decode(z)), "zero_shot_accuracy": self.accuracy(module.decode(z0))}

    def adapted(self, module: HNet, support: TaskBatch, steps: int) -> Tensor:
        """Latents [task, L] after ``steps`` steps from z0."""
        start = module.z0.detach().expand(support.n_tasks, -1)
        return adapt_latents(module, start, support, steps, self.recipe.inner_lr, self.layout, self.scale)

    def extra(self) -> dict[str, Tensor]:
        """The latents of the training tasks, adapted on random support sets: what guidance learns from (A.7.2)."""
        steps, seed = self.config.hnet.adapt_steps, self.config.seed

        def latents(pairs: TaskBatch, rows: Tensor) -> Tensor:
            return self.adapted(self.module, self.data.select(rows).random_support(seed)[0], steps)

        return {"latents": by_task(self.data.pairs, latents)}


class ConditionalTraining(_Training):
    """Cond. Multitask (Algorithm 5), Cond. Multitask FiLM (6) and Cond. HNet-MAML (7); sees described tasks alone."""

    def __init__(self, config: Config, layout: WeightLayout, train: Arena, validation: Arena) -> None:
        super().__init__(config, layout, train, validation)
        self.questions = KnownQuestions(train, config.questions)
        generator = torch.Generator().manual_seed(config.seed)
        network = (
            Film(layout, self.start(generator), generator)
            if self.method == "film"
            else ConditionalHypernetwork(self.hypernetwork(train.embed, generator))
        )
        self.module: Film | ConditionalHypernetwork = network.to(train.device)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, e = self.questions.batch(self.recipe.batch, step, self.config.seed, generator)
        rows, module, layout, scale = self.questions.rows[chosen], self.module, self.layout, self.scale
        steps = None if self.method in ("film", "cond-multitask") else self.inner_steps(len(rows), generator)

        def loss_of(part: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            asked = e[to_device(part, e.device)]
            if isinstance(module, Film):
                return film_loss(module, asked, self.batch(rows[part]), layout, scale)
            if steps is None:
                return cond_multitask_loss(module, asked, self.batch(rows[part]), layout, scale)
            support, query = self.split(rows[part], step)
            lr = self.recipe.inner_lr
            return cond_hnet_maml_loss(module, asked, support, query, layout, scale, lr, steps[part], self.order)

        return self.mean(rows, loss_of)

    def rows(self, step: int) -> Tensor:
        """The described training tasks of ``step``."""
        return self.questions.rows[self.questions.chosen(self.recipe.batch, step, self.config.seed)]

    def validate(self, module: Film | ConditionalHypernetwork) -> dict[str, float]:
        """Zero-shot accuracy for the validation tasks' questions, on all their pairs."""
        e = self.questions.whitener(self.validation.e)
        weights = module.weights(e).detach()
        return {"accuracy": mean_accuracy(self.layout, weights, self.validation.pairs, self.scale)}

    def extra(self) -> dict[str, Tensor]:
        """How questions are seen."""
        return {f"whitener.{name}": value for name, value in self.questions.whitener.state_dict().items()}


AnyTraining = WeightsTraining | HNetTraining | ConditionalTraining


def baseline_training(config: Config, layout: WeightLayout, train: Arena, validation: Arena) -> AnyTraining:
    """The training of the configured baseline."""
    if config.baseline.method in CONDITIONAL:
        return ConditionalTraining(config, layout, train, validation)
    make = HNetTraining if config.baseline.method == "hnet-maml" else WeightsTraining
    return make(config, layout, train, validation)


def train_baseline(session: Session) -> Iterator[Event]:
    """Train the configured baseline; ends with ``RunFinished``."""
    method = session.config.baseline.method
    yield from perform(session, "baseline", {}, {"variant": method}, partial(_train_baseline, session))


def _train_baseline(session: Session, run: Run) -> Iterator[Event | dict[str, Any]]:
    config, layout, method = session.config, layout_of(session), session.config.baseline.method
    dataset = open_dataset(session.workspace, config.dataset.name)
    data, validation = (dataset.arena(split, session.device) for split in ("train", "validation"))
    training: Any = baseline_training(config, layout, data, validation)  # a Trainable, whichever it is
    plan = training_plan(config, len(data), config.recipe(), patience=PATIENCE, arithmetic=session.arithmetic(method))
    yield from train(run, training, plan, session.device)
    tensors = {name: value.detach() for name, value in training.module.state_dict().items()} | training.extra()
    header = {"layout": layout.to_dict(), "method": method, "hidden": list(config.hnet.hidden)}
    save_model(run, session, tensors, header)
    yield {"method": method, "validation": training.validate(training.module)}
