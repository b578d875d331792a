"""The packaged tiny CLIP: what goes in comes out, and a damaged one is said to be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from metavqa_cli.clip.encoder import TINY_FOLDER
from metavqa_cli.clip.tiny.package import (
    CONFIG_PATH,
    EMBEDDING,
    WEIGHTS,
    known_tokens,
    load_package,
    package_hash,
    restore,
    write_package,
)
from metavqa_cli.schema.errors import MissingError

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


def test_without_a_package_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"the built-in CLIP model is not in .*install metavqa again"):
        package_hash(tmp_path / "nowhere")


def truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: value for name, value in tensors.items() if name != "visual.bn1.bias"}, folder / WEIGHTS)


def without_the_tokens(folder: Path) -> None:
    save_file({"logit_scale": torch.zeros(())}, folder / WEIGHTS)


def of_another_shape(folder: Path) -> None:
    config = json.loads((folder / CONFIG_PATH.name).read_text())
    (folder / CONFIG_PATH.name).write_text(json.dumps(config | {"embed_dim": 7}))


def half_a_configuration(folder: Path) -> None:
    (folder / CONFIG_PATH.name).write_text('{"embed_dim": 192')


@pytest.mark.parametrize(
    "damage", [truncated, without_a_tensor, without_the_tokens, of_another_shape, half_a_configuration]
)
def test_a_damaged_package_is_said(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "package")
    assert load_package(folder)[0].logit_scale > 0
    damage(folder)
    with pytest.raises(MissingError, match=r"the built-in CLIP model in .*package is damaged \(.+\); install metavqa"):
        load_package(folder)
