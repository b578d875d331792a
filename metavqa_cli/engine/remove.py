"""`metavqa dataset rm`: what would be lost, and the removal in one step. Without torch."""

from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.engine.site import (
    MANIFEST,
    RECIPE,
    beside,
    entrance,
    file_sizes,
    held,
    leftovers,
    put_aside,
    refuse_shards,
)
from metavqa_cli.engine.usage import refuse_readers
from metavqa_cli.schema.errors import BusyError, MissingError, RemovedError, UsageError
from metavqa_cli.store import runs
from metavqa_cli.store.atomic import delete, explained
from metavqa_cli.store.workspace import Workspace

OWN = (MANIFEST, RECIPE)  # one of them is in every dataset, however little of it is finished


@dataclass(frozen=True)
class Doomed:
    """A dataset, complete or not: its folder, its files and bytes, and the ids of the runs that were made on it."""

    path: Path
    files: int
    bytes: int
    runs: tuple[str, ...]


def find_dataset(workspace: Workspace, name: str) -> Doomed:
    """The dataset ``name``, also what an interrupted build left.

    ``MissingError`` when there is none, ``UsageError`` when the folder holds something else.
    """
    folders = workspace.datasets_dir
    names = {path.name for path in folders.iterdir() if path.is_dir()} if folders.is_dir() else set()
    if name not in names or name.startswith("."):  # a name with a slash is not there either
        raise MissingError(
            f"there is no dataset {name!r} in {workspace.root}; `metavqa dataset ls` lists what there is"
        )
    path = workspace.dataset_dir(name)
    if not any((path / own).is_file() for own in OWN):
        raise UsageError(f"{path} is no dataset of metavqa (it has no {OWN[0]}); remove the folder yourself")
    sizes = [*file_sizes(path)]
    made = [run.id for run, manifest in runs.manifests(workspace) if manifest["dataset"].get("name") == name]
    return Doomed(path, len(sizes), sum(sizes), tuple(made))


def remove_dataset(workspace: Workspace, doomed: Doomed) -> None:
    """Delete a dataset. ``BusyError`` while it is built or read, or while a run on it is working.

    Images that are elsewhere (its index names them) stay, and so does a folder that the dataset only links to.
    """
    path = doomed.path
    with held(path), explained(path):
        if not path.is_dir():
            raise RemovedError(f"the dataset {path.name!r} has been removed by another process")
        refuse_shards(path)
        with entrance(path):
            _refuse_runs(workspace, path.name)
            refuse_readers(path)
            put_aside(path)  # one step: a kill during the deletion leaves no half dataset behind
        for found in (*leftovers(path), beside(path)):
            if found.exists() or found.is_symlink():
                delete(found)


def _refuse_runs(workspace: Workspace, name: str) -> None:
    """``BusyError`` while a run on the dataset is working, whenever it began."""
    made = [run for run, manifest in runs.manifests(workspace) if manifest["dataset"].get("name") == name]
    for run in made:
        if run.state() == "running":
            raise BusyError(f"dataset {name!r} is used by the running {run.id} ({run.holder()}); "
                            "stop that before removing it")  # fmt: skip
