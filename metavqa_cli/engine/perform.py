"""A job as a run: whether it is already done, which run it goes on with, and how its record is kept."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import torch

from metavqa_cli.engine import models
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.lineage import trained_config
from metavqa_cli.engine.precision import parts_of
from metavqa_cli.engine.resuming import (
    Changes,
    check_changes,
    differences,
    identity,
    plain_key,
    record_override,
)
from metavqa_cli.engine.session import Session, torch_explained
from metavqa_cli.engine.world import here
from metavqa_cli.methods.registry import BY_KEY
from metavqa_cli.schema.config import CONDITIONAL, RUN_SECTIONS, Config
from metavqa_cli.schema.errors import InterruptedJob, JobError, RemovedError, UsageError
from metavqa_cli.schema.events import Event, Narrated, Reused, RunFailed, RunFinished, RunInterrupted, RunStarted
from metavqa_cli.store import locks, removal, runs
from metavqa_cli.store.runs import Run

TRIES = 5  # to begin a run that others remove at once
MEASURED_WITH = ("samples", "few_shot_steps", "few_shot_lr", "few_shot_z_lr")  # what a cell depends on of `eval`
SHAPE = ("objective", "latent", "hidden")  # what the task-loss generator depends on of `hvae`
Result = dict[str, Any]
Work = Callable[[Run], Iterator[Event | Result]]


def sections(config: Config, kind: str, method: str | None = None) -> dict[str, Any]:
    """The part of the configuration that a run of ``kind`` depends on by itself; a cell: of ``method``."""
    values = config.model_dump(mode="json")
    own = {name: values[name] for name in RUN_SECTIONS[kind]}
    if kind == "baseline":
        method = config.baseline.method
        own["baseline"] = {"method": method, **config.recipe().model_dump(mode="json")}
        own |= {"hnet": values["hnet"]} if "hnet" in method or method == "cond-multitask" else {}
        own |= {"questions": values["questions"]} if method in CONDITIONAL else {}
    if kind == "hyperclip":  # validated on few-shot latents
        own["few_shot"] = [config.eval.few_shot_steps, config.eval.few_shot_z_lr]
    if kind == "hvae":
        weights = config.hvae.objective == "weights"
        own |= {"task_latents": None} if weights else {"hvae": {name: own["hvae"][name] for name in SHAPE}}
    if kind in ("cell", "identify"):
        own["eval"] = {name: values["eval"][name] for name in MEASURED_WITH}
    if kind == "cell":
        own["few_shot_e_lr"] = config.recipes.cond_hnet_maml.inner_lr
        if method in BY_KEY and not BY_KEY[method].conditional:
            own |= {"questions": None, "sampling": None, "guidance": None}
    return own


def perform(session: Session, kind: str, parents: Mapping[str, Run], extra: Result, work: Work) -> Iterator[Event]:
    """Do ``work`` as a run of ``kind``, unless it is done: find or create the run, lock it, record every event.

    ``extra`` goes into the manifest; its ``cell`` is part of what the run is. ``work`` yields events and, last, the
    result. Ends with ``RunFinished``, after ``Reused`` for a finished run. An
    unfinished run with the same key is resumed; with ``session.resume`` exactly that run, or ``UsageError``; with
    ``session.override`` also where the configuration differs in what may change (``engine.resuming``).
    """
    with ExitStack() as held:
        run, finished = yield from _taken(session, kind, parents, extra, held)
        if finished:
            yield from _reused(run)
        elif here().first:
            yield from _recorded(run, _in_order(_overridden(session, run, parents, extra), work), session)
        else:
            yield from _followed(run, work)


def _in_order(first: Iterator[Event], work: Work) -> Work:
    """``work`` after ``first``."""

    def both(run: Run) -> Iterator[Event | Result]:
        yield from first
        yield from work(run)

    return both


def _taken(
    session: Session, kind: str, parents: Mapping[str, Run], extra: Result, held: ExitStack
) -> Generator[Event, None, tuple[Run, bool]]:
    """The run to be done, and whether it is done already; if not, it is locked until ``held`` ends.

    One that another process removes between its choice and its lock is chosen, or made, again.
    """
    world, removed = here(), 0
    while True:
        run = Run(session.workspace.runs_dir / world.decide(lambda: _chosen_run(session, kind, parents, extra).id))
        if world.first and session.patience > locks.PATIENCE_SECONDS and run.state() == "running":
            yield Narrated(f"waiting for run {run.id}, which is in use by {run.holder()}")
        try:
            finished, left = world.decide(partial(_lock, run, world.endured(session.patience), held))
        except RemovedError:
            removed += 1
            if session.resume is not None or removed == TRIES or run.path.is_dir():  # if it is there, a parent is not
                raise
            continue
        if left is not None and world.first:
            yield Narrated(f"took over run {run.id} from {left}, which was killed")
        return run, finished


def _lock(run: Run, patience: float, held: ExitStack) -> tuple[bool, str | None]:
    """Whether the run is done. If not, it is locked until ``held`` ends, and whose it was who was killed at it."""
    left = None
    if run.state() != "finished":
        left = held.enter_context(run.lock(patience))
        removal.check_parents(run)
    finished = run.state() == "finished"  # by another process, since we looked
    return finished, None if left is None else left.name


def _key(session: Session, kind: str, parents: Mapping[str, Run], extra: Result) -> str:
    """What the job's outcome depends on."""
    own: dict[str, Any] = {"version": models.MODEL_VERSION, **sections(session.config, kind, extra.get("variant"))}
    own |= {"cell": extra["cell"]} if "cell" in extra else {}
    dataset = open_dataset(session.workspace, session.config.dataset.name)
    return runs.run_key(kind, own, {role: identity(parent) for role, parent in parents.items()}, dataset.fingerprint)


def _chosen_run(session: Session, kind: str, parents: Mapping[str, Run], extra: Result) -> Run:
    """The run to be resumed, else one with the same key (rather a finished one), else (or when forced) a new one."""
    dataset = open_dataset(session.workspace, session.config.dataset.name)
    key = _key(session, kind, parents, extra)
    if session.resume is not None:
        return _resumable(session, kind, key, parents)
    if not session.force:
        known = runs.find(session.workspace, kind, key)
        if known is not None:
            return known
    return runs.create(
        session.workspace, kind, key, session.config.model_dump(mode="json"),
        {role: parent.id for role, parent in parents.items()},
        {"name": dataset.path.name, "fingerprint": dataset.fingerprint},
        {**extra, "encoder": dataset.manifest["encoder"]}, fresh=session.force,
    )  # fmt: skip


def _resumable(session: Session, kind: str, key: str, parents: Mapping[str, Run]) -> Run:
    """The unfinished run ``session.resume``; ``UsageError`` when it is finished or cannot go on as it is told."""
    run = runs.get(session.workspace, session.resume or "")
    if run.kind != kind:
        raise UsageError(f"run {run.id} is of kind {run.kind}, not {kind}; resume it with its own command")
    if run.state() == "finished":
        raise UsageError(f"run {run.id} is finished already; `metavqa runs show {run.id}` shows its result")
    if plain_key(run.manifest()) != key:
        check_changes(run, _changes(session, run, parents), session.override)
    return run


def _changes(session: Session, run: Run, parents: Mapping[str, Run]) -> Changes:
    """In what the session's job is another than the one of ``run``."""
    manifest, dataset = run.manifest(), open_dataset(session.workspace, session.config.dataset.name)
    told = {**sections(trained_config(run), run.kind), "parents": manifest["parents"],
            "dataset": manifest["dataset"]["fingerprint"]}  # fmt: skip
    ids = {role: parent.id for role, parent in parents.items()}
    asked = {**sections(session.config, run.kind), "parents": ids, "dataset": dataset.fingerprint}
    return differences(told, asked)


def _overridden(session: Session, run: Run, parents: Mapping[str, Run], extra: Result) -> Iterator[Event]:
    """Record, while the run is locked, what it goes on with in place of its own configuration."""
    key = _key(session, run.kind, parents, extra)
    if session.resume is not None and plain_key(run.manifest()) != key:
        yield Narrated(record_override(run, _changes(session, run, parents), key))


def _reused(run: Run) -> Iterator[Event]:
    if here().first:
        with suppress(OSError):
            run.state_path.unlink(missing_ok=True)  # left when a job was killed between its result and its last breath
    yield Reused(run.kind, run.id)
    yield RunFinished(run.id, run.result() or {})


def _recorded(run: Run, work: Work, session: Session) -> Iterator[Event]:
    result: Result = {}
    step = 0
    try:
        with torch_explained():
            made_in = _note_arithmetic(run, session)
            for event in work(run):
                if isinstance(event, dict):
                    result = event
                    continue
                step = getattr(event, "step", step)
                run.append(event)
                yield event
        result |= made_in
        run.finish(result)
    except (InterruptedJob, KeyboardInterrupt, GeneratorExit):
        with suppress(JobError):  # a full disk must not hide why the job ended
            run.append(RunInterrupted(run.id, step))
        raise
    except Exception as error:
        with suppress(JobError):
            run.append(RunFailed(run.id, str(error)))
        raise
    run.state_path.unlink(missing_ok=True)
    finished = RunFinished(run.id, result)
    run.append(finished)
    here().decide(lambda: result)
    yield finished


def _note_arithmetic(run: Run, session: Session) -> Result:
    """What the run is computed in, for its result; in the manifest too, after a resumption each way in turn."""
    manifest = run.manifest()
    parts = parts_of(run.kind, manifest.get("variant"), [*manifest["parents"]])
    first, *others = dict.fromkeys(map(session.arithmetic, parts))
    how = f"{first}, sampling in {others[0]}" if others else first
    threads = torch.get_num_threads()
    fixed = f"{threads} thread{'s' * (threads > 1)}" if session.config.runtime.deterministic else "no"
    going_on = run.state_path.exists()
    noted = {
        "precision": _then(manifest.get("precision", []) if going_on else [], how),
        "deterministic": _then(manifest.get("deterministic") or ["no"] if going_on else [], fixed),
    }
    if noted["deterministic"] == ["no"]:
        noted["deterministic"] = []
    run.amend(noted)
    return {name: ", then ".join(ways) for name, ways in noted.items() if ways}


def _then(before: list[str], now: str) -> list[str]:
    return before if before[-1:] == [now] else [*before, now]


def _followed(run: Run, work: Work) -> Iterator[Event]:
    """Take part in the work that the first process records, and wait until it has."""
    with torch_explained():
        for event in work(run):
            if isinstance(event, Event):
                yield event
    yield RunFinished(run.id, here().decide(dict))


def started(run: Run, total: int) -> RunStarted:
    return RunStarted(run.id, run.kind, total)
