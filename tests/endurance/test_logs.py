"""A log of any size costs no more to append to, to list and to open than a small one, and its curves bounded memory."""

import time
from pathlib import Path

import pytest

from metavqa_cli.schema.events import RunFailed, StepLogged, ValidationMeasured
from metavqa_cli.store import log
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.feed import LOOK_BYTES, RunsFeed, read_runs
from tests.endurance.logs import LARGE, ROWS, SMALL, appended, commanded, last_step, long_run, measure, table

CI_BYTES = 40_000_000
EXTRA_MB = 60  # that curves of any log may take beside those of a small one


def test_a_long_log_is_shown_at_once_and_read_on_in_bounded_looks(tmp_path: Path) -> None:
    """Its last step is known from the first look, its best validation when all is read."""
    workspace = Workspace(tmp_path)
    run = long_run(workspace, CI_BYTES // 2)
    feed, now = RunsFeed(workspace), time.time()
    (first,) = feed.read(now)
    assert feed.behind and first.step == last_step(run) and first.total_steps == 100_000_000
    looks, (view,) = 1, (first,)
    while feed.behind:
        (view,) = feed.read(now)
        looks += 1
    assert looks == 1 + run.events_path.stat().st_size // LOOK_BYTES
    validations = [event for event in run.events()[0] if isinstance(event, ValidationMeasured)]
    assert view.accuracy == max(event.metrics["accuracy"] for event in validations) > (first.accuracy or 0)
    assert read_runs(workspace, now) == (view,)
    found = log.newest(run.events_path, [StepLogged, ValidationMeasured, RunFailed])
    assert found[ValidationMeasured] == validations[-1] and RunFailed not in found
    assert isinstance(last := found[StepLogged], StepLogged) and last.step == last_step(run)


def test_commands_take_no_more_memory_of_a_long_log(tmp_path: Path) -> None:
    """Those that show a run and its curves; and an event is appended as fast."""
    small, large = Workspace(tmp_path / "small"), Workspace(tmp_path / "large")
    runs = [long_run(small, SMALL), long_run(large, CI_BYTES)]
    for command in ("show", "curves"):
        (_, few), (_, many) = (
            commanded(one.root, "runs", command, run.id, repeats=1)
            for one, run in zip((small, large), runs, strict=True)
        )
        assert many < few + (EXTRA_MB if command == "curves" else 10), (command, few, many)
    assert appended(runs[1]) < 5 * appended(runs[0]) + 200


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_log_past_a_gigabyte(tmp_path: Path) -> None:
    small, large = (measure(tmp_path / str(size), size) for size in (SMALL, LARGE))
    print(table(small, large))
    assert large["bytes"] > 1e9 and large.keys() >= ROWS.keys()
    assert large["append_us"] < 5 * small["append_us"] + 200
    for name in ("ls_s", "list_s"):
        assert large[name] < small[name] + 1, name
    assert large["show_s"] < small["show_s"] + 5  # a kind of event that there is none of is looked for in all of it
    assert large["show_mb"] < small["show_mb"] + 10
    for name in ("curves_mb", "dashboard_mb"):
        assert large[name] < small[name] + EXTRA_MB, name
