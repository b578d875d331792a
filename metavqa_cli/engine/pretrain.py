"""`metavqa train baseline` and `metavqa train zoo`: an initialisation, then one fine-tuned classifier for each task."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metavqa_cli.base_network.adapter import answer_logits, initial_weights, task_accuracy
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.build import open_dataset
from metavqa_cli.engine.lineage import find_parent, load_model, perform, save_model, started
from metavqa_cli.engine.loop import Plan, batch_indices, mix, train
from metavqa_cli.engine.session import Session
from metavqa_cli.methods.few_shot import adapt_weights
from metavqa_cli.methods.maml import maml_loss
from metavqa_cli.methods.multitask import multitask_loss
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.batches import TaskBatch

VALIDATIONS = 12  # measurements on the validation tasks in the course of a training
PATIENCE = 4


class SharedWeights(nn.Module):
    """W [P], the only parameter of the unconditional baselines."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.W = nn.Parameter(W)


class BaselineTraining:
    """Uncond. Multitask (Algorithm 2) or MNet-MAML / FOMAML (Algorithm 3) for the training loop."""

    def __init__(self, config: Config, layout: WeightLayout, train: Arena, validation: Arena) -> None:
        self.config, self.layout, self.data, self.validation = config, layout, train, validation
        generator = torch.Generator().manual_seed(config.seed)
        W = initial_weights(layout, config.base_network.init, generator)
        self.module = SharedWeights(W.to(train.e.device))

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        settings, scale = self.config.baseline, self.config.base_network.logit_scale
        indices = batch_indices(len(self.data), settings.batch, step, self.config.seed).to(self.data.e.device)
        W = self.module.W
        if settings.method == "multitask":
            return multitask_loss(W, self.data.pairs.select(indices), self.layout, scale)
        support, query = self.data.select(indices).random_support(mix(self.config.seed, step))
        steps = torch.randint(settings.inner_steps + 1, (len(indices),), generator=generator).to(W.device)
        order: Literal["first", "second"] = "second" if settings.method == "mnet-maml" else "first"
        return maml_loss(W, support, query, self.layout, scale, settings.inner_lr, steps, order)

    def validate(self, module: SharedWeights) -> dict[str, float]:
        """Zero-shot accuracy for multitask, accuracy after the inner loop for MAML, on the validation tasks' query."""
        scale, W = self.config.base_network.logit_scale, module.W.detach()[None]
        zero_shot = mean_accuracy(self.layout, W, self.validation.query, scale)
        if self.config.baseline.method == "multitask":
            return {"accuracy": zero_shot}
        steps, lr = self.config.baseline.inner_steps, self.config.baseline.inner_lr
        adapted = adapt_weights(self.layout, W, self.validation.support, steps, lr, scale)
        few_shot = mean_accuracy(self.layout, adapted, self.validation.query, scale)
        return {"accuracy": few_shot, "zero_shot_accuracy": zero_shot}


@torch.no_grad()
def accuracies(layout: WeightLayout, weights: Tensor, batch: TaskBatch, logit_scale: float) -> Tensor:
    """Top-1 accuracy of each task, 0 to 1; ``weights`` [task, P] or one row [1, P] for all."""
    expanded = weights.expand(batch.n_tasks, -1)
    return task_accuracy(answer_logits(layout, expanded, batch, logit_scale), batch.labels, batch.example_mask)


def mean_accuracy(layout: WeightLayout, weights: Tensor, batch: TaskBatch, logit_scale: float) -> float:
    """Mean over tasks of the top-1 accuracy, in per cent."""
    return 100 * float(accuracies(layout, weights, batch, logit_scale).mean())


def training_plan(config: Config, n: int, pace: Any, **extra: Any) -> Plan:
    """The plan for ``n`` tasks from a section with ``epochs``, ``batch``, ``lr`` and ``grad_clip``."""
    steps = pace.epochs * -(-n // pace.batch)
    return Plan(
        steps=steps, lr=pace.lr, grad_clip=pace.grad_clip, validate_every=max(1, steps // VALIDATIONS),
        seed=config.seed, tasks_per_step=min(n, pace.batch),
        checkpoint_seconds=config.runtime.checkpoint_seconds, **extra,
    )  # fmt: skip


def layout_of(session: Session) -> WeightLayout:
    """The base network for the dataset's encoder."""
    encoder = open_dataset(session.workspace, session.config.dataset.name).manifest["encoder"]
    return WeightLayout(encoder["embed"], session.config.base_network.hidden)


def train_baseline(session: Session) -> Iterator[Event]:
    """Train the configured initialisation; ends with ``RunFinished``."""
    method = session.config.baseline.method
    yield from perform(session, "baseline", {}, {"variant": method}, partial(_train_baseline, session))


def _train_baseline(session: Session, run: Run) -> Iterator[Event | dict[str, Any]]:
    config, layout = session.config, layout_of(session)
    dataset = open_dataset(session.workspace, config.dataset.name)
    data, validation = (dataset.arena(split, session.device) for split in ("train", "validation"))
    training = BaselineTraining(config, layout, data, validation)
    settings = config.baseline
    plan = training_plan(config, len(data), settings, patience=PATIENCE)
    yield from train(run, training, plan, session.device)
    measured = training.validate(training.module)
    save_model(run, session, {"W": training.module.W.detach()}, {"layout": layout.to_dict(), "method": settings.method})
    yield {"method": settings.method, "validation": measured}


def newest_baseline(session: Session, chosen: str | None = None) -> Run:
    """The chosen, or the newest fitting, initialisation. ``MissingError`` says how to train one."""
    method, network = session.config.baseline.method, session.config.base_network.model_dump(mode="json")

    def match(run: Run) -> bool:
        config = run.config()
        same = config["base_network"] == network
        return same if chosen else same and run.manifest().get("variant") == method

    hint = f"train one with `metavqa train baseline --method {method}`, or add --with-parents"
    run = find_parent(session, "baseline", chosen, match, hint)
    if run is None:
        raise MissingError(
            f"there is no finished {method} initialisation for dataset {session.config.dataset.name!r}; {hint}"
        )
    return run


def build_zoo(session: Session, init: Run) -> Iterator[Event]:
    """Fine-tune the initialisation on every training (and validation) task; ends with ``RunFinished``."""
    yield from perform(session, "zoo", {"init": init}, {}, partial(_build_zoo, session, init))


ZOO_BATCH = 128  # tasks adapted at once; more only cost memory


def _build_zoo(session: Session, init: Run, run: Run) -> Iterator[Event | dict[str, Any]]:
    config, layout = session.config, layout_of(session)
    dataset = open_dataset(session.workspace, config.dataset.name)
    base = load_model(init, session.device).tensors["W"]
    yield started(run, 0)
    tensors, result = {"base": base}, {}
    for split in ("train", "validation"):
        arena = dataset.arena(split, session.device)
        support, query = arena.random_support(config.seed)
        rows = []
        for start in range(0, len(arena), ZOO_BATCH):
            chosen = torch.arange(start, min(start + ZOO_BATCH, len(arena)), device=session.device)
            batch = support.select(chosen)
            rows.append(
                adapt_weights(layout, base, batch, config.zoo.steps, config.zoo.lr, config.base_network.logit_scale)
            )
            yield ProgressMade(f"fine-tuning {split} tasks", start + len(chosen), len(arena), "tasks")
        weights = torch.cat(rows)
        if not torch.isfinite(weights).all():
            raise JobError("fine-tuning diverged (weights are not finite); lower zoo.lr")
        tensors[split] = weights
        accuracy = partial(mean_accuracy, layout, batch=query, logit_scale=config.base_network.logit_scale)
        result[split] = {"before": accuracy(base[None]), "after": accuracy(weights)}
    save_model(run, session, tensors, {"layout": layout.to_dict()})
    yield Narrated("fine-tuned classifiers on their own held-out pairs: "
                   f"{result['train']['before']:.1f} % before, {result['train']['after']:.1f} % after")  # fmt: skip
    yield result


def newest_zoo(session: Session, init: Run) -> Run:
    """The zoo made from ``init`` with the configured steps and rate. ``MissingError`` says how to build one."""
    wanted = session.config.zoo.model_dump(mode="json")

    def match(run: Run) -> bool:
        return run.manifest()["parents"].get("init") == init.id and run.config()["zoo"] == wanted

    hint = "build one with `metavqa train zoo`, or add --with-parents"
    run = find_parent(session, "zoo", None, match, hint)
    if run is None:
        raise MissingError(f"there is no zoo of classifiers fine-tuned from {init.id}; {hint}")
    return run
