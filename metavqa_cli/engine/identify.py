"""Task inference (Fig. 3): which question do weights answer? Of one classifier file, and measured on the test tasks."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.engine.cells import Bench
from metavqa_cli.engine.classifier import NAMES, Classifier, check_encoder
from metavqa_cli.engine.contrast import HyperClip
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.ensure import Ensured, finished_run, made_hyperclip
from metavqa_cli.engine.generators import VARIANTS, Decoder, adapted_latents, generator_name
from metavqa_cli.engine.kept import kept_arrays
from metavqa_cli.engine.lineage import check_finished, parent_run, saw_all_questions
from metavqa_cli.engine.models import Model, load_model, model_layout, save_measured, trained_with
from metavqa_cli.engine.perform import perform, started
from metavqa_cli.engine.scores import CellSpec
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.statistics import estimate, spread
from metavqa_cli.engine.world import here
from metavqa_cli.guidance.hyperclip import rank_questions
from metavqa_cli.methods.few_shot import adapt_weights
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.transfer import to_device

TEXTS_AT_ONCE = 512
CANDIDATES = (10, 100)  # sizes of the candidate sets, beside all test questions
TOP = 5
Row = dict[str, Any]
FineTune = Callable[[Arena], Tensor]
"""Tasks -> weights [task, P] after learning from their support sets."""


# One classifier


@dataclass(frozen=True)
class Identified:
    """A candidate question: ``rank`` from 1, cos(CLIP_H(W), e), and its probability among all candidates."""

    rank: int
    question: str
    probability: float
    cosine: float


def hyperclip_for(workspace: Workspace, made: Classifier, chosen: str | None) -> Run:
    """The chosen HyperCLIP, or the newest that was trained for the generator of the classifier.

    ``MissingError`` says how to train one, or to finish the chosen; ``UsageError`` for a run of another kind.
    """
    if chosen is not None:
        run = runs.get(workspace, chosen)
        if run.kind != "hyperclip":
            raise UsageError(f"run {run.id} is of kind {run.kind}, not hyperclip; `metavqa runs ls` lists all runs")
        check_finished(run)
        return run
    generator = made.runs.get("generator")
    found = runs.newest(  # a table also trains some that did not see every question
        workspace, "hyperclip", match=lambda run: run.manifest()["parents"].get("generator") == generator,
        rather=saw_all_questions,
    )  # fmt: skip
    if found is None or generator is None:
        raise MissingError(
            f"there is no finished HyperCLIP for the generator {generator!r}, from which the classifier comes; "
            f"{_training(workspace, generator)}, or name another with --hyperclip"
        )
    return found


def _training(workspace: Workspace, generator: str | None) -> str:
    """How to get a HyperCLIP for a generator: by training it for that run, or with a new generator if it is gone."""
    if generator is None or generator not in workspace.run_ids():
        return "generate it again, after `metavqa train hyperclip --on task --with-parents`"
    on = generator_name(runs.get(workspace, generator)) or "task"
    return f"train one with `metavqa train hyperclip --on {on} --generator {generator}`"


def known_questions(workspace: Workspace, run: Run) -> list[str]:
    """All questions of the dataset that the run was made from. ``MissingError`` when it is gone, or another one now."""
    made_from = run.manifest()["dataset"]
    if made_from["name"] in workspace.datasets():
        dataset = open_dataset(workspace, made_from["name"])
        if dataset.fingerprint == made_from["fingerprint"]:
            return list(dict.fromkeys(task.question for task in dataset.tasks.tasks))
    raise MissingError(
        f"the dataset {made_from['name']!r}, whose questions would be the candidates, is gone or was made anew; "
        "name some with --question or --questions FILE"
    )


class Identifier:
    """A loaded HyperCLIP; the encoder of questions is loaded when it is needed."""

    def __init__(self, session: Session, run: Run) -> None:
        self.judge, self.run, self.session = HyperClip(run, session.device), run, session

    @property
    def generator(self) -> str:
        """Whose weights the HyperCLIP was trained on."""
        return str(self.judge.header["parents"]["generator"])

    @property
    def temperature(self) -> float:
        return float(self.judge.module.temperature)

    def check(self, made: Classifier, file: str) -> None:
        """``UsageError`` when the classifier's weights or encoder are not those that the HyperCLIP knows."""
        header = self.judge.header
        theirs, own = made.encoder, header["encoder"]
        names = [name for name in sorted({*theirs, *own} - NAMES) if theirs.get(name) != own.get(name)]
        if names:
            parts = "; ".join(f"{name}: {theirs.get(name)!r} there, {own.get(name)!r} here" for name in names)
            raise UsageError(
                f"the classifier {file} was made with the CLIP model {theirs['model']!r}, the HyperCLIP {self.run.id} "
                f"with {own['model']!r} ({parts}); choose a fitting one with --hyperclip"
            )
        known = model_layout(Model(self.run, {}, header))
        if made.layout != known:
            raise UsageError(
                f"the classifier {file} has a base network {_shape(made.layout)} and the HyperCLIP {self.run.id} "
                f"reads weights of {_shape(known)}; choose a fitting one with --hyperclip"
            )

    @torch.no_grad()
    def rank(self, weights: Tensor, questions: Sequence[str]) -> list[Identified]:
        """The distinct ``questions`` from the most to the least probable one for weights [P] (Fig. 3 C).

        ``UsageError`` when there is none, or when the session's encoder is not the one of the HyperCLIP.
        """
        texts = list(dict.fromkeys(questions))
        if not texts:
            raise UsageError("there is no candidate question; name some with --question or --questions FILE")
        chunks = [texts[i : i + TEXTS_AT_ONCE] for i in range(0, len(texts), TEXTS_AT_ONCE)]
        encoder, device = self.session.encoder, self.session.device
        check_encoder(self.judge.header["encoder"], encoder, f"the run {self.run.id}")
        e = torch.cat([encoder.encode_text(chunk) for chunk in chunks]).to(device)
        module = self.judge.module
        (cosines,) = rank_questions(module, weights[None].to(device), self.judge.whitener(e))
        p = (module.temperature * cosines).softmax(0).tolist()
        order = cosines.argsort(descending=True, stable=True).tolist()
        return [Identified(n, texts[i], p[i], float(cosines[i])) for n, i in enumerate(order, 1)]


def _shape(layout: Any) -> str:
    return f"{layout.embed}-{layout.hidden}-{layout.embed}"


# The test tasks


@dataclass(frozen=True)
class Subject:
    """What is examined: weights of the generator ``on``, with a seed and a share of the questions."""

    on: str
    seed: int
    descriptors: float = 1.0

    def session(self, session: Session) -> Session:
        """The session of the job that examines it: that of the table's HyperLDM on the generator."""
        return CellSpec(f"{self.on}-ldm", self.seed, self.descriptors).session(session)


def subjects(on: Sequence[str], seeds: Sequence[int], descriptors: Sequence[float]) -> list[Subject]:
    """All combinations, seed by seed. ``UsageError`` for what is no generator."""
    for name in on:
        if name not in VARIANTS:
            raise UsageError(f"there is no generator {name!r}; --on takes {', '.join(VARIANTS)}")
    return [
        Subject(name, seed, share) for seed in seeds for share in sorted(descriptors, reverse=True)
        for name in dict.fromkeys(on)
    ]  # fmt: skip


def measured(session: Session, chosen: Sequence[Subject]) -> Generator[Event, None, list[Row]]:
    """The rows of the subjects, each of which is a run of its own; what is missing is trained."""
    bench, found = Bench(session), list[tuple[Subject, np.ndarray]]()
    for done, subject in enumerate(chosen):
        run = yield from identify_run(session, subject, bench)
        found.append((subject, nearer_of(run)))
        yield ProgressMade("identifying questions", done + 1, len(chosen), "models")
    return rows(found, session.config.eval.bootstrap)


def identify_run(session: Session, subject: Subject, bench: Bench) -> Ensured:
    """The finished run that ranks the test questions for the fine-tuned weights of the subject."""
    doing = subject.session(session)
    hyperclip = yield from made_hyperclip(doing, subject.on)
    work = partial(_measure, doing, subject, hyperclip, bench)
    extra = {"variant": hyperclip.manifest()["variant"]}
    return (yield from finished_run(doing, perform(doing, "identify", {"hyperclip": hyperclip}, extra, work)))


def _measure(
    session: Session, subject: Subject, hyperclip: Run, bench: Bench, run: Run
) -> Iterator[Event | dict[str, Any]]:
    yield started(run, 0)
    judge, arena = HyperClip(hyperclip, session.device), bench.test
    nearer = nearer_questions(judge, arena, fine_tuner(session, parent_run(hyperclip, "generator")))
    save_measured(run, {"nearer": nearer}, {"kind": "identify"})
    values, tasks = nearer.cpu().numpy(), len(arena)
    shares = {
        str(n): {f"top{top}": 100 * float(hit_rates(values, n, top).mean()) for top in (1, TOP)} for n in sizes(tasks)
    }
    yield {"on": subject.on, "seed": subject.seed, "descriptors": subject.descriptors, "tasks": tasks, "means": shares,
           "temperature": float(judge.module.temperature)}  # fmt: skip


def fine_tuner(session: Session, generator: Run) -> FineTune:
    """Weights after learning from support sets: adapted in z, and for an HVAE in W, with the zoo's steps and rate."""
    if generator_name(generator) == "hvae":
        zoo = load_model(parent_run(generator, "zoo"), session.device)
        config, layout, W = trained_with(zoo), model_layout(zoo), zoo.tensors["base"]
        scale = config.base_network.logit_scale
        return lambda arena: adapt_weights(layout, W, arena.support.padded, config.zoo.steps, config.zoo.lr, scale)
    decoder = Decoder(load_model(generator, session.device))
    return lambda arena: decoder.decode(adapted_latents(decoder, arena.support.padded, session.config))


@torch.no_grad()
def nearer_questions(judge: HyperClip, arena: Arena, fine_tune: FineTune) -> Int64[Tensor, " task"]:
    """How many other questions of ``arena`` are at least as near to each task's weights as its own: 0 is identified.

    ``JobError`` when the weights are not finite.
    """
    e = judge.whitener(arena.e)

    def nearer(chunk: Tensor) -> Tensor:
        cosines = rank_questions(judge.module, fine_tune(arena.select(chunk)), e)
        if not cosines.isfinite().all():
            raise JobError("fine-tuning diverged (weights are not finite); lower eval.few_shot_z_lr or zoo.lr")
        own = cosines.gather(1, to_device(chunk, cosines.device)[:, None])
        return (cosines >= own).sum(1) - 1  # ties count against it: a constant HyperCLIP identifies nothing

    return here().by_parts(arena.support.chunks(), nearer)


def nearer_of(run: Run) -> np.ndarray:
    """What a finished run of kind ``identify`` kept [task]."""
    return kept_arrays(run)["nearer"]


def sizes(tasks: int) -> list[int]:
    """How many candidates there are to be: 10 and 100, as far as there are more test questions, and all of them."""
    return [*(n for n in CANDIDATES if n < tasks), tasks]


def hit_rates(nearer: Int64[np.ndarray, " task"], candidates: int, top: int) -> Float[np.ndarray, " task"]:
    """How often the right question is in the first ``top``, for each task, over all sets of ``candidates`` with it.

    Of a random set, the number of questions that are nearer is hypergeometric, so that the mean over all sets is known
    without drawing any. With all questions as candidates it is 0 or 1.
    """
    others = len(nearer) - 1
    if candidates > others:
        return (nearer < top).astype(np.float64)
    from scipy.stats import hypergeom  # imported late: it costs half a second

    return np.asarray(hypergeom.cdf(top - 1, others, nearer, candidates - 1), np.float64)


def rows(found: Sequence[tuple[Subject, np.ndarray]], resamples: int) -> list[Row]:
    """One row for each generator, share of descriptors and number of candidates, over its seeds.

    In per cent: ``top1`` and ``top5``, the mean over tasks and seeds, with ``_sd`` over seeds and ``_low``, ``_high``,
    the 95 % interval over tasks of the means over seeds; ``chance1`` and ``chance5``, of guessing.
    """
    groups: dict[tuple[str, float], dict[int, np.ndarray]] = {}
    for subject, nearer in found:
        groups.setdefault((subject.on, subject.descriptors), {})[subject.seed] = nearer
    return [
        _row(on, share, sorted(seeds), np.stack([seeds[seed] for seed in sorted(seeds)]), n, resamples)
        for (on, share), seeds in groups.items()
        for n in sizes(len(next(iter(seeds.values()))))
    ]


def _row(on: str, share: float, seeds: list[int], nearer: np.ndarray, candidates: int, resamples: int) -> Row:
    row: Row = {"on": on, "descriptors": share, "candidates": candidates}
    for top in (1, TOP):
        rates = np.stack([hit_rates(of_seed, candidates, top) for of_seed in nearer])
        whole, sd = estimate(rates.mean(0), resamples), spread(rates)
        row |= {
            f"top{top}": round(whole.mean, 3), f"top{top}_sd": None if sd is None else round(sd, 3),
            f"top{top}_low": round(whole.low, 3), f"top{top}_high": round(whole.high, 3),
            f"chance{top}": round(100 * min(1.0, top / candidates), 3),
        }  # fmt: skip
    return row | {"tasks": nearer.shape[1], "seeds": seeds}
