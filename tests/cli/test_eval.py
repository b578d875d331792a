"""`metavqa eval`: numbers with their intervals, once for each configuration."""

import csv
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from metavqa_cli.engine.predictions import ANSWERS
from metavqa_cli.engine.verify import describe_files
from metavqa_cli.store import removal, runs
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished
from tests.cli.terminal import Terminal, assert_refused
from tests.engine.test_evaluate import ROW_KEYS, annotate
from tests.miniature import OPTIONS
from tests.old_format import rewrite
from tests.tasks.test_soft_accuracy import person_by_person

alone = partial(assert_refused, alone=True)


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
        removal.remove(run)
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
    removal.remove(generator, force=True)
    done = metavqa("eval", miniature.run("ldm", "task").id, "--gamma", "0.25")
    assert (done.code, done.out) == (3, "")
    assert f"was made from generator {generator.id!r}, which is gone" in done.err


# In the field's measures


def test_people_see_it_in_short_and_no_column_that_is_empty(metavqa: Terminal) -> None:
    args = ["eval", "--dataset", "mini"]
    head = metavqa(*args).out.splitlines()[0].split("\t")
    assert head[-3:] == ["pooled", "overlap_free", "soft"]
    rows = (miniature.run("eval").result() or {})["rows"]
    shown, first, *_ = metavqa(*args, "--format", "human").out.splitlines()
    filled = [name for name in ("wording", "combination", "family", "pooled") if any(row[name] for row in rows)]
    overlap = [] if all(row["overlap_free"] in (None, row["mean"]) for row in rows) else ["overlap_free"]
    assert shown.replace("95 %", "95%").split() == ["label", "tasks", "mean", "95%", *filled, *overlap]
    row = rows[0]
    numbers = [
        f"{row['mean']:.1f}",
        f"{row['ci_low']:.1f}–{row['ci_high']:.1f}",
        *(f"{row[name]:.1f}" for name in filled),
    ]
    assert first.split() == ["zero-shot", "CLIP", str(row["tasks"]), *numbers]


def test_by_kind_there_is_a_row_for_each_kind_of_question(metavqa: Terminal) -> None:
    args = ["eval", "--dataset", "mini", "--by", "kind"]
    whole = [row for row in (miniature.run("eval").result() or {})["rows"] if row["setting"] != "reconstruction"]
    rows = data(metavqa(*args, "--json"))
    test = miniature.dataset().tasks.of("test")
    assert {row["kind"] for row in rows} == {task.family for task in test}
    assert [row["tasks"] for row in rows] == sorted((row["tasks"] for row in rows), reverse=True)
    for row in whole:
        of_row = [part for part in rows if (part["label"], part["run"], part["setting"]) ==
                  (row["label"], row["run"], row["setting"])]  # fmt: skip
        assert sum(part["tasks"] for part in of_row) == len(test) == row["tasks"]
        assert sum(part["tasks"] * part["mean"] for part in of_row) / len(test) == pytest.approx(row["mean"], abs=2e-3)
    lines = list(csv.DictReader(io.StringIO(metavqa(*args, "--format", "csv").out)))
    assert [float(line["pooled"]) for line in lines] == [row["pooled"] for row in rows]
    markdown = metavqa(*args, "--format", "markdown", "--few-shot")
    assert markdown.out.startswith("| kind | tasks | pairs | label | setting | mean | ci_low | ci_high")
    assert {line.split(" | ")[4] for line in markdown.out.splitlines()[2:]} == {"few-shot"}
    assert "mean over the tasks of each kind, 95 % interval" in markdown.err


def test_a_dataset_without_kinds_has_no_breakdown(metavqa: Terminal, full: Workspace) -> None:
    file = full.dataset_dir("mini") / "tasks.jsonl"
    tasks = [{**json.loads(line), "family": ""} for line in file.read_text("utf-8").splitlines()]
    file.write_text("".join(json.dumps(task) + "\n" for task in tasks), "utf-8")
    rewrite(file.with_name("dataset.json"), files=describe_files(file.parent))
    assert_refused(metavqa("eval", "--dataset", "mini", "--by", "kind"), 2, "'mini' tells no kinds of questions")


# Predictions


def predicted(metavqa: Terminal, file: Path, *args: str) -> tuple[list[dict[str, object]], str]:
    done = metavqa("eval", *args, "--predictions", str(file), "-q", "--json")
    assert done.code == 0, done.err
    return json.loads(file.read_text("utf-8")), done.out


def test_predictions_answer_every_query_pair_once_under_its_number(
    metavqa: Terminal, full: Workspace, tmp_path: Path
) -> None:
    file, model = tmp_path / "out.json", miniature.run("baseline").id
    done = metavqa("eval", model, "--predictions", str(file), "--json")
    found = json.loads(file.read_text("utf-8"))
    tasks, position, expected = miniature.dataset().tasks, 0, []
    for task in tasks.tasks:
        numbers = range(position + 1 + len(task.support), position + 1 + len(task.support) + len(task.query))
        expected += [
            (n, task, label) for n, (_, label) in zip(numbers, task.query, strict=True) if task.split == "test"
        ]
        position += len(task.support) + len(task.query)
    assert [entry["question_id"] for entry in found] == [number for number, _, _ in expected]
    assert all(entry.keys() == {"question_id", "answer"} for entry in found)
    right = [entry["answer"] == task.answers[label] for entry, (_, task, label) in zip(found, expected, strict=True)]
    zero = next(row for row in data(done) if row["run"] == model and row["setting"] == "zero-shot")
    assert 100 * np.mean(right) == pytest.approx(zero["pooled"], abs=1e-3)
    assert f"wrote {len(found)} answers of {zero['label']} (zero-shot) to {file}" in done.err
    assert "has no question ids of VQA: pairs are numbered from 1" in done.err


def test_our_soft_accuracy_of_the_file_is_that_of_the_official_rule(
    metavqa: Terminal, full: Workspace, tmp_path: Path
) -> None:
    said, file, model = annotate(full), tmp_path / "out.json", miniature.run("ldm", "task").id
    found, out = predicted(metavqa, file, model, "--gamma", "0.5")
    row = next(row for row in json.loads(out) if row["gamma"] == 0.5)
    scores = [person_by_person(str(entry["answer"]), said[int(str(entry["question_id"]))]) for entry in found]
    assert len(found) == sum(len(task.query) for task in miniature.dataset().tasks.of("test"))
    assert row["soft_pooled"] == pytest.approx(100 * np.mean(scores), abs=1e-3)


def test_each_choice_writes_its_own_row(metavqa: Terminal, tmp_path: Path) -> None:
    ldm, generator, baseline = (
        miniature.run(kind, v).id for kind, v in (("ldm", "task"), ("hvae", "task"), ("baseline", None))
    )
    rows = json.loads(metavqa("eval", ldm, "--json").out)
    choices = {
        "validated": ([ldm], "task-ldm-validated", "zero-shot"), "zero": ([baseline], "multitask", "zero-shot"),
        "few": ([baseline, "--few-shot"], "multitask", "few-shot"),
        "z": ([generator, "--few-shot"], "task", "few-shot"),
    }  # fmt: skip
    labels = [(task.answers, label) for task in miniature.dataset().tasks.of("test") for _, label in task.query]
    for name, (args, method, setting) in choices.items():
        found, _ = predicted(metavqa, tmp_path / f"{name}.json", *args)
        pooled = 100 * np.mean([entry["answer"] == answers[label]
                                for entry, (answers, label) in zip(found, labels, strict=True)])  # fmt: skip
        (row,) = [row for row in rows if (row["method"], row["setting"]) == (method, setting)]
        assert pooled == pytest.approx(row["pooled"], abs=1e-3), name


def test_of_several_samples_the_first_is_written(metavqa: Terminal, full: Workspace, tmp_path: Path) -> None:
    ldm, file = miniature.run("ldm", "task").id, tmp_path / "out.json"
    done = metavqa("eval", ldm, "--gamma", "1", "--samples", "2", "--predictions", str(file))
    assert "(zero-shot), the first of 2 samples to" in done.err
    run = runs.newest(full, "eval")
    assert run is not None
    number = next(i for i, row in enumerate((run.result() or {})["rows"]) if row["method"] == "task-ldm")
    answers = load_tensors(run.model_path)[0][f"{number:02d}.{ANSWERS}"]
    texts = [task.answers for task in miniature.dataset().tasks.of("test") for _ in task.query]
    assert answers.shape == (2, len(texts)) and not np.array_equal(*answers.numpy())
    first = [answers_of[label] for answers_of, label in zip(texts, answers[0].tolist(), strict=True)]
    assert [entry["answer"] for entry in json.loads(file.read_text("utf-8"))] == first


def test_a_file_that_is_there_is_only_replaced_by_force(metavqa: Terminal, full: Workspace, tmp_path: Path) -> None:
    file, model, before = tmp_path / "out.json", miniature.run("baseline").id, full.run_ids()
    file.write_text("mine", "utf-8")
    alone(metavqa("eval", model, "--predictions", str(file)), 5, f"{file} exists; choose another --predictions")
    alone(metavqa("eval", model, "--predictions", str(tmp_path)), 2, f"{tmp_path} is a folder; name a file in it")
    assert file.read_text("utf-8") == "mine" and full.run_ids() == before
    found, _ = predicted(metavqa, file, model, "--force")
    assert found


def test_whose_predictions_is_one_sentence_before_anything_is_measured(
    metavqa: Terminal, full: Workspace, tmp_path: Path
) -> None:
    ldms, before = [miniature.run("ldm", v).id for v in ("weights", "task")], full.run_ids()
    generator, file = miniature.run("hvae", "task").id, str(tmp_path / "out.json")
    for args, words in (
        (["--dataset", "mini"], ("of one run, and there are 2", *ldms)),
        ([ldms[1], "--gamma", "1", "--gamma", "2"], ("at one guidance scale; give one --gamma of 1, 2",)),
        ([ldms[1], "--few-shot"], (f"or name its generator {generator}",)),
        ([generator], ("has no zero-shot answers; add --few-shot",)),
        ([miniature.run("zoo").id], ("is of kind zoo; name runs of kind baseline, hvae, ldm",)),
    ):
        alone(metavqa("eval", *args, "--predictions", file), 2, *words)
    assert full.run_ids() == before and not Path(file).exists()


def test_an_evaluation_that_kept_no_answers_says_what_to_do(metavqa: Terminal, full: Workspace, tmp_path: Path) -> None:
    model = miniature.run("baseline", workspace=full).id
    data(metavqa("eval", model, "--json"))
    run = runs.newest(full, "eval")
    assert run is not None
    tensors, header = load_tensors(run.model_path)
    save_tensors(run.model_path, {name: value for name, value in tensors.items() if ANSWERS not in name}, header)
    for args in (["--by", "kind"], ["--predictions", str(tmp_path / "out.json")]):
        assert_refused(metavqa("eval", model, *args), 3, f"run {run.id} was measured by an earlier version", "--force")
    assert data(metavqa("eval", model, "--by", "kind", "--force", "--json"))
