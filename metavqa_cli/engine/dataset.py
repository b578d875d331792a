"""A complete dataset on disk: its manifest, tasks, places of images, features, and its tasks as tensors."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metavqa_cli.engine import indexing
from metavqa_cli.engine.indexing import open_tasks
from metavqa_cli.engine.manifest import check_recorded, read_manifest
from metavqa_cli.engine.site import ANNOTATIONS, FEATURES, IMAGES, INDEX, MANIFEST, TASKS, TEXTS
from metavqa_cli.engine.usage import reads
from metavqa_cli.schema.errors import BusyError, JobError, MetaVQAError, MissingError, RemovedError
from metavqa_cli.schema.wording import some
from metavqa_cli.store.features import FeatureStore
from metavqa_cli.store.images import ImageFile, local_files, read_index
from metavqa_cli.store.mapped import MappedRows
from metavqa_cli.store.shards import ShardedFeatures
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.annotations import Annotations, load_annotations
from metavqa_cli.tasks.arena import Arena, Mapped, open_arena
from metavqa_cli.tasks.index import IndexedTasks, TaskFile, questions_at
from metavqa_cli.tasks.taskset import Split, TaskSet, load_tasks

FEATURES_HELD = 32 * 2**20  # bytes of features up to which the CPU's memory holds them
CHECKED = 4 * 2**30  # bytes of features that opening reads once: 2 s
UNIT = 1e-2  # how far from 1 the length of an embedding may be


@dataclass(frozen=True)
class DatasetFolder:
    """``datasets/<name>``. What is read is kept: a process holds the features once, whatever it makes of them."""

    path: Path
    _tables: dict[tuple[str, torch.device], Tensor | Mapped] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """``dataset.json``; errors as ``read_manifest``."""
        _ = self._begun
        return read_manifest(self.path)

    @cached_property
    def _begun(self) -> indexing.Stamp:
        """Which manifest this is about; none while the dataset is in the making."""
        return indexing.stamp(self.path / MANIFEST)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """What is opened and read in the body is of one dataset, that of the manifest; afterwards files may be moved.

        ``BusyError`` when another process has put another one in its place, ``RemovedError`` when it removed it.
        """
        begun = self._begun
        try:
            yield
        except (MetaVQAError, OSError, ValueError, KeyError, IndexError):  # parts of two may not fit together
            self._compare(begun)
            raise
        self._compare(begun)

    def _compare(self, begun: indexing.Stamp) -> None:
        if begun in (indexing.NONE, found := indexing.stamp(self.path / MANIFEST)):
            return
        name = self.path.name
        if found == indexing.NONE:
            raise RemovedError(f"the dataset {name!r} was removed by another process while this one read it")
        raise BusyError(f"the dataset {name!r} was built anew by another process while this one read it; "
                        "run the command again")  # fmt: skip

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @cached_property
    def tasks(self) -> TaskSet:
        """All tasks; of a finished dataset each is read when it is asked for."""
        finished = (self.path / MANIFEST).is_file() and self.manifest["encoder"] is not None
        with self.unchanged():
            if finished:
                with suppress(MetaVQAError):  # features that are gone or damaged: tasks can be read all the same
                    return TaskSet(IndexedTasks(self.task_file, self.task_file.index.in_file))
            check_recorded(self.path, TASKS)
            return load_tasks(self.path / TASKS)

    @cached_property
    def questions(self) -> TaskSet:
        """The tasks without their examples, read in a tenth of the time."""
        with self.unchanged():
            check_recorded(self.path, TASKS)
            return load_tasks(self.path / TASKS, examples=False)

    @cached_property
    def task_file(self) -> TaskFile:
        """The tasks with their index. Errors as ``open_tasks``."""
        with self.unchanged():
            return open_tasks(self.path)

    @cached_property
    def annotations(self) -> Annotations | None:
        """What VQA's annotators said; None where the source has no annotations."""
        with self.unchanged():
            check_recorded(self.path, ANNOTATIONS)
            return load_annotations(self.path / ANNOTATIONS)

    @cached_property
    def image_features(self) -> ShardedFeatures:
        with self.unchanged():
            return ShardedFeatures.open(self.path / FEATURES, "images")

    @cached_property
    def text_features(self) -> FeatureStore:
        with self.unchanged():
            return FeatureStore.open(self.path / FEATURES / TEXTS)

    @cached_property
    def image_files(self) -> dict[str, ImageFile]:
        """Where every image is: listed, or in the dataset's own folder (the built-in world)."""
        if (self.path / INDEX).is_file():
            return read_index(self.path / INDEX)
        return local_files(self.path / IMAGES, self.tasks.image_ids())

    def image_path(self, image: str) -> Path:
        """The file of an image that is not packed in an archive."""
        return self.image_files[image].path

    def arena(self, split: Split, device: torch.device) -> Arena:
        """The tasks of ``split`` as tensors. ``JobError`` when there are none."""
        if not self.task_file.index.counts[split]:
            raise JobError(
                f"the dataset {self.path.name!r} has no {split} tasks; build it with more images or questions"
            )
        index = self.task_file.index
        tasks = IndexedTasks(self.task_file, index.rows(split))
        images, texts = (self._table(kind, device) for kind in ("images", "texts"))
        return open_arena(index, split, tasks, images, texts, held=index.nbytes <= indexing.INDEX_HELD)

    def questions_of(self, split: Split) -> Sequence[str]:
        """The questions of the tasks of ``split``, without reading the tasks."""
        return questions_at(self.task_file.index, self.task_file.index.rows(split))

    def _table(self, kind: str, device: torch.device) -> Tensor | Mapped:
        """The features, checked; in memory if they are small, or fit on the GPU, else read when asked for."""
        if (kind, device) not in self._tables:
            with self.unchanged():
                store = self.image_features if kind == "images" else self.text_features
                if store.nbytes <= room_on(device):
                    self._tables[kind, device] = torch.from_numpy(finite_rows(store)).to(device)
                else:
                    self._tables[kind, device] = Mapped(mapped_features(store), device)
        return self._tables[kind, device]


def room_on(device: torch.device) -> int:
    """Bytes of features that are held rather than read from the disk for each batch: half of what a GPU has free.

    Through a memory map a batch of 32 tasks takes 5 ms more at 64 dimensions, and none at 768, where copying the rows
    is what takes the time.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return FEATURES_HELD if device.type == "cpu" else sys.maxsize


def finite_rows(store: ShardedFeatures | FeatureStore) -> np.ndarray:
    """All rows of ``store``, in memory. ``JobError`` when it is not what was written, or rows are not finite."""
    rows = store.verified()
    bad = np.flatnonzero(~np.isfinite(rows.sum(1)))
    if len(bad):
        raise JobError(f"the features of {some([store.ids[row] for row in bad])} are not finite; {store.remedy}")
    return rows


def mapped_features(store: ShardedFeatures | FeatureStore) -> MappedRows:
    """The rows of ``store``, not held. ``JobError`` when it is not what was written.

    Up to ``CHECKED`` bytes are read once to see that; of more, `metavqa dataset verify` reads the rest. Each row that
    is gathered has to be a unit vector.
    """
    if store.nbytes <= CHECKED:
        store.check()

    def check(rows: np.ndarray) -> None:
        lengths = np.sqrt(np.einsum("re,re->r", rows, rows))
        if not (np.abs(lengths - 1) < UNIT).all():
            raise JobError(f"{store.path} is damaged (a row of it is no unit vector); {store.remedy}")

    return store.mapped(check)


def open_dataset(workspace: Workspace, name: str) -> DatasetFolder:
    """The dataset ``name`` with its features; ``MissingError`` with the command that makes what is not there."""
    folder = DatasetFolder(workspace.dataset_dir(name))
    reads(folder.path, folder)
    if folder.manifest["encoder"] is None:
        raise MissingError(f"the dataset {name!r} has tasks, but no features; run its `metavqa dataset build` again "
                           "without --tasks-only")  # fmt: skip
    return folder
