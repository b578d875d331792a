"""`metavqa dataset`: build, describe and look into datasets."""

import json
import signal

import pytest

from metavqa_cli.engine import build
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished
from tests.cli.terminal import Terminal

SMALL = [
    "--name", "small", "--images", "240", "--image-size", "32", "--set", "dataset.questions=150",
    "--set", "dataset.pairs_per_task=20", "--set", "dataset.min_pairs=5", "--set", "runtime.workers=1",
]  # fmt: skip
INFO_KEYS = {
    "dataset", "path", "fingerprint", "encoder", "tasks", "train", "validation", "test", "pairs", "images",
    "images_shared_by_train_and_test", "families", "meta_train", "meta_test", "source", "answers_per_task",
    "pairs_per_task", "support_per_task",
    "query_per_task", "chance", "majority", "novelty",
}  # fmt: skip


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


def test_build_prints_what_it_built_and_the_second_time_finds_it(metavqa: Terminal, full: Workspace) -> None:
    first = metavqa("dataset", "build", *SMALL, "--json")
    made = data(first)
    assert made.keys() == INFO_KEYS and made["encoder"] == "tiny"
    assert f"dataset small is complete in {full.dataset_dir('small')}" in first.err
    again = metavqa("dataset", "build", *SMALL, "--json")
    assert data(again) == made
    assert again.err == "dataset small is already there and is used again\n"
    assert data(metavqa("dataset", "info", "small", "--json")) == made


@pytest.mark.parametrize("phase", ["gathered", "embedded_images"])
def test_ctrl_c_is_exit_code_130_and_the_same_command_goes_on(
    phase: str, metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(build, phase, lambda *args: signal.raise_signal(signal.SIGINT))
        done = metavqa("dataset", "build", *SMALL)
    assert (done.code, done.out) == (130, "") and done.err.endswith("interrupted\n")
    assert full.datasets() == ["mini"]
    assert metavqa("dataset", "build", *SMALL).code == 0
    assert full.datasets() == ["mini", "small"]


def test_another_recipe_under_a_taken_name_is_exit_code_5(metavqa: Terminal, full: Workspace) -> None:
    before = (full.dataset_dir("mini") / "dataset.json").read_bytes()
    done = metavqa("dataset", "build", "--name", "mini", "--images", "99")
    assert (done.code, done.out) == (5, "")
    assert (
        "a dataset 'mini' with another configuration, from other files, or made by another version of metavqa, exists"
        in done.err
        and "--force" in done.err
    )
    assert (full.dataset_dir("mini") / "dataset.json").read_bytes() == before


def test_no_such_device_or_model_is_known_before_anything_is_drawn(metavqa: Terminal, full: Workspace) -> None:
    device = metavqa("dataset", "build", *SMALL, "--device", "toaster")
    assert (device.code, device.out) == (4, "") and "'toaster' cannot be used" in device.err
    model = metavqa("dataset", "build", *SMALL, "--clip", "NoSuchModel/none")
    assert model.code in (2, 3) and model.out == "" and "NoSuchModel" in model.err
    assert not full.dataset_dir("small").exists()


def test_ls_lists_and_info_describes(metavqa: Terminal) -> None:
    (row,) = data(metavqa("dataset", "ls", "--json"))
    assert row["dataset"] == "mini" and row["tasks"] == row["train"] + row["validation"] + row["test"]
    assert data(metavqa("dataset", "info", "mini", "--json"))["tasks"] == row["tasks"]
    missing = metavqa("dataset", "info", "none")
    assert (missing.code, missing.out) == (3, "")
    assert "there is no dataset 'none'" in missing.err and "`metavqa dataset build`" in missing.err


def test_show_lists_tasks_and_one_task_with_its_images(metavqa: Terminal) -> None:
    tasks = miniature.dataset().tasks
    listed = data(metavqa("dataset", "show", "--dataset", "mini", "--limit", "0", "--json"))
    assert [row["question"] for row in listed] == [task.question for task in tasks.tasks]
    held_out = data(metavqa("dataset", "show", "--dataset", "mini", "--split", "test", "--json"))
    assert [row["question"] for row in held_out] == [task.question for task in tasks.of("test")]
    assert all(row["novelty"] for row in held_out)
    task = tasks.tasks[0]
    one = data(metavqa("dataset", "show", task.question, "--dataset", "mini", "--json"))
    assert {row["answer"] for row in one["answers"]} == set(task.answers)
    assert sum(row["query"] for row in one["answers"]) == len(one["query"]) == len(task.query)
    assert metavqa("dataset", "show", "--dataset", "mini", "--family", "none").code == 2


def test_show_says_how_much_it_left_out(metavqa: Terminal) -> None:
    done = metavqa("dataset", "show", "--dataset", "mini", "--limit", "2")
    assert len(done.out.splitlines()) == 3
    assert done.err == f"2 of {len(miniature.dataset().tasks.tasks)} tasks; --limit 0 shows all\n"


def test_a_damaged_manifest_is_named_with_the_way_out(metavqa: Terminal, full: Workspace) -> None:
    path = full.dataset_dir("mini") / "dataset.json"
    path.write_text(json.dumps({"schema_version": 0}))
    done = metavqa("dataset", "info", "mini")
    assert (done.code, done.out) == (1, "")
    assert f"{path} is of another version; build it again with `metavqa dataset build --force --name mini`" in done.err
