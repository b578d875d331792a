"""Removing runs while other processes work: nobody loses what it is making something from.

A run is removed by whoever holds it. Whoever begins one holds that first and then looks at its ancestors; whoever
removes an ancestor holds that first and then looks for such runs: of the two, one always sees the other.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from metavqa_cli.schema.errors import BusyError, JobError, MissingError, RemovedError, UsageError
from metavqa_cli.store import atomic, locks
from metavqa_cli.store.atomic import ABANDONED_SECONDS, delete, explained, sync_folder, temporary_name
from metavqa_cli.store.runs import Run, manifests
from metavqa_cli.store.workspace import Workspace

Parents = Mapping[str, Sequence[str]]


def remove(run: Run, force: bool = False, others: Collection[str] = ()) -> None:
    """Delete a run. ``BusyError`` while it runs, or while a run is at work that is made from it, or from such a one.

    ``UsageError`` when others were made from it, or cannot tell whether they were, unless ``force``; the latter does
    not matter of ``others``, which are removed along with it. ``RemovedError`` when another process was faster.
    """
    workspace = _workspace_of(run)
    with run.lock():
        made = _parents(workspace)
        children = [name for name, parents in made.items() if run.id in parents]
        for child in _descendants(run.id, made):
            if (other := Run(run.path.with_name(child))).is_held():
                maker = f"run {child}, which is made from it by {other.holder()}"
                raise BusyError(f"run {run.id} is in use by {maker}; stop that before removing it")
        if children and not force:
            raise UsageError(f"run {run.id} is a parent of {', '.join(children)}; remove those first, or add --force")
        unread = _damaged(workspace, known={*made, run.id, *others})
        if unread and not force:
            raise UsageError(
                f"run {run.id} may be a parent of {', '.join(unread)}, whose run.json cannot be read (`metavqa verify` "
                "says why); restore that, remove those too, or add --force"
            )
        doomed = run.path.with_name(temporary_name())
        with explained(run.path):
            run.path.rename(doomed)  # one step: a kill during the deletion leaves no half run behind
            os.utime(doomed, follow_symlinks=False)  # a sweep leaves what is new to whoever made it
            sync_folder(doomed.parent)  # before anything in it is deleted
            delete(doomed)
    sweep(workspace)


def check_parents(run: Run) -> None:
    """See that nobody removes what ``run``, which the caller holds, is made from; from now on nobody can.

    ``RemovedError`` when a parent is gone, ``BusyError`` when another process holds an ancestor and does not let go.
    """
    for name in _ancestors(run):
        ancestor = Run(run.path.with_name(name))
        give_up = time.monotonic() + locks.PATIENCE_SECONDS
        while ancestor.is_held():
            if time.monotonic() > give_up:
                raise BusyError(f"run {name}, which {run.id} is made from, is in use by {ancestor.holder()}; "
                                "wait for it to end, or stop it")  # fmt: skip
            time.sleep(0.02)
        if not ancestor.path.is_dir():
            raise _lost(run, name)


def sweep(workspace: Workspace, age: float = ABANDONED_SECONDS) -> None:
    """Delete the folders of runs in the making, or in deletion, whose process was killed more than ``age`` s ago."""
    atomic.sweep(workspace.runs_dir, age)


def _damaged(workspace: Workspace, known: Collection[str]) -> list[str]:
    """The runs besides ``known`` that are there and cannot be read; not those made or removed since ``known``.

    One that lost its run.json has its configuration still.
    """
    folders = sorted(path for path in workspace.runs_dir.iterdir() if path.name[0] != "." and path.name not in known)
    others = [Run(path) for path in folders if any((path / own).exists() for own in ("run.json", "config.toml"))]
    return [run.id for run in others if not run.is_intact() and run.path.is_dir()]


def _lost(run: Run, parent: str) -> RemovedError:
    return RemovedError(f"run {parent}, which {run.id} is made from, has been removed meanwhile; "
                        "make it again with --with-parents, or choose another one")  # fmt: skip


def _parents(workspace: Workspace) -> Parents:
    """The ids of the parents of every run, by its id."""
    return {run.id: [*map(str, manifest["parents"].values())] for run, manifest in manifests(workspace)}


def _descendants(name: str, made: Parents) -> list[str]:
    """What was made from ``name``, and from that in turn."""
    found = [name]
    for parent in found:
        found += [child for child, parents in made.items() if parent in parents and child not in found]
    return found[1:]


def _ancestors(run: Run) -> list[str]:
    """What ``run`` was made from, and that in turn, as far as it is there; ``RemovedError`` when a parent is not.

    Reads no other manifests: each of hundreds of jobs in a workspace of thousands of runs asks.
    """
    there, found = {*_workspace_of(run).run_ids()}, list(dict.fromkeys(run.manifest()["parents"].values()))
    for parent in found:
        if parent not in there:
            raise _lost(run, parent)
    for name in found:
        with suppress(JobError, MissingError):  # one that is damaged, or removed since we looked
            parents = Run(run.path.with_name(name)).manifest()["parents"].values()
            found += [parent for parent in dict.fromkeys(parents) if parent in there and parent not in found]
    return found


def _workspace_of(run: Run) -> Workspace:
    return Workspace(run.path.parent.parent)
