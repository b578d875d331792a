"""`metavqa train hvae`: a generator of classifier weights, by the paper's objective or by the tasks' own loss."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.lineage import find_parent
from metavqa_cli.engine.loop import batch_indices, train
from metavqa_cli.engine.measure import by_task, layout_of, mean_accuracy, mean_loss, training_plan
from metavqa_cli.engine.models import Model, load_model, model_layout, save_model, trained_with
from metavqa_cli.engine.perform import perform
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.trainable import M, Trainable
from metavqa_cli.engine.world import here
from metavqa_cli.engine.zoo import newest_zoo
from metavqa_cli.generator.hvae import HVAE, WeightScaler, hvae_loss
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.generator.layers import normal_like
from metavqa_cli.generator.task_latents import TaskLatents, task_latent_loss
from metavqa_cli.methods.few_shot import adapt_latents
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.schema.events import Event, Narrated
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.transfer import to_device

PROBED_TASKS = 64  # training tasks whose decoded accuracy is logged while the HVAE trains
VALIDATION_STEPS = 10  # gradient steps in z when a task-loss generator is validated


@runtime_checkable
class GeneratorTraining(Trainable[M], Protocol[M]):
    """A way to train a generator: what the loop needs, and the latents that the tasks end up with."""

    def latents(self) -> Tensor:
        """The latent [task, L] of each training task, with the parameters as they are."""
        ...


class HvaeTraining:
    """The paper's objective (Algorithm 8): a VAE of the zoo's weights, validated by what its reconstructions judge."""

    def __init__(self, config: Config, layout: WeightLayout, zoo: Model, train: Arena, validation: Arena) -> None:
        self.config, self.layout, self.zoo, self.data, self.validation = config, layout, zoo.tensors, train, validation
        settings, device = config.hvae, train.device
        try:
            scaler = WeightScaler.fit(self.zoo["train"], self.zoo["base"], settings.weight_clamp)
        except ValueError as error:
            raise JobError(f"the zoo {zoo.run.id} cannot be learned from: {error}") from None
        generator = torch.Generator().manual_seed(config.seed)
        moved = WeightScaler(scaler.mean.cpu(), scaler.std.cpu(), scaler.clamp)
        self.module = HVAE(moved, settings.latent, settings.hidden, generator).to(device)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.zoo["train"]
        indices = batch_indices(len(weights), self.config.hvae.batch, step, self.config.seed)
        share, batch = here().share(len(indices)), weights[to_device(indices, weights.device)]
        return share.of(*hvae_loss(self.module, batch, generator, self.config.hvae.kl_weight, share.rows))

    def tasks(self, step: int) -> Arena:
        """Those of the batch of ``step``."""
        return self.data.select(batch_indices(len(self.data), self.config.hvae.batch, step, self.config.seed))

    def validate(self, module: HVAE) -> dict[str, float]:
        """Accuracy of decoded weights on validation tasks (which decide) and on some training tasks."""
        probe = torch.arange(min(PROBED_TASKS, len(self.data)))
        scale = self.config.base_network.logit_scale
        decoded = {
            "accuracy": (self.zoo["validation"], self.validation.pairs),
            "train_decoded_accuracy": (self.zoo["train"][probe], self.data.pairs.of(probe)),
        }
        return {name: mean_accuracy(self.layout, module.decode(module.encode(w)[0]), batch, scale)
                for name, (w, batch) in decoded.items()}  # fmt: skip

    def latents(self) -> Tensor:
        """Means of the posteriors of the zoo's weights."""
        return self.module.encode(self.zoo["train"])[0].detach()


class TaskLatentTraining:
    """Latents and decoder trained on the tasks' own cross-entropy, validated by few-shot adaptation in latent space."""

    def __init__(self, config: Config, layout: WeightLayout, base: Tensor, train: Arena, validation: Arena) -> None:
        self.config, self.layout, self.data, self.validation = config, layout, train, validation
        shape, generator = config.hvae, torch.Generator().manual_seed(config.seed)
        decoder = Hypernetwork(shape.latent, shape.hidden, base.cpu(), config.task_latents.scale, generator)
        self.module = TaskLatents(len(train), decoder, config.task_latents.z_init, generator).to(train.device)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        settings, scale = self.config.task_latents, self.config.base_network.logit_scale
        indices = batch_indices(len(self.data), settings.batch, step, self.config.seed)
        pairs, mu = self.data.pairs, self.module.mu
        noise = settings.z_noise * normal_like(mu.new_empty(len(indices), mu.shape[1]), generator)

        def loss_of(part: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            rows = indices[part]
            own, drawn = to_device(rows, mu.device), noise[to_device(part, mu.device)]
            return task_latent_loss(
                self.module, own, pairs.select(rows), self.layout, scale, drawn, settings.z_penalty
            )  # fmt: skip

        return mean_loss(pairs, indices, loss_of)

    def tasks(self, step: int) -> Arena:
        """Those of the batch of ``step``."""
        return self.data.select(batch_indices(len(self.data), self.config.task_latents.batch, step, self.config.seed))

    def validate(self, module: TaskLatents) -> dict[str, float]:
        """Few-shot accuracy on the validation tasks' query after a few steps in z from the mean latent."""
        scale = self.config.base_network.logit_scale
        start, lr = module.mu.detach().mean(0), self.config.task_latents.adapt_lr

        def adapted(support: TaskBatch, rows: Tensor) -> Tensor:
            z0 = start.expand(len(rows), -1)
            return adapt_latents(module, z0, support, VALIDATION_STEPS, lr, self.layout, scale)

        z = by_task(self.validation.support, adapted)
        return {"accuracy": mean_accuracy(self.layout, module.decode(z), self.validation.query, scale)}

    def latents(self) -> Tensor:
        """The learned latent means."""
        return self.module.mu.detach()


def train_generator(session: Session, init: Run) -> Iterator[Event]:
    """Train the configured generator from the initialisation ``init``; the paper's objective also needs its zoo."""
    objective = session.config.hvae.objective
    parents = {"init": init}
    if objective == "weights":
        parents["zoo"] = newest_zoo(session, init)
    work = partial(_train_generator, session, parents)
    yield from perform(session, "hvae", parents, {"variant": objective}, work)


def _train_generator(session: Session, parents: dict[str, Run], run: Run) -> Iterator[Event | dict[str, Any]]:
    config, layout, settings = session.config, layout_of(session), session.config.hvae
    dataset = open_dataset(session.workspace, config.dataset.name)
    data, validation = (dataset.arena(split, session.device) for split in ("train", "validation"))
    models = {role: load_model(parent, session.device) for role, parent in parents.items()}
    training = _training(config, layout, models, data, validation)
    how = session.arithmetic(settings.objective)
    if settings.objective == "weights":
        plan = training_plan(config, len(data), settings, clip_apart=("encoder", "decoder"), arithmetic=how)  # A.7.1
    else:  # a latent is seen once an epoch, the decoder at every step
        pace = config.task_latents
        plan = training_plan(
            config,
            len(data),
            pace,
            rates={"mu": pace.z_lr},
            weight_decay=pace.weight_decay,
            decay=pace.decay,
            arithmetic=how,
        )
    yield from train(run, training, plan, session.device)
    module, z = training.module, training.latents()
    scale = config.base_network.logit_scale
    reconstruction = mean_accuracy(layout, module.decode(z).detach(), data.pairs, scale)
    result = {"objective": settings.objective, "validation": training.validate(module),
              "reconstruction_accuracy": reconstruction, "latent_std": float(z.std(0).mean())}  # fmt: skip
    save_model(
        run,
        session,
        {**module.state_dict(), "latents": z},
        {"layout": layout.to_dict(), "hidden": list(settings.hidden), **result},
    )
    yield Narrated(f"decoded weights on training tasks: {reconstruction:.1f} %")
    yield result


def _training(
    config: Config, layout: WeightLayout, parents: Mapping[str, Model], train: Arena, validation: Arena
) -> GeneratorTraining[Any]:
    if config.hvae.objective == "weights":
        return HvaeTraining(config, layout, parents["zoo"], train, validation)
    return TaskLatentTraining(config, layout, parents["init"].tensors["W"], train, validation)


class Decoder(nn.Module):
    """A finished generator: z -> weights, with the latents of its training tasks. Has the ``Generator`` protocol.

    ``layout`` and ``logit_scale`` are those of the base network that it was trained for. ``start`` [L] is where
    adaptation begins: the z0 that HNet-MAML learned, else the mean of the latents.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.layout = model_layout(model)
        self.logit_scale = float(model.header["config"]["base_network"]["logit_scale"])
        self.latents = model.tensors["latents"]
        self.latent = self.latents.shape[1]
        self.run, self.name = model.run, generator_name(model.run)
        self.start = model.tensors.get("z0", self.latents.mean(0))
        self.inner_lr = trained_with(model).recipe().inner_lr if self.name == "hnet" else None
        self.network = load_hypernetwork(model, self.latent)

    def decode(self, z: Tensor) -> Tensor:
        """Weights [batch, P] of latents [batch, L]."""
        return self.network(z)


def load_hypernetwork(model: Model, latent: int) -> Hypernetwork:
    """The frozen decoder of a finished run, from latents (or embeddings) of length ``latent``."""
    state = {name[8:]: value for name, value in model.tensors.items() if name.startswith("decoder.")}
    network = Hypernetwork(latent, model.header["hidden"], state["base"], state["scale"], None)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


def adapted_latents(decoder: Decoder, batch: TaskBatch, config: Config, start: Tensor | None = None) -> Tensor:
    """Latents [task, L] after gradient descent on the tasks of ``batch``, from ``start`` or the decoder's own start.

    An HNet keeps the rate that it was trained for (A.8); for the others it is ``eval.few_shot_z_lr``.
    """
    z0 = (decoder.start if start is None else start).expand(batch.n_tasks, -1)
    lr = decoder.inner_lr or config.eval.few_shot_z_lr
    return adapt_latents(decoder, z0, batch, config.eval.few_shot_steps, lr, decoder.layout, decoder.logit_scale)


VARIANTS: dict[str, tuple[str, str]] = {
    "hnet": ("baseline", "hnet-maml"), "hvae": ("hvae", "weights"), "task": ("hvae", "task")
}  # fmt: skip
"""Kind and variant of the runs that each generator's name stands for."""


def generator_name(run: Run) -> str | None:
    """hnet, hvae or task; None for a run that is no generator."""
    made = (run.kind, run.manifest().get("variant"))
    return next((name for name, variant in VARIANTS.items() if variant == made), None)


def newest_generator(session: Session, on: str, chosen: str | None = None) -> Run:
    """The chosen, or the newest, generator of the name ``on``. ``MissingError`` says how to train one."""
    kind, variant = VARIANTS[on]
    command = "baseline --method hnet-maml" if on == "hnet" else f"hvae --objective {variant}"
    hint = f"train one with `metavqa train {command}`, or add --with-parents"
    if chosen is not None:
        kind = runs.get(session.workspace, chosen).kind
        kind = kind if kind in ("hvae", "baseline") else VARIANTS[on][0]
    run = find_parent(
        session, kind, chosen, lambda run: chosen is not None or run.manifest().get("variant") == variant, hint
    )
    if run is not None and generator_name(run) is None:
        raise UsageError(f"run {run.id} ({run.manifest().get('variant')}) is no generator; {hint}")
    if run is None:
        raise MissingError(f"there is no finished generator for dataset {session.config.dataset.name!r}; {hint}")
    return run
