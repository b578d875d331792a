"""A Scenes dataset on disk: the same bytes whatever the workers and interruptions, and tasks that keep their word."""

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError
from metavqa_cli.tasks.sources.scenes import source
from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.questions import Concept, all_questions, facts
from metavqa_cli.tasks.sources.scenes.scene import sample_scene
from metavqa_cli.tasks.sources.scenes.source import (
    Chunk,
    Facts,
    build_tasks,
    draw_chunk,
    draw_images,
    image_id,
    novelty,
)
from metavqa_cli.tasks.taskset import Task, TaskSet


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_write_the_same_bytes_and_facts(world: tuple[Path, Facts], config: Dataset, tmp_path: Path) -> None:
    """The workers are spawned, so they also have another hash seed."""
    steps = list(draw_images(tmp_path, config, 2))
    assert [drawn for drawn, _ in steps] == [1000, 40]
    assert [fact for _, found in steps for fact in found] == world[1]
    assert contents(tmp_path) == contents(world[0])


def test_a_file_is_the_picture_of_its_scene(world: tuple[Path, Facts], config: Dataset) -> None:
    for index in (0, 7, 999, 1000, 1039):
        with Image.open(world[0] / f"{image_id(index)}.png") as image:
            assert np.array_equal(np.asarray(image), np.asarray(draw(sample_scene(config.seed, index), 32)))
    assert image_id(1039) == "001/001039"
    assert len(contents(world[0])) == config.images


def test_facts_come_in_the_order_of_images(world: tuple[Path, Facts], config: Dataset) -> None:
    images = list(dict.fromkeys(image for image, _, _ in world[1]))
    assert images == [image_id(index) for index in range(config.images)]
    for index in (0, 1039):
        told = [(concept, answer) for image, concept, answer in world[1] if image == image_id(index)]
        assert told == list(facts(sample_scene(config.seed, index)))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Fifty-five images in three folders."""
    monkeypatch.setattr(source, "FOLDER_SIZE", 20)
    return Dataset(images=55, image_size=32, seed=4)


def test_an_interrupted_drawing_goes_on(small: Dataset, tmp_path: Path) -> None:
    list(draw_images(tmp_path / "whole", small, 1))
    broken = tmp_path / "broken"
    drawing = draw_images(broken, small, 1)
    next(drawing)
    drawing.close()
    assert sorted(path.name for path in broken.iterdir()) == ["000"]
    (broken / ".tmp-001").mkdir()  # what a killed process leaves
    (broken / ".tmp-001" / "000020.png").write_bytes(b"half")
    before = (broken / "000" / "000003.png").stat().st_mtime_ns
    found = [fact for _, facts_ in draw_images(broken, small, 1) for fact in facts_]
    assert contents(broken) == contents(tmp_path / "whole")
    assert (broken / "000" / "000003.png").stat().st_mtime_ns == before  # not drawn again
    assert {image for image, _, _ in found} == {image_id(index) for index in range(55)}


def test_a_lost_folder_is_drawn_again(small: Dataset, tmp_path: Path) -> None:
    list(draw_images(tmp_path / "whole", small, 1))
    list(draw_images(tmp_path / "lost", small, 1))
    for path in (tmp_path / "lost" / "001").iterdir():
        path.unlink()
    (tmp_path / "lost" / "001").rmdir()
    list(draw_images(tmp_path / "lost", small, 1))
    assert contents(tmp_path / "lost") == contents(tmp_path / "whole")


def test_an_interrupt_cancels_what_waits(small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C must not first draw the rest of the world."""
    drawn: list[int] = []
    go_on = threading.Event()

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, _context: Any, _initializer: Any) -> None:
            super().__init__(workers)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            go_on.set()
            super().shutdown(wait=True)

    def slow(chunk: Chunk) -> Facts:
        drawn.append(chunk.first)
        if chunk.first:
            go_on.wait(60)
        return []

    monkeypatch.setattr(source, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(source, "draw_chunk", slow)
    drawing = draw_images(tmp_path, small.model_copy(update={"images": 400}), 2)
    next(drawing)
    drawing.close()
    assert set(drawn) <= {0, 20, 40}


def test_a_killed_worker_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "follow_parent", partial(os._exit, 1))
    with pytest.raises(JobError, match=r"killed.*same command again"):
        list(draw_images(tmp_path, Dataset(images=1001, image_size=32), 2))


DRAW = """
import sys
from pathlib import Path
from metavqa_cli.schema.config import Dataset
from metavqa_cli.tasks.sources.scenes.source import draw_images

if __name__ == "__main__":
    for drawn, _ in draw_images(Path(sys.argv[1]), Dataset(images=100_000, image_size=32), 2):
        print(drawn, flush=True)
"""


def test_no_worker_outlives_a_killed_build(tmp_path: Path) -> None:
    (tmp_path / "draw.py").write_text(DRAW)
    command = [sys.executable, str(tmp_path / "draw.py"), str(tmp_path / "images")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as build:
        assert build.stdout is not None
        assert build.stdout.readline().strip() == b"1000"
        build.kill()
        build.communicate(timeout=60)  # the pipe ends when the last process that holds it does


@pytest.mark.parametrize("named", [True, False], ids=["while opening", "while writing"])
def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    def save(_self: Image.Image, path: Path, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(path)] if named else []))

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(JobError, match=f"cannot write {tmp_path}.*the disk is full"):
        draw_chunk(Chunk(tmp_path, 0, 0, 3, 32))
    monkeypatch.undo()
    draw_chunk(Chunk(tmp_path, 0, 0, 3, 32))
    assert sorted(contents(tmp_path)) == ["000/000000.png", "000/000001.png", "000/000002.png"]


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(JobError, match=f"cannot write {tmp_path / 'images'}"):
        draw_chunk(Chunk(tmp_path / "images", 0, 0, 1, 32))


# --- tasks ---


def images_of(tasks: list[Task]) -> set[str]:
    return {image for task in tasks for image, _ in (*task.support, *task.query)}


def test_test_tasks_have_images_of_their_own(tasks: TaskSet) -> None:
    train, validation, test = (tasks.of(split) for split in ("train", "validation", "test"))
    assert min(len(train), len(validation), len(test)) >= 10
    assert images_of([*train, *validation]).isdisjoint(images_of(test))
    assert images_of(train).isdisjoint(images_of(validation))
    assert tasks.summary()["images_shared_by_train_and_test"] == 0


def test_labels_are_the_answers_that_facts_give(world: tuple[Path, Facts], tasks: TaskSet, config: Dataset) -> None:
    questions = {question.text: question for question in all_questions(config.seed)}
    truth = {(image, *concept): answer for image, concept, answer in world[1]}
    for task in tasks.tasks:
        family, argument, number = questions[task.question].concept
        numbers = ("one", "many", "any") if number == "any" else (number,)
        assert task.template == questions[task.question].template
        assert task.family == family
        for image, label in (*task.support, *task.query):
            told = [truth[key] for n in numbers if (key := (image, family, argument, n)) in truth]
            assert told == [task.answers[label]], (task.question, image)


def test_tasks_keep_the_protocol(tasks: TaskSet, config: Dataset) -> None:
    assert len({task.question for task in tasks.tasks}) == len(tasks.tasks)
    for task in tasks.tasks:
        pairs = (*task.support, *task.query)
        assert len({image for image, _ in pairs}) == len(pairs) >= config.min_pairs
        sizes = Counter(label for _, label in pairs)
        assert sorted(sizes) == list(range(len(task.answers))) and len(sizes) >= 2 and min(sizes.values()) >= 2
        assert Counter(label for _, label in task.support) == {k: round(0.7 * n) for k, n in sizes.items()}
        assert len(pairs) <= 1.5 * config.pairs_per_task


def test_splits_have_the_configured_shares(tasks: TaskSet, config: Dataset) -> None:
    train, validation = len(tasks.of("train")), len(tasks.of("validation"))
    share = validation / (train + validation)  # less in a small world: on their own, fewer images some are too small
    assert 0.5 * config.validation_fraction < share < config.validation_fraction + 0.01
    assert 0.6 < (train + validation) / len(tasks.tasks) < 0.9


def test_novelty_is_what_training_never_asked(tasks: TaskSet, config: Dataset) -> None:
    questions = {question.text: question for question in all_questions(config.seed)}

    def meaning(task: Task) -> tuple[str, str]:
        return questions[task.question].concept[:2]

    train = tasks.of("train")
    meanings = {meaning(task) for task in train}
    families = {task.family for task in train}
    for task in tasks.of("test"):
        known = meaning(task) in meanings, task.family in families
        assert task.novelty == {(True, True): "wording", (False, True): "combination"}.get(known, "family")
        assert task.question not in {other.question for other in train}
    assert {task.novelty for task in tasks.of("test")} == {"wording", "combination", "family"}
    assert {task.novelty for task in (*train, *tasks.of("validation"))} == {None}


def test_novelty_of_a_concept() -> None:
    asked = {Concept("color_kind", "car", "one"), Concept("size_kind", "dog", "many")}
    assert novelty(Concept("color_kind", "car", "many"), asked) == "wording"
    assert novelty(Concept("color_kind", "dog", "one"), asked) == "combination"
    assert novelty(Concept("place", ""), asked) == "family"


def test_held_out_questions_are_test_questions(tasks: TaskSet, config: Dataset) -> None:
    held = {question.text for question in all_questions(config.seed) if question.held_out}
    assert held & {task.question for task in tasks.tasks}
    assert all(task.split == "test" for task in tasks.tasks if task.question in held)


def test_tasks_are_a_function_of_facts_and_seed(world: tuple[Path, Facts], config: Dataset) -> None:
    few = config.model_copy(update={"questions": 200})
    tasks = build_tasks(world[1], few)
    assert build_tasks(world[1], few) == tasks
    other = build_tasks(world[1], few.model_copy(update={"seed": 1}))
    assert {t.question for t in other.of("test")} != {t.question for t in tasks.of("test")}


def test_fewer_questions_keep_every_family(world: tuple[Path, Facts], config: Dataset, tasks: TaskSet) -> None:
    fewer = build_tasks(world[1], config.model_copy(update={"questions": 400}))
    assert 100 < len(fewer.tasks) <= 400 < len(tasks.tasks)
    assert len({task.family for task in fewer.tasks}) >= 20
