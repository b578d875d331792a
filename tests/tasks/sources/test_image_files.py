"""Images are found in folders and archives, each listed once."""

import os
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.sources.image_files import find_coco, find_paths, image_roots
from metavqa_cli.tasks.sources.vqa2_files import known_folders
from tests.tasks.sources import vqa
from tests.tasks.sources.tables import broken


def name(i: int, split: str = "train2014") -> str:
    return f"COCO_{split}_{i:012d}"


def touch(folder: Path, *names: str) -> Path:
    for file in names:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


@pytest.mark.parametrize(
    "folder", ["", "train2014", "Images/mscoco/train2014", "images/train2014", "coco/train2014", "data/Images/mscoco"]
)
def test_folders_with_usual_names_are_looked_into(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / folder, f"{name(1)}.jpg", f"{name(2)}.JPG", f"{name(3)}.txt", f"{name(4)}.jpg")
    found, missing = find_coco([name(1), name(2), name(3), name(5)], [tmp_path])
    assert found == {name(1): ImageFile(tmp_path / folder, f"{name(1)}.jpg"),
                     name(2): ImageFile(tmp_path / folder, f"{name(2)}.JPG")}  # fmt: skip
    assert missing == (name(3), name(5))


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", f"{name(1)}.jpg")
    assert find_coco([name(1)], [tmp_path]) == ({}, (name(1),))
    found, _ = find_coco([name(1)], [tmp_path, tmp_path / "elsewhere"])
    assert found[name(1)].root == tmp_path / "elsewhere"


def test_archives_are_used_as_they_are_and_files_preferred(tmp_path: Path) -> None:
    touch(tmp_path / "train2014", f"{name(1)}.jpg")
    members = {"train2014/": b"", **{f"train2014/{name(i)}.jpg": b"image" for i in (1, 2)}, "../evil.jpg": b""}
    archive = vqa.write_zip(tmp_path / "downloads" / "train2014.zip", members)
    vqa.write_zip(tmp_path / "downloads" / "holiday.zip", {f"{name(3)}.jpg": b""})
    found, missing = find_coco([name(1), name(2), name(3)], [tmp_path])
    assert found == {
        name(1): ImageFile(tmp_path / "train2014", f"{name(1)}.jpg"),
        name(2): ImageFile(archive, f"train2014/{name(2)}.jpg", packed=True),
    }
    assert missing == (name(3),)
    named, _ = find_coco([name(3)], [tmp_path / "downloads" / "holiday.zip"])
    assert named[name(3)].packed


def test_each_folder_is_listed_once_whatever_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "train2014", *(f"{name(i)}.jpg" for i in range(50)))
    listed: list[str] = []
    scandir = os.scandir

    def listing(path: Path) -> Any:
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: pytest.fail("an image was looked at by itself"))
    wanted = [name(i) for i in range(100)]
    monkeypatch.setattr("metavqa_cli.tasks.sources.image_files.is_folder", lambda path: True)
    found, missing = find_coco(wanted, [tmp_path])
    assert (len(found), len(missing)) == (50, 50)
    assert listed == [str(tmp_path), str(tmp_path / "train2014")]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, f"{name(1)}.jpg")
    (tmp_path / "images").symlink_to(tmp_path)
    assert find_coco([name(1), name(2)], [tmp_path])[1] == (name(2),)


def test_a_link_to_itself_hides_no_other_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    for circle in (tmp_path / "data", tmp_path / "images" / "b.jpg"):
        circle.symlink_to(circle.name)
    assert find_coco(["a"], [tmp_path])[0] == {"a": ImageFile(tmp_path / "images", "a.jpg")}
    assert find_paths(["images/a.jpg"], [tmp_path])[1] == ()
    assert list(known_folders(tmp_path, frozenset({"data", "images"}))) == [tmp_path, tmp_path / "images"]


def test_a_damaged_archive_of_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "val2014.zip").write_bytes(b"PK nonsense")
    assert "val2014.zip is no complete zip archive" in broken(JobError, lambda: find_coco([name(1)], [tmp_path]))


def config(**values: Any) -> Dataset:
    return Dataset(**{"name": "x", "source": "vqa2", **values})


def test_roots_are_the_named_ones_or_the_path(tmp_path: Path) -> None:
    archive = vqa.write_zip(tmp_path / "photos.zip", {})
    assert image_roots(config(path=str(tmp_path))) == [tmp_path]
    assert image_roots(config(path="nowhere", image_roots=[str(tmp_path), str(archive)])) == [tmp_path, archive]
    with pytest.raises(MissingError, match=r"nowhere \(in dataset\.image_roots\) is no folder .*check --image-root"):
        image_roots(config(image_roots=["nowhere"]))
    with pytest.raises(UsageError, match=r"dataset\.path are empty; name the images with --image-root"):
        image_roots(config())


def test_paths_are_found_below_any_root_or_from_the_top(tmp_path: Path) -> None:
    touch(tmp_path / "one", "a.jpg", "deep/b.png")
    touch(tmp_path / "two", "a.jpg", "c.jpg")
    outside = touch(tmp_path / "three", "d.jpg") / "d.jpg"
    archive = vqa.write_zip(tmp_path / "photos.zip", {"e.jpg": b"", "a.jpg": b""})
    wanted = ["a.jpg", "deep/b.png", "c.jpg", "e.jpg", "deep", str(outside), str(tmp_path / "nowhere.jpg"), "f/g.jpg"]
    found, missing = find_paths(wanted, [tmp_path / "one", tmp_path / "two", archive])
    assert found == {
        "a.jpg": ImageFile(tmp_path / "one", "a.jpg"),
        "deep/b.png": ImageFile(tmp_path / "one", "deep/b.png"),
        "c.jpg": ImageFile(tmp_path / "two", "c.jpg"),
        "e.jpg": ImageFile(archive, "e.jpg", packed=True),
        str(outside): ImageFile(tmp_path / "three", "d.jpg"),
    }
    assert missing == tuple(sorted([str(tmp_path / "nowhere.jpg"), "deep", "f/g.jpg"]))
