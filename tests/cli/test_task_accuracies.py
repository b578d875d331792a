"""`metavqa eval tasks` says of every test task what the cells and evaluations in the workspace say."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.engine.scores import CellSpec
from metavqa_cli.engine.swept import Reader
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format, sweeps
from tests.cli.pipeline import data
from tests.cli.terminal import Terminal, assert_refused, python

DATASET = ["--dataset", miniature.NAME]
ONE, OTHER = (CellSpec("task-ldm", seed, gamma=1.0) for seed in (0, 1))


@pytest.fixture(autouse=True)
def swept(workspace: Workspace) -> Workspace:
    """The terminal's workspace, with the dataset and the cells of a small sweep."""
    return sweeps.copy(workspace.root)


def cell(spec: CellSpec) -> str:
    return sweeps.cell(spec).id


def test_every_task_is_listed_with_its_accuracy(metavqa: Terminal, workspace: Workspace) -> None:
    rows = data(metavqa("eval", "tasks", cell(CellSpec("multitask", 0)), "--json"))
    found = Reader(workspace).read(miniature.NAME)
    measured = {one.setting: one for one in found.measured if one.run == cell(CellSpec("multitask", 0))}
    assert len(rows) == 2 * len(found.tasks)
    for row, task in zip(rows[::2], found.tasks, strict=True):
        assert (row["question"], row["family"], row["pairs"]) == (task.question, task.family, len(task.query))
    for row in rows:
        number = [task.question for task in found.tasks].index(row["question"])
        assert row["accuracy"] == pytest.approx(100 * measured[row["setting"]].accuracies[number], abs=6e-4)
        assert (row["key"], row["method"], row["seeds"]) == ("multitask", "Uncond. Multitask", [0])


def test_seeds_of_one_method_are_averaged(metavqa: Terminal) -> None:
    one, other, both = (data(metavqa("eval", "tasks", *names, "--json"))
                        for names in ([cell(ONE)], [cell(OTHER)], [cell(ONE), cell(OTHER)]))  # fmt: skip
    assert len(both) == len(one) and {tuple(row["seeds"]) for row in both} == {(0, 1)}
    assert [row["accuracy"] for row in both] == pytest.approx(
        [(a["accuracy"] + b["accuracy"]) / 2 for a, b in zip(one, other, strict=True)], abs=2e-3
    )
    assert {row["method"] for row in both} == {"Task + HyperLDM, γ = 1"} and both[0]["gamma"] == 1.0


def test_the_number_of_seeds_is_told_as_it_is(metavqa: Terminal) -> None:
    lone, fewer = cell(ONE), cell(CellSpec("task-ldm", 0, gamma=0.0))
    for names, words in (
        ([lone], "query pairs, of one seed, from"), ([lone, cell(OTHER)], "query pairs, mean over 2 seeds, from"),
        ([lone, cell(OTHER), fewer], "query pairs, mean over 1 to 2 seeds (--json: which), from"),
    ):  # fmt: skip
        assert words in " ".join(metavqa("eval", "tasks", *names).err.split())


def test_the_newest_is_taken_when_none_is_named(metavqa: Terminal) -> None:
    done = metavqa("eval", "tasks", *DATASET, "--json")
    assert {row["control"] for row in data(done)} == {
        "shuffled"
    } and f"from {cell(sweeps.SPECS[-1])} on mini" in done.err


def test_an_evaluation_is_read_too(metavqa: Terminal, workspace: Workspace) -> None:
    run = miniature.run("eval")
    shutil.copytree(run.path, workspace.runs_dir / run.id)
    rows = data(metavqa("eval", "tasks", run.id, "--json"))
    said = {(row["method"], row["setting"]) for row in rows}
    assert {("Task + HyperLDM, γ = 1.5", "zero-shot"), ("CLIP as base model", "zero-shot")} <= said


@pytest.mark.parametrize(("option", "lowest"), [("--best", False), ("--worst", True)])
def test_the_best_and_the_worst_tasks(option: str, lowest: bool, metavqa: Terminal) -> None:
    whole = [row["accuracy"] for row in data(metavqa("eval", "tasks", cell(ONE), "--json"))]
    few = [row["accuracy"] for row in data(metavqa("eval", "tasks", cell(ONE), option, "4", "--json"))]
    assert few == sorted(whole, reverse=not lowest)[:4] and len(set(whole)) > 4


def test_only_one_family(metavqa: Terminal) -> None:
    rows = data(metavqa("eval", "tasks", cell(ONE), "--family", "count_kind", "--json"))
    assert rows and {row["family"] for row in rows} == {"count_kind"}


def test_formats(metavqa: Terminal) -> None:
    args = ["eval", "tasks", cell(ONE), "--worst", "2"]
    columns = ["question", "family", "method", "setting", "gamma", "accuracy", "pairs"]
    plain = metavqa(*args).out.splitlines()
    assert plain[0].split("\t") == columns and len(plain) == 3
    assert list(csv.DictReader(io.StringIO(metavqa(*args, "--format", "csv").out)).fieldnames or []) == columns
    assert len([json.loads(line) for line in metavqa(*args, "--format", "jsonl").out.splitlines()]) == 2
    human = metavqa(*args, "--format", "human").out
    assert "question" in human and "control" not in human


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [(["--best", "1", "--worst", "1", *DATASET], 2, "--best and --worst are two lists"),
     (["--family", "x", *DATASET], 2, "no test task of dataset 'mini' is of family 'x'; there are count_kind"),
     (["nope"], 3, "there is no run 'nope'"), (["--dataset", "nope"], 3, "there is no dataset 'nope'"),
     (["--best", "0", *DATASET], 2, "--best")],
)  # fmt: skip
def test_a_mistake_is_one_sentence(args: list[str], code: int, words: str, metavqa: Terminal) -> None:
    assert_refused(metavqa("eval", "tasks", *args), code, words, alone=True)


def rewrite(run: Run, **values: Any) -> None:
    old_format.rewrite(run.path / "run.json", **values)


def test_runs_that_measured_nothing_here_are_refused(metavqa: Terminal, workspace: Workspace) -> None:
    hvae = miniature.run("hvae")
    shutil.copytree(hvae.path, workspace.runs_dir / hvae.id)
    words = f"run {hvae.id} is of kind hvae; name runs of kind cell or eval"
    assert_refused(metavqa("eval", "tasks", hvae.id), 2, words, alone=True)
    done = metavqa("eval", "tasks", cell(ONE), "--dataset", "other")
    assert_refused(done, 2, "is about the dataset 'mini', not 'other'", alone=True)
    (workspace.runs_dir / cell(ONE) / "result.json").unlink()
    assert_refused(metavqa("eval", "tasks", cell(ONE)), 3, "not finished", alone=True)


def test_a_damaged_run_fails_if_it_was_named_and_is_a_warning_else(metavqa: Terminal, workspace: Workspace) -> None:
    path = Run(workspace.runs_dir / cell(ONE)).model_path
    os.truncate(path, 100)
    assert_refused(metavqa("eval", "tasks", cell(ONE)), 1, "truncated", alone=True)
    done = metavqa("eval", "tasks", *DATASET)
    assert done.code == 0 and "warning: " in done.err and "truncated" in done.err and done.out


def test_nothing_measured_yet_says_what_to_do(metavqa: Terminal, workspace: Workspace) -> None:
    shutil.rmtree(workspace.runs_dir)
    words = "no finished evaluation or cell is about the dataset 'mini'; `metavqa eval`"
    assert_refused(metavqa("eval", "tasks", *DATASET), 3, words, alone=True)


def test_it_needs_no_torch(workspace: Workspace, tmp_path: Path) -> None:
    code = (
        "import sys; from metavqa_cli.cli.app import run; "
        f"code = run(['--workspace', {str(workspace.root)!r}, 'eval', 'tasks', '--dataset', 'mini']); "
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    assert python("-c", code, cwd=tmp_path).err.splitlines()[-1] == "0 False"
