"""Datasets of any size in seconds: random tasks, random unit vectors as features, written array by array.

Task i asks "Is it number i?"; 80 % of the tasks are for training, 10 % for validation, 10 % for test.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metavqa_cli.engine.indexing import stamp, write_index
from metavqa_cli.engine.manifest import SCHEMA_VERSION
from metavqa_cli.store.features import write_features
from metavqa_cli.store.sealed import write_sealed
from metavqa_cli.store.shards import SHARD, shard_names, slices, write_shard
from metavqa_cli.tasks.index import SPLITS
from metavqa_cli.tasks.taskset import Split

WORDS = 1000  # that answers are drawn from
AT_ONCE = 20_000  # tasks whose lines are made together


@dataclass(frozen=True)
class Size:
    """How large a synthetic dataset is."""

    tasks: int
    images: int = 1000
    embed: int = 64
    pairs: int = 60
    answers: int = 9

    @property
    def counts(self) -> dict[Split, int]:
        tenth = max(1, self.tasks // 10)
        return {"train": self.tasks - 2 * tenth, "validation": tenth, "test": tenth}

    @property
    def support(self) -> int:
        return round(0.7 * self.pairs)


def make_synthetic(folder: Path, size: Size, *, index: bool = True) -> None:
    """Write a dataset of ``size`` into ``folder``; without ``index``, it is left to the first opening."""
    identity = {"model": "synthetic", "embed": size.embed, "dtype": "float32"}
    rng, ids = np.random.default_rng(0), [f"{i:07d}" for i in range(size.images)]
    features = folder / "features"
    features.mkdir(parents=True)
    for k, (name, those) in enumerate(zip(shard_names("images", len(ids)), slices(ids), strict=True)):
        rows = _unit(rng, len(those), size.embed)
        write_shard(features / name, those, rows, encoder=identity, first=k * SHARD, total=len(ids))
    texts = [f"Is it number {i:07d}?" for i in range(size.tasks)] + [f"it is {i:03d}" for i in range(WORDS)]
    write_features(features / "texts.safetensors", texts, _unit(rng, len(texts), size.embed), {"encoder": identity})
    images = rng.integers(0, size.images, (size.tasks, size.pairs), dtype=np.int32)
    labels = rng.integers(0, size.answers, (size.tasks, size.pairs), dtype=np.int32)
    words = (np.arange(size.tasks)[:, None] + np.arange(size.answers)) % WORDS
    with (folder / "tasks.jsonl").open("wb") as file:
        for lines in _lines(size, images, labels, words):
            file.write(lines.tobytes())
    write_sealed(folder / "dataset.json", {
        "schema_version": SCHEMA_VERSION, "name": folder.name, "recipe": {"dataset": {}, "clip": {}},
        "encoder": identity,
        "fingerprint": "synthetic", "summary": {}, "files": {},
    })  # fmt: skip
    if index:
        write_index(folder, _arrays(size, images, labels, words), size.counts, stamp(folder / "tasks.jsonl"))


def _unit(rng: np.random.Generator, count: int, embed: int) -> np.ndarray:
    rows = rng.standard_normal((count, embed), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _line(size: Size, split: Split) -> tuple[bytes, dict[str, list[int]]]:
    """A line with holes, and where they are: # of the question, @ of images, % of labels, & of words."""
    pairs = [["@@@@@@@", "%%%"]] * size.pairs
    record = {
        "question": "Is it number #######?", "template": "it is {}", "answers": ["&&&"] * size.answers,
        "support": pairs[: size.support], "query": pairs[size.support :], "split": split, "family": "", "novelty": None,
    }  # fmt: skip
    line = json.dumps(record).replace('"%%%"', "%%%") + "\n"
    return line.encode(), {hole: [at for at, letter in enumerate(line) if letter == hole] for hole in "#@%&"}


def _lines(size: Size, images: np.ndarray, labels: np.ndarray, words: np.ndarray) -> Iterator[np.ndarray]:
    """The bytes [task, byte] of some tasks at a time."""
    first = 0
    for split, count in size.counts.items():
        line, holes = _line(size, split)
        for start in range(first, first + count, AT_ONCE):
            stop = min(start + AT_ONCE, first + count)
            made = np.tile(np.frombuffer(line, np.uint8), (stop - start, 1))
            made[:, holes["#"]] = _digits(np.arange(start, stop)[:, None], 7)
            made[:, holes["@"]] = _digits(images[start:stop], 7)
            made[:, holes["&"]] = _digits(words[start:stop], 3)
            numbers = _digits(labels[start:stop], 3).reshape(stop - start, -1, 3)
            numbers[..., :2][np.logical_and.accumulate(numbers[..., :2] == ord("0"), axis=-1)] = ord(" ")
            made[:, holes["%"]] = numbers.reshape(stop - start, -1)
            yield made
        first += count


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """``numbers`` [task, n] as decimal digits [task, n * width]."""
    powers = 10 ** np.arange(width - 1, -1, -1)
    return (numbers[..., None] // powers % 10 + ord("0")).astype(np.uint8).reshape(len(numbers), -1)


def _arrays(size: Size, images: np.ndarray, labels: np.ndarray, words: np.ndarray) -> dict[str, np.ndarray]:
    """What ``compile_index`` makes of it: a test compares them."""
    n, each = size.tasks, np.arange(size.tasks, dtype=np.int64)
    lengths = np.repeat([len(_line(size, split)[0]) for split in SPLITS], [size.counts[split] for split in SPLITS])
    by_task = {
        "line": np.cumsum(lengths) - lengths, "line_bytes": lengths, "number": each, "novelty": np.zeros(n),
        "question": each, "text": each * 21, "text_bytes": np.full(n, 21),
        "pairs": each * size.pairs, "n_pairs": np.full(n, size.pairs), "n_support": np.full(n, size.support),
        "query": each * size.pairs + size.support, "n_query": np.full(n, size.pairs - size.support),
        "answers": each * size.answers, "n_answers": np.full(n, size.answers),
    }  # fmt: skip
    letters = np.tile(np.frombuffer(b"Is it number 0000000?", np.uint8), (n, 1))
    letters[:, 13:20] = _digits(each[:, None], 7)
    return {name: numbers.astype(np.int64) for name, numbers in by_task.items()} | {
        "image": images.reshape(-1), "label": labels.reshape(-1), "letter": letters.reshape(-1),
        "statement": (n + words).astype(np.int32).reshape(-1),
    }  # fmt: skip
