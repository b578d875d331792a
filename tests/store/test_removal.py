"""Runs that vanish: nobody holds half of one, loses what it works with, or falls over one that is gone."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.schema.errors import BusyError, RemovedError, UsageError
from metavqa_cli.store import locks, removal, runs
from metavqa_cli.store.atomic import TEMPORARY
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace

DATASET = {"name": "scenes", "fingerprint": "f00"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(workspace: Workspace, kind: str, **parents: Run) -> Run:
    key = runs.run_key(kind, {}, {role: run.id for role, run in parents.items()}, "f00")
    return runs.create(workspace, kind, key, {}, {role: run.id for role, run in parents.items()}, DATASET)


@pytest.fixture
def line(workspace: Workspace) -> list[Run]:
    """Three generations."""
    zoo = make(workspace, "zoo")
    hvae = make(workspace, "hvae", zoo=zoo)
    return [zoo, hvae, make(workspace, "ldm", generator=hvae)]


def after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, then: Any) -> None:
    """Let ``then`` happen right after the first call of ``owner.name``, as another process might."""
    original, calls = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if not calls:
            calls.append(1)
            then()
        return found

    monkeypatch.setattr(owner, name, call)


# Locks of what is removed


def test_who_waits_for_a_run_that_is_removed_does_not_get_it_nor_make_it_again(workspace: Workspace) -> None:
    run, outcome = make(workspace, "zoo"), list[BaseException]()

    def wait() -> None:
        try:
            with run.lock(patience=20):
                pass
        except BaseException as error:
            outcome.append(error)

    with run.lock():
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.05)  # not needed for the test to pass, only for it to be hard
        run.path.rename(workspace.runs_dir / f"{TEMPORARY}0000")
    waiting.join()
    assert [type(error) for error in outcome] == [RemovedError] and "has been removed meanwhile" in str(outcome[0])
    assert not run.path.exists()


def test_a_run_made_anew_under_an_old_name_has_the_lock_of_the_old_one(workspace: Workspace) -> None:
    """Else one process would hold the file that was removed and another one the new file, both for the same run."""
    run = make(workspace, "zoo")
    with run.lock():
        run.path.rename(workspace.runs_dir / f"{TEMPORARY}0000")
        assert make(workspace, "zoo") == run
        with pytest.raises(BusyError, match=f"process {os.getpid()}"), run.lock():
            pytest.fail("two processes hold one run")


def test_a_training_cannot_begin_between_the_look_and_the_removal(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, refused = make(workspace, "zoo"), []

    def begin() -> None:
        with pytest.raises(BusyError), run.lock():
            pytest.fail("a run that is being removed was begun")
        refused.append(run.id)

    after(monkeypatch, removal, "manifests", begin)
    removal.remove(run)
    assert refused and workspace.run_ids() == []


def test_of_two_who_remove_a_run_the_second_is_told(workspace: Workspace) -> None:
    run = make(workspace, "zoo")
    removal.remove(run)
    with pytest.raises(RemovedError, match=f"run {run.id} has been removed"):
        removal.remove(run)


# What others work with


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("generation", [1, 2])
def test_what_a_working_run_is_made_from_is_kept(line: list[Run], generation: int, force: bool) -> None:
    with line[generation].lock():
        for ancestor in line[:generation]:
            with pytest.raises(BusyError, match=rf"in use by run {line[generation].id}, .* by process {os.getpid()}"):
                removal.remove(ancestor, force)
    assert all(run.path.exists() for run in line)
    with pytest.raises(UsageError, match=f"is a parent of {line[1].id}"):
        removal.remove(line[0])


@pytest.mark.parametrize("text", ["", "{}", '{"schema_version": 99}', None, "a pipe"])
def test_what_a_run_that_cannot_be_read_may_be_made_from_is_kept(line: list[Run], text: str | None) -> None:
    hurt, other, manifest = line[1], line[0], line[1].path / "run.json"
    manifest.unlink()
    if text == "a pipe":
        os.mkfifo(manifest)
    elif text is not None:
        manifest.write_text(text)
    (hurt.path.parent / "notes").mkdir()  # no run
    with pytest.raises(UsageError, match=f"{other.id} may be a parent of {hurt.id}, whose run.json cannot be read"):
        removal.remove(other)
    assert other.path.exists()
    removal.remove(other, others=[hurt.id, other.id])
    removal.remove(hurt, force=True)
    assert not other.path.exists() and not hurt.path.exists() and line[2].path.exists()


def test_a_run_that_was_made_or_removed_since_the_look_is_no_damaged_one(
    line: list[Run], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = make(workspace, "regression")
    for then in (lambda: make(workspace, "eval"), lambda: removal.remove(spare)):
        with monkeypatch.context() as patched:
            after(patched, removal, "manifests", then)
            removal.remove(line.pop())
    assert len(workspace.run_ids()) == 2


def test_who_begins_a_run_waits_for_one_who_may_remove_its_parent(line: list[Run]) -> None:
    with line[2].lock():
        for ancestor in line[:2]:
            with ancestor.lock(), pytest.raises(BusyError, match=f"{ancestor.id}, which {line[2].id} is made from"):
                removal.check_parents(line[2])
        removal.check_parents(line[2])


def test_who_begins_a_run_hears_that_its_parent_went_while_it_waited(
    line: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [True]

    def removed() -> None:
        line[1].path.rename(line[1].path.with_name(f"{TEMPORARY}0000"))
        held[0] = False

    monkeypatch.setattr(Run, "is_held", lambda run: held[0] and run == line[1])
    monkeypatch.setattr(removal.time, "sleep", lambda _: removed())
    with pytest.raises(RemovedError, match=f"run {line[1].id}, which {line[2].id} is made from, has been removed"):
        removal.check_parents(line[2])
    with pytest.raises(RemovedError, match=f"run {line[1].id}"):
        removal.check_parents(line[2])


@pytest.mark.parametrize("first", ["begin", "remove"])
def test_of_one_who_begins_and_one_who_removes_at_once_exactly_one_succeeds(
    line: list[Run], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Whatever the order, and each at the other's worst moment: after its lock, before its look."""
    parent, child = line[1], line[2]
    outcome: dict[str, str] = {}

    def begin() -> None:
        with child.lock():
            if first == "begin":
                remove()
            try:
                removal.check_parents(child)
                outcome["begin"] = "done"
            except (BusyError, RemovedError) as error:
                outcome["begin"] = type(error).__name__

    def remove() -> None:
        try:
            removal.remove(parent, force=True)
            outcome["remove"] = "done"
        except BusyError:
            outcome["remove"] = "busy"

    if first == "remove":
        after(monkeypatch, Run, "is_held", begin)  # the remover's look at the child
        remove()
        assert outcome == {"remove": "done", "begin": "BusyError"}
    else:
        begin()
        assert outcome == {"remove": "busy", "begin": "done"}


# Listings


def test_a_run_that_vanishes_while_runs_are_listed_is_left_out(
    line: list[Run], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    after(monkeypatch, Workspace, "run_ids", lambda: removal.remove(line[2]))
    assert runs.list_runs(workspace) == line[:2]


def test_a_run_that_vanishes_while_the_newest_is_sought_is_not_it(line: list[Run], workspace: Workspace) -> None:
    older = make(workspace, "zoo")
    newer = runs.create(workspace, "zoo", "ffff", {}, {}, DATASET)
    for run in (older, newer):
        run.finish({})

    def match(run: Run) -> bool:
        if run == newer and newer.path.exists():
            removal.remove(newer)
        return run.config() is not None

    assert runs.newest(workspace, "zoo", match=match) == older


def test_a_damaged_run_that_is_sought_is_still_an_error(workspace: Workspace) -> None:
    run = make(workspace, "zoo")
    run.finish({})
    (run.path / "config.toml").unlink()
    with pytest.raises(Exception, match=r"config\.toml is missing"):
        runs.newest(workspace, "zoo", match=lambda run: bool(run.config()))


def test_what_killed_processes_left_is_swept_and_what_living_ones_make_is_not(workspace: Workspace) -> None:
    run = make(workspace, "zoo")
    old, new = (workspace.runs_dir / f"{TEMPORARY}{name}" for name in ("0000aaaa", "1111bbbb"))
    for folder in (old, new):
        (folder / "inside").mkdir(parents=True)
    os.utime(old, (0, 0))
    removal.sweep(workspace)
    assert not old.exists() and new.exists() and run.path.exists()
    removal.sweep(workspace, age=-1)
    assert not new.exists() and not locks.is_held(run.lock_path)


def test_a_run_that_is_a_link_is_removed_and_what_it_leads_to_is_not(workspace: Workspace, tmp_path: Path) -> None:
    run, elsewhere = make(workspace, "zoo"), tmp_path / "elsewhere"
    run.path.rename(elsewhere)
    run.path.symlink_to(elsewhere)
    removal.remove(run)
    assert not run.path.is_symlink() and (elsewhere / "run.json").is_file()
    assert not [left for left in workspace.runs_dir.iterdir() if left.name.startswith(TEMPORARY)]


def test_who_begins_a_run_reads_of_all_runs_only_those_that_it_is_made_from(
    line: list[Run], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace, "baseline")
    manifest, read = Run.manifest, list[str]()
    monkeypatch.setattr(Run, "manifest", lambda run: (read.append(run.id), manifest(run))[1])
    removal.check_parents(line[2])
    assert read == [run.id for run in reversed(line)]


def test_a_damaged_ancestor_is_not_called_removed_and_one_that_is_gone_is(line: list[Run]) -> None:
    (line[1].path / "run.json").write_text("{")
    removal.check_parents(line[2])
    removal.remove(line[1], force=True)
    with pytest.raises(RemovedError, match=f"run {line[1].id}, which {line[2].id} is made from, has been removed"):
        removal.check_parents(line[2])
