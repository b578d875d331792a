"""The cells of the results table: one method with one seed, measured on every test task. Each is a run of its own.

A cell keeps which examples were judged rightly (share of samples, [task, example]) and what was answered ([sample,
pair], under the same name with ".answers"), so that tables are made later from files, without torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.diagnosis import check_weights
from metavqa_cli.engine.ensure import Ensured, finished_run
from metavqa_cli.engine.evaluate import (
    answered,
    answers_of,
    flat_answers,
    judged_of,
    right,
    sampler_text,
    with_shuffled_questions,
)
from metavqa_cli.engine.judged import Judged
from metavqa_cli.engine.lineage import check_dataset, check_finished
from metavqa_cli.engine.models import save_measured
from metavqa_cli.engine.perform import perform, started
from metavqa_cli.engine.predictions import ANSWERS
from metavqa_cli.engine.scores import CellSpec, scores_of
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.sources import Parents, Source, method_of, parents_of, source_of
from metavqa_cli.engine.table import Score
from metavqa_cli.methods.registry import Control, Method
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.events import Event
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena, task_seed


class Bench:
    """The tasks and the encoder, shared by the cells that one process measures."""

    def __init__(self, session: Session) -> None:
        self.root = session

    @cached_property
    def dataset(self) -> DatasetFolder:
        return open_dataset(self.root.workspace, self.root.config.dataset.name)

    @cached_property
    def test(self) -> Arena:
        return self.dataset.arena("test", self.root.device)

    @cached_property
    def validation(self) -> Arena:
        return self.dataset.arena("validation", self.root.device)

    def asked(self, control: Control | None, seed: int) -> Arena:
        """The test tasks, with what the control puts in place of their questions."""
        arena = self.test
        if control is None:
            return arena
        if control == "shuffled":
            return with_shuffled_questions(arena, seed)
        texts = replaced_questions(control, list(arena.questions), list(self.dataset.questions_of("train")), seed)
        with torch.no_grad():
            distinct = list(dict.fromkeys(texts))
            rows = dict(zip(distinct, self.root.encoder.encode_text(distinct), strict=True))
        return arena.asking(torch.stack([rows[text] for text in texts]).to(arena.e))

    def judged(self) -> Judged:
        """What all cells of the dataset have in common."""
        return self._judged

    @cached_property
    def _judged(self) -> Judged:
        return judged_of(self.dataset)


def replaced_questions(control: Control, questions: list[str], known: list[str], seed: int) -> list[str]:
    """An empty text, random words of the known questions (as many as the question has), or another known question."""
    words = sorted({word for question in known for word in question.split()})

    def other(question: str) -> str:
        draw = np.random.default_rng(task_seed(seed, f"{control}/{question}"))
        if control == "random-words":
            return " ".join(draw.choice(words, len(question.split())))
        return str(draw.choice(sorted(set(known) - {question})))

    return ["" if control == "empty" else other(question) for question in questions]


def measured_cell(session: Session, spec: CellSpec, bench: Bench) -> Ensured:
    """The finished run of the cell, with everything that it is made from."""
    method = method_of(spec.method)
    doing = spec.session(session)
    parents = yield from parents_of(doing, spec.method)
    work = partial(_measure, doing, spec, method, parents, bench)
    extra = {"variant": spec.method, "cell": asdict(spec)}
    return (yield from finished_run(doing, perform(doing, "cell", parents, extra, work)))


def _measure(
    session: Session, spec: CellSpec, method: Method, parents: Parents, bench: Bench, run: Run
) -> Iterator[Event | dict[str, Any]]:
    yield started(run, 0)
    source = source_of(session, spec.method, parents, spec.gamma, bench.validation)
    asked = bench.asked(spec.control, spec.seed)
    answers: dict[str, Tensor] = {}  # [task, sample, example]
    if method.zero_shot and source.zero_shot is not None:
        samples = session.config.eval.samples if source.sampled else 1
        drawn = [_answers(source, asked, lambda part, n=n: source.zero_shot(part, n)) for n in range(samples)]
        answers["zero-shot"] = torch.cat(drawn, 1)
    if method.few_shot and spec.control is None and spec.gamma is None:
        answers["few-shot"] = (
            _majority(asked) if spec.method == "support-majority" else _answers(source, asked, source.few_shot)
        )
    gamma = source.gamma if source.sampled and "ldm" in spec.method else None
    sampler = sampler_text(session.config.sampling) if gamma is not None else None
    correct = {name: right(asked, value).float().mean(1) for name, value in answers.items()}
    kept = {f"{name}.{ANSWERS}": flat_answers(value, bench.judged().mask) for name, value in answers.items()}
    save_measured(run, {**{name: value.cpu() for name, value in correct.items()}, **kept}, {"kind": "cell"})
    mask = asked.query.example_mask
    means = {name: 100 * float((value.sum(1) / mask.sum(1)).mean()) for name, value in correct.items()}
    yield {"method": spec.method, "seed": spec.seed, "gamma": gamma, "sampler": sampler, "means": means,
           "descriptors": spec.descriptors, "control": spec.control, "layout": source.layout.fingerprint,
           **dict(source.notes)}  # fmt: skip


@torch.no_grad()
def _answers(source: Source, arena: Arena, weights_of: Any) -> Tensor:
    """What the weights answer to the query examples: [task, 1, example]."""

    def answer(part: Arena) -> Tensor:
        weights = weights_of(part)
        gamma = "" if source.gamma is None else f" at gamma {source.gamma:g}"
        way_out = "lower gamma, or the few-shot learning rates in `eval`"
        check_weights(weights, part.questions, f"the weights{gamma}", way_out)
        return answers_of(source.layout, weights, part.query, source.logit_scale)

    return answered(arena, answer)


def _majority(arena: Arena) -> Tensor:
    """The most frequent answer of the support set, to every query example: [task, 1, example]."""
    answers = int(arena.support.answers.sizes.max())
    counts = torch.zeros(len(arena), answers, device=arena.device)
    counts.scatter_add_(1, arena.support.labels, arena.support.example_mask.float())
    return (counts.argmax(1, keepdim=True) * arena.query.example_mask)[:, None]


def spec_of(run: Run) -> CellSpec:
    """Which cell a run of kind ``cell`` is. ``UsageError`` for other kinds."""
    if run.kind != "cell":
        raise UsageError(f"run {run.id} is of kind {run.kind}, not a cell of the table (`metavqa eval cell`)")
    check_finished(run)
    return CellSpec(**run.manifest()["cell"])


def joined_cells(cells: Sequence[Run], dataset: DatasetFolder) -> list[Score]:
    """The scores of finished cells. ``UsageError`` for different datasets or base networks, or a cell given twice."""
    scores: list[Score] = []
    layouts: dict[str, str] = {}
    samplers: dict[Any, tuple[str | None, str]] = {}
    known: dict[CellSpec, str] = {}
    for run in cells:
        check_dataset(run, dataset)
        spec = spec_of(run)
        if known.setdefault(spec, run.id) != run.id:
            both = f"the cells {known[spec]} and {run.id} are both {spec.method} with seed {spec.seed}"
            raise UsageError(f"{both}, measured in different configurations; leave one of them out")
        layouts.setdefault(str((run.result() or {})["layout"]), run.id)
        found = scores_of(run, spec)
        for score in found:
            other = samplers.setdefault((score.role, score.twin[:-1]), (score.sampler, run.id))
            if other[0] != score.sampler:
                both = f"the cells {other[1]} and {run.id} were drawn differently ({other[0]}; {score.sampler})"
                raise UsageError(f"{both}; leave one of them out")
        scores += found
    if len(layouts) > 1:
        raise UsageError(f"the cells {' and '.join(layouts.values())} are of different base networks; "
                         "a table compares methods on one")  # fmt: skip
    return scores
