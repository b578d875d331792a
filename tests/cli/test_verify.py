"""`metavqa verify`: what is bad, what depends on it, what mends it, and the exit code."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format
from tests.cli.terminal import Terminal, assert_refused


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return miniature.copy(tmp_path / "workspace")


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_whole_workspace_is_said_to_be_whole(metavqa: Terminal, workspace: Workspace) -> None:
    done = metavqa("verify")
    assert (done.code, done.out) == (0, ""), done.out
    assert f"runs: {len(workspace.run_ids())}, datasets: 1" in done.err and "everything is what was written" in done.err
    found = json.loads(metavqa("verify", str(workspace.root), "--json").out)
    assert (found["ok"], found["findings"], found["datasets"]) == (True, [], 1)


def test_what_is_bad_is_named_with_all_that_was_made_from_it(metavqa: Terminal, workspace: Workspace) -> None:
    baseline = miniature.run("baseline", workspace=workspace)
    flip(baseline.model_path)
    done = metavqa("verify", "--json")
    (finding,) = json.loads(done.out)["findings"]
    assert done.code == 1 and "error: one artefact is not what was written" in done.err
    assert finding["artefact"] == f"runs/{baseline.id}/model.safetensors" and finding["problem"] == "damaged"
    assert f"metavqa runs rm {baseline.id} --force" in finding["remedy"]
    depends = {run.id for run in runs.list_runs(workspace) if run.id != baseline.id and run.manifest()["parents"]}
    assert {*finding["runs"]} == depends, "the zoo, the generators, and what was made from those"
    table = metavqa("verify", "--format", "csv").out.splitlines()
    assert table[0] == "artefact,problem,detail,runs,remedy" and len(table) == 2


def test_runs_on_a_damaged_dataset_are_named(metavqa: Terminal, workspace: Workspace) -> None:
    flip(workspace.dataset_dir("mini") / "features" / "texts.safetensors")
    (finding,) = json.loads(metavqa("verify", "--json").out)["findings"]
    assert finding["artefact"] == "datasets/mini/features/texts.safetensors"
    assert finding["runs"] == workspace.run_ids()
    assert "metavqa dataset build --force --name mini" in finding["remedy"]


def test_what_is_not_there_is_missing(metavqa: Terminal, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(metavqa("verify", str(empty)), 3, "there is no workspace in", "metavqa quickstart")
    assert_refused(metavqa("verify", str(tmp_path / "none")), 3, "does not exist")
    assert_refused(metavqa("verify", str(empty), str(empty)), 2, "is a folder; name one workspace")


def test_single_files_are_checked(metavqa: Terminal, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "car.safetensors"
    shutil.copy(miniature.run("zoo", workspace=workspace).model_path, file)
    assert metavqa("verify", str(file)).code == 0
    assert_refused(metavqa("verify", str(file), "--clean"), 2, "--clean is about a workspace")
    flip(file)
    done = metavqa("verify", str(file), "--json")
    assert done.code == 1 and json.loads(done.out)["findings"][0]["problem"] == "damaged"


def test_leftovers_are_no_damage_and_are_removed_when_asked(metavqa: Terminal, workspace: Workspace) -> None:
    run = miniature.run("zoo", workspace=workspace)
    old, young, note = run.path / ".tmp-00-model", run.path / ".tmp-11-model", run.path / "run.lock.json"
    for path in (old, young, note):
        path.write_text("{}")
    os.utime(old, (time.time() - 90_000,) * 2)
    done = metavqa("verify", "--json")
    assert done.code == 0 and [each["problem"] for each in json.loads(done.out)["findings"]] == ["leftover"] * 3
    done = metavqa("verify", "--clean", "--json")
    assert done.code == 0 and len(json.loads(done.out)["findings"]) == 1, "a young one may be in the making"
    assert (old.exists(), young.exists(), note.exists()) == (False, True, False)
    assert f"removed {old}" in done.err and f"kept {young}: a process may still be at it" in done.err


def test_an_old_workspace_opens_lists_and_is_said_to_have_no_seals(metavqa: Terminal, workspace: Workspace) -> None:
    before = metavqa("runs", "ls").out, metavqa("dataset", "ls").out, metavqa("dataset", "info", "mini").code
    old_format.unseal_workspace(workspace.root)
    assert (metavqa("runs", "ls").out, metavqa("dataset", "ls").out, metavqa("dataset", "info", "mini").code) == before
    done = metavqa("verify", "--json")
    found = json.loads(done.out)["findings"]
    assert done.code == 0 and {each["problem"] for each in found} == {"unsealed"}
    assert f"nothing bad was found; {len(found)} artefacts have no checksums" in done.err
    assert "everything" not in done.err
    assert len(found) == len(workspace.run_ids()) + 1 and all(
        each["remedy"].startswith("none needed") for each in found
    )


def test_what_a_later_metavqa_wrote_is_refused_and_the_rest_is_listed(metavqa: Terminal, workspace: Workspace) -> None:
    zoo, ids = miniature.run("zoo", workspace=workspace), workspace.run_ids()
    old_format.rewrite(zoo.path / "run.json", schema_version=3, written_by="metavqa 7.0")
    listed = metavqa("runs", "ls", "--json")
    assert {each["run"] for each in json.loads(listed.out)} == {*ids} - {zoo.id}
    assert f"run {zoo.id} is left out" in listed.err and "was written by metavqa 7.0" in listed.err
    for args in (("runs", "show", zoo.id), ("eval", zoo.id, *miniature.OPTIONS)):
        assert_refused(metavqa(*args), 1, "was written by metavqa 7.0", "upgrade metavqa")
    old_format.rewrite(workspace.dataset_dir("mini") / "dataset.json", schema_version=3, written_by="metavqa 7.0")
    listed = metavqa("dataset", "ls")
    assert listed.code == 0 and "dataset mini is left out" in listed.err and "upgrade metavqa" in listed.err
    for args in (("dataset", "info", "mini"), ("dataset", "verify", "mini")):
        assert_refused(metavqa(*args), 1, "was written by metavqa 7.0", "upgrade metavqa")
    done = metavqa("verify", "--json")
    assert done.code == 1 and {each["problem"] for each in json.loads(done.out)["findings"]} == {"newer"}
