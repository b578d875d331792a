"""A workspace holds no path of its own: moved, copied without order and times, or copied while it is written to."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from metavqa_cli.schema.events import RunStarted
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, photos
from tests.cli.terminal import Terminal
from tests.cli.test_train import interrupted
from tests.miniature import OPTIONS

ASK = ("ask", "What color is the car?", "--answers", "red,blue", "--json")


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def copied_in_any_order(source: Path, target: Path) -> None:
    """Every file by itself, in no order, with the time of the copy: what a copying tool may do at worst."""
    names = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    random.Random(0).shuffle(names)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        os.utime(target / name, (0, 0))


def test_no_file_of_a_workspace_names_the_folder_it_is_in() -> None:
    root = miniature.finished().root
    found = files(root)
    assert len(found) > 100
    names = [str(root), str(root.parent), str(root.resolve()), str(Path.home() / "metavqa")]
    assert [file for file, content in found.items() for name in names if name.encode() in content] == []


@pytest.mark.parametrize("way", ["moved", "copied", "copied in any order"])
def test_a_workspace_elsewhere_goes_on(
    way: str, metavqa: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, shown, asked; finished runs and the dataset are found again; an interrupted training resumes."""
    from metavqa_cli.engine import loop

    first, second = miniature.copy(tmp_path / "first"), Workspace(tmp_path / "second" / "place")
    metavqa.workspace, real = first.root, loop._step

    def stop(*args: object) -> object:
        if args[-1] == 1:
            signal.raise_signal(signal.SIGINT)
        return real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", stop)
        assert metavqa("train", "ldm", "--seed", "3", *OPTIONS).code == 130
    half = interrupted(first)
    before, images = data(metavqa(*ASK, *photos(2)))["images"], first.dataset_dir(miniature.NAME) / "images"
    ids = first.run_ids()
    {"moved": lambda: (second.root.parent.mkdir(), first.root.rename(second.root)),
     "copied": lambda: shutil.copytree(first.root, second.root, symlinks=True),
     "copied in any order": lambda: copied_in_any_order(first.root, second.root)}[way]()  # fmt: skip
    if way == "copied in any order":
        (second.dataset_dir(miniature.NAME) / "images").symlink_to(images.readlink())
        os.utime(second.root, (0, 0))
    shutil.rmtree(first.root, ignore_errors=True)
    metavqa.workspace = second.root
    assert [row["run"] for row in data(metavqa("runs", "ls", "--json"))] == [
        run.id for run in runs.list_runs(second)
    ] and second.run_ids() == ids
    assert data(metavqa("runs", "show", half.id, "--json"))["state"] == "interrupted"
    assert data(metavqa(*ASK, *photos(2)))["images"] == before
    again = metavqa("quickstart", *OPTIONS, "--json")
    assert again.code == 0, again.err
    assert second.run_ids() == ids and "is already there and is used again" in again.err
    made = data(metavqa("train", "ldm", "--resume", half.id, "--json"))
    resumed = runs.get(second, made["run"])
    starts = [event for event in resumed.events()[0] if isinstance(event, RunStarted)]
    assert resumed.id == half.id and len(starts) == 2 and resumed.state() == "finished"


def test_a_copy_of_a_run_at_work_is_stale_and_resumes(metavqa: Terminal, tmp_path: Path) -> None:
    """Taken in the middle of a line and of a checkpoint, with the lock of a process that is elsewhere."""
    source = miniature.copy(tmp_path / "source")
    metavqa.workspace = source.root
    from metavqa_cli.engine.diffusion import train_ldm

    work = train_ldm(miniature.session(source, seed=5), miniature.run("hvae", workspace=source))
    events = [next(work) for _ in range(4)]
    run = interrupted(source)
    assert run.state() == "running" and len(events) == 4
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(source.root, copy.root, symlinks=True)
    work.close()
    torn = runs.get(copy, run.id)
    log = torn.events_path.read_bytes()
    torn.events_path.write_bytes(log[: len(log) - 7])
    (torn.path / ".tmp-00000000-state.safetensors").write_bytes(b"half")
    assert torn.state() == "stale"
    metavqa.workspace = copy.root
    assert data(metavqa("runs", "show", run.id, "--json"))["state"] == "stale"
    assert data(metavqa("train", "ldm", "--resume", run.id, "--json"))["run"] == run.id
    assert torn.state() == "finished"


def test_a_read_only_workspace_is_listed_shown_and_asked(metavqa: Terminal, tmp_path: Path) -> None:
    """Nothing in it changes; where nothing may be written, a training says so."""
    workspace = miniature.copy(tmp_path / "workspace")
    metavqa.workspace, before = workspace.root, files(workspace.root)
    folders = [workspace.root, *(path for path in workspace.root.rglob("*") if path.is_dir() and not path.is_symlink())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        rows = data(metavqa("runs", "ls", "--json"))
        assert len(rows) == len(workspace.run_ids())
        assert data(metavqa("runs", "show", "zoo", "--json"))["state"] == "finished"
        assert len(data(metavqa(*ASK, *photos(2)))["images"]) == 2
        if os.geteuid():  # root may write anywhere
            done = metavqa("train", "ldm", "--seed", "9", *OPTIONS)
            assert done.code == 1 and "permission denied" in done.err
            assert files(workspace.root) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)
