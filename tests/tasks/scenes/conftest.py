"""One small Scenes world, drawn once for all tests of this room."""

from pathlib import Path

import pytest

from metavqa_cli.schema.config import Dataset
from metavqa_cli.tasks.sources.scenes.source import Facts, build_tasks, draw_images
from metavqa_cli.tasks.taskset import TaskSet


@pytest.fixture(scope="session")
def config() -> Dataset:
    """Just over one folder of images, so that two workers have something each."""
    return Dataset(images=1040, image_size=32, pairs_per_task=16, min_pairs=9)


@pytest.fixture(scope="session")
def world(config: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    """Its image folder and facts, drawn by one process."""
    folder = tmp_path_factory.mktemp("world") / "images"
    return folder, [fact for _, found in draw_images(folder, config, 1) for fact in found]


@pytest.fixture(scope="session")
def tasks(world: tuple[Path, Facts], config: Dataset) -> TaskSet:
    return build_tasks(world[1], config)
