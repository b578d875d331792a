"""`metavqa eval table | sweep | controls`: which cells they are made of, and their rows."""

from collections.abc import Generator, Sequence

from metavqa_cli.engine.cells import Bench, measured_cell
from metavqa_cli.engine.ensure import Ensured
from metavqa_cli.engine.scores import CellSpec, scores_of
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.sources import method_of
from metavqa_cli.engine.table import MULTITASK, Against, Row, Score, rows
from metavqa_cli.methods.registry import CONTROLS, METHODS, QUESTION_CONTROLS, Control
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.events import Event, ProgressMade, Reused, RunFinished
from metavqa_cli.store.runs import Run

REFERENCE_CELLS = ("multitask", "task", "task-ldm-w")  # what differences and ceilings are measured by
CONTROLLED = ("task-ldm", "hvae-ldm")  # methods whose use of the text is examined when none is named


def table_specs(methods: Sequence[str], seeds: Sequence[int], descriptors: Sequence[float]) -> list[CellSpec]:
    """The cells of Tables 1 and 4, seed by seed. Methods that read no questions have one cell, whatever is hidden."""
    keys = list(methods) or [method.key for method in METHODS]
    return [
        CellSpec(key, seed, share if method_of(key).conditional else 1.0, gamma)
        for seed in seeds
        for share in sorted(descriptors, reverse=True)
        for key in keys
        for gamma in method_of(key).gammas or (None,)
        if share == max(descriptors) or method_of(key).conditional
    ]


def reference_specs(against: Against, seeds: Sequence[int], descriptors: Sequence[float]) -> list[CellSpec]:
    """The cells that others are compared with."""
    key, gamma = against
    shares = descriptors if method_of(key).conditional else [1.0]
    return [CellSpec(key, seed, share, gamma) for seed in seeds for share in shares]


def sweep_specs(
    methods: Sequence[str], seeds: Sequence[int], descriptors: Sequence[float], gammas: Sequence[float]
) -> list[CellSpec]:
    """Figure 5: the methods at every γ and at the validated one, and what they are compared with."""
    for key in methods:
        if method_of(key).gammas is None or not method_of(key).zero_shot:
            able = ", ".join(method.key for method in METHODS if method.gammas and method.zero_shot)
            raise UsageError(f"{key} has no guidance scale to sweep; choose from {able}")
    return [
        *table_specs(REFERENCE_CELLS, seeds, [1.0]),
        *table_specs(["cond-multitask"], seeds, descriptors),
        *(
            CellSpec(key, seed, share, gamma)
            for seed in seeds
            for share in sorted(descriptors, reverse=True)
            for key in methods
            for gamma in (*gammas, None)
        ),
    ]


def control_specs(methods: Sequence[str], seeds: Sequence[int], descriptors: Sequence[float]) -> list[CellSpec]:
    """Each method with its own questions and with others in their place, and the methods that need no model."""
    found = table_specs(REFERENCE_CELLS, seeds, [1.0])
    replaced: tuple[Control | None, ...] = (None, *QUESTION_CONTROLS)
    for key in methods or CONTROLLED:
        if not method_of(key).conditional or not method_of(key).zero_shot:
            raise UsageError(f"{key} has no question to replace before it sees labels; leave it out")
        found += [
            CellSpec(key, seed, share, None, control)
            for seed in seeds
            for share in sorted(descriptors, reverse=True)
            for control in replaced
        ]
    keys = ["regression", *(method.key for method in CONTROLS)]
    return list(dict.fromkeys([*found, *table_specs(keys, seeds, descriptors)]))


def shard(specs: Sequence[CellSpec], part: int, parts: int) -> list[CellSpec]:
    """The cells of shard ``part`` of ``parts`` (from 1): every ``parts``-th."""
    return list(specs)[part - 1 :: parts]


def without_reuse(events: Ensured) -> Ensured:
    """Everything but the notices that what a cell is made of was found: a table finds hundreds."""
    reused = False
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            run: Run = end.value
            return run
        if isinstance(event, Reused):
            if event.kind == "cell":
                yield event
        elif not (reused and isinstance(event, RunFinished)):
            yield event
        reused = isinstance(event, Reused)


def measured(
    session: Session, specs: Sequence[CellSpec], against: Against = MULTITASK
) -> Generator[Event, None, list[Row]]:
    """The rows of the cells, each of which is measured where it is missing, and trained for where that is missing."""
    bench, scores = Bench(session), list[Score]()
    for done, spec in enumerate(specs):
        run = yield from without_reuse(measured_cell(session, spec, bench))
        scores += scores_of(run, spec)
        yield ProgressMade("measuring cells", done + 1, len(specs), "cells")
    return rows(scores, bench.judged(), session.config.eval.bootstrap, against)
