"""`metavqa eval`: accuracies on the held-out questions, each with its interval over tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.build import open_dataset
from metavqa_cli.engine.diffusion import HyperLdm, question_seeds
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.lineage import (
    Model,
    check_dataset,
    check_finished,
    load_model,
    model_layout,
    parent_run,
    perform,
    started,
)
from metavqa_cli.engine.measure import accuracies
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.statistics import estimate
from metavqa_cli.methods.few_shot import adapt_latents, adapt_weights
from metavqa_cli.methods.zero_shot import zero_shot_weights
from metavqa_cli.schema.config import Config, Evaluation, Sampling
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import save_tensors
from metavqa_cli.tasks.arena import Arena, task_seed

NOVELTIES = ("wording", "combination", "family")
GENERATORS = {"weights": "HVAE", "task": "task-loss generator"}
BASELINES = {"multitask": "Multitask", "mnet-maml": "MNet-MAML", "mnet-fomaml": "MNet-FOMAML"}
KINDS = ("baseline", "hvae", "ldm")


@dataclass(frozen=True)
class Measurement:
    """Per-task accuracies (0 to 1) of one method on one split. ``run`` is what was measured; None for plain CLIP."""

    method: str
    label: str
    setting: str  # zero-shot, few-shot, reconstruction or control
    accuracies: Tensor
    run: str | None = None
    gamma: float | None = None
    objective: str | None = None
    split: str = "test"


@dataclass(frozen=True, eq=False)
class Init:
    """An initialisation W [P] with the base network that it is for."""

    run: Run
    W: Tensor
    layout: WeightLayout
    logit_scale: float
    method: str


def evaluate(session: Session, models: Sequence[Run]) -> Iterator[Event]:
    """Measure runs, and what they are made from, on the test tasks; ends with ``RunFinished`` with ``rows`` as result.

    ``models`` are HyperLDM runs, generators or initialisations; ``UsageError`` for other kinds.
    """
    dataset = open_dataset(session.workspace, session.config.dataset.name)
    for run in models:
        check_dataset(run, dataset)
        if run.kind not in KINDS:
            raise UsageError(f"run {run.id} is of kind {run.kind}; name runs of kind {', '.join(KINDS)}")
        if run.manifest().get("variant") not in (*BASELINES, *GENERATORS):
            variant = run.manifest().get("variant")
            raise UsageError(f"run {run.id} ({variant}) is measured as a row of the table: `metavqa eval methods`")
        check_finished(run)
    parents = {f"{run.kind}{i}": run for i, run in enumerate(models)}
    yield from perform(session, "eval", parents, {}, partial(_evaluate, session, models))


def _evaluate(session: Session, models: Sequence[Run], run: Run) -> Iterator[Event | dict[str, Any]]:
    config = session.config
    dataset = open_dataset(session.workspace, config.dataset.name)
    yield started(run, 0)
    arenas = {split: dataset.arena(split, session.device) for split in ("train", "test")}
    loaded = [_load(session, model) for model in models]
    inits = {init.run.id: init for init in (_init_of(session, model) for model in models)}
    ldms = sum(isinstance(model, HyperLdm) for model in loaded)
    decoders = sum(model is not None for model in loaded)
    total = 1 + 2 * len(inits) + 2 * decoders + (len(config.eval.gammas) + 2) * ldms
    measured: list[Measurement] = []
    for measurement in _measure(session, list(inits.values()), loaded, arenas):
        measured.append(measurement)
        yield ProgressMade("evaluating", len(measured), total, "methods")
    rows = [as_row(m, arenas[m.split], config) for m in measured]
    tensors = {f"{i:02d}": m.accuracies.cpu() for i, m in enumerate(measured)}
    save_tensors(run.model_path, tensors, {"kind": "eval", "rows": rows})
    yield {"rows": rows, "seed": config.seed, "sampler": config.sampling.model_dump(mode="json"),
           "dataset": config.dataset.name, "world": "built-in Scenes world"}  # fmt: skip


def _load(session: Session, run: Run) -> HyperLdm | Decoder | None:
    """What is measured of ``run`` besides its initialisation; None when it is one itself."""
    if run.kind == "ldm":
        return HyperLdm(run, session.device, session.config.sampling)
    return Decoder(load_model(run, session.device)) if run.kind == "hvae" else None


def _init_of(session: Session, run: Run) -> Init:
    while run.kind != "baseline":
        run = parent_run(run, "generator" if run.kind == "ldm" else "init")
    model = load_model(run, session.device)
    return Init(run, model.tensors["W"], model_layout(model), logit_scale(model), str(model.header["method"]))


def logit_scale(model: Model) -> float:
    """The multiplier of the cosine that the model was trained with."""
    return float(model.header["config"]["base_network"]["logit_scale"])


def _measure(
    session: Session, inits: Sequence[Init], models: Sequence[HyperLdm | Decoder | None], arenas: dict[str, Arena]
) -> Iterator[Measurement]:
    test, settings = arenas["test"], session.config.eval
    plain = Judge(inits[0].layout, inits[0].logit_scale)
    yield Measurement("clip", "zero-shot CLIP", "zero-shot", by_chunk(test, plain.zero_shot))
    for init in inits:
        judge, run = Judge(init.layout, init.logit_scale), init.run.id
        found = by_chunk(test, lambda chunk, judge=judge, W=init.W: judge(W[None], chunk))
        yield Measurement(init.method, f"Uncond. {BASELINES[init.method]}", "zero-shot", found, run)
        adapted = by_chunk(test, partial(judge.few_shot, init.W, settings))
        yield Measurement(init.method, "few-shot, adapting W", "few-shot", adapted, run)
    for model in models:
        if model is not None:
            decoder = model.decoder if isinstance(model, HyperLdm) else model
            yield from _measure_decoder(decoder, settings, arenas)
        if isinstance(model, HyperLdm):
            yield from _measure_ldm(model, settings, session.config.seed, test)


@dataclass(frozen=True)
class Judge:
    """Query accuracy [task] of weights for one base network."""

    layout: WeightLayout
    logit_scale: float

    def __call__(self, weights: Tensor, arena: Arena) -> Tensor:
        """Of ``weights`` [task, P], or of one row [1, P] for all."""
        return accuracies(self.layout, weights, arena.query, self.logit_scale)

    def zero_shot(self, arena: Arena) -> Tensor:
        """Of plain CLIP."""
        return self(zero_shot_weights(self.layout, 1, arena.e.device), arena)

    def few_shot(self, W: Tensor, settings: Evaluation, arena: Arena) -> Tensor:
        """After gradient descent in weight space from W [P] on each support set."""
        steps, lr = settings.few_shot_steps, settings.few_shot_lr
        return self(adapt_weights(self.layout, W, arena.support.padded, steps, lr, self.logit_scale), arena)


def by_chunk(arena: Arena, measure: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """``measure(tasks, ...)`` [task] for a bounded number of tasks at a time, with their part of each of ``rows``."""
    chunks = arena.pairs.chunks()
    found = torch.cat([measure(arena.select(chunk), *(row[chunk] for row in rows)) for chunk in chunks])
    return found[torch.cat(chunks).argsort()]


def _measure_decoder(decoder: Decoder, settings: Evaluation, arenas: dict[str, Arena]) -> Iterator[Measurement]:
    objective, run = decoder.run.manifest()["variant"], decoder.run.id
    name, method = GENERATORS[objective], _method(objective)

    def reconstruction(chunk: Arena, z: Tensor) -> Tensor:
        return accuracies(decoder.layout, decoder.decode(z), chunk.pairs, decoder.logit_scale)

    found = by_chunk(arenas["train"], reconstruction, decoder.latents)
    label = f"{name}: reconstruction on training tasks"
    yield Measurement(method, label, "reconstruction", found, run, objective=objective, split="train")
    adapted = by_chunk(arenas["test"], partial(few_shot_latents, decoder, settings))
    yield Measurement(method, f"{name}: few-shot, adapting z", "few-shot", adapted, run, objective=objective)


def _measure_ldm(ldm: HyperLdm, settings: Evaluation, seed: int, test: Arena) -> Iterator[Measurement]:
    objective, run = ldm.run.manifest()["variant"], ldm.run.id
    method, label = f"{_method(objective)}-ldm", f"{GENERATORS[objective]} + HyperLDM"
    for gamma in settings.gammas:
        found = by_chunk(test, partial(sampled_accuracies, ldm, gamma, seed, settings.samples))
        yield Measurement(method, f"{label}, γ = {gamma:g}", "zero-shot", found, run, gamma, objective)
    measure = partial(sampled_accuracies, ldm, ldm.gamma, seed, settings.samples)
    yield Measurement(f"{method}-validated", f"{label}, validated γ = {ldm.gamma:g}", "zero-shot",
                      by_chunk(test, measure), run, ldm.gamma, objective)  # fmt: skip
    yield Measurement(f"{method}-shuffled", f"{label}, shuffled questions, γ = {ldm.gamma:g}", "control",
                      by_chunk(with_shuffled_questions(test, seed), measure), run, ldm.gamma, objective)  # fmt: skip


def _method(objective: str) -> str:
    return "hvae" if objective == "weights" else "task"


def with_shuffled_questions(arena: Arena, seed: int) -> Arena:
    """Each task with another's question embedding: the next one's, in an order that depends on the questions alone."""
    order = sorted(range(len(arena)), key=lambda i: task_seed(seed, f"shuffled/{arena.tasks[i].question}"))
    e = torch.empty_like(arena.e)
    e[order] = arena.e[order[1:] + order[:1]]
    return replace(arena, e=e)


def few_shot_latents(decoder: Decoder, settings: Evaluation, arena: Arena) -> Tensor:
    """Per-task query accuracy after gradient descent in z on the support sets, from the mean training latent."""
    start = decoder.latents.mean(0).expand(len(arena), -1)
    steps, lr, scale = settings.few_shot_steps, settings.few_shot_z_lr, decoder.logit_scale
    z = adapt_latents(decoder, start, arena.support.padded, steps, lr, decoder.layout, scale)
    return accuracies(decoder.layout, decoder.decode(z), arena.query, scale)


def sampled_accuracies(ldm: HyperLdm, gamma: float, seed: int, samples: int, arena: Arena) -> Tensor:
    """Per-task query accuracy of weights sampled for the questions, averaged over ``samples`` latents each."""
    total = torch.zeros(len(arena), device=arena.e.device)
    for sample in range(samples):
        weights = ldm.weights(arena.e, gamma, question_seeds(arena, seed, sample))
        total += accuracies(ldm.decoder.layout, weights, arena.query, ldm.decoder.logit_scale)
    return total / samples


def sampler_text(sampling: Sampling) -> str:
    """ "ddim, 25 steps, mean of 4 latents at temperature 0.3": what must stand beside every result of diffusion."""
    steps = "ddpm, all steps" if sampling.sampler == "ddpm" else f"ddim, {sampling.steps} steps"
    mean = f", mean of {sampling.latents} latents" if sampling.latents > 1 else ""
    return steps + mean + ("" if sampling.temperature == 1 else f" at temperature {sampling.temperature:g}")


def as_row(measured: Measurement, arena: Arena, config: Config) -> dict[str, Any]:
    """The measurement as stable JSON keys; accuracies in per cent."""
    values = measured.accuracies.cpu().numpy()
    whole = estimate(values, config.eval.bootstrap)
    kinds = np.array([task.novelty or "" for task in arena.tasks])
    return {
        "method": measured.method, "label": measured.label, "setting": measured.setting, "run": measured.run,
        "objective": measured.objective, "gamma": measured.gamma,
        "sampler": None if measured.gamma is None else sampler_text(config.sampling), "seed": config.seed,
        "tasks": whole.n,
        "mean": round(whole.mean, 3), "ci_low": round(whole.low, 3), "ci_high": round(whole.high, 3),
        **{kind: round(100 * float(values[kinds == kind].mean()), 3) if (kinds == kind).any() else None
           for kind in NOVELTIES},
    }  # fmt: skip
