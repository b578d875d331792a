"""A dataset's files against the record of them, its images where they are, and the removal of a dataset."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metavqa_cli.engine import image_check, remove, verify
from metavqa_cli.engine.image_check import Difference
from metavqa_cli.engine.manifest import SCHEMA_VERSION, check_recorded, read_manifest
from metavqa_cli.engine.remove import find_dataset, remove_dataset
from metavqa_cli.engine.site import finish_removals
from metavqa_cli.engine.verify import Report, check_files, describe_files, verify_dataset
from metavqa_cli.schema.errors import BusyError, JobError, MissingError, UsageError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store import locks, runs
from metavqa_cli.store.images import ImageFile, write_index
from metavqa_cli.store.sealed import write_sealed
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks
from tests.miniature import WHOLE

IMAGES = [f"00{n // 2}/{n}" for n in range(6)]  # three folders of two


def tasks_of(images: list[str]) -> TaskSet:
    return TaskSet((
        Task("What is it?", "it is {}", ("a", "b"), tuple((i, 0) for i in images), ((images[0], 1),), "train"),
    ))  # fmt: skip


def record(folder: Path) -> Path:
    """Write the manifest of what is in ``folder``."""
    write_sealed(folder / "dataset.json", {"schema_version": SCHEMA_VERSION, **WHOLE, "files": describe_files(folder)})
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dataset.json").read_text()))


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A dataset with images of its own."""
    folder = tmp_path / "w" / "datasets" / "drawn"
    for number, image in enumerate(IMAGES):
        path = folder / "images" / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    (folder / "features").mkdir()
    (folder / "features" / "images.safetensors").write_bytes(b"features")
    dump_tasks(folder / "tasks.jsonl", tasks_of(IMAGES))
    return record(folder)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A dataset whose images are half in a folder, half in an archive."""
    photos, archive = tmp_path / "photos", tmp_path / "more.zip"
    photos.mkdir()
    places = {}
    with zipfile.ZipFile(archive, "w") as packed:
        for number in range(6):
            name = f"{number}.jpg"
            Image.new("RGB", (20, 10), (40 * number, 0, 0)).save(photos / name)
            places[str(number)] = ImageFile(photos, name)
            if number % 2:
                packed.write(photos / name, f"inner/{name}")
                (photos / name).unlink()
                places[str(number)] = ImageFile(archive, f"inner/{name}", packed=True)
    folder = tmp_path / "w" / "datasets" / "listed"
    folder.mkdir(parents=True)
    dump_tasks(folder / "tasks.jsonl", tasks_of([str(number) for number in range(6)]))
    write_index(folder / "images.jsonl", places)
    return record(folder)


def found(folder: Path) -> list[tuple[str, str]]:
    return [(d.file, d.problem) for d in check_files(folder, manifest_of(folder))]


def verified(folder: Path, **how: Any) -> tuple[Report, list[Event]]:
    events, run = [], verify_dataset(folder, **how)
    while True:
        try:
            events.append(next(run))
        except StopIteration as end:
            return end.value, events


def problems(folder: Path, **how: Any) -> list[tuple[str, str]]:
    return [(Path(d.file).name, d.problem) for d in verified(folder, **how)[0].differences]


def test_the_record_has_every_file_and_one_entry_for_a_folder_of_pictures(drawn: Path) -> None:
    files = manifest_of(drawn)["files"]
    assert list(files) == ["features/images.safetensors", "images/000/", "images/001/", "images/002/", "tasks.jsonl"]
    assert files["tasks.jsonl"].keys() == {"bytes", "sha256"}
    assert files["features/images.safetensors"]["bytes"] == len(b"features")
    both = [drawn / "images" / f"{image}.png" for image in IMAGES[:2]]
    assert files["images/000/"] == {
        "files": 2, "bytes": sum(path.stat().st_size for path in both), "sha256": files["images/000/"]["sha256"],
    }  # fmt: skip
    assert describe_files(drawn) == files


def test_an_untouched_dataset_has_no_difference(drawn: Path, listed: Path) -> None:
    assert found(drawn) == found(listed) == []
    report, events = verified(drawn, decode=True)
    assert (report.files, report.images, report.decoded, report.differences) == (8, 6, 6, ())
    assert report.bytes == sum(entry["bytes"] for entry in manifest_of(drawn)["files"].values())
    assert events[-1] == ProgressMade("decoding images", 6, 6, "images")
    assert ProgressMade("checking files", 5, 5, "files") in events
    report, _ = verified(listed, decode=True)
    assert (report.files, report.images, report.decoded, report.differences) == (2, 6, 6, ())


FEATURES = "features/images.safetensors"


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def touch_hidden(folder: Path) -> None:
    for name in (".tmp-0a1b-tasks.jsonl", "images/.DS_Store", "images/000/.tmp-1", "features/.x"):
        (folder / name).write_text("x")


CHANGES: dict[str, tuple[Callable[[Path], object], list[tuple[str, str]]]] = {
    "a file is removed": (lambda d: (d / FEATURES).unlink(), [(FEATURES, "missing")]),
    "the tasks are removed": (lambda d: (d / "tasks.jsonl").unlink(), [("tasks.jsonl", "missing")]),
    "a file is added": (lambda d: (d / "notes.txt").write_text("x"), [("notes.txt", "extra")]),
    "a file grows": (lambda d: grow(d / "tasks.jsonl"), [("tasks.jsonl", "size")]),
    "a bit flips": (lambda d: flip(d / FEATURES), [(FEATURES, "content")]),
    "an image is removed": (lambda d: (d / "images/001/3.png").unlink(), [("images/001/", "size")]),
    "a bit flips in an image": (lambda d: flip(d / "images/002/5.png"), [("images/002/", "content")]),
    "an image is renamed": (
        lambda d: (d / "images/002/5.png").rename(d / "images/002/6.png"), [("images/002/", "content")]
    ),
    "images are swapped": (
        lambda d: swap(d / "images/000/0.png", d / "images/000/1.png"), [("images/000/", "content")]
    ),
    "a folder of images is renamed": (
        lambda d: (d / "images/000").rename(d / "images/009"), [("images/000/", "missing"), ("images/009/", "extra")]
    ),
    "hidden and temporary files come": (touch_hidden, []),
    "the manifest grows": (lambda d: grow(d / "dataset.json"), []),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_said(drawn: Path, change: str) -> None:
    act, expected = CHANGES[change]
    act(drawn)
    assert found(drawn) == expected


def test_sizes_and_digests_are_named(drawn: Path) -> None:
    (drawn / "features" / "images.safetensors").write_bytes(b"x" * 1234)
    (drawn / "images" / "001" / "2.png").unlink()
    (images, features) = sorted(check_files(drawn, manifest_of(drawn)), key=lambda d: d.file, reverse=True)
    assert images.detail == "1 files, expected 2" and features.detail == "1,234 bytes, expected 8"
    assert [name for name, problem in problems(drawn) if problem == "gone"] == ["2.png"]


@pytest.mark.parametrize("files", [None, [], {"tasks.jsonl": 3}])
def test_a_manifest_without_a_record_is_a_difference_of_its_own(drawn: Path, files: Any) -> None:
    write_sealed(drawn / "dataset.json", {"schema_version": SCHEMA_VERSION, **WHOLE, "files": files})
    assert problems(drawn) == [("dataset.json", "unrecorded")]


def test_damaged_tasks_are_told_with_their_line(drawn: Path) -> None:
    (drawn / "tasks.jsonl").write_text("{}\n")
    report, _ = verified(drawn, decode=True)
    assert [(d.file, d.problem) for d in report.differences] == [("tasks.jsonl", "size"), ("tasks.jsonl", "damaged")]
    assert "line 1 is damaged" in report.differences[1].detail and report.images == 0


def test_linked_folders_count_as_the_datasets_own(drawn: Path, tmp_path: Path) -> None:
    (drawn / "images").rename(tmp_path / "elsewhere")
    (drawn / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "000" / "loop").symlink_to(drawn)
    assert found(drawn) == []


def test_images_elsewhere_are_looked_for_and_decoded_on_demand(listed: Path, tmp_path: Path) -> None:
    assert manifest_of(listed)["files"]["images.jsonl"]["images"] == 6
    (tmp_path / "photos" / "2.jpg").unlink()
    (tmp_path / "photos" / "4.jpg").write_bytes(b"")
    assert problems(listed) == [("2.jpg", "gone"), ("4.jpg", "damaged")]


def test_a_place_that_is_gone_is_one_difference(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "more.zip").unlink()
    for path in (tmp_path / "photos").iterdir():
        path.unlink()
    archive, folder = verified(listed)[0].differences
    assert (archive.file, archive.problem) == (str(tmp_path / "more.zip"), "gone")
    assert (folder.file, folder.problem) == (str(tmp_path / "photos"), "gone")
    assert "none of its images is there; 3 images of the dataset should be in it" in folder.detail


def test_a_cut_archive_is_damaged_not_gone(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "more.zip").write_bytes((tmp_path / "more.zip").read_bytes()[:-30])
    (difference,) = verified(listed)[0].differences
    assert (difference.file, difference.problem) == (str(tmp_path / "more.zip"), "damaged")


def test_images_that_moved_are_found_by_the_first_line_alone(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "moved")
    assert problems(listed) == [("photos", "gone")]
    index = listed / "images.jsonl"
    index.write_text(index.read_text().replace(f"{tmp_path}/photos", f"{tmp_path}/moved", 1))
    assert problems(listed, decode=True) == []
    index.write_text(index.read_text().replace("2.jpg", "0.jpg"))
    assert ("images.jsonl", "content") in problems(listed)


def test_another_image_in_place_of_one_is_seen_by_the_total_size(listed: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), "green").save(tmp_path / "photos" / "0.jpg")
    (difference,) = verified(listed)[0].differences
    assert (difference.file, difference.problem) == ("images.jsonl", "size")
    assert "bytes in all, expected" in difference.detail


def test_an_image_that_the_index_lost_and_a_damaged_index_are_told(listed: Path) -> None:
    lines = (listed / "images.jsonl").read_text().splitlines(keepends=True)
    (listed / "images.jsonl").write_text("".join(lines[:-1]))
    assert problems(listed) == [("images.jsonl", "size"), ("5", "missing")]
    (listed / "images.jsonl").write_text("".join([*lines[:-1], "cut"]))
    assert problems(listed) == [("images.jsonl", "size"), ("images.jsonl", "damaged")]
    (listed / "images.jsonl").write_text("".join(lines))
    (listed / "tasks.jsonl").unlink()
    assert problems(listed) == [("tasks.jsonl", "missing")]


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_images_are_found_wherever_they_are(
    listed: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_check, "BATCH", 2)
    whole = (tmp_path / "photos" / "2.jpg").read_bytes()
    (tmp_path / "photos" / "2.jpg").write_bytes(whole[:300] + bytes(len(whole) - 300))  # of the same size
    (tmp_path / "photos" / "4.jpg").write_bytes(b"no image".ljust((tmp_path / "photos" / "4.jpg").stat().st_size))
    assert problems(listed) == []  # which sizes alone do not show
    report, events = verified(listed, decode=True, workers=workers)
    assert [Path(d.file).name for d in report.differences] == ["2.jpg", "4.jpg"]
    assert all(d.problem == "damaged" and Path(d.file).name in d.detail for d in report.differences)
    assert [event.done for event in events if isinstance(event, ProgressMade) and event.unit == "images"] == [2, 4, 6]


def test_many_lost_images_are_counted(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_check, "LISTED", 1)
    for number in (0, 2):
        (tmp_path / "photos" / f"{number}.jpg").unlink()
    first, more = verified(listed)[0].differences
    assert Path(first.file).name == "0.jpg"
    assert more == Difference("1 more", "gone", f"the first of them is {tmp_path / 'photos' / '2.jpg'}")


def test_no_dataset_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no dataset 'none'"):
        verified(tmp_path / "datasets" / "none")


def test_a_dataset_of_tasks_only_has_no_images(tmp_path: Path) -> None:
    dump_tasks(tmp_path / "tasks.jsonl", tasks_of(IMAGES))
    report, _ = verified(record(tmp_path), decode=True)
    assert (report.files, report.images, report.decoded, report.differences) == (1, 0, 0, ())


def test_files_are_read_in_pieces(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "CHUNK", 3)
    assert found(drawn) == []


# Removal


def test_a_removed_dataset_leaves_nothing_but_the_images_elsewhere(listed: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    (listed.parent / f".tmp-0123abcd-{listed.name}").mkdir()
    (listed.parent / f".tmp-0123abcd-other-{listed.name}").mkdir()
    (listed.parent / f".{listed.name}.new").mkdir()
    doomed = find_dataset(workspace, "listed")
    assert (doomed.files, doomed.runs) == (3, ())
    remove_dataset(workspace, doomed)
    left = {path.name for path in listed.parent.iterdir() if path.is_dir()}
    assert left == {f".tmp-0123abcd-other-{listed.name}"}
    assert (tmp_path / "photos" / "0.jpg").is_file() and (tmp_path / "more.zip").is_file()


def test_a_removal_that_was_killed_is_finished_unless_somebody_is_at_it(drawn: Path) -> None:
    folders = drawn.parent
    aside = [folders / f".tmp-0123abcd-{name}" for name in ("gone", "busy", "replaced")]
    for folder in aside:
        (folder / "features").mkdir(parents=True)
    (folders / ".replaced.new").mkdir()
    (folders / ".replaced.new" / "dataset.json").write_text("{}")  # put in its place by its own build, then
    with locks.hold(folders / ".busy.lock", "it"):
        finish_removals(folders)
    assert [folder.exists() for folder in aside] == [False, True, True]
    finish_removals(folders)
    assert [folder.exists() for folder in aside] == [False, False, True] and found(drawn) == []
    finish_removals(folders / "none")


def test_a_dataset_that_is_a_link_loses_only_the_link(drawn: Path, tmp_path: Path) -> None:
    drawn.rename(tmp_path / "big")
    drawn.symlink_to(tmp_path / "big")
    remove_dataset(Workspace(tmp_path / "w"), find_dataset(Workspace(tmp_path / "w"), "drawn"))
    assert not drawn.is_symlink() and (tmp_path / "big" / "tasks.jsonl").is_file()


@pytest.mark.parametrize("lock", [".drawn.lock", ".drawn.shard-1-of-2.lock"])
def test_a_dataset_in_the_making_is_not_removed(drawn: Path, tmp_path: Path, lock: str) -> None:
    workspace = Workspace(tmp_path / "w")
    doomed = find_dataset(workspace, "drawn")
    with locks.hold(drawn.with_name(lock), "it"), pytest.raises(BusyError, match=str(os.getpid())):
        remove_dataset(workspace, doomed)
    assert found(drawn) == []


def test_runs_on_the_dataset_are_named_and_a_working_one_keeps_it(drawn: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    run = runs.create(workspace, "zoo", "aaaa1111", {}, {}, {"name": "drawn", "fingerprint": "1"})
    runs.create(workspace, "zoo", "bbbb2222", {}, {}, {"name": "other", "fingerprint": "1"})
    doomed = find_dataset(workspace, "drawn")
    assert doomed.runs == (run.id,)
    with run.lock(), pytest.raises(BusyError, match=f"used by the running {run.id}"):
        remove_dataset(workspace, doomed)
    assert drawn.is_dir()


@pytest.mark.parametrize("name", ["none", "", ".", "..", "../datasets", "drawn/features", ".drawn.new"])
def test_only_a_dataset_of_the_workspace_can_be_removed(drawn: Path, tmp_path: Path, name: str) -> None:
    (drawn.parent / ".drawn.new").mkdir()
    with pytest.raises(MissingError, match="there is no dataset"):
        find_dataset(Workspace(tmp_path / "w"), name)


def test_a_folder_that_metavqa_did_not_make_is_not_removed(drawn: Path, tmp_path: Path) -> None:
    (drawn / "dataset.json").unlink()
    with pytest.raises(UsageError, match="is no dataset of metavqa"):
        find_dataset(Workspace(tmp_path / "w"), "drawn")
    (drawn / remove.OWN[1]).write_text("{}")  # begun, not finished
    assert find_dataset(Workspace(tmp_path / "w"), "drawn").files == 9


@pytest.mark.parametrize("recipe", [{}, {"dataset": {}}, {"dataset": {}, "clip": "tiny"}])
def test_a_manifest_whose_recipe_lacks_a_part_is_damaged(drawn: Path, recipe: dict[str, Any]) -> None:
    (drawn / "dataset.json").write_text(json.dumps({"schema_version": 1, **WHOLE, "recipe": recipe}))  # has no seal
    with pytest.raises(JobError, match=r"dataset\.json is damaged \(.*\); build it again with .* --name drawn"):
        read_manifest(drawn)


@pytest.mark.parametrize("files", [None, [1], {"tasks.jsonl": "0" * 64}])
def test_a_manifest_without_a_sound_record_vouches_for_no_file(drawn: Path, files: Any) -> None:
    manifest = {"schema_version": 1, **WHOLE, "encoder": {}, "files": files}
    (drawn / "dataset.json").write_text(json.dumps(manifest))
    check_recorded(drawn, "tasks.jsonl")
    assert [(found.file, found.problem) for found in check_files(drawn, manifest)] == [("dataset.json", "unrecorded")]
