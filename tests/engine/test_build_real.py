"""Building from a person's own table: resumed at any moment, in shards, with what is broken left out or not."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metavqa_cli.engine import embedding
from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.embedding import Shard
from metavqa_cli.engine.site import TASK_INDEX, TASK_LOCK, held
from metavqa_cli.schema.errors import BusyError, JobError, MissingError, UsageError
from metavqa_cli.schema.events import DatasetBuilt, Event, Narrated, Reused
from metavqa_cli.store import locks, shards
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.stub_encoder import PIPELINE, Stub, encode_by_name, make_stub
from tests.engine.test_build import contents
from tests.miniature import CPU, session
from tests.old_format import rewrite

N = 40
QUESTIONS = [f"What color is the {thing}?" for thing in ("car", "dog", "hat", "cup", "bus", "cat", "box", "pen")]
COLORS = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Takes the place of every CLIP model in these tests; shards are of eight images."""
    made = make_stub()
    monkeypatch.setattr(miniature.ENCODER, lambda *_, **__: made)
    monkeypatch.setattr(PIPELINE, encode_by_name)
    monkeypatch.setattr(embedding, "SHARD", 8)
    monkeypatch.setattr(shards, "SHARD", 8)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with forty pictures and a table that asks eight questions of them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(N):
        Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(folder / f"{i:02d}.png")
    with (folder / "table.csv").open("w", newline="") as file:
        rows = [
            (f"{i:02d}.png", question, COLORS[(i + k) % 3]) for k, question in enumerate(QUESTIONS) for i in range(N)
        ]
        csv.writer(file).writerows([("image", "question", "answer"), *rows])
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def events_of(
    workspace: Workspace, data: Path, part: Shard = (1, 1), force: bool = False, **changes: Any
) -> Iterator[Event]:
    dataset = {"name": "mine", "source": "folder", "path": str(data), "min_pairs": None, "validation_fraction": 0.3}
    doing = session(workspace, force=force, dataset={**dataset, **changes}, runtime={"image_batch": 3})
    return build_dataset(doing, part)


def build(workspace: Workspace, data: Path, **how: Any) -> list[Event]:
    return list(events_of(workspace, data, **how))


def test_a_table_becomes_a_dataset(workspace: Workspace, data: Path, stub: Stub) -> None:
    built = build(workspace, data)[-1]
    assert isinstance(built, DatasetBuilt)
    assert {key: built.summary[key] for key in ("tasks", "train", "validation", "test", "pairs", "images")} == {
        "tasks": 8, "train": 4, "validation": 2, "test": 2, "pairs": 320, "images": 40,
    }  # fmt: skip
    folder = open_dataset(workspace, "mine")
    arena = folder.arena("test", CPU)
    for row, task in enumerate(arena.tasks):
        assert task.template == f"the {task.question.split()[-1][:-1]} is {{}}"
        names = [Path(image).stem for image, _ in task.query]
        assert (arena.query.padded.x[row, : len(names)] == stub.vectors(names)).all()
    assert build(workspace, data) == [Reused("dataset", "mine")]
    assert (folder.path / "features").glob("*") and len(folder.image_features.shards) == 5


def test_a_build_killed_after_any_event_goes_on_to_the_same_bytes(tmp_path: Path, data: Path) -> None:
    whole = Workspace(tmp_path / "whole")
    total = len(build(whole, data))
    expected = contents(whole.dataset_dir("mine"))
    assert total > 15
    for count in range(1, total):
        workspace = Workspace(tmp_path / str(count))
        events = events_of(workspace, data)
        for _ in range(count):
            next(events)
        events.close()  # type: ignore[attr-defined]
        assert workspace.datasets() == []
        build(workspace, data)
        assert contents(workspace.dataset_dir("mine")) == expected


def test_finished_shards_are_not_made_again(workspace: Workspace, data: Path, stub: Stub) -> None:
    events = events_of(workspace, data)
    while len(list((workspace.dataset_dir("mine") / "features").glob("images-*"))) < 3:
        next(events)
    events.close()  # type: ignore[attr-defined]
    stub.embedded.clear()
    build(workspace, data)
    assert [name for name in stub.embedded if name.isdecimal()] == [f"{i:02d}" for i in range(24, 40)]


def test_several_processes_make_the_same_dataset(tmp_path: Path, data: Path) -> None:
    alone, together = Workspace(tmp_path / "alone"), Workspace(tmp_path / "together")
    build(alone, data)
    for i in (3, 1):
        ended = build(together, data, part=(i, 3))[-1]
        assert isinstance(ended, Narrated) and f"shard {i}/3 is done" in ended.message
        assert together.datasets() == []
    assert isinstance(build(together, data, part=(2, 3))[-1], DatasetBuilt)
    assert contents(together.dataset_dir("mine")) == contents(alone.dataset_dir("mine"))
    assert build(together, data, part=(1, 3)) == [Reused("dataset", "mine")]


def test_shards_at_work_at_the_same_time_make_it_too(tmp_path: Path, data: Path) -> None:
    alone, together = Workspace(tmp_path / "alone"), Workspace(tmp_path / "together")
    build(alone, data)
    with ThreadPoolExecutor(3) as pool:
        ended = [events[-1] for events in pool.map(lambda i: build(together, data, part=(i, 3)), (1, 2, 3))]
    assert sum(isinstance(event, DatasetBuilt) for event in ended) == 1
    assert contents(together.dataset_dir("mine")) == contents(alone.dataset_dir("mine"))


def test_a_whole_build_beside_a_shard_is_refused(workspace: Workspace, data: Path) -> None:
    events = events_of(workspace, data, part=(1, 2))
    while not any(locks.is_held(path) for path in workspace.datasets_dir.glob(".mine.shard-*.lock")):
        next(events)
    with pytest.raises(BusyError, match="a shard of dataset mine is being made by process"):
        build(workspace, data)
    with pytest.raises(BusyError, match="shard 1/2 of dataset mine is in use"):
        build(workspace, data, part=(1, 2))
    assert any(isinstance(event, Narrated) for event in events)


def spoil(data: Path) -> None:
    (data / "07.png").write_bytes(b"not a picture")
    (data / "30.png").write_bytes(b"")


def test_broken_images_are_listed_and_what_is_good_is_kept(workspace: Workspace, data: Path, stub: Stub) -> None:
    spoil(data)
    told: list[Event] = []
    with pytest.raises(MissingError, match=r"2 images cannot be used \(the first: 07.png, .*--skip-broken"):
        build(workspace, data)
    stub.embedded.clear()
    with pytest.raises(MissingError) as again:
        told.extend(events_of(workspace, data))
    assert again.value.exit_code == 3
    listed = [event.message for event in told if isinstance(event, Narrated) and ".png: " in event.message]
    assert [message.split(":")[0] for message in listed] == ["07.png", "30.png"]
    assert "is not an image" in listed[0] and "is empty" in listed[1]
    assert {name for name in stub.embedded if name.isdecimal()} == {  # only their shards are tried again
        f"{i:02d}" for i in [*range(0, 7), *range(24, 30), 31]
    }
    assert workspace.datasets() == []


def test_broken_images_are_left_out_when_told_so(workspace: Workspace, data: Path, stub: Stub) -> None:
    spoil(data)
    with pytest.raises(MissingError):
        build(workspace, data)
    stub.embedded.clear()
    built = build(workspace, data, skip_broken=True)[-1]
    assert isinstance(built, DatasetBuilt) and built.summary["images"] == 38 and built.summary["pairs"] == 304
    assert not [name for name in stub.embedded if name.isdecimal()]
    folder = open_dataset(workspace, "mine")
    assert {"07.png", "30.png"}.isdisjoint(folder.tasks.image_ids())
    assert len(folder.arena("train", CPU).pairs.padded.x) == 4
    assert build(workspace, data) == [Reused("dataset", "mine")]


def test_a_mended_image_is_embedded(workspace: Workspace, data: Path, tmp_path: Path) -> None:
    good = Workspace(tmp_path / "good")
    build(good, data)
    before = (data / "07.png").read_bytes()
    (data / "07.png").write_bytes(b"not a picture")
    with pytest.raises(MissingError):
        build(workspace, data)
    (data / "07.png").write_bytes(before)
    build(workspace, data)
    assert contents(workspace.dataset_dir("mine")) == contents(good.dataset_dir("mine"))


def test_missing_images_are_listed_before_anything_is_embedded(workspace: Workspace, data: Path, stub: Stub) -> None:
    (data / "11.png").unlink()
    with pytest.raises(MissingError, match=r"1 of 40 images are not there \(the first: 11.png\).*--skip-broken"):
        build(workspace, data)
    assert stub.embedded == []
    built = build(workspace, data, skip_broken=True)[-1]
    assert isinstance(built, DatasetBuilt) and built.summary["images"] == 39


def test_a_task_of_which_too_little_is_left_is_dropped(workspace: Workspace, data: Path) -> None:
    for i in range(3, N):
        (data / f"{i:02d}.png").unlink()
    with pytest.raises(JobError, match="tasks leave none for"):
        build(workspace, data, skip_broken=True)


def test_tasks_first_and_features_later_is_the_same_dataset(tmp_path: Path, data: Path, stub: Stub) -> None:
    at_once, workspace = Workspace(tmp_path / "at-once"), Workspace(tmp_path / "later")
    build(at_once, data)
    stub.embedded.clear()
    first = build(workspace, data, tasks_only=True)[-1]
    assert isinstance(first, DatasetBuilt) and stub.embedded == []
    with pytest.raises(MissingError, match=r"has tasks, but no features; .* without --tasks-only"):
        open_dataset(workspace, "mine")
    assert build(workspace, data, tasks_only=True) == [Reused("dataset", "mine")]
    assert isinstance(build(workspace, data)[-1], DatasetBuilt)
    assert contents(workspace.dataset_dir("mine")) == contents(at_once.dataset_dir("mine"))
    assert build(workspace, data, tasks_only=True) == [Reused("dataset", "mine")]


def test_other_files_are_another_dataset(workspace: Workspace, data: Path) -> None:
    build(workspace, data)
    before = contents(workspace.dataset_dir("mine"))
    with (data / "table.csv").open("a") as file:
        file.write("00.png,What is new?,this\n")
    with pytest.raises(BusyError, match="from other files"):
        build(workspace, data)
    assert contents(workspace.dataset_dir("mine")) == before
    assert isinstance(build(workspace, data, force=True)[-1], DatasetBuilt)


def test_a_replacement_killed_at_any_moment_leaves_a_whole_dataset(workspace: Workspace, data: Path) -> None:
    build(workspace, data)
    before = contents(workspace.dataset_dir("mine"))
    for count in (1, 2, 4, 6):
        events = events_of(workspace, data, force=True, validation_fraction=0.5)
        for _ in range(count):
            next(events)
        events.close()  # type: ignore[attr-defined]
        assert contents(workspace.dataset_dir("mine")) == before
    assert isinstance(build(workspace, data, force=True, validation_fraction=0.5)[-1], DatasetBuilt)
    assert open_dataset(workspace, "mine").manifest["recipe"]["dataset"]["validation_fraction"] == 0.5
    assert [path.name for path in workspace.datasets_dir.iterdir() if path.is_dir()] == ["mine"]


def test_a_replacement_killed_between_its_two_moves_is_found(workspace: Workspace, data: Path) -> None:
    build(workspace, data)
    folder = workspace.dataset_dir("mine")
    folder.rename(folder.with_name(".mine.new"))
    assert build(workspace, data) == [Reused("dataset", "mine")]
    assert workspace.datasets() == ["mine"]


def test_few_questions_leave_one_for_validation(workspace: Workspace, data: Path) -> None:
    lines = (data / "table.csv").read_text().splitlines()
    kept = [line for line in lines if any(name in line for name in ("image,", "car?", "dog?", "hat?", "cup?"))]
    (data / "table.csv").write_text("\n".join(kept) + "\n")
    built = build(workspace, data, validation_fraction=0.1)[-1]
    assert isinstance(built, DatasetBuilt)
    assert [built.summary[split] for split in ("train", "validation", "test")] == [2, 1, 1]


def test_what_a_killed_replacement_did_not_delete_is_deleted_later(workspace: Workspace, data: Path) -> None:
    build(workspace, data)
    at_work = ".tmp-0123abcd-mine.b"
    for name in (".tmp-0123abcd-mine", ".tmp-0123abcd-other-mine", at_work):
        (workspace.datasets_dir / name / "images").mkdir(parents=True)
    with held(workspace.dataset_dir("mine.b")):
        assert build(workspace, data) == [Reused("dataset", "mine")]
    assert sorted(path.name for path in workspace.datasets_dir.iterdir() if path.is_dir()) == [at_work, "mine"]


def test_another_picture_under_the_same_name_is_another_fingerprint(tmp_path: Path, data: Path) -> None:
    prints = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / name)
        build(workspace, data)
        prints.append(open_dataset(workspace, "mine").fingerprint)
    assert prints[0] == prints[1]


def test_long_questions_are_reported(workspace: Workspace, data: Path) -> None:
    long = f"What {'very ' * 100}long thing is it?"
    with (data / "table.csv").open("a") as file:
        file.write("".join(f"{i:02d}.png,{long},{COLORS[i % 3]}\n" for i in range(N)))
    told = [event.message for event in build(workspace, data) if isinstance(event, Narrated)]
    assert any("have more than 77 tokens, of which the encoder reads the first" in message for message in told)


def test_the_manifest_records_every_file(workspace: Workspace, data: Path) -> None:
    build(workspace, data)
    folder = DatasetFolder(workspace.dataset_dir("mine"))
    recorded = set(folder.manifest["files"])
    hidden = {TASK_INDEX, TASK_LOCK}  # made anew whenever it is missing
    assert recorded == set(contents(folder.path)) - {"dataset.json"} - hidden
    assert folder.tasks.of("train") and TASK_INDEX in contents(folder.path)
    assert json.loads((folder.path / "recipe.json").read_text()).items() >= folder.manifest["recipe"].items()


def interrupted(workspace: Workspace, data: Path, **how: Any) -> Iterator[Event]:
    """A build that has written its first shard; to be closed, or gone on with."""
    events = events_of(workspace, data, **how)
    while not list((workspace.dataset_dir("mine") / "features").glob("images-*")):
        next(events)
    return events


@pytest.mark.parametrize("number", [5, 39])
def test_an_image_that_came_while_a_build_was_interrupted_is_used(
    tmp_path: Path, workspace: Workspace, data: Path, number: int
) -> None:
    good, image = Workspace(tmp_path / "good"), data / f"{number:02d}.png"
    build(good, data)
    image.rename(tmp_path / image.name)
    interrupted(workspace, data, skip_broken=True).close()  # type: ignore[attr-defined]
    with pytest.raises(MissingError, match=f"1 of 40 images are not there .the first: {image.name}"):
        build(workspace, data)
    (tmp_path / image.name).rename(image)
    build(workspace, data)
    assert contents(workspace.dataset_dir("mine")) == contents(good.dataset_dir("mine"))


def test_more_shards_than_an_interrupted_build_had_leave_none_of_it(
    tmp_path: Path, workspace: Workspace, data: Path
) -> None:
    good, last = Workspace(tmp_path / "good"), [data / f"{i:02d}.png" for i in range(30, 40)]
    build(good, data)
    for image in last:
        image.rename(tmp_path / image.name)
    interrupted(workspace, data, skip_broken=True).close()  # type: ignore[attr-defined]
    for image in last:
        (tmp_path / image.name).rename(image)
    for i in (1, 2):
        build(workspace, data, part=(i, 2))
    assert contents(workspace.dataset_dir("mine")) == contents(good.dataset_dir("mine"))


def test_a_refused_dataset_of_too_few_images_is_built_when_they_are_mended(
    tmp_path: Path, workspace: Workspace, data: Path
) -> None:
    good, before = Workspace(tmp_path / "good"), {path: path.read_bytes() for path in data.glob("*.png")}
    build(good, data)
    for path in list(before)[1:]:
        path.write_bytes(b"not a picture")
    with pytest.raises(JobError, match="0 tasks leave none for"):
        build(workspace, data, skip_broken=True)
    for path, content in before.items():
        path.write_bytes(content)
    build(workspace, data)
    assert contents(workspace.dataset_dir("mine")) == contents(good.dataset_dir("mine"))


def test_without_any_image_nothing_is_left_to_skip(workspace: Workspace, data: Path) -> None:
    for path in data.glob("*.png"):
        path.unlink()
    with pytest.raises(MissingError, match=r"40 of 40 images are not there .* place with --image-root$"):
        build(workspace, data, skip_broken=True)


@pytest.mark.parametrize("name", ["tasks.jsonl", "images.jsonl", "features/texts.safetensors", "recipe.json"])
def test_what_is_damaged_in_an_unfinished_dataset_is_made_again(workspace: Workspace, data: Path, name: str) -> None:
    build(workspace, data)
    folder = workspace.dataset_dir("mine")
    expected = contents(folder)
    (folder / "dataset.json").unlink()
    (folder / name).write_bytes(b"{damaged")
    build(workspace, data)
    assert contents(folder) == expected


def test_a_shard_in_another_configuration_is_refused_while_others_are_made(workspace: Workspace, data: Path) -> None:
    events = interrupted(workspace, data, part=(1, 2))
    with pytest.raises(BusyError, match="a shard of dataset mine is being made by process"):
        build(workspace, data, part=(2, 2), validation_fraction=0.5)
    assert isinstance(list(events)[-1], Narrated)
    assert isinstance(build(workspace, data, part=(2, 2))[-1], DatasetBuilt)


def test_a_shard_whose_dataset_was_begun_anew_is_told(workspace: Workspace, data: Path) -> None:
    events = interrupted(workspace, data, part=(1, 2))
    recipe = workspace.dataset_dir("mine") / "recipe.json"
    dataset = json.loads(recipe.read_text())["dataset"]
    rewrite(recipe, dataset={**dataset, "validation_fraction": 0.5})
    with pytest.raises(BusyError, match="was begun anew in another configuration while shard 1/2"):
        list(events)


@pytest.mark.parametrize(("how", "option"), [({"force": True}, "--force"), ({"tasks_only": True}, "--tasks-only")])
def test_a_part_of_what_is_about_the_whole_is_refused(
    workspace: Workspace, data: Path, how: dict[str, bool], option: str
) -> None:
    with pytest.raises(UsageError, match=f"^{option} is about a whole dataset"):
        build(workspace, data, part=(1, 2), **how)


def test_a_folder_of_images_may_be_called_like_an_archive(workspace: Workspace, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures.zip"
    folder.mkdir()
    for path in data.glob("*.png"):
        path.rename(folder / path.name)
    assert isinstance(build(workspace, data, image_roots=[str(folder)])[-1], DatasetBuilt)
    assert open_dataset(workspace, "mine").image_path("07.png") == folder / "07.png"
