"""The index of a dataset's tasks, beside ``tasks.jsonl``: made when it is missing, damaged, or of other files.

It can always be made again, so it is no part of the dataset's record, and a folder that cannot be written goes without:
then the index is made in memory at each opening.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metavqa_cli.engine.manifest import READ_ALWAYS, check_recorded
from metavqa_cli.engine.site import FEATURES, TASK_INDEX, TASK_LOCK, TASKS, TEXTS
from metavqa_cli.schema.errors import BusyError, JobError, MetaVQAError
from metavqa_cli.store.container import digest
from metavqa_cli.store.features import FeatureStore
from metavqa_cli.store.locks import hold
from metavqa_cli.store.mapped import read_arrays, write_arrays
from metavqa_cli.store.shards import ShardedFeatures
from metavqa_cli.store.tensors import read_header
from metavqa_cli.tasks.index import BY_TASK, ENTRIES, SPLITS, Names, TaskFile, TaskIndex, compile_index
from metavqa_cli.tasks.taskset import Split, read_tasks

if TYPE_CHECKING:
    import numpy as np

VERSION = 1  # raise it with any change of the arrays
INDEX_HELD = 8 * 2**20  # bytes of an index up to which memory holds it
PATIENCE = 600  # seconds until a process stops waiting for one that makes the index, and makes its own
TRIES = 3
Stamp = tuple[int, int, int]  # which file it is, its size and when it was written (ns)
NONE: Stamp = (0, 0, 0)


def open_tasks(folder: Path) -> TaskFile:
    """The tasks of the finished dataset in ``folder`` with their index, which is written when it has to be made.

    ``MissingError`` or ``JobError`` when the tasks or the features are not there or damaged.
    """
    index = _found(folder, _wanted(folder)) or _made(folder, *_stores(folder))
    if index.nbytes <= INDEX_HELD:
        index = TaskIndex.of({name: each.whole() for name, each in index.arrays.items()}, index.counts)
    return TaskFile(folder / TASKS, index)


def _stores(folder: Path) -> tuple[ShardedFeatures, FeatureStore]:
    return ShardedFeatures.open(folder / FEATURES, "images"), FeatureStore.open(folder / FEATURES / TEXTS)


def _wanted(folder: Path) -> dict[str, Any]:
    """What the header of an index for these features says besides the tasks."""
    return {"version": VERSION, "features": _features_digest(*_stores(folder))}


def _features_digest(images: ShardedFeatures, texts: FeatureStore) -> str:
    """One for the same rows in the same order: of the checksums that the files of features state."""
    stated = [store.stated for store in (*images.shards, texts)]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()


def _found(folder: Path, wanted: dict[str, Any]) -> TaskIndex | None:
    """The index on the disk; None when there is none, it is damaged, or it was made of other tasks or features."""
    path, tasks = folder / TASK_INDEX, folder / TASKS
    try:
        header = read_header(path)
        if any(header.get(key) != value for key, value in wanted.items()) or not _describes(header, path, tasks):
            return None
        arrays, header = read_arrays(path)
        counts = {split: int(header["counts"][split]) for split in SPLITS}
    except (MetaVQAError, OSError, KeyError, TypeError, ValueError):
        return None
    if {*arrays} != {*BY_TASK, *ENTRIES} or {len(arrays[name]) for name in BY_TASK} != {sum(counts.values())}:
        return None
    return TaskIndex(arrays, counts)


def _describes(header: dict[str, Any], path: Path, tasks: Path) -> bool:
    """Whether the index is of these tasks. Of a large file the time tells, which is the index's own, else the content:
    in seconds, once, after the dataset was copied."""
    found = tasks.stat()
    if header.get("bytes") != found.st_size:
        return False
    same_time = path.stat().st_mtime_ns == found.st_mtime_ns
    if same_time and found.st_size > READ_ALWAYS:
        return True
    if header.get("sha256") != digest(tasks):
        return False
    if not same_time:
        with suppress(OSError):
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    return True


def _made(folder: Path, images: ShardedFeatures, texts: FeatureStore) -> TaskIndex:
    """A new index, on the disk if possible; when several processes miss it at once, one of them makes it."""
    with ExitStack() as held:
        with suppress(JobError, BusyError, OSError):  # a folder that cannot be written: each makes its own
            held.enter_context(hold(folder / TASK_LOCK, f"the index of {folder / TASKS}", PATIENCE))
        return _found(folder, _wanted(folder)) or _compiled(folder, images, texts)


def _compiled(folder: Path, images: ShardedFeatures, texts: FeatureStore) -> TaskIndex:
    """The index of the tasks as they are. ``BusyError`` when they are replaced at every try."""
    tasks = folder / TASKS
    check_recorded(folder, TASKS, up_to=None)
    for _ in range(TRIES):
        begun = stamp(tasks)
        arrays, counts = compile_index(read_tasks(tasks), names_of(images), names_of(texts))
        try:
            if write_index(folder, arrays, counts, begun):
                return TaskIndex(read_arrays(folder / TASK_INDEX)[0], counts)
        except (JobError, OSError):  # a folder that cannot be written, or a full disk
            if stamp(tasks) == begun:
                return TaskIndex.of(arrays, counts)
    raise BusyError(f"{tasks} was replaced {TRIES} times while it was read; wait until nothing writes it")


def stamp(path: Path) -> Stamp:
    """What changes when ``path`` is replaced; zeros when there is no such file."""
    if not path.is_file():
        return NONE  # ``read_tasks`` says what is wrong
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def write_index(folder: Path, arrays: "Mapping[str, np.ndarray]", counts: Mapping[Split, int], begun: Stamp) -> bool:
    """Keep the index beside the tasks that it was made of, unless they are not those of ``begun`` any more."""
    tasks, path = folder / TASKS, folder / TASK_INDEX
    header = {**_wanted(folder), "counts": dict(counts), "bytes": begun[1], "sha256": digest(tasks)}
    if stamp(tasks) != begun:
        return False
    write_arrays(path, arrays, header)
    os.utime(path, ns=(begun[2], begun[2]))
    return True


def names_of(store: ShardedFeatures | FeatureStore) -> Names:
    """The row of each image or text that has features."""
    rows = {name: row for row, name in enumerate(store.ids)}
    return Names(rows, f"{store.path} has no features of", store.remedy)
