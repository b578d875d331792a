"""Tasks of the real shape, and of the tiny preset's, with random unit vectors as features; nothing touches the disk."""

import random
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.nn.functional import normalize

from metavqa_cli.schema.config import Dataset
from metavqa_cli.tasks.arena import Arena, Embeddings, make_arena
from metavqa_cli.tasks.sources import hyperclip_release
from metavqa_cli.tasks.taskset import Split, Task
from tests.bench.stand_in import RELEASE

REAL_SIZES = 9.14, 57.86, 25.90  # answers, support and query pairs of a task of Meta-VQA
TINY_SIZES = 5.97, 59.0, 25.0  # and of the tiny preset


def real_arenas(embed: int = 768, device: torch.device | str = "cpu") -> dict[Split, Arena]:
    """The released 870 training and 373 test tasks; where their files are not at hand, made ones of like sizes."""
    if RELEASE.is_dir():
        config = Dataset(source="hyperclip", path=str(RELEASE), tasks_only=True)
        released = hyperclip_release.read(config).tasks.tasks
        tasks = tuple(task if task.split == "test" else replace(task, split="train") for task in released)
    else:
        tasks = (*made_tasks(870, "train", REAL_SIZES), *made_tasks(373, "test", REAL_SIZES))
    return arenas(tasks, embed, device)


def tiny_arenas(embed: int = 128, device: torch.device | str = "cpu") -> dict[Split, Arena]:
    """As many tasks, of the sizes of the built-in world."""
    tasks = (*made_tasks(870, "train", TINY_SIZES), *made_tasks(373, "test", TINY_SIZES))
    return arenas(tasks, embed, device)


def made_tasks(n: int, split: Split, sizes: tuple[float, float, float]) -> list[Task]:
    """``n`` tasks whose answers, support and query pairs spread log-normally around ``sizes``."""
    rng, tasks = random.Random(f"{n}/{split}"), []
    for i in range(n):
        answers, support, query = (max(2, round(size * rng.lognormvariate(-0.3, 0.7))) for size in sizes)
        pairs = [(f"{split}-{i}-{k}", k % answers) for k in range(support + query)]
        names = tuple(f"answer {k}" for k in range(answers))
        tasks.append(Task(f"{split} {i}?", "it is {}", names, tuple(pairs[:support]), tuple(pairs[support:]), split))
    return tasks


def arenas(tasks: Iterable[Task], embed: int, device: torch.device | str) -> dict[Split, Arena]:
    """The tasks of both splits as tensors over the same features."""
    tasks = list(tasks)
    images = dict.fromkeys(image for task in tasks for image, _ in (*task.support, *task.query))
    texts = dict.fromkeys(text for task in tasks for text in (task.question, *task.statements))
    image_features, text_features = (
        _features(names, embed, device, seed) for seed, names in enumerate((images, texts))
    )
    splits: tuple[Split, ...] = ("train", "test")
    return {
        split: make_arena([t for t in tasks if t.split == split], image_features, text_features) for split in splits
    }


def _features(names: Iterable[str], embed: int, device: torch.device | str, seed: int) -> Embeddings:
    rows = {name: row for row, name in enumerate(names)}
    matrix = torch.randn(len(rows), embed, generator=torch.Generator().manual_seed(seed))
    return Embeddings(rows, normalize(matrix, dim=1).to(device))
