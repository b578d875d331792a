"""Where a dataset is made, who is at it, and what an interruption may leave beside it. Without torch."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.store import locks
from metavqa_cli.store.atomic import TEMPORARY, delete, discard, explained, sweep, sync_folder, temporary_name

# The files and folders of a dataset.
RECIPE, MANIFEST = "recipe.json", "dataset.json"
TASK_INDEX = ".tasks.safetensors"  # hidden: made from the others whenever it is missing, and no part of the record
TASK_LOCK = ".tasks.lock"  # of the process that makes it
TASKS, INDEX, ANNOTATIONS, FEATURES, IMAGES = "tasks.jsonl", "images.jsonl", "annotations.jsonl", "features", "images"
TEXTS = "texts.safetensors"  # in the folder of features, beside those of images
ENTRANCE_PATIENCE = 10.0  # seconds: what is done there takes milliseconds
PART = re.compile(r"(\d+-of-\d+|[0-9a-f]{8})\.lock")
Shard = tuple[int, int]  # this is the first number of the second many, from 1


def beside(folder: Path) -> Path:
    """Where the replacement of the dataset in ``folder`` is made."""
    return folder.with_name(f".{folder.name}.new")


def put_aside(folder: Path) -> Path:
    """Move what is in ``folder`` out of the way, in one step; returns where it is."""
    aside = folder.with_name(f"{temporary_name()}-{folder.name}")
    folder.rename(aside)
    sync_folder(folder.parent)  # before anything in it is deleted
    return aside


def leftovers(folder: Path) -> Iterator[Path]:
    """What a killed replacement or removal of the dataset in ``folder`` put aside and did not delete."""
    for found in folder.parent.iterdir():
        if found.name.startswith(TEMPORARY) and found.name[len(temporary_name()) :] == f"-{folder.name}":
            yield found


def finish_removals(folders: Path) -> None:
    """Delete the datasets in ``folders`` that a killed removal or replacement put aside, unless one is at it now."""
    if not folders.is_dir():
        return
    for found in [found for found in folders.iterdir() if found.name.startswith(TEMPORARY)]:
        name = found.name[len(temporary_name()) + 1 :]
        if not found.is_dir():
            sweep(folders, of=name)
        elif name and not (beside(folders / name) / MANIFEST).is_file():  # else its build puts that in its place first
            with suppress(BusyError, JobError), held(folders / name):
                discard(found)


def file_sizes(folder: Path) -> Iterator[int]:
    """Bytes of every file in ``folder`` and below; of a link, its own; 0 for one that goes meanwhile."""
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(parent, name).lstat().st_size
            except OSError:
                yield 0


@dataclass(frozen=True)
class Site:
    """Where a dataset is to be (``folder``) and where it is made: there, or beside a dataset that it will replace."""

    folder: Path
    work: Path

    def settle(self) -> None:
        """Put what was made in its place, and remove what it replaces."""
        if self.work == self.folder:
            return
        with explained(self.folder):
            with entrance(self.folder):
                if self.folder.exists():
                    put_aside(self.folder)
                self.work.rename(self.folder)
                sync_folder(self.folder.parent)
            for found in list(leftovers(self.folder)):
                delete(found)


@contextmanager
def held(folder: Path, patience: float = locks.PATIENCE_SECONDS) -> Iterator[locks.Owner | None]:
    """Nobody else builds or removes the dataset in ``folder`` meanwhile; ``BusyError`` says who does.

    Yields the process that was killed while it did, if one was.
    """
    with locks.hold(folder.with_name(f".{folder.name}.lock"), f"dataset {folder.name}", patience) as left:
        yield left


@contextmanager
def entrance(folder: Path) -> Iterator[None]:
    """For the moment in which the dataset in ``folder`` is put in its place, or goes, or somebody begins to read it."""
    with locks.hold(_entrance(folder), f"dataset {folder.name}", ENTRANCE_PATIENCE):
        yield


def await_entrance(folder: Path) -> None:
    """Wait while a dataset that is not there may be one that is being replaced."""
    give_up = time.monotonic() + ENTRANCE_PATIENCE
    while not folder.exists() and locks.is_held(_entrance(folder)) and time.monotonic() < give_up:
        time.sleep(0.005)


def _entrance(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.entrance.lock")


def locks_beside(folder: Path, kind: str) -> Iterator[Path]:
    """The locks ``kind-*`` of the dataset in ``folder``."""
    prefix = f".{folder.name}.{kind}-"
    for found in list(folder.parent.iterdir()) if folder.parent.is_dir() else []:
        if found.name.startswith(prefix) and PART.fullmatch(found.name[len(prefix) :]):
            yield found


@contextmanager
def shard_held(folder: Path, part: Shard) -> Iterator[None]:
    """Nobody else embeds this share of the dataset meanwhile; ``BusyError`` says who does."""
    lock = folder.with_name(f".{folder.name}.shard-{part[0]}-of-{part[1]}.lock")
    with locks.hold(lock, f"shard {part[0]}/{part[1]} of dataset {folder.name}"):
        yield


def refuse_shards(folder: Path) -> None:
    """``BusyError`` while a process embeds a share of the dataset in ``folder``."""
    for lock in locks_beside(folder, "shard"):
        if locks.is_held(lock):
            raise BusyError(f"a shard of dataset {folder.name} is being made by {locks.holder(lock)}; "
                            "wait for it, or stop it")  # fmt: skip
