"""The first half of a build: from a source to tasks, the places of their images, and what annotators said."""

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from metavqa_cli.engine.background import watched
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.site import ANNOTATIONS, IMAGES, INDEX, TASKS
from metavqa_cli.schema.config import Dataset, SourceName
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store.images import read_index, write_index
from metavqa_cli.tasks.annotations import dump_annotations
from metavqa_cli.tasks.sources import folder as folder_source
from metavqa_cli.tasks.sources import hyperclip_release, vqa2
from metavqa_cli.tasks.sources.material import Material
from metavqa_cli.tasks.sources.scenes.source import build_tasks, draw_images
from metavqa_cli.tasks.taskset import Example, Task, TaskSet, dump_tasks

READERS: dict[SourceName, Any] = {"vqa2": vqa2, "hyperclip": hyperclip_release, "folder": folder_source}
SHOWN = 20  # names that a message lists


def inputs_of(config: Dataset) -> list[Path]:
    """The files whose bytes decide the tasks; none for the built-in world. ``MissingError`` for one that is absent."""
    return [] if config.source == "scenes" else list(READERS[config.source].inputs(config))


def gathered(session: Session, work: Path) -> Iterator[Event]:
    """Write ``tasks.jsonl`` and what goes with it into ``work``, unless an interrupted build did (without ``force``).

    ``MissingError`` listing the images that are not there (without ``skip_broken``).
    """
    config = session.config.dataset
    if config.source == "scenes":
        yield from _drawn(session, work)
        return
    if session.force or not _is_gathered(work, config.tasks_only):
        material = yield from watched(partial(READERS[config.source].read, config), "records")
        yield from _written(material, config, work)


def _is_gathered(work: Path, tasks_only: bool) -> bool:
    """Whether an interrupted build read the source, found every image, and left none out: an image that was not there
    may be by now, and the same command is not bound to leave it out again."""
    if not (work / TASKS).is_file() or not (tasks_only or (work / INDEX).is_file()):
        return False
    try:
        images = {*DatasetFolder(work).tasks.image_ids()}
        return tasks_only or images == {*read_index(work / INDEX)}
    except JobError:  # damaged
        return False


def _drawn(session: Session, work: Path) -> Iterator[Event]:
    config = session.config.dataset
    workers = session.config.runtime.workers or os.cpu_count() or 1
    found, done = [], 0
    for drawn, facts in draw_images(work / IMAGES, config, workers):
        found += facts
        done += drawn
        yield ProgressMade("drawing images", done, config.images, "images")
    tasks = build_tasks(found, config)
    if not all(tasks.of(split) for split in ("train", "validation", "test")):
        raise JobError(f"{config.images} images are too few for these questions; raise dataset.images")
    dump_tasks(work / TASKS, tasks)
    yield Narrated(f"{len(tasks.tasks)} tasks from {config.images} images")


def _written(material: Material, config: Dataset, work: Path) -> Iterator[Event]:
    """Keep what a reader found. The tasks come last: where they are, the rest is."""
    for note in material.notes:
        yield Narrated(note)
    if material.missing:
        yield from listed(((image, "not found") for image in material.missing), len(material.missing))
        if not (config.skip_broken and material.images):
            own = config.source == "folder"
            fetch = "copy them there" if own else "fetch them with `metavqa dataset download vqa2`"
            raise MissingError(
                f"{len(material.missing):,} of {len(material.missing) + len(material.images):,} images are not there "
                f"(the first: {material.missing[0]}); {fetch}, or name their place with --image-root"
                + (", or leave their pairs out with --skip-broken" if material.images else "")
            )
    if material.annotations is not None:
        dump_annotations(work / ANNOTATIONS, material.annotations)
    if not config.tasks_only:
        write_index(work / INDEX, material.images)
    dump_tasks(work / TASKS, material.tasks)
    yield Narrated(f"{len(material.tasks.tasks):,} tasks")


def listed(images: Any, count: int) -> Iterator[Event]:
    """Name images that cannot be used, with the reason; the first of many."""
    for number, (image, reason) in enumerate(images):
        if number == SHOWN:
            yield Narrated(f"… and {count - SHOWN:,} more")
            return
        yield Narrated(f"{image}: {reason}")


def image_ids(work: Path) -> list[str]:
    """The images to embed, sorted: those that were found, whatever becomes of their pairs."""
    if (work / INDEX).is_file():
        return sorted(read_index(work / INDEX))
    return DatasetFolder(work).tasks.image_ids()


def without(tasks: TaskSet, lost: Collection[str]) -> tuple[TaskSet, list[str]]:
    """``tasks`` without the pairs of ``lost`` images, and the questions of which too little is left to keep them."""
    if not lost:
        return tasks, []
    kept = {task.question: _without(task, lost) for task in tasks.tasks}
    dropped = [question for question, task in kept.items() if task is None]
    return TaskSet(tuple(task for task in kept.values() if task is not None)), dropped


def _without(task: Task, lost: Collection[str]) -> Task | None:
    support, query = (tuple(pair for pair in pairs if pair[0] not in lost) for pairs in (task.support, task.query))
    if support == task.support and query == task.query:
        return task
    used = sorted({label for _, label in (*support, *query)})
    if not support or not query or len(used) < 2:
        return None
    label = {old: new for new, old in enumerate(used)}

    def renumbered(pairs: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple((image, label[old]) for image, old in pairs)

    answers = tuple(task.answers[old] for old in used)
    return replace(task, answers=answers, support=renumbered(support), query=renumbered(query))
