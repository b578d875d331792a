"""`metavqa dataset build`: draw or find the images, cut the tasks, embed everything with CLIP."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metavqa_cli.clip.encoder import TINY, TINY_FOLDER
from metavqa_cli.clip.tiny.package import package_hash
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.embedding import (
    WHOLE,
    broken_images,
    embedded_images,
    embedded_texts,
    missing_shards,
    remove_other_shards,
)
from metavqa_cli.engine.gather import gathered, image_ids, inputs_of, listed, without
from metavqa_cli.engine.indexing import open_tasks
from metavqa_cli.engine.manifest import SCHEMA_VERSION
from metavqa_cli.engine.session import Session, torch_explained
from metavqa_cli.engine.site import (
    ANNOTATIONS,
    FEATURES,
    MANIFEST,
    RECIPE,
    TASKS,
    Shard,
    Site,
    beside,
    finish_removals,
    held,
    leftovers,
    refuse_shards,
    shard_held,
)
from metavqa_cli.engine.verify import describe_files
from metavqa_cli.engine.world import here
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import BusyError, JobError, MissingError, UsageError
from metavqa_cli.schema.events import DatasetBuilt, Event, Narrated, Reused
from metavqa_cli.store.atomic import TEMPORARY, delete, explained, sweep
from metavqa_cli.store.container import blocks, digest
from metavqa_cli.store.features import rebuild
from metavqa_cli.store.sealed import NewerError, read_sealed, write_sealed
from metavqa_cli.tasks.sources.scenes.source import WORLD_VERSION
from metavqa_cli.tasks.taskset import dump_tasks

PLACES = ("name", "path", "image_roots", "question_files", "annotation_files")
READERS_VERSION = 1  # raise it with any change of what a reader of real data makes of its files
SHARD_PATIENCE = 24 * 3600.0  # seconds that one of several processes waits for another's moment with the whole


def build_dataset(session: Session, part: Shard = WHOLE) -> Iterator[Event]:
    """Build the configured dataset, or find it finished; yields progress and ends with ``DatasetBuilt`` or ``Reused``.

    An interrupted build goes on where it stopped. Of several processes with different ``part`` each embeds its share,
    and the last one finishes the dataset; those of one world divide it by themselves, and end together: with ``force``
    or ``tasks_only`` the first one builds it. ``BusyError`` when another dataset has the name (without ``force``), or
    another process builds it; ``UsageError`` for a part with ``force`` or ``tasks_only``.
    """
    world = here()
    undivided = session.force or session.config.dataset.tasks_only
    if world.size > 1:
        part = WHOLE if undivided else (world.rank + 1, world.size)
    meet = world.meeting(SHARD_PATIENCE)
    if part[1] > 1 and undivided:
        other = "--force" if session.force else "--tasks-only"
        raise UsageError(f"{other} is about a whole dataset, a shard about a part; leave one of them out "
                         "(`metavqa dataset rm` removes a dataset)")  # fmt: skip
    folder = session.workspace.dataset_dir(session.config.dataset.name)
    wanted = recipe(session.config)
    with torch_explained():
        if part == WHOLE and world.first:
            finish_removals(folder.parent)
            with held(folder, session.patience) as left:
                if left is not None:
                    yield Narrated(f"took over dataset {folder.name} from {left.name}, which was killed")
                refuse_shards(folder)
                site = _begun(session, folder, wanted)
                yield from _reused(folder) if site is None else _build(session, site, wanted)
        elif part != WHOLE:
            yield from _build_part(session, folder, wanted, part)
    meet()  # nobody goes on before the dataset is there


def _build_part(session: Session, folder: Path, wanted: dict[str, Any], part: Shard) -> Iterator[Event]:
    with held(folder, SHARD_PATIENCE):
        site = _begun(session, folder, wanted)
        if site is None:
            yield from _reused(folder)
            return
        yield from gathered(session, site.work)
    with shard_held(folder, part):
        images = image_ids(site.work)
        yield from embedded_images(session, site.work, images, part)
    with held(folder, SHARD_PATIENCE):
        if _is_finished(folder, wanted, session):
            yield from _reused(folder)
            return
        if not _same(_read_recipe(site.work / RECIPE), wanted):
            raise BusyError(
                f"dataset {folder.name} was begun anew in another configuration while shard {part[0]}/{part[1]} of it "
                "was made; run one of the two commands for all shards"
            )
        if missing := missing_shards(session, site.work, images):
            yield Narrated(
                f"shard {part[0]}/{part[1]} is done; {len(missing)} files of features are still missing "
                f"(the first: {missing[0]}): the process that makes the last one finishes the dataset"
            )
        else:
            yield from _finished(session, site, wanted)


def _reused(folder: Path) -> Iterator[Event]:
    yield Reused("dataset", folder.name)


def recipe(config: Config) -> dict[str, Any]:
    """Everything that a dataset's content depends on: what is configured, the files it is read from, and this
    version's world, readers and tiny CLIP."""
    drawn = config.dataset.source == "scenes"
    return {
        "dataset": config.dataset.recipe(),
        "clip": config.clip.model_dump(mode="json"),
        "world": WORLD_VERSION if drawn else None,
        "weights": package_hash(TINY_FOLDER) if config.clip.model == TINY else None,
        **(
            {}
            if drawn
            else {"readers": READERS_VERSION, "inputs": [_input(path) for path in inputs_of(config.dataset)]}
        ),
    }


def _input(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file. ``MissingError`` when it cannot be read."""
    try:
        return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest(path)}
    except OSError as error:
        raise MissingError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from None


def _begun(session: Session, folder: Path, wanted: dict[str, Any]) -> Site | None:
    """Where to build, with the recipe laid down; None when the dataset is finished.

    What this build can use of an unfinished one is kept. ``BusyError`` (without ``force``) for another dataset, and for
    a folder that no build made: its files may be somebody's only ones.
    """
    replacement = beside(folder)
    for own in (folder, folder / FEATURES):
        sweep(own)
    if not folder.exists() and (replacement / MANIFEST).is_file():  # killed while it was put in its place
        Site(folder, replacement).settle()
    if (folder / MANIFEST).is_file():
        for found in list(leftovers(folder)):  # killed after that
            delete(found)
    if _is_finished(folder, wanted, session):
        return None
    if not session.config.dataset.tasks_only:
        _ = session.encoder  # a model that cannot be had should be known before an hour of work, not after
    taken = folder.exists() and any(not found.name.startswith(TEMPORARY) for found in folder.iterdir())
    begun = (folder / RECIPE).is_file()
    if taken and not begun and not session.force:
        raise BusyError(f"{folder} is no dataset of metavqa; choose another --name, or replace it with --force")
    replaces = taken and (not begun or (session.force and (folder / MANIFEST).is_file()))
    site = Site(folder, replacement if replaces else folder)
    begun_with = _read_recipe(site.work / RECIPE, session.force)
    if not _same(begun_with, wanted):  # another shard would go on with what is removed here
        refuse_shards(folder)
    with explained(folder):
        if not _same(begun_with, wanted, tasks_only=True):
            shutil.rmtree(site.work, ignore_errors=True)
        write_sealed(site.work / RECIPE, {**wanted, "schema_version": SCHEMA_VERSION})
    return site


def _is_finished(folder: Path, wanted: dict[str, Any], session: Session) -> bool:
    """Whether the dataset is there. ``BusyError`` when another one has its name (without ``force``)."""
    if session.force or not (folder / MANIFEST).is_file():
        return False
    manifest, tasks_only = DatasetFolder(folder).manifest, session.config.dataset.tasks_only
    if _same(manifest["recipe"], wanted, tasks_only or manifest["encoder"] is None):
        return tasks_only or manifest["encoder"] is not None
    raise BusyError(
        f"a dataset {folder.name!r} with another configuration, from other files, or made by another version of "
        f"metavqa, exists in {folder.parent}; choose another --name, or {rebuild(folder.name)}"
    )


def _same(found: Any, wanted: dict[str, Any], tasks_only: bool = False) -> bool:
    ignored = {"clip", "weights"} if tasks_only else set()
    return isinstance(found, dict) and all(found.get(key) == wanted.get(key) for key in {*found, *wanted} - ignored)


def _read_recipe(marker: Path, force: bool = False) -> Any:
    """What a build that began here was to make; None when none began, or its record is damaged. ``NewerError`` (without
    ``force``) for one of a later version: its hours of work are not thrown away."""
    try:
        recipe = read_sealed(marker, SCHEMA_VERSION, "")
    except NewerError:
        if force:
            return None
        raise
    except (FileNotFoundError, JobError):
        return None
    return {name: value for name, value in recipe.items() if name not in ("schema_version", "written_by")}


def _build(session: Session, site: Site, wanted: dict[str, Any]) -> Iterator[Event]:
    yield from gathered(session, site.work)
    if not session.config.dataset.tasks_only:
        yield from embedded_images(session, site.work, image_ids(site.work))
    yield from _finished(session, site, wanted)


def _finished(session: Session, site: Site, wanted: dict[str, Any]) -> Iterator[Event]:
    """Leave out what cannot be used, embed the texts, and write the manifest: from here on it is a dataset."""
    work, tasks_only = site.work, session.config.dataset.tasks_only
    tasks, images = DatasetFolder(work).tasks, [] if tasks_only else image_ids(work)
    broken = () if tasks_only else broken_images(work, images)
    if broken:
        yield from listed(broken, len(broken))
        if not session.config.dataset.skip_broken:
            raise MissingError(f"{len(broken):,} images cannot be used (the first: {broken[0][0]}, {broken[0][1]}); "
                               "replace them, or leave their pairs out with --skip-broken")  # fmt: skip
    if not tasks_only:
        lost = {*tasks.image_ids()} - ({*images} - {image for image, _ in broken})
        tasks, dropped = without(tasks, lost)
        if lost:
            yield Narrated(
                f"left out {len(lost):,} images, and {len(dropped):,} questions of which too little was left"
            )
        _check_splits(tasks.summary())
        yield from embedded_texts(session, work, tasks)
        remove_other_shards(work, images)
        if lost:  # last, because an interrupted build may be gone on with when its images are there
            dump_tasks(work / TASKS, tasks)
    if not tasks_only:
        open_tasks(work)  # makes their index
    summary, identity = tasks.summary(), None if tasks_only else session.encoder.identity
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": site.folder.name,
        "recipe": wanted,
        "encoder": identity,
        "fingerprint": _fingerprint(work, wanted, identity),
        "summary": summary,
        "files": describe_files(work),
    }
    write_sealed(work / MANIFEST, manifest)
    site.settle()
    yield DatasetBuilt(site.folder.name, str(site.folder), summary)


def _check_splits(summary: dict[str, Any]) -> None:
    empty = [split for split in ("train", "validation", "test") if not summary[split]]
    if empty:
        raise JobError(
            f"{summary['tasks']} tasks leave none for {' and '.join(empty)}, expected some for training, "
            "validation and test; give more questions or images, or take smaller tasks (--min-pairs)"
        )


def _fingerprint(work: Path, wanted: dict[str, Any], encoder: dict[str, Any] | None) -> str:
    """Equal for datasets with the same tasks, images and encoder, whatever their names and places."""
    world = {key: value for key, value in wanted["dataset"].items() if key not in PLACES}
    found = hashlib.sha256()
    for path in (work / TASKS, work / ANNOTATIONS):  # on which soft accuracy depends
        for block in blocks(path, 0, path.stat().st_size) if path.is_file() else ():
            found.update(block)
    found.update(json.dumps([world, encoder], sort_keys=True).encode())
    if wanted["dataset"]["source"] == "folder" and encoder is not None:  # names of files do not tell what is in them
        found.update("".join(shard.header["sha256"] for shard in DatasetFolder(work).image_features.shards).encode())
    return found.hexdigest()[:16]
