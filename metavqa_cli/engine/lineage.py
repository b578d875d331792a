"""What a run is made from: parents that are finished, and of the same dataset and configuration."""

from collections.abc import Callable

from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import MissingError, RemovedError, UsageError
from metavqa_cli.schema.layers import validate
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace

TRAINED = ("baseline", "zoo", "hvae", "hyperclip", "ldm", "regression")  # kinds with a `metavqa train` of their own


def trained_config(run: Run) -> Config:
    """The configuration that ``run`` was made with. ``UsageError`` when another version of metavqa wrote it."""
    return validate(run.config())


def saw_all_questions(run: Run) -> bool:
    """Whether no training question was hidden from the run (``questions.descriptors``)."""
    return bool(run.config().get("questions", {}).get("descriptors", 1) == 1)


def parent_run(run: Run, role: str) -> Run:
    """The parent that ``run`` was made from. ``MissingError`` when it has been removed."""
    name = run.manifest()["parents"].get(role)
    workspace = Workspace(run.path.parent.parent)
    if name not in workspace.run_ids():
        way_out = f"make both again: `metavqa train {run.kind} --with-parents`"
        raise MissingError(f"run {run.id} was made from {role} {name!r}, which is gone; {way_out}")
    return runs.get(workspace, name)


def find_parent(
    session: Session,
    kind: str,
    chosen: str | None,
    match: Callable[[Run], bool],
    hint: str,
    own_seed_first: bool = True,
) -> Run | None:
    """The run that ``chosen`` names, or the newest finished run of ``kind`` on this dataset that matches; or None.

    Without ``chosen``, a run of the session's own seed goes before a newer one of another, if ``own_seed_first``.
    Raises ``UsageError`` when the chosen run is of another kind, dataset or configuration, and ``MissingError`` when it
    is not finished. Of several processes the first one finds it for all.
    """
    found = here().decide(lambda: _found_parent(session, kind, chosen, match, hint, own_seed_first))
    return None if found is None else Run(session.workspace.runs_dir / found)


def _found_parent(
    session: Session, kind: str, chosen: str | None, match: Callable[[Run], bool], hint: str, own_seed_first: bool
) -> str | None:
    """The id of the parent."""
    dataset = open_dataset(session.workspace, session.config.dataset.name)

    def fits(run: Run) -> bool:
        return run.manifest()["dataset"]["fingerprint"] == dataset.fingerprint and match(run)

    if chosen is None:
        own = (lambda run: run.config().get("seed") == session.config.seed) if own_seed_first else None
        newest = runs.newest(session.workspace, kind, match=fits, rather=own)
        return None if newest is None else newest.id
    run = runs.get(session.workspace, chosen)
    if run.kind != kind:
        raise UsageError(f"run {run.id} is of kind {run.kind}, not {kind}; {hint}")
    check_dataset(run, dataset)
    if not match(run):
        shown = f"compare `metavqa runs show {run.id}` with `metavqa config show`"
        raise UsageError(f"run {run.id} was made with another configuration than this one: {shown}, or {hint}")
    check_finished(run)
    return run.id


def check_finished(run: Run) -> None:
    """``MissingError`` with the command that finishes ``run`` when it has not finished, or is not there any more."""
    if run.state() != "finished":
        if not run.path.is_dir():
            raise RemovedError(f"run {run.id} has been removed; `metavqa runs ls` lists what there is")
        again = f"`metavqa train {run.kind} --resume {run.id}`"
        way_out = f"finish it with {again if run.kind in TRAINED else 'the command that began it'}"
        raise MissingError(f"run {run.id} is {run.state()}, not finished; {way_out}")


def check_dataset(run: Run, dataset: DatasetFolder) -> None:
    """``UsageError`` when ``run`` was made from another dataset than ``dataset`` as it is now."""
    made = run.manifest()["dataset"]
    if made["fingerprint"] != dataset.fingerprint:
        way_out = "choose another run, or make it again from this dataset (--with-parents)"
        raise UsageError(
            f"run {run.id} was made from the dataset {made['name']!r} ({made['fingerprint']}), not from "
            f"{dataset.path.name!r} as it is now ({dataset.fingerprint}); {way_out}"
        )
