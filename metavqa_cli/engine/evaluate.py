"""`metavqa eval`: accuracies on the held-out questions, each with its interval over tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from metavqa_cli.base_network.adapter import answer_logits
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.diffusion import HyperLdm, question_seeds
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.judged import Judged, judged_tasks, rounded, secondary
from metavqa_cli.engine.lineage import check_dataset, check_finished, parent_run
from metavqa_cli.engine.measure import accuracies
from metavqa_cli.engine.models import Model, load_model, model_layout, save_measured
from metavqa_cli.engine.perform import perform, started
from metavqa_cli.engine.predictions import ANSWERS
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.statistics import estimate
from metavqa_cli.engine.world import here
from metavqa_cli.methods.few_shot import adapt_latents, adapt_weights
from metavqa_cli.methods.zero_shot import zero_shot_weights
from metavqa_cli.schema.config import Config, Evaluation, Sampling
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena, Examples, task_seed

NOVELTIES = ("wording", "combination", "family")
GENERATORS = {"weights": "HVAE", "task": "task-loss generator"}
BASELINES = {"multitask": "Multitask", "mnet-maml": "MNet-MAML", "mnet-fomaml": "MNet-FOMAML"}
KINDS = ("baseline", "hvae", "ldm")
WORLDS = {"scenes": "built-in Scenes world", "vqa2": "VQA v2", "hyperclip": "Meta-VQA as released",
          "folder": "own images"}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """Per-task accuracies (0 to 1) of one method on one split. ``run`` is what was measured; None for plain CLIP.

    ``answers`` [task, sample, example] are what was answered to the query pairs, if that is what was measured.
    """

    method: str
    label: str
    setting: str  # zero-shot, few-shot, reconstruction or control
    accuracies: Tensor
    answers: Tensor | None
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
    judged = judged_of(dataset)
    rows = [as_row(m, arenas[m.split], config, judged) for m in measured]
    tensors = {f"{i:02d}": m.accuracies.cpu() for i, m in enumerate(measured)}
    tensors |= {f"{i:02d}.{ANSWERS}": flat_answers(m.answers, judged.mask) for i, m in enumerate(measured)
                if m.answers is not None}  # fmt: skip
    save_measured(run, tensors, {"kind": "eval", "rows": rows})
    source = dataset.manifest["recipe"]["dataset"].get("source", "scenes")
    yield {"rows": rows, "seed": config.seed, "sampler": config.sampling.model_dump(mode="json"),
           "dataset": config.dataset.name, "world": WORLDS.get(source, source)}  # fmt: skip


def judged_of(dataset: DatasetFolder) -> Judged:
    """What all measurements on the dataset's test tasks have in common."""
    return judged_tasks(dataset.tasks, dataset.annotations)


def flat_answers(answers: Tensor, mask: np.ndarray) -> Tensor:
    """Answers [task, sample, example] as they are stored: [sample, pair], where ``mask`` [task, example] is true."""
    return answers.cpu().transpose(0, 1)[:, torch.from_numpy(mask)].short()


def _load(session: Session, run: Run) -> HyperLdm | Decoder | None:
    """What is measured of ``run`` besides its initialisation; None when it is one itself."""
    if run.kind == "ldm":
        return HyperLdm(run, session.device, session.config.sampling, session.config.runtime)
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
    yield Measurement("clip", "zero-shot CLIP", "zero-shot", *on_query(test, plain.zero_shot))
    for init in inits:
        judge, run = Judge(init.layout, init.logit_scale), init.run.id
        found = on_query(test, partial(judge, init.W[None]))
        yield Measurement(init.method, f"Uncond. {BASELINES[init.method]}", "zero-shot", *found, run)
        adapted = on_query(test, partial(judge.few_shot, init.W, settings))
        yield Measurement(init.method, "few-shot, adapting W", "few-shot", *adapted, run)
    for model in models:
        if model is not None:
            decoder = model.decoder if isinstance(model, HyperLdm) else model
            yield from _measure_decoder(decoder, settings, arenas)
        if isinstance(model, HyperLdm):
            yield from _measure_ldm(model, settings, session.config.seed, test)


@dataclass(frozen=True)
class Judge:
    """What weights for one base network answer to the query pairs, [task, example]."""

    layout: WeightLayout
    logit_scale: float

    def __call__(self, weights: Tensor, arena: Arena) -> Tensor:
        """Of ``weights`` [task, P], or of one row [1, P] for all."""
        return answers_of(self.layout, weights, arena.query, self.logit_scale)

    def zero_shot(self, arena: Arena) -> Tensor:
        """Of plain CLIP."""
        return self(zero_shot_weights(self.layout, 1, arena.device), arena)

    def few_shot(self, W: Tensor, settings: Evaluation, arena: Arena) -> Tensor:
        """After gradient descent in weight space from W [P] on each support set."""
        steps, lr = settings.few_shot_steps, settings.few_shot_lr
        return self(adapt_weights(self.layout, W, arena.support.padded, steps, lr, self.logit_scale), arena)


def by_chunk(arena: Arena, measure: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """``measure(tasks, ...)`` [task] for a bounded number of tasks at a time, with their part of each of ``rows``."""
    return here().by_parts(
        arena.pairs.chunks(), lambda chunk: measure(arena.select(chunk), *(row[chunk] for row in rows))
    )


def on_query(arena: Arena, answer: Callable[[Arena], Tensor]) -> tuple[Tensor, Tensor]:
    """Accuracy [task] on the query pairs, mean over samples, of what ``answer`` gives, and that (as ``answered``)."""
    answers = answered(arena, answer)
    return right(arena, answers).float().mean(1).sum(1) / arena.query.example_mask.sum(1), answers


def answered(arena: Arena, answer: Callable[[Arena], Tensor]) -> Tensor:
    """``answer(tasks)`` [task, sample, example] (or [task, example]: one sample) of all tasks, a part at a time.

    Padded with 0 to the largest task.
    """
    mask = arena.query.example_mask[:, None]

    def padded(part: Arena) -> Tensor:
        found = answer(part)
        found = found if found.ndim == 3 else found[:, None]
        return pad(found, (0, mask.shape[2] - found.shape[2]))

    return by_chunk(arena, padded) * mask


def right(arena: Arena, answers: Tensor) -> Tensor:
    """Which of the answers [task, sample, example] are right; padding never is."""
    return (answers == arena.query.labels[:, None]) & arena.query.example_mask[:, None]


@torch.no_grad()
def answers_of(layout: WeightLayout, weights: Tensor, query: Examples, logit_scale: float) -> Tensor:
    """The most probable answer [task, example] by ``weights`` [task, P], or by one row [1, P] for all."""
    return answer_logits(layout, weights.expand(query.n_tasks, -1), query.padded, logit_scale).argmax(-1)


def _measure_decoder(decoder: Decoder, settings: Evaluation, arenas: dict[str, Arena]) -> Iterator[Measurement]:
    objective, run = decoder.run.manifest()["variant"], decoder.run.id
    name, method = GENERATORS[objective], _method(objective)

    def reconstruction(chunk: Arena, z: Tensor) -> Tensor:
        return accuracies(decoder.layout, decoder.decode(z), chunk.pairs, decoder.logit_scale)

    found = by_chunk(arenas["train"], reconstruction, decoder.latents)
    label = f"{name}: reconstruction on training tasks"
    yield Measurement(method, label, "reconstruction", found, None, run, objective=objective, split="train")
    adapted = on_query(arenas["test"], partial(few_shot_latents, decoder, settings))
    yield Measurement(method, f"{name}: few-shot, adapting z", "few-shot", *adapted, run, objective=objective)


def _measure_ldm(ldm: HyperLdm, settings: Evaluation, seed: int, test: Arena) -> Iterator[Measurement]:
    objective, run = ldm.run.manifest()["variant"], ldm.run.id
    method, label = f"{_method(objective)}-ldm", f"{GENERATORS[objective]} + HyperLDM"
    for gamma in settings.gammas:
        found = on_query(test, partial(sampled_answers, ldm, gamma, seed, settings.samples))
        yield Measurement(method, f"{label}, γ = {gamma:g}", "zero-shot", *found, run, gamma, objective)
    measure = partial(sampled_answers, ldm, ldm.gamma, seed, settings.samples)
    yield Measurement(f"{method}-validated", f"{label}, validated γ = {ldm.gamma:g}", "zero-shot",
                      *on_query(test, measure), run, ldm.gamma, objective)  # fmt: skip
    yield Measurement(f"{method}-shuffled", f"{label}, shuffled questions, γ = {ldm.gamma:g}", "control",
                      *on_query(with_shuffled_questions(test, seed), measure), run, ldm.gamma, objective)  # fmt: skip


def _method(objective: str) -> str:
    return "hvae" if objective == "weights" else "task"


def with_shuffled_questions(arena: Arena, seed: int) -> Arena:
    """Each task with another's question embedding: the next one's, in an order that depends on the questions alone."""
    order = sorted(range(len(arena)), key=lambda i: task_seed(seed, f"shuffled/{arena.questions[i]}"))
    e = torch.empty_like(arena.e)
    e[order] = arena.e[order[1:] + order[:1]]
    return arena.asking(e)


def few_shot_latents(decoder: Decoder, settings: Evaluation, arena: Arena) -> Tensor:
    """Answers [task, example] after gradient descent in z on the support sets, from the mean training latent."""
    start = decoder.latents.mean(0).expand(len(arena), -1)
    steps, lr, scale = settings.few_shot_steps, settings.few_shot_z_lr, decoder.logit_scale
    z = adapt_latents(decoder, start, arena.support.padded, steps, lr, decoder.layout, scale)
    return answers_of(decoder.layout, decoder.decode(z), arena.query, scale)


def sampled_answers(ldm: HyperLdm, gamma: float, seed: int, samples: int, arena: Arena) -> Tensor:
    """Answers [task, sample, example] of weights that are sampled for the questions, ``samples`` times."""
    layout, scale = ldm.decoder.layout, ldm.decoder.logit_scale
    drawn = (ldm.weights(arena.e, gamma, question_seeds(arena, seed, sample)) for sample in range(samples))
    return torch.stack([answers_of(layout, weights, arena.query, scale) for weights in drawn], 1)


def sampler_text(sampling: Sampling) -> str:
    """ "ddim, 25 steps, mean of 4 latents at temperature 0.3": what must stand beside every result of diffusion."""
    steps = "ddpm, all steps" if sampling.sampler == "ddpm" else f"{sampling.sampler}, {sampling.steps} steps"
    mean = f", mean of {sampling.latents} latents" if sampling.latents > 1 else ""
    return steps + mean + ("" if sampling.temperature == 1 else f" at temperature {sampling.temperature:g}")


def as_row(measured: Measurement, arena: Arena, config: Config, judged: Judged) -> dict[str, Any]:
    """The measurement as stable JSON keys; accuracies in per cent.

    ``mean`` over ``tasks``, with its 95 % interval ``ci_low``, ``ci_high``; means over the tasks that are new in
    ``wording``, ``combination`` or ``family``; and the numbers of ``judged.secondary``.
    """
    values = measured.accuracies.cpu().numpy()
    whole = estimate(values, config.eval.bootstrap)
    kinds = np.array(arena.novelty_names())
    answers = None if measured.answers is None else flat_answers(measured.answers, judged.mask).numpy()
    return {
        "method": measured.method, "label": measured.label, "setting": measured.setting, "run": measured.run,
        "objective": measured.objective, "gamma": measured.gamma,
        "sampler": None if measured.gamma is None else sampler_text(config.sampling), "seed": config.seed,
        "tasks": whole.n,
        "mean": round(whole.mean, 3), "ci_low": round(whole.low, 3), "ci_high": round(whole.high, 3),
        **{kind: round(100 * float(values[kinds == kind].mean()), 3) if (kinds == kind).any() else None
           for kind in NOVELTIES},
        **rounded(secondary(answers, judged)),
    }  # fmt: skip
