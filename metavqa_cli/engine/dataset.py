"""A complete dataset on disk: its manifest, tasks, places of images, features, and its tasks as tensors."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from metavqa_cli.engine.manifest import read_manifest
from metavqa_cli.engine.site import ANNOTATIONS, FEATURES, IMAGES, INDEX, TASKS
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.features import FeatureStore
from metavqa_cli.store.images import ImageFile, local_files, read_index
from metavqa_cli.store.shards import ShardedFeatures
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.annotations import Annotations, load_annotations
from metavqa_cli.tasks.arena import Arena, Embeddings, make_arena
from metavqa_cli.tasks.taskset import Split, TaskSet, load_tasks


@dataclass(frozen=True)
class DatasetFolder:
    """``datasets/<name>``. What is read is kept: a process holds the features once, whatever it makes of them."""

    path: Path
    _embeddings: dict[tuple[str, torch.device], Embeddings] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """``dataset.json``; errors as ``read_manifest``."""
        return read_manifest(self.path)

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @cached_property
    def tasks(self) -> TaskSet:
        return load_tasks(self.path / TASKS)

    @cached_property
    def questions(self) -> TaskSet:
        """The tasks without their examples, read in a tenth of the time."""
        return load_tasks(self.path / TASKS, examples=False)

    @cached_property
    def annotations(self) -> Annotations | None:
        """What VQA's annotators said; None where the source has no annotations."""
        return load_annotations(self.path / ANNOTATIONS)

    @cached_property
    def image_features(self) -> ShardedFeatures:
        return ShardedFeatures.open(self.path / FEATURES, "images")

    @cached_property
    def text_features(self) -> FeatureStore:
        return FeatureStore.open(self.path / FEATURES / "texts.safetensors")

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
        tasks = self.tasks.of(split)
        if not tasks:
            raise JobError(
                f"the dataset {self.path.name!r} has no {split} tasks; build it with more images or questions"
            )
        return make_arena(tasks, self._embedded("images", device), self._embedded("texts", device))

    def _embedded(self, kind: str, device: torch.device) -> Embeddings:
        if (kind, device) not in self._embeddings:
            store = self.image_features if kind == "images" else self.text_features
            matrix = torch.from_numpy(store.verified()).to(device)  # one sequential read; tasks then refer to its rows
            rows = {name: row for row, name in enumerate(store.ids)}
            self._embeddings[kind, device] = Embeddings(rows, matrix, f"{store.path} has no features of", store.remedy)
        return self._embeddings[kind, device]


def open_dataset(workspace: Workspace, name: str) -> DatasetFolder:
    """The dataset ``name`` with its features; ``MissingError`` with the command that makes what is not there."""
    folder = DatasetFolder(workspace.dataset_dir(name))
    if folder.manifest["encoder"] is None:
        raise MissingError(f"the dataset {name!r} has tasks, but no features; run its `metavqa dataset build` again "
                           "without --tasks-only")  # fmt: skip
    return folder
