"""Building a dataset: once, whatever interrupts it, and never over something else."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from metavqa_cli.clip.encoder import ClipEncoder
from metavqa_cli.engine import build as module
from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.schema.errors import BusyError, JobError, MetaVQAError, MissingError
from metavqa_cli.schema.events import DatasetBuilt, Event, ProgressMade, Reused
from metavqa_cli.store import locks
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.stub_encoder import PIPELINE, Stub, encode_by_name, make_stub
from tests.miniature import CPU, session

SMALL = {"images": 240, "questions": 150, "pairs_per_task": 20, "min_pairs": 5}


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Takes the place of every CLIP model in these tests."""
    made = make_stub()
    monkeypatch.setattr(miniature.ENCODER, lambda *_, **__: made)
    monkeypatch.setattr(PIPELINE, encode_by_name)
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a dataset that was built without interruption."""
    made = Workspace(tmp_path_factory.mktemp("whole"))
    with patch(miniature.ENCODER, lambda *_, **__: make_stub()), patch(PIPELINE, encode_by_name):
        build(made)
    return made


@pytest.fixture
def empty(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def built(whole: Workspace, empty: Workspace) -> Workspace:
    """A copy of that workspace which a test may change."""
    shutil.copytree(whole.root, empty.root)
    return empty


def build(workspace: Workspace, *, force: bool = False, **changes: Any) -> list[Event]:
    return list(build_dataset(session(workspace, force=force, dataset={**SMALL, **changes})))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_on_disk_is_what_was_asked_for(empty: Workspace) -> None:
    events = build(empty)
    folder = open_dataset(empty, "mini")
    built = events[-1]
    assert isinstance(built, DatasetBuilt) and built.summary == folder.manifest["summary"]
    assert len(list((folder.path / "images").rglob("*.png"))) == 240
    assert folder.image_features.ids == folder.tasks.image_ids()
    assert folder.text_features.ids == folder.tasks.texts()
    progress = [event for event in events if isinstance(event, ProgressMade)]
    assert [(p.phase, p.done) for p in progress if p.done == p.total] == [
        ("drawing images", 240),
        ("embedding images", len(folder.image_features)),
        ("embedding texts", len(folder.text_features)),
    ]


def test_an_arena_holds_the_features_of_its_tasks(built: Workspace, stub: Stub) -> None:
    folder = open_dataset(built, "mini")
    arena = folder.arena("train", CPU)
    task = arena.tasks[0]
    for examples, batch in ((task.support, arena.support.padded), (task.query, arena.query.padded)):
        n = len(examples)
        assert batch.labels[0, :n].tolist() == [label for _, label in examples]
        assert torch.equal(batch.x[0, :n], stub.vectors([Path(image).name for image, _ in examples]))
        assert batch.example_mask[0].tolist() == [True] * n + [False] * (batch.x.shape[1] - n)
    assert torch.equal(arena.e[0], stub.vectors([task.question])[0])
    assert torch.equal(arena.query.padded.answers[0, : len(task.answers)], stub.vectors(task.statements))


def test_a_second_build_finds_it_finished(built: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.dataset_dir("mini").rglob("*")}
    assert build(built) == [Reused("dataset", "mini")]
    assert {path: path.stat().st_mtime_ns for path in built.dataset_dir("mini").rglob("*")} == before


PHASES = ("drawing images", "embedding images", "embedding texts")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", ["ctrl-c", "killed"])
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    how: str, phase: str, empty: Workspace, whole: Workspace, stub: Stub
) -> None:
    events = build_dataset(session(empty, dataset=SMALL, runtime={"image_batch": 100}))  # several in a shard
    reached = next(event for event in events if isinstance(event, ProgressMade) and event.phase == phase)
    assert reached.phase == phase
    if how == "ctrl-c":
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    else:
        events.close()  # type: ignore[attr-defined]
    assert empty.datasets() == []
    drawn = {path: path.stat().st_mtime_ns for path in empty.dataset_dir("mini").rglob("*.png")}
    stub.embedded.clear()
    build(empty)
    assert contents(empty.dataset_dir("mini")) == contents(whole.dataset_dir("mini"))
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn != {}
    images = set(open_dataset(whole, "mini").tasks.image_ids())
    embedded_again = {Path(image).name for image in images} & set(stub.embedded)
    assert bool(embedded_again) == (phase != "embedding texts")


def test_another_recipe_under_the_same_name_is_refused_then_forced(built: Workspace) -> None:
    before = contents(built.dataset_dir("mini"))
    with pytest.raises(
        BusyError, match=r"'mini' with another configuration, .* exists .*another --name, .*dataset build --force"
    ) as busy:
        build(built, seed=7)
    assert busy.value.exit_code == 5
    assert contents(built.dataset_dir("mini")) == before
    assert isinstance(build(built, seed=7, force=True)[-1], DatasetBuilt)
    assert open_dataset(built, "mini").manifest["recipe"]["dataset"]["seed"] == 7


@pytest.mark.parametrize("part", ["WORLD_VERSION", "package_hash"])
def test_a_dataset_of_another_version_is_refused_not_reused(
    part: str, built: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, part, 99 if part == "WORLD_VERSION" else lambda folder: "other weights")
    with pytest.raises(BusyError, match=r"another version of metavqa.*`metavqa dataset build --force --name mini`"):
        build(built)
    assert isinstance(build(built, force=True)[-1], DatasetBuilt)


def test_a_replacement_that_fails_or_is_interrupted_leaves_the_old_dataset(built: Workspace, whole: Workspace) -> None:
    before = contents(whole.dataset_dir("mini"))
    with pytest.raises(JobError, match="too few"):
        build(built, force=True, images=2)
    assert contents(built.dataset_dir("mini")) == before
    events = build_dataset(session(built, force=True, dataset={**SMALL, "seed": 7}))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert contents(built.dataset_dir("mini")) == before
    assert isinstance(build(built, force=True, seed=7)[-1], DatasetBuilt)
    assert [path.name for path in built.dataset_dir("mini").parent.glob(".tmp-*")] == []


def test_a_disk_that_is_full_at_once_leaves_the_old_dataset(
    built: Workspace, whole: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, obj: Any) -> None:
        raise JobError("the disk is full")

    monkeypatch.setattr(module, "write_sealed", full)
    with pytest.raises(JobError, match="the disk is full"):
        build(built, force=True)
    assert contents(built.dataset_dir("mini")) == contents(whole.dataset_dir("mini"))


def test_an_unfinished_build_with_another_recipe_is_replaced(empty: Workspace, whole: Workspace) -> None:
    next(events := build_dataset(session(empty, dataset={**SMALL, "image_size": 40})))
    events.close()  # type: ignore[attr-defined]
    build(empty)
    assert contents(empty.dataset_dir("mini")) == contents(whole.dataset_dir("mini"))


def test_an_unfinished_build_of_a_later_version_is_kept(empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(module, "SCHEMA_VERSION", module.SCHEMA_VERSION + 1)
        next(events := build_dataset(session(empty, dataset=SMALL)))
        events.close()  # type: ignore[attr-defined]
    before = contents(empty.dataset_dir("mini"))
    with pytest.raises(JobError, match=r"recipe\.json was written by .*upgrade metavqa to use it"):
        build(empty)
    assert contents(empty.dataset_dir("mini")) == before
    assert isinstance(build(empty, force=True)[-1], DatasetBuilt)


def test_a_folder_that_no_build_made_is_left_alone(empty: Workspace) -> None:
    precious = empty.dataset_dir("mini") / "holiday.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("the only copy")
    with pytest.raises(BusyError, match="is no dataset of metavqa; choose another --name"):
        build(empty)
    assert precious.read_text() == "the only copy"
    build(empty, force=True)
    assert not precious.exists()


def test_a_build_that_another_process_does_is_left_alone(empty: Workspace) -> None:
    next(events := build_dataset(session(empty, dataset=SMALL)))
    with pytest.raises(BusyError, match="dataset mini is in use by process"):
        build(empty)
    assert any(isinstance(event, DatasetBuilt) for event in events)


def test_datasets_with_similar_names_do_not_lock_each_other(empty: Workspace) -> None:
    locked = [build_dataset(session(empty, dataset={**SMALL, "name": name})) for name in ("a", "a.b", "a.lock", "a-b")]
    for events in locked:
        next(events)
    held = [path.name for path in empty.datasets_dir.iterdir() if path.is_file() and locks.is_held(path)]
    assert len(held) == len(locked)


def test_the_fingerprint_knows_the_images_but_not_the_name(built: Workspace) -> None:
    prints = {}
    for name, changes in {"mini": {}, "renamed": {}, "larger": {"image_size": 40}, "other": {"seed": 5}}.items():
        build(built, name=name, **changes)
        prints[name] = open_dataset(built, name).fingerprint
    assert prints["mini"] == prints["renamed"]
    assert len(set(prints.values())) == 3


def test_a_model_that_cannot_be_had_is_known_before_anything_is_drawn(
    empty: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> ClipEncoder:
        raise MissingError("the CLIP model is not here")

    monkeypatch.setattr(miniature.ENCODER, missing)
    with pytest.raises(MissingError, match="the CLIP model is not here"):
        build(empty)
    assert not empty.dataset_dir("mini").exists()


def test_too_few_images_are_an_error_that_names_them(empty: Workspace) -> None:
    with pytest.raises(JobError, match=r"8 images are too few .* raise dataset\.images"):
        build(empty, images=8)
    assert isinstance(build(empty)[-1], DatasetBuilt)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [("dataset.json", b"{", "is damaged"), ("dataset.json", b"[]", "is damaged: expected an object"),
     ("dataset.json", json.dumps({"schema_version": 0}).encode(), "is of another version"),
     ("tasks.jsonl", b"{}\n", "is damaged or was changed after it was built"),
     ("features/images-00001-of-00001.safetensors", b"short", "not a safetensors file"),
     ("features/texts.safetensors", None, "does not exist")],
)  # fmt: skip
def test_a_damaged_dataset_is_named_with_the_way_out(
    name: str, damage: bytes | None, words: str, built: Workspace
) -> None:
    path = built.dataset_dir("mini") / name
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(MetaVQAError, match=words) as found:
        open_dataset(built, "mini").arena("train", CPU)
    assert str(path) in str(found.value)
    assert damage is None or "--force" in str(found.value)


def test_features_that_do_not_fit_the_tasks_are_named(built: Workspace, whole: Workspace) -> None:
    folder = built.dataset_dir("mini") / "features"
    images = folder / "images-00001-of-00001.safetensors"
    images.unlink()
    (folder / "texts.safetensors").replace(images.with_name("images.safetensors"))
    shutil.copy(whole.dataset_dir("mini") / "features" / "texts.safetensors", folder)
    with pytest.raises(
        JobError, match=r"images\.safetensors has no features of '.*`metavqa dataset build --force --name mini`"
    ):
        open_dataset(built, "mini").arena("train", CPU)


def test_the_stub_stands_for_the_encoder() -> None:
    """Its methods are those that a build calls; features are float32 rows of unit norm."""
    assert {field.name for field in fields(ClipEncoder)} >= {"identity", "device"}
    rows = make_stub().encode_text(["a", "b"]).numpy()
    assert rows.dtype == np.float32 and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
