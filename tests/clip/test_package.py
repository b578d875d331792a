"""The packaged tiny CLIP: what goes in comes out, and the unpacked copy is complete or made again."""

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metavqa_cli.clip.tiny import package as packaging
from metavqa_cli.clip.tiny.package import (
    CONFIG_PATH,
    EMBEDDING,
    UNPACKED_CONFIG,
    UNPACKED_WEIGHTS,
    WEIGHTS,
    is_complete,
    known_tokens,
    package_hash,
    restore,
    unpack,
    write_package,
)
from metavqa_cli.schema.errors import JobError, MissingError

IDS = torch.tensor([0, 7, 49406, 49407])
STATE = {
    EMBEDDING: torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    "visual.conv.weight": torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1)),
    "visual.bn.num_batches_tracked": torch.tensor(70_000),
    "logit_scale": torch.tensor(4.6),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(STATE | {"attn_mask": torch.zeros(3, 3)}, IDS, tmp_path / "package")
    return tmp_path / "package"


def test_what_was_written_comes_back_in_half_precision(package: Path) -> None:
    state = restore(package)
    assert state.keys() == STATE.keys()
    assert torch.equal(state["visual.conv.weight"], STATE["visual.conv.weight"].half().float())
    assert state["visual.bn.num_batches_tracked"] == 70_000  # beyond what fp16 can count
    assert state["logit_scale"].dtype == torch.float32


def test_only_trained_rows_are_not_zero(package: Path) -> None:
    embedding = restore(package)[EMBEDDING]
    assert embedding.shape == (json.loads(CONFIG_PATH.read_text())["text_cfg"]["vocab_size"], 3)
    assert torch.equal(embedding[IDS], STATE[EMBEDDING].half().float())
    assert embedding.any(1).nonzero()[:, 0].tolist() == IDS.tolist()
    assert known_tokens(package) == set(IDS.tolist())


def test_the_hash_is_of_weights_and_configuration(package: Path) -> None:
    before = package_hash(package)
    write_package(STATE, IDS, package)
    assert package_hash(package) == before
    write_package(STATE | {"logit_scale": torch.tensor(4.5)}, IDS, package)
    assert package_hash(package) != (changed := before)
    write_package(STATE, IDS, package)
    (package / CONFIG_PATH.name).write_text("{}")
    assert package_hash(package) != changed


def test_an_unpacked_folder_is_what_open_clip_reads(package: Path, tmp_path: Path) -> None:
    folder = unpack(package, tmp_path / "cache")
    weights = load_file(folder / UNPACKED_WEIGHTS)
    assert all(torch.equal(weights[name].float(), value) for name, value in restore(package).items())
    config = json.loads((folder / UNPACKED_CONFIG).read_text())
    assert config["model_cfg"] == json.loads(CONFIG_PATH.read_text())
    assert config["preprocess_cfg"]["resize_mode"] == "squash"


def test_a_package_is_unpacked_once(package: Path, tmp_path: Path) -> None:
    folder = unpack(package, tmp_path)
    before = (folder / UNPACKED_WEIGHTS).stat()
    assert unpack(package, tmp_path) == folder
    assert (folder / UNPACKED_WEIGHTS).stat() == before
    write_package(STATE | {"logit_scale": torch.tensor(1.0)}, IDS, package)
    assert unpack(package, tmp_path) != folder


def truncate(folder: Path) -> None:
    path = folder / UNPACKED_WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lambda folder: (folder / UNPACKED_WEIGHTS).write_bytes(b""),
        lambda folder: (folder / UNPACKED_WEIGHTS).unlink(),
        lambda folder: (folder / UNPACKED_CONFIG).unlink(),
        lambda folder: (folder / UNPACKED_CONFIG).write_text("{"),
    ],
    ids=["truncated", "empty", "no weights", "no configuration", "half a configuration"],
)
def test_a_damaged_copy_is_made_again(package: Path, tmp_path: Path, damage: object) -> None:
    folder = unpack(package, tmp_path / "cache")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(folder)  # type: ignore[operator]
    assert not is_complete(folder)
    assert unpack(package, tmp_path / "cache") == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_many_at_once_agree(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six find no copy and each makes one, threads here that wait for each other before the last step; one wins."""
    ready, move = threading.Barrier(6), packaging._move

    def together(draft: Path, target: Path) -> None:
        ready.wait(60)
        move(draft, target)

    monkeypatch.setattr(packaging, "_move", together)
    with ThreadPoolExecutor(6) as pool:
        (folder,) = set(pool.map(lambda _: unpack(package, tmp_path / "cache"), range(6)))
    assert is_complete(folder)
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_without_a_package_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"the built-in CLIP model is not in .*install metavqa again"):
        unpack(tmp_path / "nowhere", tmp_path / "cache")


def test_a_damaged_package_is_said(package: Path, tmp_path: Path) -> None:
    path = package / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(MissingError, match=r"is damaged .*install metavqa again"):
        unpack(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(JobError, match=r"cannot unpack .*No space left.*XDG_CACHE_HOME"):
        unpack(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_is_said(package: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(JobError, match=f"cannot unpack the built-in CLIP model into {tmp_path / 'cache'}"):
        unpack(package, tmp_path / "cache")
