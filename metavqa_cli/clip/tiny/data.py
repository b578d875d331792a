"""Endless image-caption pairs of the Scenes world for training the tiny CLIP, drawn on the fly."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from metavqa_cli.tasks.sources.scenes.captions import caption
from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.scene import sample_scene

TRAIN_STREAM, TEST_STREAM = "encoder-train", "encoder-test"  # a dataset's scenes come from the stream "dataset"
MEAN = STD = 0.5


class PairBatches(Dataset[tuple[torch.Tensor, list[str]]]):
    """Batch number ``i`` as (pixels uint8 [batch, size, size, 3], captions); a pure function of seed, stream and i.

    Test captions are plain ones unless ``plain`` says otherwise: a list of attributes names no scene among many.
    """

    def __init__(
        self,
        steps: int,
        batch: int,
        size: int,
        seed: int,
        stream: str = TRAIN_STREAM,
        first: int = 0,
        plain: bool | None = None,
    ) -> None:
        self.steps, self.batch, self.size, self.seed, self.stream, self.first = steps, batch, size, seed, stream, first
        self.plain = stream == TEST_STREAM if plain is None else plain

    def __len__(self) -> int:
        return max(0, self.steps - self.first)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, list[str]]:
        start = (self.first + i) * self.batch
        scenes = [sample_scene(self.seed, start + k, self.stream) for k in range(self.batch)]
        pixels = np.stack([np.asarray(draw(scene, self.size)) for scene in scenes])
        rngs = (random.Random(f"caption/{self.stream}/{self.seed}/{start + k}") for k in range(self.batch))
        return torch.from_numpy(pixels), [caption(s, rng, self.plain) for s, rng in zip(scenes, rngs, strict=True)]


def vocabulary(tokenizer: Callable[[list[str]], torch.Tensor], captions: int = 30_000) -> torch.Tensor:
    """Sorted ids of the tokens that captions use. Training only their rows saves a quarter of the time of a step."""
    rng = random.Random("vocabulary")
    texts = [caption(sample_scene(0, i, "vocabulary"), rng) for i in range(captions)]
    return tokenizer(texts).unique()


def loader(batches: PairBatches, workers: int) -> "DataLoader[tuple[torch.Tensor, list[str]]]":
    """The batches in order, drawn ahead by worker processes."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [batch, height, width, 3] to the float [batch, 3, height, width] that the image tower takes."""
    return (pixels.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
