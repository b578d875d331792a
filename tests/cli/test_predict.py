"""`metavqa predict`: judging images with nothing but a classifier file."""

from pathlib import Path

import pytest

from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished, generated, photos
from tests.cli.terminal import Terminal


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


@pytest.fixture
def file(metavqa: Terminal, tmp_path: Path) -> Path:
    return generated(metavqa, tmp_path / "car.safetensors")


def test_it_judges_as_ask_does(metavqa: Terminal, file: Path) -> None:
    asked = data(metavqa("ask", "What color is the car?", *photos(3), "--answers", "red,blue,green", "--json"))
    assert data(metavqa("predict", str(file), *photos(3), "--json")) == asked["images"]


def test_it_needs_no_workspace(metavqa: Terminal, file: Path, tmp_path: Path) -> None:
    expected = data(metavqa("predict", str(file), *photos(2), "--json"))
    elsewhere = Terminal(tmp_path / "elsewhere", metavqa.capture)
    assert data(elsewhere("predict", str(file), *photos(2), "--json")) == expected
    assert not elsewhere.workspace.exists()


def test_limit_and_plain_output(metavqa: Terminal, file: Path) -> None:
    done = metavqa("predict", str(file), *photos(3), "--limit", "2")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == ["image", *photos(2)]


def test_another_version_of_the_built_in_clip_model_is_refused(metavqa: Terminal, file: Path) -> None:
    tensors, header = load_tensors(file)
    save_tensors(file, tensors, {**header, "encoder": {**header["encoder"], "weights": "0f"}})
    done = metavqa("predict", str(file), *photos(1))
    assert (done.code, done.out) == (2, "")
    assert f"the classifier {file} was made with the built-in CLIP model of another version of metavqa" in done.err
    assert "make it again" in done.err


def test_a_model_from_a_folder_must_be_named(metavqa: Terminal, file: Path) -> None:
    tensors, header = load_tensors(file)
    save_tensors(file, tensors, {**header, "encoder": {**header["encoder"], "model": "local-dir"}})
    done = metavqa("predict", str(file), *photos(1))
    assert done.code == 2 and "name it with --clip local-dir:FOLDER" in done.err


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [(lambda data: data[:-7], 1, "is truncated: expected"),
     (lambda data: data[:-1] + bytes([data[-1] ^ 1]), 1, "checksum"),
     (lambda data: b"not tensors", 1, "is not a safetensors file"), (None, 3, "does not exist")],
)  # fmt: skip
def test_a_file_that_is_not_intact_is_never_used(
    damage: object, code: int, words: str, metavqa: Terminal, file: Path
) -> None:
    data = file.read_bytes()
    file.unlink() if damage is None else file.write_bytes(damage(data))  # type: ignore[operator]
    done = metavqa("predict", str(file), *photos(1))
    assert (done.code, done.out) == (code, "")
    assert str(file) in done.err and words in done.err and len(done.err.splitlines()) == 1


def test_a_run_is_not_a_classifier(metavqa: Terminal) -> None:
    done = metavqa("predict", str(miniature.run("ldm").model_path), *photos(1))
    assert done.code == 1 and "not a classifier; generate it again with `metavqa generate`" in done.err


def test_no_image_at_all(metavqa: Terminal, file: Path) -> None:
    done = metavqa("predict", str(file))
    assert done.code == 2 and "no image to judge" in done.err
