"""Feature rows come back exactly, by position, and never damaged."""

from pathlib import Path

import numpy as np
import pytest

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.features import FeatureStore, write_features

IDENTITY = {"model": "tiny", "pretrained": "sha256:1", "quick_gelu": False}
IDS = ["scene-0", "ein Bild\n", "画\u2028像", 'quote"s', "e"]


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, features: np.ndarray) -> Path:
    path = tmp_path / "features" / "images.safetensors"
    write_features(path, IDS, features, {"encoder": IDENTITY, "rows": 5})
    return path


def test_rows_ids_and_header_come_back(path: Path, features: np.ndarray) -> None:
    store = FeatureStore.open(path)
    assert len(store) == 5
    assert store.ids == IDS
    assert {key: store.header[key] for key in ("encoder", "rows")} == {"encoder": IDENTITY, "rows": 5}
    assert np.array_equal(store.rows([4, 0, 4]), features[[4, 0, 4]])
    assert np.array_equal(store.rows(np.arange(5)), features)
    assert store.rows([]).shape == (0, 7)


def test_rows_are_read_through_a_map_and_handed_out_as_copies(path: Path, features: np.ndarray) -> None:
    store = FeatureStore.open(path)
    assert isinstance(store.features, np.memmap)
    rows = store.rows([0])
    assert type(rows) is np.ndarray
    rows += 1
    assert np.array_equal(store.rows([0]), features[[0]])


def test_a_store_without_images_is_empty(tmp_path: Path) -> None:
    write_features(tmp_path / "none.safetensors", [], np.zeros((0, 7), np.float32), {})
    store = FeatureStore.open(tmp_path / "none.safetensors")
    assert len(store) == 0 and store.ids == [] and store.features.shape == (0, 7)


@pytest.mark.parametrize("tensor", ["features", "ids"])
def test_a_flipped_byte_is_found(tensor: str, path: Path, features: np.ndarray) -> None:
    store = FeatureStore.open(path)
    assert np.array_equal(store.verified(), features)
    data = bytearray(path.read_bytes())
    data[store.layout.data_start + store.layout.tensors[tensor]["data_offsets"][0]] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"damaged .*dataset build --force"):
        _ = FeatureStore.open(path).verified()
    if tensor == "ids":
        with pytest.raises(JobError, match=r"damaged .*dataset build --force"):
            _ = FeatureStore.open(path).ids


def test_a_missing_or_truncated_file_says_how_to_build_it_again(path: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        FeatureStore.open(tmp_path / "none.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JobError, match=r"truncated.*dataset build --force"):
        FeatureStore.open(path)


def test_another_kind_of_tensor_file_is_refused(tmp_path: Path) -> None:
    import torch

    from metavqa_cli.store.tensors import save_tensors

    path = tmp_path / "model.safetensors"
    save_tensors(path, {"features": torch.zeros(3)}, {})
    with pytest.raises(JobError, match="not a feature file"):
        FeatureStore.open(path)


def test_features_of_the_wrong_kind_are_a_programming_error(tmp_path: Path, features: np.ndarray) -> None:
    for ids, wrong in ((["a"], features), (IDS, features.astype(np.float64)), (IDS, features[:, 0])):
        with pytest.raises(ValueError, match="ids need float32 features"):
            write_features(tmp_path / "f.safetensors", ids, wrong, {})


def test_features_that_are_not_finite_are_never_written(tmp_path: Path, features: np.ndarray) -> None:
    features[2, 3] = np.nan
    with pytest.raises(JobError, match="NaN"):
        write_features(tmp_path / "f.safetensors", IDS, features, {})
    assert list(tmp_path.iterdir()) == []
