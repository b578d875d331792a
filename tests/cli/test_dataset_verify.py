"""`metavqa dataset verify` and `metavqa dataset rm`."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from metavqa_cli.cli import console
from metavqa_cli.engine.verify import describe_files
from metavqa_cli.store import locks, runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks
from tests.cli.pipeline import data
from tests.cli.terminal import Done, Terminal, assert_refused
from tests.miniature import WHOLE

TASK = Task("What is it?", "it is {}", ("a", "b"), (("00/1", 0),), (("00/2", 1),), "train")


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    made = workspace.dataset_dir("toys")
    (made / "images" / "00").mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(made / "images" / "00" / f"{number}.png")
    dump_tasks(made / "tasks.jsonl", TaskSet((TASK,)))
    (made / "dataset.json").write_text(
        json.dumps({"schema_version": 1, **WHOLE, "encoder": {}, "files": describe_files(made)})
    )
    return made


def damage(folder: Path) -> None:
    (folder / "extra.txt").write_text("x")
    path = folder / "images" / "00" / "2.png"
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))


def failed(done: Done) -> str:
    """The output of a check that found something."""
    assert done.code == 1
    assert "dataset 'toys' has " in done.err and "`metavqa dataset build --force --name toys`" in done.err
    return done.out


def test_a_whole_dataset_is_exit_code_0_with_counts(metavqa: Terminal, folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "dataset.json")
    report = data(metavqa("dataset", "verify", "toys", "--json"))
    assert report == {
        "dataset": "toys", "path": str(folder), "ok": True, "files": 3, "bytes": size, "images": 2, "decoded": 0,
        "differences": [],
    }  # fmt: skip
    done = metavqa("dataset", "verify", "toys", "--images", "--workers", "1")
    assert done.code == 0 and "ok\ttrue" in done.out and "decoded\t2" in done.out


def test_differences_are_exit_code_1_with_the_list(metavqa: Terminal, folder: Path) -> None:
    damage(folder)
    report = json.loads(failed(metavqa("dataset", "verify", "toys", "--json")))
    assert report["ok"] is False
    assert [(row["file"], row["problem"]) for row in report["differences"]] == [
        ("extra.txt", "extra"), ("images/00/", "content"),
    ]  # fmt: skip
    assert all(set(row) == {"file", "problem", "detail"} and row["detail"] for row in report["differences"])
    plain = failed(metavqa("dataset", "verify", "toys"))
    assert plain.splitlines()[:2] == ["file\tproblem\tdetail", "extra.txt\textra\tit is there and was not built"]
    rows = list(csv.DictReader(io.StringIO(failed(metavqa("dataset", "verify", "toys", "--format", "csv")))))
    assert [row["problem"] for row in rows] == ["extra", "content"]


def test_images_are_decoded_on_demand(metavqa: Terminal, folder: Path) -> None:
    damage(folder)
    (folder / "extra.txt").unlink()
    report = json.loads(failed(metavqa("dataset", "verify", "toys", "--images", "--json")))
    assert report["decoded"] == 2
    last = report["differences"][-1]
    assert (last["file"], last["problem"]) == (str(folder / "images" / "00" / "2.png"), "damaged")


def test_no_dataset_is_exit_code_3_and_a_damaged_manifest_1(metavqa: Terminal, folder: Path) -> None:
    assert_refused(metavqa("dataset", "verify"), 3, "there is no dataset 'scenes'")
    (folder / "dataset.json").write_text("{")
    assert_refused(metavqa("dataset", "verify", "toys"), 1, "dataset.json is damaged", "--force --name toys")


def test_rm_with_yes_removes_and_says_what(metavqa: Terminal, folder: Path) -> None:
    done = metavqa("dataset", "rm", "toys", "--yes")
    assert (done.code, done.out) == (0, "") and done.err.startswith("removed dataset toys (4 files, ")
    assert not folder.exists()
    assert_refused(metavqa("dataset", "rm", "toys", "--yes"), 3, "there is no dataset 'toys'", "`metavqa dataset ls`")


def test_rm_where_nobody_can_be_asked_needs_yes(metavqa: Terminal, folder: Path) -> None:
    assert_refused(metavqa("dataset", "rm", "toys"), 2, "dataset toys (4 files", "--yes")
    assert folder.is_dir()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_rm_asks_on_a_terminal(
    metavqa: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Keyboard(f"{answer}\n"))
    monkeypatch.setattr(console, "is_terminal", lambda stream: True)
    done = metavqa("dataset", "rm", "toys")
    assert done.code == code and folder.exists() == (code == 1)
    assert "remove dataset toys (4 files, " in done.out + done.err
    assert ("dataset toys is kept" in done.err) == (code == 1)


def test_rm_warns_of_the_runs_that_were_made_on_it(metavqa: Terminal, folder: Path, workspace: Workspace) -> None:
    run = runs.create(workspace, "zoo", "aaaa1111", {}, {}, {"name": "toys", "fingerprint": "1"})
    done = metavqa("dataset", "rm", "toys", "--yes")
    assert done.err.splitlines()[0].startswith(f"warning: one run was made on dataset toys ({run.id});")
    assert not folder.exists() and run.path.is_dir()


def test_rm_leaves_a_dataset_that_is_being_built(metavqa: Terminal, folder: Path) -> None:
    with locks.hold(folder.with_name(".toys.lock"), "dataset toys"):
        done = metavqa("dataset", "rm", "toys", "--yes")
    assert_refused(done, 5, "dataset toys is in use by process")
    assert folder.is_dir()
