"""Curves without a dashboard: pictures for people, points for programs, both of what the logs hold at that moment."""

import csv
import io
import json
import math

import pytest

from metavqa_cli.cli import console
from metavqa_cli.schema.events import RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests.cli.terminal import Terminal, assert_refused, python
from tests.cli.test_startup import LISTING

DATASET = {"name": "scenes", "fingerprint": "f00"}


def trained(workspace: Workspace, seed: int, steps: int = 10) -> Run:
    config = {"seed": seed, "ldm": {"lr": 1e-3}}
    run = runs.create(workspace, "ldm", f"{seed:08d}ffff", config, {}, DATASET, {"variant": "task"}, fresh=True)
    run.append(RunStarted(run.id, "ldm", steps))
    for step in range(1, steps + 1):
        run.append(StepLogged(step, {"loss": seed + 1 / step, "lr": 1e-3}))
    run.append(ValidationMeasured(steps, {"accuracy": 50.0 + seed}))
    return run


@pytest.fixture
def first(workspace: Workspace) -> Run:
    return trained(workspace, 0)


@pytest.fixture
def second(workspace: Workspace) -> Run:
    return trained(workspace, 2)


def test_elsewhere_than_on_a_terminal_there_are_points(metavqa: Terminal, first: Run) -> None:
    done = metavqa("runs", "curves", first.id)
    head, *rows = [line.split("\t") for line in done.out.splitlines()]
    assert done.code == 0 and head == ["run", "metric", "step", "value"] and done.err == ""
    assert [row[1] for row in rows] == ["loss"] * 10 + ["validation.accuracy"] + ["lr"] * 10
    assert rows[3] == [first.id, "loss", "4", "0.25"] and rows[10] == [first.id, "validation.accuracy", "10", "50.0"]


def test_json_and_csv_hold_the_same_points(metavqa: Terminal, first: Run) -> None:
    (point, *_), table = (
        json.loads(metavqa("runs", "curves", first.id, "--json").out),
        list(csv.DictReader(io.StringIO(metavqa("runs", "curves", first.id, "--format", "csv").out))),
    )
    assert point == {"run": first.id, "metric": "loss", "step": 1, "value": 1.0}
    assert table[0] == {"run": first.id, "metric": "loss", "step": "1", "value": "1.0"}


def test_without_a_name_it_is_the_newest_run_that_trained(metavqa: Terminal, first: Run, second: Run) -> None:
    runs.create(metavqa_workspace(metavqa), "eval", "eeee", {}, {}, DATASET)
    done = metavqa("runs", "curves", "-m", "lr", "--json")
    assert {row["run"] for row in json.loads(done.out)} == {second.id} and second.id in done.err


def metavqa_workspace(metavqa: Terminal) -> Workspace:
    return Workspace(metavqa.workspace)


def test_smoothed_values_stand_beside_the_measured_ones(metavqa: Terminal, first: Run) -> None:
    rows = json.loads(metavqa("runs", "curves", first.id, "-m", "loss", "--smooth", "0.5", "--json").out)
    assert [row["value"] for row in rows[:2]] == [1.0, 0.5]
    assert rows[1]["smoothed"] == pytest.approx((0.5 * 1.0 + 1.0 * 0.5) / 1.5)  # weights 0.5 and 1, debiased


def test_a_long_run_is_reduced_unless_all_is_asked_for(metavqa: Terminal, workspace: Workspace) -> None:
    run = trained(workspace, 0, steps=0)
    lines = [json.dumps({"event": "StepLogged", "step": n, "metrics": {"loss": 99.0 if n == 2345 else n % 7}})
             for n in range(1, 4001)]  # fmt: skip
    run.events_path.write_text("\n".join(lines) + "\n")
    short = json.loads(metavqa("runs", "curves", run.id, "--json").out)
    assert 900 <= len(short) <= 1000 and {"run": run.id, "metric": "loss", "step": 2345, "value": 99.0} in short
    assert len(json.loads(metavqa("runs", "curves", run.id, "--all", "--json").out)) == 4000


def test_what_is_not_finite_is_null_in_json_and_left_out_of_the_reduced_points(
    metavqa: Terminal, workspace: Workspace
) -> None:
    run = trained(workspace, 0, steps=0)
    run.append(StepLogged(1, {"loss": math.nan}))
    run.append(StepLogged(2, {"loss": 1.0}))
    every = json.loads(metavqa("runs", "curves", run.id, "-m", "loss", "--all", "--json").out)
    assert [row["value"] for row in every] == [None, 1.0]
    assert [row["step"] for row in json.loads(metavqa("runs", "curves", run.id, "-m", "loss", "--json").out)] == [2]


def test_seeds_become_a_mean_with_a_band(metavqa: Terminal, first: Run, second: Run) -> None:
    done = metavqa("runs", "curves", first.id, second.id, "-m", "loss", "--band", "range", "--json")
    rows = json.loads(done.out)
    assert {row["run"] for row in rows} == {"ldm task, seeds 0, 2"}
    assert (rows[0]["value"], rows[0]["low"], rows[0]["high"]) == (2.0, 1.0, 3.0)
    deviation = json.loads(
        metavqa("runs", "curves", first.id, second.id, "-m", "loss", "--band", "deviation", "--json").out
    )
    assert deviation[0]["high"] == pytest.approx(2 + math.sqrt(2))


def test_a_run_left_out_of_the_band_is_named(metavqa: Terminal, workspace: Workspace, first: Run, second: Run) -> None:
    again = trained(workspace, 0)
    assert again.id != first.id
    done = metavqa("runs", "curves", first.id, second.id, again.id, "-m", "loss", "--band", "range", "--json")
    assert {row["run"] for row in json.loads(done.out)} == {"ldm task, seeds 0, 2"}
    assert done.err == (
        f"warning: run {first.id} is left out: {again.id} has the same configuration and seed, and is newer\n"
    )


def test_a_person_gets_pictures_in_the_width_of_the_terminal(metavqa: Terminal, first: Run, second: Run) -> None:
    done = metavqa("--ascii", "runs", "curves", first.id, second.id, "-m", "loss", "--log", "--format", "human")
    lines = done.out.splitlines()
    assert lines[:4] == [f"o {first.id}", f"x {second.id}", "", "loss (log)   o 0.1  x 2.1"]
    assert max(map(len, lines)) <= 100 and done.out.isascii() and lines[-1].lstrip().startswith("+--")
    assert any(line.startswith("    1+") or line.startswith("  0.1+") for line in lines)


def test_colour_only_where_it_is_wanted(metavqa: Terminal, first: Run) -> None:
    plain = metavqa("runs", "curves", first.id, "--format", "human").out
    colored = metavqa("--color", "always", "runs", "curves", first.id, "--format", "human").out
    assert "\x1b[" not in plain and "\x1b[" in colored
    console.configure()


def test_a_damaged_log_is_read_as_far_as_it_can_be(metavqa: Terminal, first: Run) -> None:
    with first.events_path.open("a") as log:
        log.write('broken\n{"event": "StepLogged", "step": 11, "met')
    done = metavqa("runs", "curves", first.id, "-m", "loss", "--json")
    assert done.code == 0 and len(json.loads(done.out)) == 10
    assert done.err == f"warning: run {first.id}: 1 damaged line was left out of its log\n"


def test_a_run_that_measured_nothing_says_so(metavqa: Terminal, workspace: Workspace) -> None:
    run = runs.create(workspace, "zoo", "aaaa", {}, {}, DATASET)
    done = metavqa("runs", "curves", run.id)
    assert (done.code, done.out) == (0, "run\tmetric\tstep\tvalue\n") and "nothing measured yet" in done.err
    done = metavqa("runs", "curves", run.id, "--format", "human")
    assert (done.code, done.out) == (0, f"● {run.id}\n")


def test_what_is_not_there_is_refused(metavqa: Terminal, first: Run) -> None:
    assert_refused(metavqa("runs", "curves", first.id, "-m", "los"), 2, "'los'", "did you mean loss?", "lr")
    assert_refused(metavqa("runs", "curves", "nobody"), 3, "there is no run 'nobody'")
    assert_refused(metavqa("runs", "curves", first.id, "--smooth", "1"), 2, "--smooth 1", "0.9")
    assert_refused(metavqa("runs", "curves", first.id, "--all", "--band", "range"), 2, "--all", "--band")


def test_an_empty_workspace_says_what_makes_the_first_curves(metavqa: Terminal) -> None:
    assert_refused(metavqa("runs", "curves"), 3, "no run in", "metavqa quickstart")


def test_nothing_heavy_is_imported(workspace: Workspace, first: Run) -> None:
    done = python("-c", LISTING, "-w", str(workspace.root), "runs", "curves", "--json", cwd=workspace.root)
    assert json.loads(done.err.splitlines()[-1]) == {"code": 0, "heavy": []} and json.loads(done.out)
