"""The Scenes world as a dataset: image files on disk, and the tasks that ask about them.

Everything is a pure function of the seed: images are drawn by worker processes, a folder of a thousand at a time, and
questions are cut into tasks by ``tasks.protocol``, so neither the number of workers nor an interruption changes a byte.
"""

import multiprocessing
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError
from metavqa_cli.store.atomic import TEMPORARY, explained, sync_everything, sync_folder, temporary_name
from metavqa_cli.store.workers import follow_parent
from metavqa_cli.tasks.protocol import Groups, Protocol, cut_splits
from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.questions import Concept, Question, all_questions, facts
from metavqa_cli.tasks.sources.scenes.scene import sample_scene
from metavqa_cli.tasks.taskset import Novelty, Task, TaskSet

WORLD_VERSION = 3  # raise it with any change of scenes, pictures, questions or facts
FOLDER_SIZE = 1000
POOL = 8  # images kept for each concept, as a multiple of the pairs that a task aims at
Facts = list[tuple[str, Concept, str]]  # image id, what, answer


class Chunk(NamedTuple):
    """Images ``first`` to ``last`` (exclusive) of a world, for one worker."""

    folder: Path
    seed: int
    first: int
    last: int
    size: int


def image_id(index: int) -> str:
    """ "003/003123": the path under ``images/`` without its suffix."""
    return f"{index // FOLDER_SIZE:03d}/{index:06d}"


def draw_images(folder: Path, config: Dataset, workers: int) -> Iterator[tuple[int, Facts]]:
    """Write all images under ``folder``; yield for each finished chunk, in order, how many images and their facts.

    ``JobError`` when the disk refuses or a worker dies. After an interrupt only the chunks at work are finished.
    """
    sweep(folder)
    chunks = [
        Chunk(folder, config.seed, first, min(first + FOLDER_SIZE, config.images), config.image_size)
        for first in range(0, config.images, FOLDER_SIZE)
    ]
    if workers <= 1 or len(chunks) == 1:
        for chunk in chunks:
            yield chunk.last - chunk.first, draw_chunk(chunk)
        return
    try:
        with ProcessPoolExecutor(
            min(workers, len(chunks)), multiprocessing.get_context("spawn"), follow_parent
        ) as pool:
            for chunk, found in zip(chunks, pool.map(draw_chunk, chunks), strict=True):
                yield chunk.last - chunk.first, found
    except BrokenProcessPool:
        raise JobError(
            "a process that drew images was killed, perhaps for its memory; run the same command again, "
            "it goes on where it stopped (--set runtime.workers=1 needs the least memory)"
        ) from None


def draw_chunk(chunk: Chunk) -> Facts:
    """Draw one folder of images, unless it is there, and list what is true of them. The folder appears all at once."""
    target = (chunk.folder / image_id(chunk.first)).parent
    draft = chunk.folder / temporary_name()
    missing = not target.is_dir()
    with explained(chunk.folder):
        if missing:
            draft.mkdir(parents=True)
        found: Facts = []
        for index in range(chunk.first, chunk.last):
            scene, name = sample_scene(chunk.seed, index), image_id(index)
            if missing:
                draw(scene, chunk.size).save(draft / f"{Path(name).name}.png", compress_level=1)
            found += [(name, concept, answer) for concept, answer in facts(scene)]
        if missing:
            sync_everything()  # else a power cut could leave a folder of empty images, which looks finished
            draft.rename(target)
            sync_folder(chunk.folder)
    return found


def sweep(folder: Path) -> None:
    """Remove the drafts that a killed build left in ``folder``; nobody else may be drawing there."""
    for draft in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(draft, ignore_errors=True)


def build_tasks(found: Facts, config: Dataset) -> TaskSet:
    """Cut the world's questions into tasks with their splits and, for test tasks, what is new in them."""
    questions = {question.text: question for question in all_questions(config.seed)}
    protocol = Protocol(
        min_pairs=config.smallest, min_answers=config.min_answers, support_fraction=config.support_fraction,
        train_fraction=config.train_fraction, seed=config.seed, disjoint_images=True,
        target_pairs=config.pairs_per_task,
    )  # fmt: skip
    held_out = {text for text, question in questions.items() if question.held_out}
    cut_by_split = cut_splits(_groups(found, questions, config), protocol, config.validation_fraction, held_out)
    asked = {questions[cut.question].concept for cut in cut_by_split["train"]}
    tasks = []
    for split, cut in ((split, cut) for split, those in cut_by_split.items() for cut in those):
        question, label = questions[cut.question], {answer: i for i, answer in enumerate(cut.answers)}
        tasks.append(Task(
            question=cut.question,
            template=question.template,
            answers=cut.answers,
            support=tuple((image, label[answer]) for image, answer in cut.support),
            query=tuple((image, label[answer]) for image, answer in cut.query),
            split=split,
            family=question.concept.family,
            novelty=novelty(question.concept, asked) if split == "test" else None,
        ))  # fmt: skip
    return TaskSet(tuple(tasks))


def _groups(found: Facts, questions: dict[str, Question], config: Dataset) -> Groups:
    """Question -> (image, answer) pairs. The wordings of a concept share one random pool of images."""
    by_concept: dict[Concept, list[tuple[str, str]]] = {question.concept: [] for question in questions.values()}
    for image, concept, answer in found:
        for asked in {concept, concept._replace(number="any")}:
            if asked in by_concept:
                by_concept[asked].append((image, answer))
    for concept, pairs in by_concept.items():
        if len(pairs) > (size := POOL * config.pairs_per_task):
            rng = random.Random(f"pool/{config.seed}/{concept}")
            by_concept[concept] = [pairs[i] for i in sorted(rng.sample(range(len(pairs)), size))]
    texts = list(questions)
    if 0 < config.questions < len(texts):  # an even thinning keeps every family
        texts = [texts[i * len(texts) // config.questions] for i in range(config.questions)]
    return {text: by_concept[questions[text].concept] for text in texts}


def novelty(concept: Concept, asked: set[Concept]) -> Novelty:
    """What is new in a test question, given the concepts that training questions ask about."""
    known = {other._replace(number="any") for other in asked}
    if concept._replace(number="any") in known:
        return "wording"
    return "combination" if concept.family in {other.family for other in asked} else "family"
