"""A dataset read through its index is the dataset, whatever became of the index; memory depends on the batch alone."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metavqa_cli.engine import dataset as module
from metavqa_cli.engine import indexing
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.judged import judged_tasks
from metavqa_cli.engine.site import TASK_INDEX, TASK_LOCK
from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.store.features import write_features
from metavqa_cli.store.mapped import MAPPED, read_arrays
from metavqa_cli.tasks import index as task_index
from metavqa_cli.tasks.arena import Arena, Embeddings, Mapped, make_arena
from metavqa_cli.tasks.index import SPLITS, IndexedTasks
from metavqa_cli.tasks.taskset import Novelty, Split, Task, TaskSet, dump_tasks, load_tasks
from tests import miniature
from tests.bench.synthetic import Size, make_synthetic
from tests.old_format import unseal_tensors

CPU = torch.device("cpu")
EMBED = 6
FIELDS = ("x", "labels", "example_mask", "answers", "answer_mask")


def task(number: int, split: Split, novelty: Novelty | None = None) -> Task:
    """Of unequal size, with letters of several bytes."""
    answers = tuple(f"ré {i}" for i in range(2 + number % 3))
    pairs = tuple((f"i{(number * 7 + i) % 23}", i % len(answers)) for i in range(5 + number % 4))
    return Task(f"Où est-ce {number}?", f"{number} is {{}}", answers, pairs[:3], pairs[3:], split, "f", novelty)


ORDER: list[Split] = ["test", "train", "validation", "train", "test", "train", "train"]  # as no source writes them
TASKS = [task(i, split, "family" if split == "test" else None) for i, split in enumerate(ORDER)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made, rng = tmp_path / "datasets" / "small", np.random.default_rng(0)
    tasks = TaskSet(tuple(TASKS))
    for kind, names in (("images", tasks.image_ids()), ("texts", tasks.texts())):
        rows = rng.standard_normal((len(names), EMBED)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        write_features(made / "features" / f"{kind}.safetensors", names[::-1], rows, {"encoder": {"embed": EMBED}})
    dump_tasks(made / "tasks.jsonl", tasks)
    (made / "dataset.json").write_text(
        json.dumps(
            {
                "schema_version": 1,
                "encoder": {"embed": EMBED},
                "fingerprint": "0",
                "recipe": {"dataset": {}, "clip": {}},
                "summary": {},
            }
        )
    )
    return made


def opened(folder: Path) -> Arena:
    return DatasetFolder(folder).arena("train", CPU)


def embeddings(folder: Path, kind: str) -> Embeddings:
    found = DatasetFolder(folder)
    store = found.image_features if kind == "images" else found.text_features
    return Embeddings({name: row for row, name in enumerate(store.ids)}, torch.from_numpy(store.verified()))


def assert_equal(found: Arena, wanted: Arena) -> None:
    assert len(found) == len(wanted)
    assert list(found.tasks) == list(wanted.tasks) and list(found.questions) == [t.question for t in wanted.tasks]
    assert found.novelty_names() == [t.novelty or "" for t in wanted.tasks]
    assert torch.equal(found.e, wanted.e)
    for name in ("pairs", "support", "query"):
        for field in FIELDS:
            left, right = (getattr(getattr(arena, name).padded, field) for arena in (found, wanted))
            assert left.dtype == right.dtype and torch.equal(left, right), (name, field)
        assert [chunk.tolist() for chunk in getattr(found, name).chunks()] == [
            chunk.tolist() for chunk in getattr(wanted, name).chunks()
        ]
    for left, right in zip(found.random_support(3), wanted.random_support(3), strict=True):
        assert torch.equal(left.example_mask, right.example_mask)


def test_indexed_tasks_are_the_tasks(folder: Path) -> None:
    found = DatasetFolder(folder).tasks
    assert isinstance(found.tasks, IndexedTasks)
    assert found == load_tasks(folder / "tasks.jsonl") == TaskSet(tuple(TASKS))
    assert found != TaskSet(tuple(TASKS[1:])) and found != TaskSet((*TASKS[:-1], TASKS[0]))
    assert found.summary() == TaskSet(tuple(TASKS)).summary()
    for split in SPLITS:
        mine = [each for each in TASKS if each.split == split]
        assert list(found.of(split)) == mine and list(found.of(split)[1:]) == mine[1:]
        assert found.of(split)[-1] == mine[-1]
        assert list(DatasetFolder(folder).questions_of(split)) == [each.question for each in mine]
    with pytest.raises(IndexError):
        found.of("test")[2]


@pytest.mark.parametrize("held", [2**30, 0])
def test_batches_from_the_index_are_those_of_the_tasks(
    folder: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the index and the features are in memory or on the disk."""
    monkeypatch.setattr(indexing, "INDEX_HELD", held)
    monkeypatch.setattr(module, "FEATURES_HELD", held)
    for split in SPLITS:
        mine = [each for each in TASKS if each.split == split]
        wanted = make_arena(mine, embeddings(folder, "images"), embeddings(folder, "texts"))
        found = DatasetFolder(folder).arena(split, CPU)
        assert isinstance(found.pairs.x.matrix, Mapped) == isinstance(found.pairs.x.starts, Mapped) == (not held)
        assert_equal(found, wanted)
        rows = torch.arange(len(mine)).flip(0)
        assert_equal(found.select(rows), wanted.select(rows))
        assert torch.equal(found.asking(2 * found.e).select(rows).e, 2 * wanted.e[rows])


def test_the_miniature_is_the_same_through_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEATURES_HELD", 0)
    found = miniature.dataset()
    tasks = load_tasks(found.path / "tasks.jsonl").of("train")
    wanted = make_arena(tasks, embeddings(found.path, "images"), embeddings(found.path, "texts"))
    assert_equal(found.arena("train", CPU), wanted)
    assert (found.path / TASK_INDEX).is_file()  # made by the build


def _truncated(index: Path) -> None:
    os.truncate(index, index.stat().st_size - 8)


def _flipped(index: Path) -> None:
    data = bytearray(index.read_bytes())
    data[-3] ^= 1
    index.write_bytes(data)


def _of_another_version(index: Path) -> None:
    index.write_bytes(index.read_bytes().replace(b'\\"version\\": 1', b'\\"version\\": 0'))


def _empty(index: Path) -> None:
    index.write_bytes(b"")


@pytest.mark.parametrize("damage", [Path.unlink, _truncated, _flipped, _of_another_version, _empty])
def test_an_index_that_is_missing_old_or_damaged_is_made_again(folder: Path, damage: Callable[[Path], None]) -> None:
    wanted, index = opened(folder), folder / TASK_INDEX
    intact = index.read_bytes()
    damage(index)
    assert not index.exists() or index.read_bytes() != intact
    assert_equal(opened(folder), wanted)
    assert index.read_bytes() == intact


@pytest.mark.parametrize("always", [2**30, 0])
def test_other_tasks_get_another_index(folder: Path, always: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are told by their content even with the old time; large ones by time and size, else by content."""
    monkeypatch.setattr(indexing, "READ_ALWAYS", always)
    opened(folder)
    tasks = folder / "tasks.jsonl"
    time = tasks.stat().st_mtime_ns
    changed = [replace(each, query=each.query[::-1]) for each in TASKS]
    dump_tasks(tasks, TaskSet(tuple(changed)))
    os.utime(tasks, ns=(time, time if always else time + 1))
    assert list(opened(folder).tasks) == [each for each in changed if each.split == "train"]


def replace_while_compiling(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> list[Task]:
    """The tasks that stand in the file after so many replacements, each of the same size."""
    real, versions = indexing.compile_index, [TASKS]

    def compiling(*args: Any) -> Any:
        made = real(*args)
        if len(versions) <= times:
            versions.append([replace(each, query=each.query[::-1]) for each in versions[-1]])
            dump_tasks(folder / "tasks.jsonl", TaskSet(tuple(versions[-1])))
        return made

    monkeypatch.setattr(indexing, "compile_index", compiling)
    return [replace(each, query=each.query[:: -1 if times % 2 else 1]) for each in TASKS]


def test_tasks_that_are_replaced_while_their_index_is_made_get_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace_while_compiling(folder, monkeypatch, 1)
    mine = [each for each in changed if each.split == "train"]
    wanted = make_arena(mine, embeddings(folder, "images"), embeddings(folder, "texts"))
    for _ in range(2):  # made, and found
        assert_equal(opened(folder), wanted)


def test_an_index_of_tasks_that_change_all_the_time_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_while_compiling(folder, monkeypatch, indexing.TRIES)
    with pytest.raises(BusyError, match=f"replaced {indexing.TRIES} times"):
        opened(folder)
    assert not (folder / TASK_INDEX).exists()


def test_of_simultaneous_openings_one_makes_the_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lock, come, made = indexing.compile_index, indexing.hold, threading.Semaphore(0), []

    def holding(*args: Any) -> Any:
        come.release()
        return lock(*args)

    def compiling(*args: Any) -> Any:
        made.append([come.acquire(timeout=5) for _ in range(2)])  # the other one has come too
        return real(*args)

    monkeypatch.setattr(indexing, "hold", holding)
    monkeypatch.setattr(indexing, "compile_index", compiling)
    with ThreadPoolExecutor(2) as pool:
        files = list(pool.map(indexing.open_tasks, [folder, folder]))
    assert made == [[True, True]]
    assert files[0].index.counts == files[1].index.counts == {"train": 4, "validation": 1, "test": 2}


def test_tasks_that_are_shortened_while_they_are_open_are_damaged(folder: Path) -> None:
    tasks = DatasetFolder(folder).task_file
    os.truncate(folder / "tasks.jsonl", 0)
    with pytest.raises(JobError, match=r"tasks\.jsonl, line 2 is damaged .* build the dataset again"):
        tasks.task(0)  # of the training tasks


def test_what_is_judged_reads_its_tasks_once_and_names_an_image_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, read = task_index.read_task, []

    def reading(path: Path, number: int, *args: Any) -> Task:
        read.append(number)
        return real(path, number, *args)

    monkeypatch.setattr(task_index, "read_task", reading)
    monkeypatch.setattr(task_index, "KEPT", 1)
    tasks = DatasetFolder(folder).tasks
    judged_tasks(tasks, None)
    assert {*read} == {*range(1, 8)} and len(read) <= 2 * len(TASKS)  # once, the test tasks twice, and type checks
    names = [image for each in tasks.tasks for image, _ in (*each.support, *each.query)]
    assert len({id(name) for name in names}) == len({*names}) < len(names)


def test_features_without_a_checksum_are_of_another_version(folder: Path) -> None:
    path = folder / "features" / "texts.safetensors"
    unseal_tensors(path)
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha257"))
    with pytest.raises(JobError, match=r"texts\.safetensors was written by another version"):
        _ = DatasetFolder(folder).task_file


def test_a_copied_dataset_keeps_its_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(folder)
    os.utime(folder / "tasks.jsonl", ns=(5, 5))
    monkeypatch.setattr(indexing, "compile_index", lambda *_: pytest.fail("made again"))
    assert list(opened(folder).tasks) == [each for each in TASKS if each.split == "train"]
    assert (folder / TASK_INDEX).stat().st_mtime_ns == 5


def test_other_features_get_another_index(folder: Path) -> None:
    wanted, path = opened(folder), folder / "features" / "images.safetensors"
    names, rows = DatasetFolder(folder).image_features.ids, DatasetFolder(folder).image_features.verified()
    write_features(path, names[::-1], rows[::-1], {"encoder": {"embed": EMBED}})
    assert_equal(opened(folder), wanted)


def test_a_folder_that_cannot_be_written_needs_no_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise JobError("the file system is read-only")

    (folder / TASK_LOCK).mkdir()  # cannot be held either
    monkeypatch.setattr(indexing, "write_arrays", refused)
    assert list(opened(folder).tasks) == [each for each in TASKS if each.split == "train"]
    assert not (folder / TASK_INDEX).exists()


def test_damaged_tasks_are_named_and_damaged_features_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(folder)
    lines = (folder / "tasks.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "tasks.jsonl").write_bytes(b"".join([*lines[:3], lines[3][:-20] + b"\n", *lines[4:]]))
    with pytest.raises(JobError, match=r"tasks\.jsonl, line 4 is damaged"):
        opened(folder)
    (folder / "tasks.jsonl").write_bytes(b"".join(lines))
    monkeypatch.setattr(module, "FEATURES_HELD", 0)
    path = folder / "features" / "images.safetensors"
    data = bytearray(path.read_bytes())
    at = 8 + int.from_bytes(data[:8], "little")
    data[at : at + 4] = np.float32(3).tobytes()
    path.write_bytes(data)
    with pytest.raises(JobError, match="damaged"):
        opened(folder)
    monkeypatch.setattr(module, "CHECKED", 0)  # as if it were too large to be read at each opening
    arena = opened(folder)
    with pytest.raises(JobError, match="no unit vector"):
        _ = [arena.pairs.select(torch.tensor([row])) for row in range(len(arena))]


def test_features_that_are_gone_leave_the_tasks_readable(folder: Path) -> None:
    (folder / "features" / "texts.safetensors").unlink()
    assert DatasetFolder(folder).tasks == TaskSet(tuple(TASKS))


def test_the_synthetic_dataset_has_the_index_that_would_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    make_synthetic(folder, Size(30, images=17, embed=4, pairs=11, answers=3))
    written, header = read_arrays(folder / TASK_INDEX)
    (folder / TASK_INDEX).unlink()
    _ = DatasetFolder(folder).task_file
    made, again = read_arrays(folder / TASK_INDEX)
    assert header == again and {*written} == {*made}
    assert all(np.array_equal(written[name].whole(), made[name].whole()) for name in made)


SAMPLE = """
import sys, time
from pathlib import Path
import torch
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.loop import batch_indices
from tests.bench.full_size import memory_mb
Path("/proc/self/clear_refs").write_text("5")
before = memory_mb("VmRSS")
arena = DatasetFolder(Path(sys.argv[1])).arena("train", torch.device("cpu"))
for step in range(10):
    batch = arena.select(batch_indices(len(arena), 32, step, 0))
    assert batch.random_support(step)[0].x.shape[0] == batch.e.shape[0] == 32
print(memory_mb("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's record of memory")
def test_sampling_a_hundred_thousand_tasks_takes_the_memory_of_a_batch(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    make_synthetic(folder, Size(100_000, images=8_000, embed=16, pairs=20, answers=4))
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    done = subprocess.run([sys.executable, "-c", SAMPLE, str(folder)], check=True, capture_output=True, text=True)
    assert on_disk > 80 and float(done.stdout) < MAPPED / 2**20 + 12, (on_disk, done.stdout)
