"""`metavqa eval table | sweep | controls | cell | methods`: what a person types, sees, and may interrupt."""

import csv
import io
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.cli import console
from metavqa_cli.engine import cells
from metavqa_cli.methods.registry import BY_KEY, QUESTION_CONTROLS
from metavqa_cli.store import runs
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format
from tests.cli.pipeline import data, furnished
from tests.cli.terminal import Terminal, assert_refused
from tests.engine.test_evaluate import annotate
from tests.miniature import OPTIONS

DOCUMENTED = {
    "method", "label", "setting", "descriptors", "gamma", "mean", "sd", "ci_low", "ci_high", "diff_low", "diff_high",
    "closed",
}  # fmt: skip
TABLE = ["eval", "table", "--method", "multitask,cond-multitask", "--descriptors", "1", *OPTIONS]


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


alone = partial(assert_refused, alone=True)


def made(workspace: Workspace, kind: str) -> list[str]:
    return [name for name in workspace.run_ids() if name.startswith(f"{kind}-")]


# Bad input


@pytest.mark.parametrize(
    ("args", "words"),
    [(["sweep", "--gamma", "0:3:0"], "--gamma 0:3:0: FROM:TO:STEP needs a step above 0"),
     (["sweep", "--gamma", "3:0:1"], "TO not below FROM"), (["sweep", "--gamma", "0:3"], "found '0:3'"),
     (["sweep", "--gamma", "a"], "found 'a'"), (["sweep", "--gamma", "nan"], "found 'nan'"),
     (["sweep", "--gamma", "-1"], "found '-1'"), (["sweep", "--gamma", "1", "--gamma", "x"], "found 'x'"),
     (["sweep", "--method", "film"], "film has no guidance scale to sweep; choose from hnet-ldm"),
     (["sweep", "--method", "task-ldm-w"], "task-ldm-w has no guidance scale to sweep"),
     (["sweep", "--method", "lmd"], "there is no method 'lmd'; did you mean"),
     *(([name, *mistake], words) for name in ("table", "sweep", "controls") for mistake, words in (
         (["--seeds", "0"], "--seeds takes 1 to"), (["--seeds", "x"], "found 'x'"),
         (["--descriptors", "0"], "found '0'"), (["--descriptors", "2"], "found '2'"),
         (["--shard", "0/3"], "found '0/3'"), (["--shard", "4/3"], "found '4/3'"), (["--shard", "x"], "found 'x'"),
         (["--shard", "900/900"], "so shard 900/900 is empty; take fewer shards"))),
     (["table", "--method", "multi-task"], "there is no method 'multi-task'; did you mean multitask?"),
     (["table", "--method", "multitask", "--json", "--format", "csv"], "contradict each other"),
     (["controls", "--method", "multitask"], "multitask has no question to replace before it sees labels"),
     (["controls", "--method", "task-ldm-w"], "task-ldm-w has no question to replace before it sees labels"),
     (["cell", "hmaml"], "there is no method 'hmaml'; did you mean"),
     (["cell", "task-ldm", "--control", "shufled"], "takes shuffled, empty, random-words, other; found 'shufled'"),
     (["cell", "multitask", "--control", "shuffled"], "multitask has no question to replace"),
     (["cell", "film", "--gamma", "1.5"], "film has no guidance scale to set; leave --gamma out"),
     (["cell", "task-ldm-w", "--gamma", "1.5"], "task-ldm-w has no guidance scale to set"),
     (["cell", "task-ldm", "--gamma", "-1"], "gamma is -1.0, but must be a number from 0 up"),
     (["cell", "task-ldm", "--gamma", "nan"], "gamma is nan"), (["cell", "task-ldm", "--gamma", "inf"], "gamma is inf"),
     (["cell", "task-ldm", "--gamma", "x"], "invalid value for '--gamma'"),
     (["cell", "film", "--descriptors", "0"], "--descriptors takes shares above 0"),
     (["cell", "film", "--descriptors", "2"], "--descriptors takes shares above 0"),
     (["cell", "film", "--descriptors", "nan"], "--descriptors takes shares above 0"),
     (["cell"], "missing argument 'METHOD'")],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_nothing_is_made(
    args: list[str], words: str, metavqa: Terminal, full: Workspace
) -> None:
    before = full.run_ids()
    alone(metavqa("eval", *args, "--dataset", "mini"), 2, words)
    assert full.run_ids() == before


@pytest.mark.parametrize(
    ("args", "words"),
    [(["ldm", "--on", "vae"], "there is no generator 'vae'; --on takes hnet, hvae, task"),
     (["hyperclip", "--on", "zoo"], "there is no generator 'zoo'"),
     (["regression", "--on", "x"], "there is no generator 'x'"),
     (["baseline", "--method", "multi-task"], "baseline.method"),
     (["ldm", "--descriptors", "0"], "questions.descriptors = 0"),
     (["hyperclip", "--descriptors", "2"], "questions.descriptors = 2"),
     (["baseline", "--epochs", "0"], "baseline.epochs = 0")],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(
    args: list[str], words: str, metavqa: Terminal, full: Workspace
) -> None:
    before = full.run_ids()
    alone(metavqa("train", *args, "--dataset", "mini"), 2, words)
    assert full.run_ids() == before


def test_cells_that_are_not_there_or_are_none(metavqa: Terminal) -> None:
    alone(metavqa("eval", "table", "cell-ffff", "--dataset", "mini"), 3, "there is no run 'cell-ffff'")
    zoo = miniature.run("zoo").id
    alone(metavqa("eval", "table", zoo, "--dataset", "mini"), 2, f"run {zoo} is of kind zoo, not a cell")


def test_finished_cells_and_what_is_to_be_measured_are_not_named_together(metavqa: Terminal) -> None:
    words = "name finished cells, or what is to be measured"
    for more in (["--method", "clip"], ["--shard", "1/2"]):
        alone(metavqa("eval", "table", "cell-ffff", *more, "--dataset", "mini"), 2, words)


def test_finished_cells_are_joined_on_the_dataset_they_were_measured_on(metavqa: Terminal, full: Workspace) -> None:
    data(metavqa("eval", "cell", "clip", *OPTIONS, "--json"))
    rows = data(metavqa("eval", "table", *made(full, "cell"), "--json"))
    assert {row["method"] for row in rows} == {"clip"}


def test_the_table_compares_with_the_method_that_is_asked_for(metavqa: Terminal) -> None:
    table = ["eval", "table", "--method", "film", "--descriptors", "0.5,1", *OPTIONS, "--json"]
    plain, against = data(metavqa(*table)), data(metavqa(*table, "--against", "task-ldm:0.5"))
    assert {row["against"] for row in plain} == {None}
    assert {row["against"] for row in against} == {"Task + HyperLDM, γ = 0.5"}
    assert [(row["method"], row["descriptors"]) for row in against if row["diff_low"] == row["diff_high"] == 0] == [
        ("task-ldm", 0.5), ("task-ldm", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("against", "words"),
    [("flm", "there is no method 'flm'"), ("film:1", "film has no guidance scale"), ("task", "task has no zero-shot"),
     ("film:", "film has no guidance scale"), ("task-ldm:", "found 'task-ldm:'"),
     ("task-ldm:x", "found 'task-ldm:x'"), ("task-ldm:nan", "gamma is nan"), ("task-ldm:-1", "gamma is -1")],
)  # fmt: skip
def test_what_nothing_can_be_compared_with(against: str, words: str, metavqa: Terminal) -> None:
    alone(metavqa("eval", "table", "--against", against, "--dataset", "mini"), 2, words)


def test_cells_are_not_compared_with_what_is_not_among_them(metavqa: Terminal, full: Workspace) -> None:
    data(metavqa("eval", "cell", "clip", *OPTIONS, "--json"))
    cells = made(full, "cell")
    assert {row["against"] for row in data(metavqa("eval", "table", *cells, "--json"))} == {None}
    compared = data(metavqa("eval", "table", *cells, "--against", "clip", "--json"))
    assert {row["against"] for row in compared} == {"CLIP as base model"}
    alone(metavqa("eval", "table", *cells, "--against", "film"), 2, "none of the cells is film, zero-shot")


def test_a_configured_share_is_the_one_that_is_measured(metavqa: Terminal, full: Workspace) -> None:
    configured = ["--set", "questions.descriptors=0.5"]
    for args in (["cell", "film"], ["table", "--method", "film"]):
        (row,) = data(metavqa("eval", *args, *OPTIONS, *configured, "--json"))
        assert row["descriptors"] == 0.5
        told = data(metavqa("eval", *args, *OPTIONS, *configured, "--descriptors", "1", "--json"))
        assert [row["descriptors"] for row in told] == [1.0]


def test_no_such_device_is_exit_code_4(metavqa: Terminal, full: Workspace) -> None:
    alone(metavqa(*TABLE, "--device", "toaster"), 4, "the device 'toaster' cannot be used")
    assert not made(full, "cell")


# What is printed


def test_json_has_the_documented_keys(metavqa: Terminal) -> None:
    done = metavqa(*TABLE, "--seeds", "2", "--json")
    rows = data(done)
    assert all(row.keys() >= DOCUMENTED for row in rows)
    assert {(row["method"], row["setting"]) for row in rows} == {
        (key, setting) for key in ("multitask", "cond-multitask") for setting in ("zero-shot", "few-shot")
    }
    for row in rows:
        assert 0 <= row["ci_low"] <= row["mean"] <= row["ci_high"] <= 100
        assert row["seeds"] == [0, 1] and row["sd"] is not None and row["descriptors"] == 1.0 and row["gamma"] is None
        reference = (row["method"], row["setting"]) == ("multitask", "zero-shot")
        assert reference == (row["diff_low"] == row["diff_high"] == 0)
        assert row["closed"] is None or not reference or row["closed"] == 0
    again = metavqa(*TABLE, "--seeds", "0,1", "--json")
    assert data(again) == rows


def test_csv_and_jsonl_hold_the_same_rows(metavqa: Terminal) -> None:
    rows = data(metavqa(*TABLE, "--json"))
    lines = list(csv.DictReader(io.StringIO(metavqa(*TABLE, "--format", "csv").out)))
    assert [float(line["mean"]) for line in lines] == [row["mean"] for row in rows]
    assert lines[0].keys() >= DOCUMENTED
    assert [json.loads(line) for line in metavqa(*TABLE, "--format", "jsonl").out.splitlines()] == rows


def test_markdown_is_a_table_for_each_setting(metavqa: Terminal) -> None:
    rows = data(metavqa(*TABLE, "--json"))
    done = metavqa(*TABLE, "--format", "markdown", "--by-family")
    assert done.code == 0
    blocks = done.out.split("\n\n")
    assert [blocks[0], blocks[2]] == ["zero-shot", "few-shot"]
    zero = blocks[1].splitlines()
    assert zero[0] == "| method | 100 % | diff 100 % | closed 100 % |"
    mean = next(row["mean"] for row in rows if (row["method"], row["setting"]) == ("cond-multitask", "zero-shot"))
    assert f"| Cond. Multitask | {mean:.2f} |" in blocks[1]
    assert "| family " in blocks[-1] or "| method | setting |" in blocks[-1]
    assert "accuracy in per cent, mean over" in done.err and "paired difference to Uncond. Multitask" in done.err


def test_by_kind_the_table_has_a_row_for_each_kind_and_method(metavqa: Terminal) -> None:
    whole = data(metavqa(*TABLE, "--json"))
    rows = data(metavqa(*TABLE, "--by", "kind", "--json"))
    assert len(rows) == sum(len(row["families"]) for row in whole)
    for row in rows:
        own = next(each for each in whole if (each["label"], each["setting"]) == (row["method"], row["setting"]))
        assert row["mean"] == own["families"][row["kind"]]
    assert [row["tasks"] for row in rows] == sorted((row["tasks"] for row in rows), reverse=True)
    assert metavqa(*TABLE, "--by", "kind", "--format", "markdown").out.startswith("| kind | tasks | method | setting |")
    alone(metavqa(*TABLE, "--by", "kind", "--by-family"), 2, "--by kind and --by-family are different tables")


def test_with_annotations_the_table_has_soft_accuracies(metavqa: Terminal, full: Workspace) -> None:
    assert {row["soft"] for row in data(metavqa(*TABLE, "--json"))} == {None}
    annotate(full)
    assert all(0 < row["soft"] < 100 for row in data(metavqa(*TABLE, "--json")))
    lines = list(csv.DictReader(io.StringIO(metavqa(*TABLE, "--format", "csv").out)))
    assert all(0 < float(line["soft"]) < 100 for line in lines)


def test_cells_of_an_earlier_version_have_no_soft_accuracy(metavqa: Terminal, full: Workspace) -> None:
    annotate(full)
    before = data(metavqa(*TABLE, "--json"))
    for name in made(full, "cell"):
        path = runs.get(full, name).model_path
        tensors, header = load_tensors(path)
        save_tensors(path, {key: value for key, value in tensors.items() if "answers" not in key}, header)
    assert data(metavqa(*TABLE, "--json")) == [{**row, "soft": None} for row in before]


def test_out_writes_the_table_and_its_figures(metavqa: Terminal, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    args = ["eval", "sweep", "--method", "task-ldm", "--gamma", "0,2", *OPTIONS, "--out", str(out), "--json"]
    done = metavqa(*args)
    assert json.loads((out / "sweep.json").read_text("utf-8")) == data(done)
    assert len((out / "sweep.csv").read_text("utf-8").splitlines()) == 1 + len(data(done))
    for name in ("sweep-gamma.svg", "sweep-gamma.png", "sweep-differences.svg", "sweep-differences.png"):
        assert (out / name).stat().st_size > 1000 and name in done.err
    assert "<svg" in (out / "sweep-gamma.svg").read_text("utf-8")
    assert not (out / "sweep-descriptors.svg").exists(), "one share of descriptors is no curve"


def test_a_sweep_is_rows_in_a_pipe_and_a_picture_on_a_terminal(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["eval", "sweep", "--method", "task-ldm", "--gamma", "0:2:1", *OPTIONS]
    piped = metavqa(*args)
    head, *lines = (line.split("\t") for line in piped.out.splitlines())
    assert head[:4] == ["method", "descriptors", "gamma", "validated"]
    assert [line[2:4] for line in lines][:3] == [["0.0", "false"], ["1.0", "false"], ["2.0", "false"]]
    assert lines[3][3] == "true" and len(lines) == 4
    assert "on the test tasks; the γ that is used elsewhere was chosen on the validation tasks" in piped.err
    monkeypatch.setattr(console, "is_terminal", lambda stream: stream == "stdout")
    shown = metavqa("--ascii", *args)
    assert shown.code == 0 and "accuracy in per cent" in shown.out and "gamma" in shown.out
    assert "\t" not in shown.out and "Uncond. Multitask" in shown.out and "at the validated" in shown.err


def test_controls_say_in_words_whether_the_text_matters(metavqa: Terminal) -> None:
    done = metavqa("eval", "controls", "--method", "cond-multitask", *OPTIONS, "--json")
    rows = data(done)
    replaced = {row["control"]: row for row in rows if row["method"] == "cond-multitask"}
    assert replaced.keys() == {None, *QUESTION_CONTROLS}
    assert all(row["drop"] is not None for row in rows if row["setting"] == "control")
    (sentence,) = [line for line in done.err.splitlines() if " the text: with shuffled questions" in line]
    shuffled = replaced["shuffled"]
    word = "uses" if shuffled["drop_low"] > 0 else "does not use"
    assert sentence.startswith(f"Cond. Multitask {word} the text: ")


def test_the_methods_are_listed_without_a_workspace(metavqa: Terminal) -> None:
    rows = data(metavqa("eval", "methods", "--json"))
    assert [row["method"] for row in rows] == list(BY_KEY)
    assert {row["from"] for row in rows} == {"paper", "ours", "control"}


# Cells are jobs


def test_a_cell_is_measured_once(metavqa: Terminal, full: Workspace) -> None:
    args = ["eval", "cell", "film", "--seed", "1", "--descriptors", "0.5", *OPTIONS, "--json"]
    first = data(metavqa(*args))
    before = full.run_ids()
    done = metavqa(*args)
    assert data(done) == first and full.run_ids() == before
    (name,) = made(full, "cell")
    assert f"cell {name} is already there" in done.err
    (row,) = first
    assert (row["method"], row["descriptors"], row["seeds"], row["setting"]) == ("film", 0.5, [1], "zero-shot")


def test_a_method_without_conditioning_is_the_same_cell_whatever_is_hidden(metavqa: Terminal, full: Workspace) -> None:
    for share in ("1", "0.5"):
        (zero, _) = sorted(data(metavqa("eval", "cell", "multitask", "--descriptors", share, *OPTIONS, "--json")),
                           key=lambda row: row["setting"], reverse=True)  # fmt: skip
        assert zero["descriptors"] == 1.0
    data(metavqa("eval", "table", "--method", "multitask", "--descriptors", "0.5", *OPTIONS, "--json"))
    assert len(made(full, "cell")) == 1


def test_cells_and_shards_join_into_the_table(metavqa: Terminal, full: Workspace) -> None:
    table = data(metavqa(*TABLE, "--json"))
    assert sorted(made(full, "cell"))
    joined = data(metavqa("eval", "table", *made(full, "cell"), *OPTIONS, "--json"))

    def key(row: dict[str, Any]) -> tuple[str, str]:
        return row["method"], row["setting"]

    assert sorted(joined, key=key) == sorted(table, key=key)
    shards = [data(metavqa(*TABLE, "--shard", f"{part}/2", "--json")) for part in (1, 2)]
    assert sorted(key(row) for rows in shards for row in rows) == sorted(map(key, table))


def test_shards_at_the_same_time_train_what_they_share_once(full: Workspace) -> None:
    """Both need the same HyperLDM at once: one trains it, the other waits."""
    before = set(full.run_ids())
    command = [sys.executable, "-m", "metavqa_cli", "--workspace", str(full.root), "eval", "table",
               "--method", "task-ldm", "--descriptors", "1", *OPTIONS, "--set", "ldm.epochs=40", "--json"]  # fmt: skip
    shards = [subprocess.Popen([*command, "--shard", f"{part}/2"], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE) for part in (1, 2)]  # fmt: skip
    outcomes = [shard.communicate(timeout=300) for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], outcomes
    rows = [row for out, _ in outcomes for row in json.loads(out)]
    assert len(rows) == 4 and {row["gamma"] for row in rows} >= {1.0, 1.5}
    new = sorted(name.partition("-")[0] for name in full.run_ids() if name not in before)
    assert new == ["cell", "cell", "cell", "ldm"]


def test_cells_of_another_network_or_dataset_are_not_joined(metavqa: Terminal, full: Workspace) -> None:
    data(metavqa("eval", "cell", "clip", *OPTIONS, "--json"))
    data(metavqa("eval", "cell", "clip", "--seed", "1", *OPTIONS, "--set", "base_network.hidden=4", "--json"))
    both = made(full, "cell")
    alone(metavqa("eval", "table", *both, *OPTIONS), 2, "are of different base networks")
    manifest = full.dataset_dir("mini") / "dataset.json"
    old_format.rewrite(manifest, fingerprint="0" * 16)
    alone(metavqa("eval", "table", both[0], *OPTIONS), 2, "was made from the dataset 'mini'", "as it is now")


def test_an_interrupted_table_goes_on_where_it_stopped(
    metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second cell is measured: the first is kept, the second is done again."""
    real, calls = cells._answers, list[int]()

    def correct(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "_answers", correct)
        done = metavqa(*TABLE, "--json")
    assert (done.code, done.out) == (130, "") and done.err.endswith("interrupted\n") and "Traceback" not in done.err
    states = sorted(runs.get(full, name).state() for name in made(full, "cell"))
    assert states == ["finished", "interrupted"]
    finished = next(name for name in made(full, "cell") if runs.get(full, name).state() == "finished")
    trained = made(full, "baseline")
    again = metavqa(*TABLE, "--json")
    assert len(data(again)) == 4 and f"cell {finished} is already there" in again.err
    assert made(full, "baseline") == trained and len(made(full, "cell")) == 2


def test_a_table_that_failed_names_the_reason_and_keeps_what_is_done(
    metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    data(metavqa("eval", "cell", "multitask", *OPTIONS, "--json"))

    def broken(*args: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(cells, "_answers", broken)
        done = metavqa(*TABLE, "--json")
    assert (done.code, done.out) == (4, "") and "out of memory" in done.err
    assert len(data(metavqa(*TABLE, "--json"))) == 4
