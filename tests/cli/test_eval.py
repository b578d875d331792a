"""`metavqa eval`: numbers with their intervals, once for each configuration."""

import csv
import io

import pytest

from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished
from tests.cli.terminal import Terminal
from tests.engine.test_evaluate import ROW_KEYS
from tests.miniature import OPTIONS


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


def test_it_finds_the_evaluation_of_quickstart(metavqa: Terminal, full: Workspace) -> None:
    done = metavqa("eval", "--dataset", "mini", "--json")
    assert data(done) == (miniature.run("eval").result() or {})["rows"]
    assert f"eval {miniature.run('eval').id} is already there" in done.err
    assert (
        "accuracy in per cent on mini (built-in Scenes world), mean over tasks, 95 % interval, one seed (0)" in done.err
    )
    assert "ddim, 4 steps" in done.err
    assert full.run_ids() == miniature.finished().run_ids()


def test_a_run_is_measured_in_its_own_configuration(metavqa: Terminal, full: Workspace) -> None:
    """Not that of the preset, of which the miniature differs in everything."""
    model = miniature.run("ldm", "task").id
    rows = data(metavqa("eval", model, "--json"))
    assert all(row.keys() == ROW_KEYS for row in rows)
    assert {row["sampler"] for row in rows} == {None, "ddim, 4 steps"}
    whole = {row["label"]: row for row in (miniature.run("eval").result() or {})["rows"]}
    assert rows == [whole[row["label"]] for row in rows]
    made = runs.newest(full, "eval")
    assert made is not None and made.manifest()["parents"] == {"ldm0": model}


def test_gamma_and_samples_are_measured_as_asked(metavqa: Terminal) -> None:
    model = miniature.run("ldm", "task").id
    rows = data(metavqa("eval", model, "--gamma", "0.5", "--gamma", "3", "--samples", "2", "--json"))
    assert [row["gamma"] for row in rows if row["method"] == "task-ldm"] == [0.5, 3.0]


def test_few_shot_shows_the_few_shot_rows_alone(metavqa: Terminal) -> None:
    rows = data(metavqa("eval", "--dataset", "mini", "--few-shot", "--json"))
    assert [row["setting"] for row in rows] == ["few-shot"] * 3
    assert rows == [row for row in (miniature.run("eval").result() or {})["rows"] if row["setting"] == "few-shot"]


def test_csv_is_csv(metavqa: Terminal) -> None:
    done = metavqa("eval", "--dataset", "mini", "--format", "csv", "-q")
    assert done.code == 0 and done.err == ""
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [float(row["mean"]) for row in rows] == [
        row["mean"] for row in (miniature.run("eval").result() or {})["rows"]
    ]


def test_with_parents_trains_and_measures(metavqa: Terminal, full: Workspace) -> None:
    for run in reversed(runs.list_runs(full)):
        runs.remove(run)
    rows = data(metavqa("eval", "--with-parents", *OPTIONS, "--set", "hvae.objective=weights", "--json"))
    assert {row["objective"] for row in rows} == {None, "weights"}
    assert sorted(run.kind for run in runs.list_runs(full)) == ["baseline", "eval", "hvae", "ldm", "zoo"]


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [(["ldm-ffff"], 3, "there is no run 'ldm-ffff'"),
     (["zoo"], 2, "is of kind zoo; name runs of kind baseline, hvae, ldm"),
     (["--dataset", "none"], 3, "there is no dataset 'none'"),
     (["--dataset", "mini", "--gamma", "nan"], 2, "gamma is nan, but must be a number from 0 up"),
     (["--dataset", "mini", "--gamma", "-1"], 2, "gamma is -1.0, but must be a number from 0 up"),
     (["--dataset", "mini", "--samples", "0"], 2, "eval.samples = 0 (from flag)")],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_sentence(args: list[str], code: int, sentence: str, metavqa: Terminal) -> None:
    done = metavqa("eval", *args)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err and len(done.err.splitlines()) == 1


def test_a_removed_parent_is_named(metavqa: Terminal, full: Workspace) -> None:
    generator = miniature.run("hvae", "task", full)
    runs.remove(generator, force=True)
    done = metavqa("eval", miniature.run("ldm", "task").id, "--gamma", "0.25")
    assert (done.code, done.out) == (3, "")
    assert f"was made from generator {generator.id!r}, which is gone" in done.err
