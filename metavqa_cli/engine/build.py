"""`metavqa dataset build`: draw or find the images, cut the tasks, embed everything with CLIP."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metavqa_cli.clip.encoder import TINY, TINY_FOLDER, ClipEncoder
from metavqa_cli.clip.tiny.package import package_hash
from metavqa_cli.engine.manifest import SCHEMA_VERSION, read_manifest
from metavqa_cli.engine.session import Session, memory_explained
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.schema.events import DatasetBuilt, Event, Narrated, ProgressMade, Reused
from metavqa_cli.store import locks
from metavqa_cli.store.atomic import TEMPORARY, explained, temporary_name, write_json
from metavqa_cli.store.features import FeatureStore, rebuild, write_features
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena, Lookup, make_arena
from metavqa_cli.tasks.sources.scenes.source import WORLD_VERSION, build_tasks, draw_images
from metavqa_cli.tasks.taskset import Split, TaskSet, dump_tasks, load_tasks

RECIPE = "recipe.json"
TEXT_BATCH, IMAGE_BATCH = 512, 256


@dataclass(frozen=True)
class DatasetFolder:
    """A complete dataset on disk."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """``dataset.json``; errors as ``read_manifest``."""
        return read_manifest(self.path)

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @cached_property
    def tasks(self) -> TaskSet:
        return load_tasks(self.path / "tasks.jsonl")

    @cached_property
    def image_features(self) -> FeatureStore:
        return FeatureStore.open(self.path / "features" / "images.safetensors")

    @cached_property
    def text_features(self) -> FeatureStore:
        return FeatureStore.open(self.path / "features" / "texts.safetensors")

    def image_path(self, image: str) -> Path:
        return self.path / "images" / f"{image}.png"

    def arena(self, split: Split, device: torch.device) -> Arena:
        """The tasks of ``split`` as tensors. ``JobError`` when there are none."""
        tasks = self.tasks.of(split)
        if not tasks:
            raise JobError(
                f"the dataset {self.path.name!r} has no {split} tasks; build it with more images or questions"
            )
        return make_arena(tasks, _lookup(self.image_features), _lookup(self.text_features), device)


def open_dataset(workspace: Workspace, name: str) -> DatasetFolder:
    """The dataset ``name``; ``MissingError`` with the command that builds it when it is not there."""
    folder = DatasetFolder(workspace.dataset_dir(name))
    _ = folder.manifest
    return folder


def _lookup(store: FeatureStore) -> Lookup:
    rows = {name: row for row, name in enumerate(store.ids)}
    features = store.verified()  # one sequential read; tasks then pick their rows from memory

    def find(names: Sequence[str]) -> np.ndarray:
        try:
            return features[[rows[name] for name in names]]
        except KeyError as missing:
            raise JobError(f"{store.path} has no features of {missing}; {store.remedy}") from None

    return find


def build_dataset(session: Session) -> Iterator[Event]:
    """Build the configured dataset, or find it finished; yields progress and ends with ``DatasetBuilt`` or ``Reused``.

    An interrupted build goes on where it stopped. ``BusyError`` when another dataset has the name (without ``force``).
    """
    config = session.config
    folder = session.workspace.dataset_dir(config.dataset.name)
    with (
        locks.hold(folder.with_name(f".{folder.name}.lock"), f"dataset {folder.name}", session.patience),
        memory_explained(),
    ):
        wanted = recipe(config)
        if _is_finished(folder, wanted, session.force):
            yield Reused("dataset", folder.name)
            return
        _ = session.encoder  # a model that cannot be had should be known before an hour of drawing, not after
        replaced = _clear_other(folder, wanted, session.force)
        try:
            if not (folder / RECIPE).is_file():
                write_json(folder / RECIPE, wanted)
            yield from _build(session, folder, wanted)
        except BaseException:
            if replaced is not None:
                with explained(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    replaced.rename(folder)
            raise
        for doomed in folder.parent.glob(f"{TEMPORARY}*-{folder.name}"):  # also what a killed replacement left
            shutil.rmtree(doomed, ignore_errors=True)


def recipe(config: Config) -> dict[str, Any]:
    """Everything that a dataset's content depends on: what is configured, and this version's world and tiny CLIP."""
    return {
        "dataset": config.dataset.model_dump(mode="json"),
        "clip": config.clip.model_dump(mode="json"),
        "world": WORLD_VERSION,
        "weights": package_hash(TINY_FOLDER) if config.clip.model == TINY else None,
    }


def _is_finished(folder: Path, wanted: dict[str, Any], force: bool) -> bool:
    if force or not (folder / "dataset.json").is_file():
        return False
    if DatasetFolder(folder).manifest["recipe"] == wanted:
        return True
    raise BusyError(
        f"a dataset {folder.name!r} with another configuration, or made by another version of metavqa, exists in "
        f"{folder.parent}; choose another --name, or {rebuild(folder.name)}"
    )


def _clear_other(folder: Path, wanted: dict[str, Any], force: bool) -> Path | None:
    """Keep what this build can use, remove what an unfinished build with another recipe left, and put anything else
    aside until this build is finished; returns where.

    ``BusyError`` for a folder that no build made (without ``force``): its files may be somebody's only ones.
    """
    aside = None
    begun = _read_recipe(folder / RECIPE)
    if folder.exists() and (begun != wanted or (folder / "dataset.json").exists()):
        if begun is None and not force and any(folder.iterdir()):
            raise BusyError(f"{folder} is no dataset of metavqa; choose another --name, or replace it with --force")
        with explained(folder):
            aside = folder.with_name(f"{temporary_name()}-{folder.name}")
            folder.rename(aside)
    return aside


def _read_recipe(marker: Path) -> Any:
    """What a build that began here was to make; None when none began, or its record is damaged."""
    try:
        return json.loads(marker.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _build(session: Session, folder: Path, wanted: dict[str, Any]) -> Iterator[Event]:
    config = session.config.dataset
    workers = session.config.runtime.workers or os.cpu_count() or 1
    found, done = [], 0
    for drawn, facts in draw_images(folder / "images", config, workers):
        found += facts
        done += drawn
        yield ProgressMade("drawing images", done, config.images, "images")
    tasks = build_tasks(found, config)
    del found
    if not all(tasks.of(split) for split in ("train", "validation", "test")):
        raise JobError(f"{config.images} images are too few for these questions; raise dataset.images")
    dump_tasks(folder / "tasks.jsonl", tasks)
    yield Narrated(f"{len(tasks.tasks)} tasks from {config.images} images")
    yield from _embed(session, folder, tasks)
    summary = tasks.summary()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": folder.name,
        "recipe": wanted,
        "encoder": session.encoder.identity,
        "fingerprint": _fingerprint(folder, wanted, session.encoder.identity),
        "summary": summary,
    }
    write_json(folder / "dataset.json", manifest)
    yield DatasetBuilt(folder.name, str(folder), summary)


def _embed(session: Session, folder: Path, tasks: TaskSet) -> Iterator[Event]:
    """Write the features of every image and text of ``tasks``. Those that an interrupted build finished are kept."""
    encoder, dataset = session.encoder, DatasetFolder(folder)
    images, texts = tasks.image_ids(), tasks.texts()
    files = encoder.encode_files([dataset.image_path(image) for image in images], IMAGE_BATCH)
    yield from _embed_all(folder / "features" / "images.safetensors", "images", images, files, encoder)
    batches = (encoder.encode_text(texts[start : start + TEXT_BATCH]) for start in range(0, len(texts), TEXT_BATCH))
    yield from _embed_all(folder / "features" / "texts.safetensors", "texts", texts, batches, encoder)


def _embed_all(
    path: Path, unit: str, names: list[str], batches: Iterator[torch.Tensor], encoder: ClipEncoder
) -> Iterator[Event]:
    if path.is_file():
        store = FeatureStore.open(path)
        if store.header.get("encoder") == encoder.identity and store.ids == names:
            return
    rows: list[np.ndarray] = []
    done = 0
    for batch in batches:
        rows.append(batch.cpu().numpy())
        done += len(batch)
        yield ProgressMade(f"embedding {unit}", done, len(names), unit)
    write_features(path, names, np.concatenate(rows), {"encoder": encoder.identity})


def _fingerprint(folder: Path, wanted: dict[str, Any], encoder: dict[str, Any]) -> str:
    """Equal for datasets with the same tasks, images and encoder, whatever their names."""
    world = {key: value for key, value in wanted["dataset"].items() if key != "name"}
    digest = hashlib.sha256((folder / "tasks.jsonl").read_bytes())
    digest.update(json.dumps([world, encoder], sort_keys=True).encode())
    return digest.hexdigest()[:16]
