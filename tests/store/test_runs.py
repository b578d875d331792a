"""A run's state is what its files say; its key is everything its outcome depends on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import BusyError, JobError, MissingError, UsageError
from metavqa_cli.schema.events import (
    Event,
    Narrated,
    RunFailed,
    RunInterrupted,
    RunStarted,
    StepLogged,
    ValidationMeasured,
)
from metavqa_cli.store import log as store_log
from metavqa_cli.store import removal, runs
from metavqa_cli.store.workspace import Workspace

CONFIG: dict[str, Any] = {"seed": 0, "ldm": {"hidden": (256, 512), "gamma": None, "lr": 1e-3}}
DATASET = {"name": "scenes", "fingerprint": "f00"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(workspace: Workspace, kind: str = "zoo", seed: int = 0, **more: Any) -> runs.Run:
    key = runs.run_key(kind, {"seed": seed}, {}, "f00")
    return runs.create(workspace, kind, key, CONFIG, more.pop("parents", {}), DATASET, **more)


def test_a_new_run_says_who_it_is(workspace: Workspace) -> None:
    run = make(workspace, extra={"method": "multitask"})
    manifest = run.manifest()
    assert run.id == f"zoo-{manifest['key'][:8]}" == manifest["id"]
    assert run.kind == "zoo" and manifest["method"] == "multitask" and manifest["dataset"] == DATASET
    assert run.config() == {"seed": 0, "ldm": {"hidden": [256, 512], "lr": 1e-3}}
    assert sorted(file.name for file in run.path.iterdir()) == ["config.toml", "run.json"]
    assert [folder.name for folder in workspace.runs_dir.iterdir()] == [run.id]


def test_the_key_changes_with_every_input_and_with_nothing_else() -> None:
    base = runs.run_key("ldm", {"a": {"x": 1, "y": (1, 2)}}, {"generator": "hvae-1"}, "f00")
    assert base == runs.run_key("ldm", {"a": {"y": [1, 2], "x": 1}}, {"generator": "hvae-1"}, "f00")
    others = {
        runs.run_key("hvae", {"a": {"x": 1, "y": (1, 2)}}, {"generator": "hvae-1"}, "f00"),
        runs.run_key("ldm", {"a": {"x": 1, "y": (2, 1)}}, {"generator": "hvae-1"}, "f00"),
        runs.run_key("ldm", {"a": {"x": 1, "y": (1, 2)}}, {"generator": "hvae-2"}, "f00"),
        runs.run_key("ldm", {"a": {"x": 1, "y": (1, 2)}}, {"zoo": "hvae-1"}, "f00"),
        runs.run_key("ldm", {"a": {"x": 1, "y": (1, 2)}}, {"generator": "hvae-1"}, "f01"),
    }
    assert len(others | {base}) == 6


def test_the_key_changes_with_the_format_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runs.run_key("zoo", {}, {}, "f00")
    monkeypatch.setattr(runs, "KEY_VERSION", runs.KEY_VERSION + 1)
    assert runs.run_key("zoo", {}, {}, "f00") != before


def test_the_same_key_gives_the_same_run_unless_fresh(workspace: Workspace) -> None:
    first = make(workspace)
    assert make(workspace).id == first.id
    second, third = make(workspace, fresh=True), make(workspace, fresh=True)
    assert (second.id, third.id) == (f"{first.id}-2", f"{first.id}-3")
    assert [run.id for run in runs.list_runs(workspace)] == [first.id, second.id, third.id]
    found = runs.find(workspace, "zoo", first.manifest()["key"])
    assert found == third
    assert runs.find(workspace, "ldm", first.manifest()["key"]) is None


def test_two_keys_with_the_same_beginning_get_two_ids(workspace: Workspace) -> None:
    ids = [runs.create(workspace, "zoo", "a" * 8 + end, {}, {}, DATASET).id for end in ("1", "2")]
    assert ids == ["zoo-aaaaaaaa", "zoo-aaaaaaaa-2"]


def test_a_run_that_cannot_be_written_leaves_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JobError, match="disk is full"):
        make(workspace)
    assert list(workspace.runs_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "stale"),
        ([RunStarted("r", "zoo", 10)], "stale"),
        ([RunStarted("r", "zoo", 10), RunInterrupted("r", 5)], "interrupted"),
        ([RunStarted("r", "zoo", 10), RunFailed("r", "diverged")], "failed"),
        ([RunInterrupted("r", 5), RunStarted("r", "zoo", 10, 5), StepLogged(6, {})], "stale"),
        ([RunFailed("r", "diverged"), RunStarted("r", "zoo", 10, 5), RunInterrupted("r", 7)], "interrupted"),
    ],
)
def test_the_state_without_result_and_lock_is_how_the_last_process_ended(
    workspace: Workspace, events: list[Event], state: str
) -> None:
    run = make(workspace)
    for event in events:
        run.append(event)
    assert run.state() == state
    with run.lock():
        assert run.state() == "running"
    run.finish({"accuracy": 0.5})
    assert run.state() == "finished"
    assert run.result() == {"accuracy": 0.5}


def test_an_unfinished_run_has_no_result(workspace: Workspace) -> None:
    assert make(workspace).result() is None


def test_the_lock_names_the_run(workspace: Workspace) -> None:
    run = make(workspace)
    with run.lock(), pytest.raises(BusyError, match=f"run {run.id} is in use by process {os.getpid()}"), run.lock():
        pytest.fail("the lock was given twice")


def test_events_come_back_in_order_from_any_offset(workspace: Workspace) -> None:
    run = make(workspace)
    assert run.events() == ([], 0)
    written = [StepLogged(step, {"loss": 1 / (step + 1)}) for step in range(5)]
    for event in written[:3]:
        run.append(event)
    first, offset = run.events()
    assert first == written[:3]
    assert run.events(offset) == ([], offset)
    for event in written[3:]:
        run.append(event)
    assert run.events(offset)[0] == written[3:]
    assert "at" in json.loads(run.events_path.read_text().splitlines()[0])


@given(cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_line_is_waited_for_and_then_survived(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    run = make(Workspace(tmp_path_factory.mktemp("torn")))
    run.append(StepLogged(1, {"loss": 0.25}))
    _, offset = run.events()
    run.append(StepLogged(2, {"loss": 0.125}))
    whole = run.events_path.read_bytes()
    run.events_path.write_bytes(whole[:-cut])
    assert run.events() == ([StepLogged(1, {"loss": 0.25})], offset)
    run.append(StepLogged(3, {}))
    assert StepLogged(3, {}) in run.events(offset)[0]
    assert run.events()[0][0] == StepLogged(1, {"loss": 0.25})


def test_unknown_and_malformed_lines_are_skipped(workspace: Workspace) -> None:
    run = make(workspace)
    run.events_path.write_text('{"event": "FromTheFuture"}\n7\n{"event": "StepLogged"}\n\xff\n')
    run.append(StepLogged(1, {}))
    assert run.events()[0] == [StepLogged(1, {})]


def test_a_mark_tells_whether_a_log_still_has_what_it_had(workspace: Workspace) -> None:
    run = make(workspace)
    empty = store_log.mark(run.events_path)
    assert empty["bytes"] == 0 and store_log.reaches(run.events_path, empty)
    for step in range(1500):  # more than is looked at
        run.append(StepLogged(step, {"loss": 1.0}))
    told, path = store_log.mark(run.events_path), run.events_path
    assert told["bytes"] == path.stat().st_size > store_log.TAIL_BYTES
    run.append(StepLogged(1500, {"loss": 1.0}))
    assert store_log.reaches(path, told) and store_log.reaches(path, empty)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:] + lines[-1:]))
    assert not store_log.reaches(path, told), "a line was taken out far before what is looked at"
    path.write_bytes(b"".join(lines[:-2]))
    assert not store_log.reaches(path, told)
    path.unlink()
    assert not store_log.reaches(path, told) and store_log.reaches(path, empty)


@pytest.mark.parametrize("told", [None, [], 7, {}, {"bytes": -1, "sha256": ""}, {"bytes": 0}, {"bytes": 1e9}])
def test_what_is_no_mark_vouches_for_nothing(workspace: Workspace, told: object) -> None:
    assert not store_log.reaches(make(workspace).events_path, told)


def test_a_log_that_became_shorter_is_read_from_its_beginning(workspace: Workspace) -> None:
    run = make(workspace)
    run.append(StepLogged(1, {}))
    assert run.events(10_000)[0] == [StepLogged(1, {})]


@given(block=st.integers(min_value=1, max_value=400), order=st.permutations("SVSRSVSSN"))
def test_the_last_event_of_a_kind_is_found_from_the_end(
    tmp_path_factory: pytest.TempPathFactory, block: int, order: list[str]
) -> None:
    """Whatever the size of the blocks; as reading all of it finds."""
    run = make(Workspace(tmp_path_factory.mktemp("newest")))
    kinds: dict[str, type[Event]] = {"S": StepLogged, "V": ValidationMeasured, "R": RunStarted, "N": Narrated}
    for number, kind in enumerate(order):
        run.append({"S": StepLogged(number, {"loss": 1.0}), "V": ValidationMeasured(number, {}),
                    "R": RunStarted("r", "k", number), "N": Narrated('{"event": "RunFailed"')}[kind])  # fmt: skip
    with run.events_path.open("ab") as log:
        log.write(b'{"event": "StepLogged", "step": 7')  # torn
    wanted = [kinds[name] for name in "SVRN"] + [RunFailed]
    with patch.object(store_log, "BLOCK", max(block, 200)):
        found = store_log.newest(run.events_path, wanted)
    everything = {type(event): event for event in run.events()[0]}
    assert found == everything and RunFailed not in found


def test_a_log_without_an_end_of_line_is_no_trouble_from_the_end(workspace: Workspace) -> None:
    run = make(workspace)
    assert store_log.newest(run.events_path, [StepLogged]) == {}
    run.events_path.write_bytes(b"x" * 5_000_000)
    assert store_log.newest(run.events_path, [StepLogged]) == {}
    run.append(StepLogged(1, {}))
    assert store_log.newest(run.events_path, [StepLogged]) == {StepLogged: StepLogged(1, {})}


def test_the_end_of_a_long_log_is_enough(workspace: Workspace) -> None:
    run = make(workspace)
    run.append(RunInterrupted("r", 1))
    with run.events_path.open("a") as log:
        log.write('{"event": "StepLogged", "step": 1, "metrics": {}}\n' * 3_000)
    assert run.state() == "stale"


def test_newest_takes_finished_runs_of_the_kind_that_match(workspace: Workspace) -> None:
    old, new, unfinished, other = (
        make(workspace, seed=1), make(workspace, seed=2), make(workspace, seed=3), make(workspace, kind="hvae"),
    )  # fmt: skip
    for run in (old, new, other):
        run.finish({})
    assert runs.newest(workspace, "zoo") == new
    assert runs.newest(workspace, "zoo", finished=False) == unfinished
    assert runs.newest(workspace, "zoo", match=lambda run: run.id == old.id) == old
    assert runs.newest(workspace, "ldm") is None


def test_get_takes_a_unique_beginning_and_helps_otherwise(workspace: Workspace) -> None:
    for key in ("abcd1111", "abcd2222", "ffff3333"):
        runs.create(workspace, "zoo", key, {}, {}, DATASET)
    assert runs.get(workspace, "zoo-f").id == "zoo-ffff3333"
    with pytest.raises(UsageError, match="ambiguous: zoo-abcd1111, zoo-abcd2222"):
        runs.get(workspace, "zoo-abcd")
    with pytest.raises(MissingError, match=r"no run 'zoo-abcd1112'.*did you mean zoo-abcd1111.*metavqa runs ls"):
        runs.get(workspace, "zoo-abcd1112")
    with pytest.raises(MissingError, match="metavqa runs ls"):
        runs.get(workspace, "")


def test_an_exact_id_wins_over_a_beginning(workspace: Workspace) -> None:
    run = make(workspace)
    make(workspace, fresh=True)
    assert runs.get(workspace, run.id) == run


def test_remove_protects_running_runs_and_parents(workspace: Workspace) -> None:
    parent = make(workspace)
    child = make(workspace, kind="hvae", parents={"zoo": parent.id})
    with parent.lock(), pytest.raises(BusyError, match="in use by process"):
        removal.remove(parent, force=True)
    with pytest.raises(UsageError, match=f"parent of {child.id}.*--force"):
        removal.remove(parent)
    removal.remove(parent, force=True)
    removal.remove(child)
    assert workspace.run_ids() == [] and {path.suffix for path in workspace.runs_dir.iterdir()} == {".lock"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 99}', "\x00\xff"])
def test_a_damaged_manifest_hides_only_its_own_run_and_can_be_removed(workspace: Workspace, text: str) -> None:
    good, bad = make(workspace, seed=1), make(workspace, seed=2)
    (bad.path / "run.json").write_text(text)
    assert runs.list_runs(workspace) == [good]
    with pytest.raises(JobError, match="upgrade metavqa" if "99" in text else f"metavqa runs rm {bad.id}"):
        bad.manifest()
    removal.remove(runs.get(workspace, bad.id))
    assert workspace.run_ids() == [good.id]


@pytest.mark.parametrize(("text", "error"), [("a = ", JobError), (None, MissingError)])
def test_a_damaged_or_missing_config_names_the_way_out(workspace: Workspace, text: str | None, error: type) -> None:
    run = make(workspace)
    path = run.path / "config.toml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(error, match=rf"config\.toml.*metavqa runs rm {run.id}"):
        run.config()


def test_who_holds_a_run_removes_the_half_files_of_a_killed_process(workspace: Workspace) -> None:
    run = make(workspace)
    (run.path / ".tmp-00000001-state.safetensors").write_bytes(b"half a checkpoint")
    with run.lock():
        assert [path.name for path in run.path.glob(".tmp-*")] == []


def test_making_a_run_sweeps_what_was_left_by_one_that_was_killed_days_ago(workspace: Workspace) -> None:
    draft = workspace.runs_dir / ".tmp-00000001"
    draft.mkdir(parents=True)
    (draft / "run.json").write_text("{}")
    make(workspace, seed=1)
    assert draft.is_dir()  # a living process may be at it
    os.utime(draft, (1.0, 1.0))
    make(workspace, seed=2)
    assert not draft.exists()


def test_a_run_that_finishes_while_its_state_is_asked_for_is_not_stale(workspace: Workspace) -> None:
    run = make(workspace)
    run.append(RunStarted(run.id, "zoo", 3))
    with patch.object(runs.Run, "is_held", lambda run: bool(run.finish({}))):
        assert run.state() == "finished"


@pytest.mark.parametrize("make_odd", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_a_run_is_neither_waited_for_nor_in_the_way_of_others(
    workspace: Workspace, make_odd: Callable[[Path], None]
) -> None:
    run, other = make(workspace), make(workspace, seed=1)
    for name, read in (("result.json", run.result), ("events.jsonl", run.state), ("config.toml", run.config)):
        path = run.path / name
        path.unlink(missing_ok=True)
        make_odd(path)
        if name == "config.toml":
            with pytest.raises(JobError, match=r"config\.toml is damaged: it is not a file; remove the run with"):
                read()
        else:
            assert read() in (None, "stale")
    assert run.events() == ([], 0) and store_log.newest(run.events_path, (RunStarted,)) == {}
    assert [found.id for found in runs.list_runs(workspace)] == sorted([run.id, other.id])


def test_a_manifest_that_cannot_be_read_hides_only_its_own_run(workspace: Workspace) -> None:
    run, other = make(workspace), make(workspace, seed=1)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.parent == run.path:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with patch.object(Path, "read_bytes", refused):
        assert [found.id for found in runs.list_runs(workspace)] == [other.id]
        with pytest.raises(JobError, match=r"run\.json cannot be read: Permission denied; check its permissions, or"):
            run.manifest()


@pytest.mark.parametrize("record", [{}, {"model": 1, "events": {}}, {"model": None, "events": {"bytes": "9"}}])
def test_an_odd_record_of_what_belongs_to_a_run_is_damage(workspace: Workspace, record: dict[str, Any]) -> None:
    run = make(workspace)
    (run.path / "result.json").write_text(json.dumps({"record": record}))  # as if it were of before there were seals
    with pytest.raises(JobError, match=r"result\.json is damaged \(its record: "):
        run.record()
