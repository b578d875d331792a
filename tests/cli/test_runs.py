"""Runs are listed, shown, compared and removed from their files alone."""

import csv
import io
import json
import os
from typing import Any

import pytest

from metavqa_cli.schema.events import RunInterrupted, RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests.cli.terminal import Terminal, assert_refused

DATASET = {"name": "scenes", "fingerprint": "f00"}


@pytest.fixture
def zoo(workspace: Workspace) -> Run:
    """A finished zoo."""
    run = runs.create(workspace, "zoo", "aaaa1111ffff", {"seed": 0, "zoo": {"steps": 50}}, {}, DATASET)
    run.append(RunStarted(run.id, "zoo", 2))
    run.append(StepLogged(2, {"loss": 0.25}))
    run.append(ValidationMeasured(2, {"accuracy": 0.75}))
    run.finish({"tasks": 7, "accuracy": 0.5})
    return run


@pytest.fixture
def hvae(workspace: Workspace, zoo: Run) -> Run:
    """An interrupted generator made from the zoo."""
    config = {"seed": 1, "hvae": {"latent": 32}}
    run = runs.create(workspace, "hvae", "bbbb2222ffff", config, {"zoo": zoo.id}, DATASET, {"method": "task"})
    run.append(RunStarted(run.id, "hvae", 10))
    run.append(RunInterrupted(run.id, 4))
    return run


def test_ls_of_an_empty_workspace_says_what_to_do_and_creates_nothing(metavqa: Terminal) -> None:
    done = metavqa("runs", "ls")
    assert done.code == 0 and done.out == "run\tkind\tstate\tdataset\tcreated\tparents\n"
    assert "no runs in" in done.err and "metavqa quickstart" in done.err
    assert metavqa("runs", "ls", "--json").out == "[]\n"
    assert not metavqa.workspace.exists()


@pytest.mark.parametrize(
    ("text", "kept"),
    [("", ["zoo", "hvae"]), ("zoo", ["zoo"]), ("state:interrupted", ["hvae"]), ("-kind:zoo", ["hvae"]),
     ("seed=1 | accuracy>0.6", ["zoo", "hvae"]), ("accuracy>0.6", ["zoo"]), ("elephant", [])],
)  # fmt: skip
def test_ls_shows_only_what_the_filter_keeps(
    metavqa: Terminal, zoo: Run, hvae: Run, text: str, kept: list[str]
) -> None:
    done = metavqa("runs", "ls", "--filter", text, "--json")
    assert done.code == 0 and [row["kind"] for row in json.loads(done.out)] == kept
    assert ("matches 'elephant'" in done.err) == (text == "elephant")


def test_a_filter_that_cannot_be_understood_is_one_sentence(metavqa: Terminal, zoo: Run) -> None:
    assert_refused(metavqa("runs", "ls", "--filter", "acuracy>1"), 2, "no field 'acuracy'", "accuracy", alone=True)


def test_ls_lists_oldest_first_in_every_format(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    plain = metavqa("runs", "ls").out.splitlines()
    assert [line.split("\t")[:4] for line in plain[1:]] == [
        [zoo.id, "zoo", "finished", "scenes"], [hvae.id, "hvae", "interrupted", "scenes"],
    ]  # fmt: skip
    rows = json.loads(metavqa("runs", "ls", "--format", "json").out)
    assert [row["run"] for row in rows] == [zoo.id, hvae.id]
    assert rows[1]["parents"] == {"zoo": zoo.id} and rows[1]["method"] == "task"
    lines = metavqa("runs", "ls", "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(metavqa("runs", "ls", "--format", "csv").out)))
    assert [row["state"] for row in table] == ["finished", "interrupted"]


def test_ls_shows_a_running_run_and_who_has_it_since_when(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    assert all(row["holder"] is None for row in json.loads(metavqa("runs", "ls", "--json").out))
    assert "holder" not in metavqa("runs", "ls").out
    with hvae.lock():
        zoo_row, row = json.loads(metavqa("runs", "ls", "--json").out)
        assert row["state"] == "running" and row["holder"].startswith(f"process {os.getpid()} on ")
        assert zoo_row["holder"] is None
        assert row["holder"].rpartition(",")[0] in metavqa("runs", "ls").out
        assert row["holder"].rpartition(",")[0] in metavqa("runs", "show", hvae.id).out


def test_ls_warns_of_a_damaged_run_and_lists_the_others(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    (hvae.path / "run.json").write_text("{")
    done = metavqa("runs", "ls")
    assert done.code == 0 and zoo.id in done.out and hvae.id not in done.out
    assert f"warning: run {hvae.id} has a damaged run.json; `metavqa runs rm {hvae.id}` removes it" in done.err
    shown = metavqa("runs", "show", hvae.id)
    assert shown.code == 1 and "is damaged" in shown.err
    assert metavqa("runs", "rm", hvae.id).code == 0
    assert not hvae.path.exists()


def test_looking_writes_nothing(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    """So that a read-only workspace can be looked at."""
    with hvae.lock():
        pass  # leaves its lock file behind, as every run does

    def snapshot() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in metavqa.workspace.rglob("*"))

    before = snapshot()
    for args in (["ls"], ["show", zoo.id], ["show", hvae.id], ["diff", zoo.id, hvae.id]):
        assert metavqa("runs", *args).code == 0
    assert snapshot() == before


def test_show_tells_what_it_is_how_far_it_came_and_its_result(metavqa: Terminal, zoo: Run) -> None:
    shown: dict[str, Any] = json.loads(metavqa("runs", "show", "zoo", "--json").out)
    assert shown["run"] == zoo.id and shown["state"] == "finished" and shown["path"] == str(zoo.path)
    assert shown["step"] == 2 and shown["metrics"] == {"loss": 0.25} and shown["validation"] == {"accuracy": 0.75}
    assert shown["result"] == {"tasks": 7, "accuracy": 0.5}
    assert shown["config"] == {"seed": 0, "zoo": {"steps": 50}}
    plain = dict(line.split("\t") for line in metavqa("runs", "show", zoo.id).out.splitlines())
    assert plain["config.zoo.steps"] == "50" and plain["result.accuracy"] == "0.5"


def test_an_unknown_run_is_missing_and_the_near_one_is_named(metavqa: Terminal, zoo: Run) -> None:
    for args in (["show", "zoo-aaaa1112"], ["rm", "zoo-aaaa1112"], ["diff", zoo.id, "zoo-aaaa1112"]):
        done = metavqa("runs", *args)
        assert done.code == 3 and done.out == ""
        assert f"no run 'zoo-aaaa1112' in {metavqa.workspace}; did you mean {zoo.id}?" in done.err


def test_an_ambiguous_beginning_is_a_usage_error(metavqa: Terminal, workspace: Workspace) -> None:
    for key in ("aaaa1111", "aaaa2222"):
        runs.create(workspace, "zoo", key, {}, {}, DATASET)
    done = metavqa("runs", "show", "zoo-a")
    assert done.code == 2 and "ambiguous: zoo-aaaa1111, zoo-aaaa2222" in done.err


def test_a_name_with_escape_codes_cannot_steer_the_terminal(metavqa: Terminal) -> None:
    done = metavqa("runs", "show", "\x1b[2J")
    assert done.code == 3 and "\x1b" not in done.err


def test_diff_shows_only_what_differs(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    rows = {row["key"]: row for row in json.loads(metavqa("runs", "diff", zoo.id, hvae.id, "--json").out)}
    assert rows["kind"] == {"key": "kind", zoo.id: "zoo", hvae.id: "hvae"}
    assert rows["config.seed"] == {"key": "config.seed", zoo.id: 0, hvae.id: 1}
    assert rows["parents.zoo"][hvae.id] == zoo.id
    assert rows["result.accuracy"] == {"key": "result.accuracy", zoo.id: 0.5, hvae.id: None}
    assert not any(key.startswith("dataset") for key in rows)


def test_equal_runs_do_not_differ(metavqa: Terminal, zoo: Run) -> None:
    done = metavqa("runs", "diff", zoo.id, zoo.id, "--json")
    assert done.out == "[]\n" and "do not differ" in done.err


def test_rm_keeps_parents_unless_named_with_their_children_or_forced(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    done = metavqa("runs", "rm", zoo.id)
    assert done.code == 2 and f"is a parent of {hvae.id}" in done.err and zoo.path.exists()
    assert metavqa("runs", "rm", zoo.id, hvae.id).code == 0
    assert not zoo.path.exists() and not hvae.path.exists()


def test_rm_force_takes_a_parent_alone(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    assert metavqa("runs", "rm", zoo.id, "--force").code == 0
    assert not zoo.path.exists() and hvae.path.exists()


def test_rm_beside_a_run_that_cannot_be_read_wants_it_named_or_force(metavqa: Terminal, zoo: Run, hvae: Run) -> None:
    (hvae.path / "run.json").write_text("{")
    done = metavqa("runs", "rm", zoo.id)
    assert done.code == 2 and f"may be a parent of {hvae.id}" in done.err and zoo.path.exists()
    assert metavqa("runs", "rm", zoo.id, hvae.id).code == 0
    assert not zoo.path.exists() and not hvae.path.exists()


def test_rm_of_a_running_run_is_busy(metavqa: Terminal, hvae: Run) -> None:
    with hvae.lock():
        done = metavqa("runs", "rm", hvae.id, "--force")
    assert done.code == 5 and f"run {hvae.id} is in use by process {os.getpid()}" in done.err
    assert hvae.path.exists()


def test_rm_with_one_unknown_name_removes_nothing(metavqa: Terminal, zoo: Run) -> None:
    assert metavqa("runs", "rm", zoo.id, "nothing").code == 3
    assert zoo.path.exists()
