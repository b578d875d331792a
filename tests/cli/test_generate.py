"""`metavqa generate`: a classifier as one file."""

from pathlib import Path

import pytest
import torch

from metavqa_cli.engine.classifier import load_classifier
from metavqa_cli.store.tensors import load_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished, generated
from tests.cli.terminal import Terminal

KEYS = {"file", "bytes", "question", "answers", "template", "gamma", "seed", "weights", "runs"}


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


def test_the_file_holds_what_was_asked_for(metavqa: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "new" / "car.safetensors"
    made = data(metavqa(
        "generate", "What color is the car?", "--answers", " red, blue,red ", "--gamma", "2", "--seed", "9",
        "--samples", "3", "-o", str(file), "--json",
    ))  # fmt: skip
    assert made.keys() == KEYS
    read = load_classifier(file)
    assert (read.question, read.answers, read.gamma, read.seed) == ("What color is the car?", ("red", "blue"), 2.0, 9)
    assert read.sampler == {"sampler": "ddim", "steps": 4, "samples": 3}
    assert read.encoder == miniature.encoder().identity
    model = miniature.run("ldm", "task")
    assert read.runs == {"ldm": model.id, "generator": model.manifest()["parents"]["generator"]} == made["runs"]
    assert made["bytes"] == file.stat().st_size and made["weights"] == read.layout.size


def test_the_same_request_gives_the_same_classifier(metavqa: Terminal, tmp_path: Path) -> None:
    one, two = (load_tensors(generated(metavqa, tmp_path / f"{n}.safetensors")) for n in range(2))
    assert one[1] == two[1]
    assert torch.equal(one[0]["weights"], two[0]["weights"])


def test_an_existing_file_is_replaced_only_by_force(metavqa: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("mine")
    command = ["generate", "What color is the car?", "--answers", "red,blue", "-o", str(file)]
    done = metavqa(*command)
    assert (done.code, done.out) == (5, "")
    assert f"{file} exists; choose another --output, or replace it with --force" in done.err
    assert file.read_text() == "mine"
    assert metavqa(*command, "--force").code == 0
    assert load_classifier(file).answers == ("red", "blue")


def test_a_folder_is_no_file(metavqa: Terminal, tmp_path: Path) -> None:
    done = metavqa("generate", "What color is the car?", "-o", str(tmp_path), "--force")
    assert done.code == 2 and f"{tmp_path} is a folder; name a file in it with --output" in done.err
