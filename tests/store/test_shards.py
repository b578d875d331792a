"""Shards are written once, found again, and read as one array; whatever does not belong together is refused."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store import shards
from metavqa_cli.store.features import FeatureStore, write_features
from metavqa_cli.store.shards import (
    ShardedFeatures,
    describe_difference,
    read_shard_state,
    shard_broken,
    shard_names,
    slices,
    write_shard,
)

ENCODER = {"model": "tiny", "weights": "1", "dtype": "float32", "mean": [0.5, 0.5, 0.5]}
OTHER = {**ENCODER, "dtype": "bfloat16"}
IDS = [f"{i:06d}/画\n{i}" for i in range(11)]
BROKEN = (("000005/画\n5", "5.jpg is damaged; copy it again"),)
REMEDY = r"dataset build --force --name set"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(IDS), 5)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, features: np.ndarray) -> Path:
    folder = tmp_path / "set" / "features"
    write_all(folder, features)
    return folder


def write_all(folder: Path, features: np.ndarray, encoder: dict[str, Any] = ENCODER) -> None:
    first = 0
    for name, ids in zip(shard_names("images", len(IDS)), slices(IDS), strict=True):
        broken = [pair for pair in BROKEN if pair[0] in ids]
        good = [first + i for i, image in enumerate(ids) if image not in dict(broken)]
        write_shard(folder / name, ids, features[good], encoder=encoder, first=first, total=len(IDS), broken=broken)
        first += len(ids)


@given(st.integers(0, 100))
def test_slices_are_the_ids_and_every_one_has_a_name(total: int) -> None:
    ids = [str(i) for i in range(total)]
    assert [image for part in slices(ids) for image in part] == ids
    names = shard_names("images", total)
    assert len(names) == len(slices(ids)) == max(1, -(-total // 4))
    assert names == sorted(names) and names[0].startswith("images-00001-of-")
    assert all(len(part) == 4 for part in slices(ids)[:-1])


def test_all_shards_read_as_one_array(folder: Path, features: np.ndarray) -> None:
    good = [i for i in range(len(IDS)) if i != 5]
    store = ShardedFeatures.open(folder, "images")
    assert len(store) == 10 and store.embed == 5
    assert store.ids == [IDS[i] for i in good]
    assert np.array_equal(store.verified(), features[good])
    assert np.array_equal(store.rows([9, 0, 4, 4]), features[good][[9, 0, 4, 4]])
    assert store.rows([]).shape == (0, 5)
    assert store.encoder == ENCODER and store.broken == BROKEN


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> ShardedFeatures:
    folder = tmp_path_factory.mktemp("set") / "features"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 4)
        write_all(folder, np.random.default_rng(0).standard_normal((len(IDS), 5)).astype(np.float32))
    return ShardedFeatures.open(folder, "images")


@given(indices=st.lists(st.integers(0, 9), max_size=20))
def test_any_rows_come_back_in_their_order(common: ShardedFeatures, indices: list[int]) -> None:
    assert np.array_equal(common.rows(indices), common.verified()[np.array(indices, dtype=int)])


@pytest.mark.parametrize("indices", [[10], [-1], [0, 99]])
def test_a_row_that_is_not_there_is_a_programming_error(folder: Path, indices: list[int]) -> None:
    with pytest.raises(IndexError):
        ShardedFeatures.open(folder, "images").rows(indices)


def test_the_same_features_are_the_same_bytes(folder: Path, features: np.ndarray, tmp_path: Path) -> None:
    write_all(tmp_path / "again", features)
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_dataset_without_images_is_one_empty_shard(tmp_path: Path) -> None:
    (name,) = shard_names("images", 0)
    write_shard(tmp_path / name, [], np.zeros((0, 5), np.float32), encoder=ENCODER, first=0, total=0)
    store = ShardedFeatures.open(tmp_path, "images")
    assert len(store) == 0 and store.ids == [] and store.verified().shape == (0, 5)


def test_a_shard_of_broken_images_alone_has_no_row(tmp_path: Path) -> None:
    (name,) = shard_names("images", 2)
    broken = [("a", "lost"), ("b", "lost")]
    write_shard(
        tmp_path / name, ["a", "b"], np.zeros((0, 5), np.float32), encoder=ENCODER, first=0, total=2, broken=broken
    )
    assert ShardedFeatures.open(tmp_path, "images").broken == tuple(broken)
    assert read_shard_state(tmp_path / name, ["a", "b"], ENCODER) == "finished"


def test_a_single_file_counts_as_one_shard(tmp_path: Path, features: np.ndarray) -> None:
    write_features(tmp_path / "images.safetensors", IDS, features, {"encoder": ENCODER})
    store = ShardedFeatures.open(tmp_path, "images")
    assert store.ids == IDS and store.encoder == ENCODER and store.broken == ()
    assert np.array_equal(store.verified(), features)


# --- going on with an interrupted build ---


def test_a_finished_shard_is_known_without_its_features(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureStore, "read_into", lambda *_: pytest.fail("features were read"))
    for name, ids in zip(shard_names("images", len(IDS)), slices(IDS), strict=True):
        assert read_shard_state(folder / name, ids, ENCODER, len(IDS)) == "finished"
    assert shard_broken(folder / shard_names("images", len(IDS))[1]) == BROKEN


def test_another_shard_is_told_from_the_wanted_one(folder: Path) -> None:
    first, second, _ = (folder / name for name in shard_names("images", len(IDS)))
    ids = IDS[:4]
    assert read_shard_state(folder / "none.safetensors", ids, ENCODER) == "absent"
    assert read_shard_state(first, ids, OTHER) == "other"
    assert read_shard_state(first, ids, ENCODER, 12) == "other"
    assert read_shard_state(first, ids[:3], ENCODER) == "other"
    assert read_shard_state(first, ids[::-1], ENCODER) == "other"
    assert read_shard_state(second, ids, ENCODER) == "other"
    assert read_shard_state(second, [*IDS[4:5], *IDS[6:8], "more"], ENCODER) == "other"
    first.write_bytes(first.read_bytes()[:-1])
    assert read_shard_state(first, ids, ENCODER) == "other"


# --- what does not belong together ---


def test_missing_shards_are_numbered(folder: Path) -> None:
    names = shard_names("images", len(IDS))
    (folder / names[1]).unlink()
    with pytest.raises(MissingError, match=r"shard 2 of 3 is missing in .*; run the same `metavqa dataset build`"):
        ShardedFeatures.open(folder, "images")
    (folder / names[0]).unlink()
    with pytest.raises(MissingError, match="shards 1 and 2 of 3 are missing"):
        ShardedFeatures.open(folder, "images")
    (folder / names[2]).unlink()
    with pytest.raises(MissingError, match=f"there are no features of images in .*{REMEDY}"):
        ShardedFeatures.open(folder, "images")


def test_many_missing_shards_are_counted(folder: Path) -> None:
    assert shards._and(range(1, 4)) == "1, 2 and 3"
    assert shards._and(range(1, 100)) == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 89 more"


@pytest.mark.parametrize("tensor", ["features", "ids"])
def test_a_flipped_byte_is_found(folder: Path, tensor: str) -> None:
    path = folder / shard_names("images", len(IDS))[2]
    store = FeatureStore.open(path)
    data = bytearray(path.read_bytes())
    data[store.layout.data_start + store.layout.tensors[tensor]["data_offsets"][0]] ^= 4
    path.write_bytes(data)
    with pytest.raises(JobError, match=rf"00003-of-00003.safetensors is damaged .*{REMEDY}"):
        ShardedFeatures.open(folder, "images").verified()


def test_a_truncated_shard_is_named(folder: Path) -> None:
    path = folder / shard_names("images", len(IDS))[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JobError, match=rf"00002-of-00003.safetensors is truncated.*{REMEDY}"):
        ShardedFeatures.open(folder, "images")


def test_shards_of_different_encoders_are_refused_with_both_values(folder: Path, features: np.ndarray) -> None:
    path = folder / shard_names("images", len(IDS))[2]
    write_shard(path, IDS[8:], features[8:], encoder=OTHER, first=8, total=11)
    expected = r"dtype: 'float32' in images-00001-of-00003.\w+, 'bfloat16' in images-00003-of-00003.*" + REMEDY
    with pytest.raises(JobError, match=expected):
        ShardedFeatures.open(folder, "images")


def test_shards_of_different_builds_are_refused(folder: Path, features: np.ndarray) -> None:
    names = shard_names("images", len(IDS))
    shutil.copy(folder / names[0], folder / "images-00001-of-00002.safetensors")
    with pytest.raises(JobError, match=r"images-00001-of-00002.\w+ and .*images-00001-of-00003.\w+ are of different"):
        ShardedFeatures.open(folder, "images")
    (folder / "images-00001-of-00002.safetensors").unlink()
    shutil.copy(folder / names[0], folder / names[1])
    with pytest.raises(JobError, match=r"00002-of-00003.* it begins at image 0 of 11, expected 4 of 11"):
        ShardedFeatures.open(folder, "images")


def test_every_field_in_which_encoders_differ_is_named_with_both_values(folder: Path) -> None:
    there = ShardedFeatures.open(folder, "images").encoder
    text = describe_difference(there, {**OTHER, "mean": [0.1, 0.5, 0.5], "fill_color": 3})
    for part in ("dtype: 'float32' there, 'bfloat16' here", "fill_color: None there, 3 here", "mean: [0.5, 0.5, 0.5]"):
        assert part in text
    assert "weights" not in text and describe_difference(there, json.loads(json.dumps(ENCODER))) == ""


def test_other_files_in_the_folder_are_left_alone(folder: Path, features: np.ndarray) -> None:
    write_features(folder / "texts.safetensors", IDS, features, {})
    for name in ("images-old.safetensors", "images-1-of-2.safetensors", "more-images-00001-of-00009.safetensors"):
        (folder / name).write_text("something else")
    assert len(ShardedFeatures.open(folder, "images")) == 10


@pytest.mark.bench
def test_a_dataset_of_full_size_opens_in_under_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4096)
    total = 64_665
    ids = [f"val2014/COCO_val2014_{i:012d}" for i in range(total)]
    rows = np.random.default_rng(0).standard_normal((4096, 768)).astype(np.float32)
    for number, (name, part) in enumerate(zip(shard_names("images", total), slices(ids), strict=True)):
        write_shard(tmp_path / name, part, rows[: len(part)], encoder=ENCODER, first=4096 * number, total=total)
    begun = time.perf_counter()
    store = ShardedFeatures.open(tmp_path, "images")
    assert len(store.ids) == len(store.verified()) == total
    print(json.dumps({"subject": "open and verify 64,665 × 768", "value": time.perf_counter() - begun, "unit": "s"}))
    assert time.perf_counter() - begun < 1
