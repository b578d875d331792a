"""Runs are read as they are while others write them; a followed log is never misread, whatever happens to its file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import MissingError
from metavqa_cli.schema.events import (
    Event,
    Narrated,
    ProgressMade,
    RunFailed,
    RunInterrupted,
    RunStarted,
    StepLogged,
    ValidationMeasured,
    to_record,
)
from metavqa_cli.store import locks, removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.feed import Curves, Follower, RunsFeed, RunView, Tail, read_runs
from metavqa_cli.tui.tail import LONGEST_LINE

NOW = 2_000_000_000.0
DATASET = {"name": "scenes", "fingerprint": "f00"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(workspace: Workspace, kind: str = "ldm", seed: int = 7, **more: Any) -> Run:
    config = {"seed": seed, "ldm": {"lr": 1e-3}}
    key = runs.run_key(kind, config, {}, "f00")
    return runs.create(workspace, kind, key, config, more.pop("parents", {}), DATASET, more or None, fresh=True)


def line(event: Event) -> bytes:
    return json.dumps(to_record(event)).encode() + b"\n"


def step(number: int, **metrics: float) -> StepLogged:
    return StepLogged(number, metrics or {"loss": 1 / (number + 1)})


def only(workspace: Workspace) -> RunView:
    (view,) = read_runs(workspace, NOW)
    return view


def points(curves: Curves, name: str) -> list[tuple[float, float]]:
    return list(zip(curves.series[name].steps, curves.series[name].values, strict=True))


# The tail


def test_a_log_that_does_not_exist_yet_is_nothing_yet(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "run" / "events.jsonl")
    assert tail.poll() == [] and tail.trouble is None
    tail.path.parent.mkdir()
    tail.path.write_bytes(line(step(1)))
    assert tail.poll() == [step(1)] and tail.restarts == 0


@given(st.lists(st.integers(min_value=0, max_value=500), max_size=12), st.sampled_from([None, 1, 7, 64, 10_000]))
def test_every_event_comes_once_and_in_order_wherever_the_writes_and_reads_are_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], limit: int | None
) -> None:
    events: list[Event] = [step(number) for number in range(5)]
    events[2] = Narrated("γ = 1,5\u2028ist am besten")
    whole = b"".join(json.dumps(to_record(event), ensure_ascii=False).encode() + b"\n" for event in events)
    path = tmp_path_factory.mktemp("cut") / "events.jsonl"
    tail, found = Tail(path), []
    ends = [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    for start, end in zip([0, *ends], ends, strict=False):
        with path.open("ab") as log:
            log.write(whole[start:end])
        found += tail.poll(limit)
    while tail.behind:
        found += tail.poll(limit)
    assert found == events and tail.poll(limit) == []
    assert (tail.damaged, tail.restarts) == (0, 0)


def test_the_tail_reads_what_the_store_appends(workspace: Workspace) -> None:
    run = make(workspace)
    tail = Tail(run.events_path)
    run.append(step(1))
    assert tail.poll() == [step(1)]
    run.append(Narrated("two"))
    assert tail.poll() == [Narrated("two")]


@pytest.mark.parametrize("anew", [False, True])
def test_a_run_removed_since_the_folder_was_listed_is_not_damaged(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """Maybe another one has its name by now."""
    kept, gone, hurt = make(workspace, "zoo"), make(workspace), make(workspace, "hvae")
    (hurt.path / "run.json").write_text("{")
    read, looks = Run.manifest, list[Run]()

    def late(run: Run) -> dict[str, Any]:
        looks.append(run)
        if run == gone and looks.count(gone) == 1:
            with monkeypatch.context() as undisturbed:
                undisturbed.setattr(Run, "manifest", read)
                removal.remove(run, force=True)
                if anew:
                    make(workspace)
            raise MissingError("it was removed just before")
        return read(run)

    feed = RunsFeed(workspace)
    monkeypatch.setattr(Run, "manifest", late)
    views = feed.read(NOW)
    assert [view.id for view in views] == [kept.id, *([gone.id] if anew else [])] and feed.damaged == (hurt.id,)


@pytest.mark.parametrize(
    "damage",
    [b'{"event": "StepLo', b"\0" * 40, b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"event": []}', b"{}",
     b"\xef\xbb\xbf{}", line(step(5))[:-1] * 2, b"NaN",
     b'{"event": "StepLogged"}', b'{"event": "StepLogged", "step": "5", "metrics": {}}',
     b'{"event": "StepLogged", "step": 5, "metrics": {"loss": "high"}}',
     b'{"event": "StepLogged", "step": 5, "metrics": {"loss": 1' + b"0" * 400 + b"}}",
     b'{"event": "StepLogged", "step": 1' + b"0" * 400 + b', "metrics": {}}',
     b'{"event": "RunFailed", "run": "r", "message": null}'],
)  # fmt: skip
def test_a_damaged_line_is_counted_and_passed_over(tmp_path: Path, damage: bytes) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(line(step(1)) + damage + b"\n\n" + line(step(2)))
    assert tail.poll() == [step(1), step(2)]
    assert tail.damaged == 1


def test_an_event_of_a_later_version_is_no_damage(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(b'{"event": "WeightsPruned", "share": 0.5}\n' + line(step(1)))
    assert tail.poll() == [step(1)]
    assert tail.damaged == 0


@pytest.mark.parametrize("limit", [None, 1 << 16, LONGEST_LINE])
@pytest.mark.parametrize("ended", [True, False])
def test_a_line_longer_than_any_event_is_given_up_and_what_follows_is_read(
    tmp_path: Path, limit: int | None, ended: bool
) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(line(step(1)) + b"\0" * (LONGEST_LINE + 1) + b"\n" * ended)
    found = tail.poll(limit)
    while tail.behind:
        found += tail.poll(limit)
    assert (found, tail.damaged, sum(map(len, tail._torn))) == ([step(1)], 1, 0)  # nothing of it is kept
    with tail.path.open("ab") as log:
        log.write(b"\n" * (not ended) + line(step(5)) + line(step(6)))
    assert tail.poll() == [step(5), step(6)] and tail.damaged == 1


def test_a_line_of_the_greatest_length_is_read_in_slices(tmp_path: Path) -> None:
    tail, event = Tail(tmp_path / "events.jsonl"), Narrated("")
    event = Narrated("x" * (LONGEST_LINE - len(line(event)) + 1))
    tail.path.write_bytes(line(event) + line(step(2)))
    found = tail.poll(1 << 16)
    while tail.behind:
        found += tail.poll(1 << 16)
    assert found == [event, step(2)] and tail.damaged == 0


def test_a_long_log_without_a_line_end_is_read_in_time_that_grows_with_its_length(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(b"\0" * 60_000_000)
    begun = time.perf_counter()
    while tail.lines(1 << 16) or tail.behind:
        assert time.perf_counter() - begun < 5  # it takes 0.05 s; where every slice looks at all before it, 30 s
    assert tail.damaged == 1


def shortened(path: Path) -> None:
    path.write_bytes(line(step(8)))


def replaced_by_a_longer_one(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"".join(line(step(number)) for number in (8, 9, 10, 11)))
    other.replace(path)


def replaced_by_one_that_begins_alike(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes() + line(step(9)))
    other.replace(path)


def written_anew_in_place(path: Path) -> None:
    path.write_bytes(b"".join(line(step(number)) for number in (8, 9, 10, 11)))


@pytest.mark.parametrize(
    "change", [shortened, replaced_by_a_longer_one, replaced_by_one_that_begins_alike, written_anew_in_place]
)
def test_a_log_that_became_another_one_is_read_from_its_beginning(tmp_path: Path, change: Any) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(line(step(1)) + line(step(2)) + b"torn\n" + b'{"event": "Ste')
    assert tail.poll() == [step(1), step(2)] and tail.damaged == 1
    change(tail.path)
    newcomer = Tail(tail.path)
    assert tail.poll() == newcomer.poll() != []
    assert (tail.restarts, tail.damaged) == (1, newcomer.damaged)


def test_a_log_that_vanishes_is_nothing_new_and_its_successor_is_read_whole(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(line(step(1)))
    tail.poll()
    tail.path.unlink()
    assert tail.poll() == [] and tail.trouble is None
    tail.path.write_bytes(line(step(5)) + line(step(6)))
    assert tail.poll() == [step(5), step(6)] and tail.restarts == 1


def test_a_log_that_cannot_be_read_is_said_in_a_sentence_until_it_can(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.mkdir()
    assert tail.poll() == []
    assert tail.trouble == f"cannot read {tail.path}: it is not a file"
    tail.path.rmdir()
    tail.path.write_bytes(line(step(1)))
    assert tail.poll() == [step(1)] and tail.trouble is None


def test_a_log_that_is_as_it_was_when_it_can_be_read_again_is_no_trouble(tmp_path: Path) -> None:
    tail, away = Tail(tmp_path / "events.jsonl"), tmp_path / "away"
    tail.path.write_bytes(line(step(1)))
    tail.poll()
    tail.path.rename(away)
    tail.path.mkdir()
    assert tail.poll() == [] and tail.trouble
    tail.path.rmdir()
    assert tail.poll() == [] and tail.trouble is None
    tail.path.mkdir()
    assert tail.poll() == [] and tail.trouble
    tail.path.rmdir()
    away.rename(tail.path)
    assert tail.poll() == [] and tail.trouble is None and tail.restarts == 0


def test_an_unchanged_log_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    tail.path.write_bytes(line(step(1)) + b"torn")
    tail.poll()
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the log was opened"))
    assert tail.poll() == []


# The curves


def test_metrics_become_named_series_and_validation_is_kept_apart() -> None:
    curves = Curves()
    curves.absorb([step(1, loss=3.0, accuracy=0.25), ValidationMeasured(2, {"accuracy": 40.0}, True), step(3, loss=2)])
    assert {name: points(curves, name) for name in curves.series} == {
        "loss": [(1, 3.0), (3, 2.0)], "accuracy": [(1, 0.25)], "validation.accuracy": [(2, 40.0)],
    }  # fmt: skip
    assert all(name == series.name for name, series in curves.series.items())


def test_a_resumed_run_repeats_what_came_after_its_checkpoint() -> None:
    curves = Curves()
    curves.absorb([RunStarted("r", "ldm", 9), *(step(n, loss=n) for n in (2, 4, 6, 8))])
    curves.absorb([ValidationMeasured(4, {"accuracy": 1}), ValidationMeasured(8, {"accuracy": 2})])
    curves.absorb([RunStarted("r", "ldm", 9, resumed_at=4)])
    assert points(curves, "loss") == [(2, 2), (4, 4)] and points(curves, "validation.accuracy") == [(4, 1)]
    curves.absorb([step(5, loss=50), step(7, loss=70)])
    assert points(curves, "loss") == [(2, 2), (4, 4), (5, 50), (7, 70)]


def test_a_run_that_began_anew_forgets_its_first_attempt() -> None:
    curves = Curves()
    curves.absorb(
        [RunStarted("r", "ldm", 9), step(2), RunFailed("r", "no"), RunStarted("r", "ldm", 9), step(1, loss=5)]
    )
    assert points(curves, "loss") == [(1, 5)]


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(allow_nan=False)), max_size=40))
def test_steps_rise_and_the_later_of_two_points_wins(logged: list[tuple[int, float]]) -> None:
    curves = Curves()
    curves.absorb(step(number, loss=value) for number, value in logged)
    expected: list[tuple[int, float]] = []
    for number, value in logged:
        expected = [point for point in expected if point[0] < number] + [(number, value)]
    assert (points(curves, "loss") if logged else []) == expected


def test_the_version_rises_only_with_what_can_be_drawn() -> None:
    curves = Curves()
    curves.absorb([Narrated("hello"), ProgressMade("drawing", 1, 2)])
    assert curves.version == 0
    curves.absorb([step(1)])
    assert curves.version == 1


def test_a_follower_starts_its_curves_over_with_the_log(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    path = tmp_path / "events.jsonl"
    assert not follower.poll()
    path.write_bytes(line(step(1, loss=1)) + line(step(9, kl=9)))
    assert follower.poll() and set(follower.curves.series) == {"loss", "kl"}
    assert not follower.poll()
    path.write_bytes(line(step(2, loss=2)))
    assert follower.poll() and points(follower.curves, "loss") == [(2, 2)] and "kl" not in follower.curves.series
    path.write_bytes(b"")
    assert follower.poll() and follower.curves.series == {}


# The runs


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run.json", "[" * 200_000),
        ("result.json", '{"validation": {"accuracy": 1' + "0" * 400 + "}}"),
        ("events.jsonl", '{"event": "ProgressMade", "phase": "x", "done": 1' + "0" * 400 + ', "total": 1}\n'),
        ("events.jsonl", '{"event": "RunStarted", "run": "x", "kind": "ldm", "total_steps": 3, "resumed_at": 1'
                         + "0" * 400 + "}\n"),
    ],
)  # fmt: skip
def test_whatever_one_run_holds_the_others_are_shown(workspace: Workspace, file: str, text: str) -> None:
    odd, sound = make(workspace, "hvae"), make(workspace, "ldm")
    (odd.path / file).write_text(text)
    feed = RunsFeed(workspace)
    for _ in range(2):
        assert sound.id in [view.id for view in feed.read(NOW)]


def test_a_run_whose_log_cannot_be_read_is_shown_and_says_why(workspace: Workspace) -> None:
    run = make(workspace)
    run.events_path.mkdir()
    view = only(workspace)
    assert view.state == "stale" and "cannot read" in str(view.message) and "events.jsonl" in str(view.message)


def test_a_view_says_all_that_the_files_say(workspace: Workspace) -> None:
    parent = make(workspace, "hvae")
    run = make(workspace, seed=11, variant="task", parents={"generator": parent.id})
    for event in (RunStarted(run.id, "ldm", 40), step(9), ValidationMeasured(10, {"accuracy": 51.5}, True),
                  ValidationMeasured(20, {"accuracy": 50.0})):  # fmt: skip
        run.append(event)
    view = read_runs(workspace, NOW)[1]
    assert (view.id, view.path, view.kind, view.variant, view.dataset) == (run.id, run.path, "ldm", "task", "scenes")
    assert (view.step, view.total_steps, view.progress) == (20, 40, 0.5)
    assert (view.metric_name, view.accuracy, view.seed) == ("val", 51.5, 11)
    assert view.parents == (("generator", parent.id),)
    assert view.updated == run.events_path.stat().st_mtime_ns / 1e9
    assert abs(view.created - time.time()) < 600 and view.age == NOW - view.created


@pytest.mark.parametrize(
    "events",
    [
        [],
        [RunStarted("r", "ldm", 10)],
        [RunStarted("r", "ldm", 10), RunInterrupted("r", 5)],
        [RunStarted("r", "ldm", 10), RunFailed("r", "diverged")],
        [RunInterrupted("r", 5), RunStarted("r", "ldm", 10, 5), step(6)],
    ],
)
def test_the_state_is_the_stores_however_it_changes(workspace: Workspace, events: list[Event]) -> None:
    run, feed = make(workspace), RunsFeed(workspace)

    def agreed() -> str:
        state = feed.read(NOW)[0].state
        assert state == run.state() == feed.read(NOW)[0].state
        return state

    for event in events:
        run.append(event)
        agreed()
    before = agreed()
    with run.lock():
        assert agreed() == "running"
    assert agreed() == before
    run.append(RunFailed("r", "no"))
    assert agreed() == "failed"
    run.finish({})
    assert agreed() == "finished"


def test_a_running_run_shows_who_has_it_but_never_a_dead_process(workspace: Workspace) -> None:
    run = make(workspace)
    assert only(workspace).holder is None
    with run.lock():
        held = only(workspace).holder
        assert held is not None and held.pid == os.getpid() and held == run.owner()
        record = json.loads(locks.sidecar(run.lock_path).read_text())
        locks.sidecar(run.lock_path).write_text(json.dumps(record | {"pid": 2**30}))
        assert only(workspace).state == "running" and only(workspace).holder is None
    assert only(workspace).holder is None


def test_only_a_failed_run_shows_why(workspace: Workspace) -> None:
    run = make(workspace)
    run.append(RunFailed(run.id, "the loss is not finite"))
    assert only(workspace).message == "the loss is not finite"
    run.append(RunStarted(run.id, "ldm", 9))
    assert only(workspace).message is None


def test_a_run_that_stopped_early_is_complete_and_its_result_counts(workspace: Workspace) -> None:
    run = make(workspace)
    for event in (RunStarted(run.id, "ldm", 40), ValidationMeasured(10, {"accuracy": 30.0})):
        run.append(event)
    run.finish({"validation": {"accuracy": 31.25}})
    view = only(workspace)
    assert (view.progress, view.step, view.total_steps, view.accuracy) == (1.0, 10, 40, 31.25)


@pytest.mark.parametrize("result", [{}, {"validation": None}, {"validation": {"accuracy": "high"}}, "damaged"])
def test_without_a_usable_result_the_log_counts(workspace: Workspace, result: Any) -> None:
    run = make(workspace)
    run.append(ValidationMeasured(10, {"accuracy": 30.0}))
    (run.path / "result.json").write_text("{" if result == "damaged" else json.dumps(result))
    assert (only(workspace).accuracy, only(workspace).state) == (30.0, "finished")


def test_a_job_without_steps_shows_the_progress_of_its_phase(workspace: Workspace) -> None:
    run = make(workspace, "eval")
    for event in (RunStarted(run.id, "eval", 0), ProgressMade("evaluating", 3, 12), ProgressMade("waiting", 0, 0)):
        assert only(workspace).progress == 0.0
        run.append(event)
        view = only(workspace)
        assert view.progress == (0.25 if isinstance(event, ProgressMade) and event.total else 0.0)
        if isinstance(event, ProgressMade) and event.total:
            run.events_path.unlink()
    assert (view.step, view.total_steps, view.accuracy) == (None, None, None)


def test_a_resumed_run_stands_at_its_checkpoint_and_loses_what_came_after(workspace: Workspace) -> None:
    run, feed = make(workspace), RunsFeed(workspace)
    for event in (RunStarted(run.id, "ldm", 100), step(10), step(60), ValidationMeasured(60, {"accuracy": 70.0}),
                  step(80), RunStarted(run.id, "ldm", 100, 50)):  # fmt: skip
        run.append(event)
    for view in (feed.read(NOW)[0], only(workspace)):
        assert (view.step, view.progress, view.accuracy) == (50, 0.5, None)


def test_views_of_an_unchanged_run_are_equal_and_any_change_shows(workspace: Workspace) -> None:
    run, feed = make(workspace), RunsFeed(workspace)
    run.append(RunStarted(run.id, "ldm", 10))
    first = feed.read(NOW)
    assert feed.read(NOW + 60) == first and feed.read(NOW + 60)[0].age == first[0].age + 60
    run.append(step(3))
    assert feed.read(NOW)[0].step == 3
    assert feed.read(NOW) == read_runs(workspace, NOW)


def test_an_unchanged_finished_run_is_not_opened_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run, feed = make(workspace), RunsFeed(workspace)
    run.append(RunStarted(run.id, "ldm", 10))
    run.finish({})
    first = feed.read(NOW)
    for name in ("open", "read_text", "read_bytes"):
        monkeypatch.setattr(Path, name, lambda *_, **__: pytest.fail("a file was opened"))
    assert feed.read(NOW) == first


def test_runs_that_vanish_are_gone_and_one_made_again_is_another(workspace: Workspace) -> None:
    run, feed = make(workspace, seed=1), RunsFeed(workspace)
    run.append(RunStarted(run.id, "ldm", 10))
    run.append(step(4))
    assert feed.read(NOW)[0].step == 4
    removal.remove(run)
    assert feed.read(NOW) == ()
    assert make(workspace, seed=1).id == run.id
    assert (feed.read(NOW)[0].step, feed.read(NOW)[0].total_steps) == (None, None)


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "{}", '{"schema_version": 99}',
                 '{"schema_version": 1, "kind": "a", "key": "k", "parents": 3, "dataset": {}, "created": "today"}'],
)  # fmt: skip
def test_a_damaged_run_is_named_and_hides_no_other(workspace: Workspace, manifest: str) -> None:
    good, bad = make(workspace, seed=1), make(workspace, seed=2)
    (bad.path / "run.json").write_text(manifest)
    feed = RunsFeed(workspace)
    assert [view.id for view in feed.read(NOW)] == [good.id]
    assert feed.damaged == (bad.id,)


def test_the_seed_is_the_runs_own_and_not_that_of_a_section(workspace: Workspace) -> None:
    run = make(workspace)
    (run.path / "config.toml").write_text("# seed = 1\n[dataset]\nseed = 2021\n", "utf-8")
    assert only(workspace).seed is None
    (run.path / "config.toml").unlink()
    assert only(workspace).seed is None


def test_runs_come_oldest_first(workspace: Workspace) -> None:
    made = [make(workspace, kind).id for kind in ("zoo", "baseline", "ldm")]
    assert [view.id for view in read_runs(workspace, NOW)] == made


def test_an_empty_or_absent_workspace_has_no_runs(workspace: Workspace) -> None:
    assert read_runs(workspace, NOW) == () == read_runs(Workspace(workspace.root / "absent"), NOW)


MEASURED = """
import json, sys, time
from pathlib import Path
from metavqa_cli.schema.events import StepLogged, to_record
from metavqa_cli.tui.feed import Curves, Follower

def seconds(work):
    started = time.process_time()
    work()
    return time.process_time() - started

metrics = {"loss": 0.123456789, "kl": 1.23456789, "grad_norm": 2.5, "lr": 1e-3, "tasks_per_s": 123.456}
steps = [StepLogged(step, metrics) for step in range(100_000)]
curves, follower = Curves(), Follower(Path(sys.argv[1]))
absorbed = seconds(lambda: curves.absorb(steps))
assert len(curves.series["kl"]) == 100_000
with follower.tail.path.open("w") as log:
    log.writelines(json.dumps(to_record(event)) + "\\n" for event in steps[:10_000])
while follower.poll():
    pass
idle = seconds(lambda: [follower.poll() for _ in range(1000)]) / 1000
heavy = sorted({"torch", "numpy", "textual", "rich", "PIL"} & set(sys.modules))
print(json.dumps({"absorbed": absorbed, "idle": idle, "heavy": heavy}))
"""


def test_a_hundred_thousand_steps_are_absorbed_at_once_and_an_idle_poll_is_free(tmp_path: Path) -> None:
    """Measured: 0.25 s and 3.5 µs, without the run-time type checks of the tests; the bounds are for slow machines."""
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert told["absorbed"] < 1.5 and told["idle"] < 100e-6
    assert told["heavy"] == []


def test_a_validation_that_is_no_number_is_never_the_best(workspace: Workspace) -> None:
    run = make(workspace)
    for number, accuracy in enumerate((float("nan"), 20.0, float("nan"), 10.0)):
        run.append(ValidationMeasured(number, {"accuracy": accuracy}))
    assert only(workspace).accuracy == 20.0


def test_a_pipe_in_place_of_a_log_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.jsonl")
    assert Tail(tmp_path / "events.jsonl").poll() == []
