"""A dataset that is read is not removed; one that is built anew meanwhile is read as it was, or not at all."""

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metavqa_cli.engine import dataset as module
from metavqa_cli.engine import site, usage
from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.manifest import read_manifest
from metavqa_cli.engine.remove import find_dataset, remove_dataset
from metavqa_cli.engine.verify import verify_dataset
from metavqa_cli.schema.errors import BusyError, MissingError, RemovedError
from metavqa_cli.store import locks, runs
from metavqa_cli.store.features import write_features
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks

CPU = torch.device("cpu")
EMBED = 6
ROOT = Path(module.__file__).parents[2]
READER = """
import sys
from pathlib import Path
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.store.workspace import Workspace
kept = open_dataset(Workspace(Path(sys.argv[1])), "small")
print("reads", flush=True)
sys.stdin.read()
"""


def made(folder: Path, seed: int, images: int) -> Path:
    """A dataset whose every number depends on the seed."""
    rng = np.random.default_rng(seed)
    names = [f"{seed}-{i}" for i in range(images)]

    def pairs(task: int, first: int) -> tuple[tuple[str, int], ...]:
        return tuple((names[(task + i) % images], i % 2) for i in range(first, first + 4))

    tasks = TaskSet(tuple(
        Task(f"Which is {seed}, {n}?", "it is {}", ("a", "b"), pairs(n, 0), pairs(n, 4), split, "f",
             "family" if split == "test" else None)
        for n, split in enumerate(["train", "train", "validation", "test"])
    ))  # fmt: skip
    for kind, rows in (("images", names), ("texts", tasks.texts())):
        values = rng.standard_normal((len(rows), EMBED)).astype(np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        write_features(folder / "features" / f"{kind}.safetensors", rows, values, {"encoder": {"embed": EMBED}})
    dump_tasks(folder / "tasks.jsonl", tasks)
    manifest = {"schema_version": 1, "encoder": {"embed": EMBED}, "fingerprint": str(seed), "files": {},
                "recipe": {"dataset": {}, "clip": {}},
                "summary": {}}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    return made(workspace.dataset_dir("small"), seed=1, images=9)


def replace(folder: Path) -> None:
    """As `dataset build --force` does."""
    site.Site(folder, made(site.beside(folder), seed=2, images=40)).settle()


def remove(folder: Path) -> None:
    shutil.rmtree(site.put_aside(folder))


def summary(found: DatasetFolder) -> tuple[str, list[str], list[str], torch.Tensor]:
    """What a training takes from a dataset."""
    arena = found.arena("train", CPU)
    return found.fingerprint, list(arena.questions), [task.question for task in found.tasks.of("train")], arena.e


def equal(left: Any, right: Any) -> bool:
    return bool(left[:3] == right[:3] and torch.equal(left[3], right[3]))


# Whole or not at all


@pytest.fixture(params=["held", "mapped"])
def features(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "mapped":
        monkeypatch.setattr(module, "FEATURES_HELD", 0)


OPENED = ["read_manifest", "open_tasks", "ShardedFeatures.open", "FeatureStore.open", "mapped_features", "load_tasks"]


@pytest.mark.parametrize("moment", OPENED)
@pytest.mark.parametrize("before", [True, False])
def test_what_is_read_is_of_one_dataset_whenever_it_is_built_anew(
    workspace: Workspace, folder: Path, features: None, monkeypatch: pytest.MonkeyPatch, moment: str, before: bool
) -> None:
    """The dataset is replaced before or after each of the calls that open a part of it."""
    whole = [summary(DatasetFolder(folder)), summary(DatasetFolder(made(folder.with_name("two"), seed=2, images=40)))]
    owner: Any = module
    *inside, name = moment.split(".")
    for each in inside:
        owner = getattr(owner, each)
    original, calls = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not calls and before:
            replace(folder)
        found = original(*args, **kwargs)
        if not calls and not before:
            replace(folder)
        calls.append(moment)
        return found

    monkeypatch.setattr(owner, name, staticmethod(call) if inside else call)
    found = open_dataset(workspace, "small")
    try:
        read = summary(found)
    except BusyError as error:
        assert "the dataset 'small' was built anew by another process while this one read it" in str(error)
    else:
        assert equal(read, whole[0]) or equal(read, whole[1])


def test_what_was_opened_stays_as_it_was(workspace: Workspace, folder: Path, features: None) -> None:
    found = open_dataset(workspace, "small")
    arena = found.arena("train", CPU)
    tasks = found.tasks
    expected, x = summary(DatasetFolder(folder)), DatasetFolder(folder).arena("train", CPU).pairs.padded.x
    replace(folder)
    assert [task.question for task in tasks.of("train")] == expected[2]
    assert torch.equal(arena.pairs.padded.x, x)
    assert found.arena("train", CPU).e.equal(expected[3]), "what a process has read it does not read again"
    with pytest.raises(BusyError, match="built anew"):
        _ = found.questions


def test_one_that_is_removed_meanwhile_is_said_to_be(workspace: Workspace, folder: Path) -> None:
    found = open_dataset(workspace, "small")
    _ = found.manifest
    remove(folder)
    with pytest.raises(RemovedError, match="the dataset 'small' was removed by another process"):
        found.arena("train", CPU)


@pytest.mark.parametrize("then", [replace, remove])
def test_what_changes_while_it_is_verified_is_not_called_damage(folder: Path, then: Callable[[Path], None]) -> None:
    events = verify_dataset(folder)
    next(events)
    then(folder)
    with pytest.raises(BusyError, match="was built anew or removed by another process"):
        list(events)


def test_damage_is_still_called_damage(workspace: Workspace, folder: Path) -> None:
    (folder / "features" / "images.safetensors").write_bytes(b"")
    with pytest.raises(Exception, match="not a safetensors file"):
        open_dataset(workspace, "small").arena("train", CPU)


def test_in_the_moment_of_replacement_there_is_a_dataset(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder is moved out and another one in: whoever looks in between waits."""
    seen: list[str] = []
    original, readers = site.put_aside, list[threading.Thread]()

    def put_aside(path: Path) -> Path:
        aside = original(path)
        assert not path.exists()
        readers.append(threading.Thread(target=lambda: seen.append(read_manifest(folder)["fingerprint"])))
        readers[0].start()
        readers[0].join(0.1)
        assert readers[0].is_alive(), "it waits"
        return aside

    monkeypatch.setattr(site, "put_aside", put_aside)
    replace(folder)
    readers[0].join()
    assert seen == ["2"]
    with pytest.raises(MissingError, match="there is no dataset 'none'"):
        read_manifest(workspace.dataset_dir("none"))


# Removal


@pytest.fixture
def reader(workspace: Workspace, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that reads the dataset until its stdin ends."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(workspace.root)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as started:  # fmt: skip
        assert started.stdout is not None and started.stdout.readline() == "reads\n"
        yield started
        started.kill()


def test_a_dataset_that_another_process_reads_is_not_removed(
    workspace: Workspace, folder: Path, reader: "subprocess.Popen[str]"
) -> None:
    doomed = find_dataset(workspace, "small")
    with pytest.raises(BusyError, match=rf"dataset small is read by process {reader.pid} on .*, for \d+ s; wait"):
        remove_dataset(workspace, doomed)
    assert folder.is_dir()
    assert reader.stdin is not None
    reader.stdin.close()
    reader.wait()
    remove_dataset(workspace, doomed)
    assert not folder.exists() and not [*site.locks_beside(folder, "use")]


def test_what_a_killed_reader_left_keeps_nobody_and_is_cleared_away(
    workspace: Workspace, folder: Path, reader: "subprocess.Popen[str]"
) -> None:
    reader.kill()
    reader.wait()
    assert [*site.locks_beside(folder, "use")]
    remove_dataset(workspace, find_dataset(workspace, "small"))
    assert not [path for path in folder.parent.iterdir() if ".use-" in path.name]


def test_who_only_looked_reads_no_more(workspace: Workspace, folder: Path) -> None:
    kept = [open_dataset(workspace, "small") for _ in range(2)]
    own = [*site.locks_beside(folder, "use")]
    assert len(own) == 1 and locks.is_held(own[0]), "one lock for the whole process"
    kept.pop()
    gc.collect()
    assert locks.is_held(own[0])
    with pytest.raises(BusyError, match="dataset small is read"):
        _as_another(lambda: usage.refuse_readers(folder))
    kept.pop()
    gc.collect()
    assert not [*site.locks_beside(folder, "use")]


def _as_another(look: Callable[[], None]) -> None:
    """Look as a process that does not know of this one's own lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage, "_uses", {})
        look()


def test_a_copy_of_the_process_does_not_end_its_reading(workspace: Workspace, folder: Path) -> None:
    found = open_dataset(workspace, "small")
    (own,) = site.locks_beside(folder, "use")
    use = usage._uses[folder.absolute()]
    usage._ended(folder, usage._Use(use.lock, use.held, process=os.getpid() + 1, readers=1))  # as a fork would
    assert locks.is_held(own) and found.fingerprint == "1"


@pytest.mark.skipif(os.name == "nt", reason="folders have no modes")
def test_in_a_workspace_that_cannot_be_written_one_reads_all_the_same(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    expected = summary(DatasetFolder(folder))
    assert equal(summary(open_dataset(workspace, "small")), expected)


def test_a_run_that_began_after_the_question_keeps_the_dataset(workspace: Workspace, folder: Path) -> None:
    doomed = find_dataset(workspace, "small")
    run = runs.create(workspace, "zoo", "aaaa1111", {}, {}, {"name": "small", "fingerprint": "1"})
    with run.lock(), pytest.raises(BusyError, match=rf"used by the running {run.id} \(process {os.getpid()}"):
        remove_dataset(workspace, doomed)
    assert folder.is_dir()


def test_of_two_who_remove_a_dataset_the_second_is_told(workspace: Workspace, folder: Path) -> None:
    doomed = find_dataset(workspace, "small")
    remove_dataset(workspace, doomed)
    with pytest.raises(RemovedError, match="removed by another process"):
        remove_dataset(workspace, doomed)


def test_names_that_begin_alike_are_not_mixed_up(tmp_path: Path) -> None:
    for name in (".a.use-0123abcd.lock", ".a.b.use-0123abcd.lock", ".a.use-0123abcd.lock.json", ".a.use-x.lock"):
        (tmp_path / name).touch()
    assert [path.name for path in site.locks_beside(tmp_path / "a", "use")] == [".a.use-0123abcd.lock"]
