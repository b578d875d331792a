"""What is read off finished cells and evaluations is what the tables say, and nothing in a folder makes it raise."""

import gc
import math
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metavqa_cli.engine import swept as module
from metavqa_cli.engine.cells import joined_cells
from metavqa_cli.engine.curves import Curve, Point, Points, sweep
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.evaluate import judged_of
from metavqa_cli.engine.judged import Judged
from metavqa_cli.engine.judgements import Judgement, judgements
from metavqa_cli.engine.scores import CellSpec
from metavqa_cli.engine.swept import Measured, Reader, Swept
from metavqa_cli.engine.table import Score, rows
from metavqa_cli.schema.errors import MissingError
from metavqa_cli.store.removal import remove
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_arrays, load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format, sweeps
from tests.cli.terminal import python

RESAMPLES = 100
LDM, VALIDATED = CellSpec("task-ldm", 0, gamma=1.0), CellSpec("task-ldm", 0)


def read(workspace: Workspace | None = None) -> Swept:
    return Reader(workspace or sweeps.finished()[0]).read(miniature.NAME)


def cells(found: Swept) -> list[Measured]:
    return [one for one in found.measured if one.kind == "cell"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The dataset and the cells, without what they were made from."""
    return sweeps.copy(tmp_path / "workspace")


def in_table() -> tuple[list[Score], Judged]:
    dataset = open_dataset(sweeps.finished()[0], miniature.NAME)
    return joined_cells(sweeps.finished()[1], dataset), judged_of(dataset)


def same_numbers(point: Point, row: dict[str, Any]) -> None:
    """Equal to a row of the table but for its rounding to three decimals."""
    assert point.seeds == tuple(row["seeds"]) and point.tasks == row["tasks"]
    assert (point.mean, point.low, point.high) == pytest.approx((row["mean"], row["ci_low"], row["ci_high"]), abs=6e-4)
    assert point.sd == (None if row["sd"] is None else pytest.approx(row["sd"], abs=6e-4))
    assert point.diff == pytest.approx((row["diff"], row["diff_low"], row["diff_high"]), abs=6e-4)


def points_of(curve: Curve) -> list[Point]:
    return [*curve.points, *([curve.validated] if curve.validated else [])]


# Curves


def test_the_points_are_the_rows_of_the_table() -> None:
    found = sweep(read(), resamples=RESAMPLES)
    expected = {
        (row["method"], row["gamma"] if not row["validated"] else None): row
        for row in rows(*in_table(), RESAMPLES)
        if row["setting"] == "zero-shot" and row["gammas"]
    }
    shown = {(curve.method, None if point is curve.validated else point.gamma): point
             for curve in found.curves for point in points_of(curve)}  # fmt: skip
    assert shown.keys() == expected.keys() and len(shown) == 6
    for key, point in shown.items():
        same_numbers(point, expected[key])
    assert found.kind == "cell" and not found.left_out and found.tasks == len(read().tasks)


def test_the_points_of_a_family_are_the_table_of_its_tasks_alone() -> None:
    scores, judged = in_table()
    found = read()
    assert set(found.families) == set(judged.families) - {""} and len(found.families) > 3
    for family in found.families[:2]:
        of = np.array([one == family for one in judged.families])
        alone = Judged(
            *(tuple(np.array(texts)[of].tolist()) for texts in (judged.questions, judged.families, judged.novelties)),
            judged.mask[of],
            judged.shared[of],
        )  # fmt: skip
        cut = [Score(**{**vars(score), "correct": score.correct[of], "answers": None}) for score in scores]
        expected = next(row for row in rows(cut, alone, RESAMPLES) if row["gamma"] == 3.0)
        shown = sweep(found, family, RESAMPLES)
        assert shown.tasks == of.sum() and shown.family == family
        same_numbers(next(point for point in shown.curves[0].points if point.gamma == 3.0), expected)


def test_what_curves_are_compared_with_is_that_of_the_table() -> None:
    found, table = sweep(read(), resamples=RESAMPLES), rows(*in_table(), RESAMPLES)
    multitask = next(row for row in table if (row["method"], row["setting"]) == ("multitask", "zero-shot"))
    best = max((row for row in table if row["setting"] == "few-shot"), key=lambda row: row["mean"])
    assert found.multitask is not None and found.ceiling is not None
    assert found.multitask.mean == pytest.approx(multitask["mean"], abs=6e-4) and found.multitask.seeds == (0, 1)
    assert found.ceiling.mean == pytest.approx(best["mean"], abs=6e-4)
    assert found.ceiling.label.startswith(best["label"])


def test_the_validated_gamma_is_that_of_each_seed() -> None:
    curve = next(curve for curve in sweep(read()).curves if curve.method == "task-ldm")
    assert curve.validated is not None
    own = [(sweeps.cell(CellSpec("task-ldm", seed)).result() or {})["gamma"] for seed in (0, 1)]
    assert curve.validated.gammas == tuple(own) and curve.validated.seeds == (0, 1)
    assert [point.gamma for point in curve.points] == [0.0, 1.0, 3.0]
    assert [point.seeds for point in curve.points] == [(0,), (0, 1), (0, 1)]


def test_the_ceiling_is_chosen_over_all_tasks_and_stays_the_same_method_for_every_family() -> None:
    found = read()
    few = [one for one in cells(found) if one.setting == "few-shot"]
    whole = sweep(found, resamples=RESAMPLES)
    assert whole.ceiling is not None and whole.ceiling.among == len({one.same for one in few}) > 1
    best = max((one for one in few), key=lambda one: one.accuracies.mean())
    others = [one for one in few if one.same != best.same]
    family = found.families[0]
    of = np.array([one == family for one in found.judged.families])
    lifted = {id(one): Measured(**{**vars(one), "accuracies": np.where(of, 1.0, 0.0)}) for one in others}
    best_of = {id(one): Measured(**{**vars(one), "accuracies": np.where(of, 0.5, 1.0)}) for one in few
               if one.same == best.same}  # fmt: skip
    changed = {**lifted, **best_of}
    tilted = Swept(found.dataset, found.tasks, found.judged, tuple(changed.get(id(one), one) for one in found.measured))
    for_all, for_family = (sweep(tilted, name, RESAMPLES).ceiling for name in ("", family))
    assert for_all is not None and for_family is not None and for_all.label == for_family.label
    assert for_family.mean == 50.0 and for_all.label.startswith(best.label)


def test_what_curves_are_compared_with_has_its_seeds_tasks_and_interval() -> None:
    found, table = sweep(read(), resamples=RESAMPLES), rows(*in_table(), RESAMPLES)
    row = next(row for row in table if (row["method"], row["setting"]) == ("multitask", "zero-shot"))
    level = found.multitask
    assert level is not None and (level.seeds, level.tasks, level.among) == ((0, 1), row["tasks"], 1)
    assert (level.low, level.high) == pytest.approx((row["ci_low"], row["ci_high"]), abs=6e-4)


def test_a_difference_says_over_which_seeds_it_is() -> None:
    curve = next(curve for curve in sweep(read(), resamples=RESAMPLES).curves if curve.method == "task-ldm")
    assert [point.common for point in curve.points] == [(0,), (0, 1), (0, 1)]


def test_points_of_what_is_gone_are_forgotten() -> None:
    found, points = read(), Points()
    sweep(found, points=points)
    gone = [weakref.ref(one) for one in found.measured if one.gamma == 3.0]
    left = Swept(
        found.dataset, found.tasks, found.judged, tuple(one for one in found.measured if one.gamma != 3.0)
    )  # fmt: skip
    del found
    sweep(left, points=points)
    gc.collect()
    assert gone and not any(ref() for ref in gone)


def test_nothing_of_a_sweep_outlives_it() -> None:
    found = read()
    kept = [weakref.ref(one) for one in found.measured]
    sweep(found)
    del found
    gc.collect()
    assert kept and not any(ref() for ref in kept)


def test_the_hyperldm_that_was_drawn_from_is_told() -> None:
    for one in cells(read()):
        manifest = Run(sweeps.finished()[0].runs_dir / one.run).manifest()
        assert one.ldm == manifest["parents"].get("ldm") and (one.ldm is None) == ("ldm" not in one.method)
    result = (miniature.run("eval").result() or {})["rows"]
    drawn = [one for one in read(miniature.finished()).measured if one.kind == "eval" and one.gamma is not None]
    told = {(row["label"], row["seed"]): row["run"] for row in result}
    assert drawn and {one.ldm for one in drawn} <= {*told.values()} and None not in {one.ldm for one in drawn}
    by_method = {(row["method"].removesuffix("-validated").removesuffix("-shuffled"), row["gamma"]): row["run"]
                 for row in result}  # fmt: skip
    assert all(one.ldm == by_method[one.method, one.gamma] for one in drawn)


def test_controls_are_read_but_are_in_no_curve() -> None:
    found = read()
    assert [one.run for one in cells(found) if one.control] == [sweeps.cell(sweeps.SPECS[-1]).id]
    drawn = [one for curve in sweep(found).curves for point in points_of(curve) for one in point.measured]
    assert drawn and not any(one.control for one in drawn)


def test_without_a_cell_at_some_gamma_the_newest_evaluation_says_it() -> None:
    found = sweep(read(miniature.finished()), resamples=RESAMPLES)
    result = miniature.run("eval").result() or {}
    expected = {(row["method"], row["gamma"]): row["mean"] for row in result["rows"] if row["gamma"] is not None}
    shown = {(curve.method, point.gamma): point.mean for curve in found.curves for point in curve.points}
    assert found.kind == "eval" and shown and all(seeds == (0,) for curve in found.curves for seeds in
                                                  [point.seeds for point in curve.points])  # fmt: skip
    assert all(expected[key] == pytest.approx(mean, abs=6e-4) for key, mean in shown.items())
    assert all(curve.validated is not None for curve in found.curves)
    assert found.multitask is not None and found.ceiling is not None


def test_only_what_belongs_together_is_in_one_picture(workspace: Workspace) -> None:
    again = sweeps.add(workspace, sweeps.cell(LDM), "cell-again")
    rewrite(again, "run.json", created="2999-01-01T00:00:00+00:00")
    found = sweep(read(workspace))
    (point,) = [point for point in found.curves[0].points if point.gamma == 1.0]
    assert {one.run for one in point.measured} >= {again.id} and point.seeds == (0, 1)
    assert found.left_out == ("1 cell measured again since",)
    other = sweeps.add(workspace, sweeps.cell(LDM), "cell-other")
    rewrite(other, "run.json", created="2999-01-02T00:00:00+00:00")
    rewrite(other, "result.json", layout="of another network")
    found = sweep(read(workspace))
    assert [len(curve.points) for curve in found.curves] == [1]
    assert found.left_out == (f"{len(sweeps.SPECS)} cells of another base network than the newest",)


# Tasks


def test_per_task_accuracies_are_the_shares_of_right_answers() -> None:
    found = read()
    for one in cells(found):
        stored, _ = load_arrays(Run(sweeps.finished()[0].runs_dir / one.run).model_path)
        right = stored["zero-shot" if one.setting == "control" else one.setting]
        assert one.accuracies.tolist() == pytest.approx(
            [row[: len(task.query)].mean() for row, task in zip(right, found.tasks, strict=True)]
        )


def test_an_evaluation_is_read_as_its_rows_say() -> None:
    found = [one for one in read(miniature.finished()).measured if one.kind == "eval"]
    wanted = [row for row in (miniature.run("eval").result() or {})["rows"] if row["setting"] != "reconstruction"]
    assert len(found) == len(wanted) > 5
    for one, row in zip(found, wanted, strict=True):
        assert 100 * one.accuracies.mean() == pytest.approx(row["mean"], abs=6e-4)
        assert (one.setting, one.gamma) == (row["setting"], row["gamma"])
        assert one.validated == row["method"].endswith("-validated")
        assert (one.control == "shuffled") == row["method"].endswith("-shuffled")
    names = [one.name for one in found]
    assert len({(one.name, one.setting) for one in found}) == len(found)
    assert "Uncond. Multitask" in names and "Task + HyperLDM, γ = 1.5" in names


def test_names_say_what_was_hidden_and_replaced() -> None:
    one = next(one for one in cells(read()) if one.control)
    assert one.name == "Task + HyperLDM, γ = 1, shuffled questions"
    assert Measured(**{**vars(one), "descriptors": 0.5, "control": None}).name.endswith("γ = 1 (50 % of the questions)")


def test_judgements_are_what_the_samples_answered() -> None:
    found = read()
    both = [one for one in cells(found) if (one.method, one.gamma, one.control, one.validated) ==
            ("task-ldm", 1.0, None, False)]  # fmt: skip
    assert len(both) == 2
    for number, task in enumerate(found.tasks):
        shown = judgements(found, both, number)
        assert [(one.image, one.right) for one in shown] == [(i, task.answers[label]) for i, label in task.query]
        for one in shown:
            assert sum(share for _, share in one.shares) == pytest.approx(1) and set(dict(one.shares)) <= {
                *task.answers
            }
            assert one.share == max(share for _, share in one.shares)
            assert (one.verdict == "right") == (one.answer == one.right)
        shares = [dict(one.shares).get(one.right, 0.0) for one in shown]
        assert np.mean(shares) == pytest.approx(np.mean([one.accuracies[number] for one in both]))
    some = [len(one.shares) for number in range(len(found.tasks)) for one in judgements(found, both, number)]
    assert {1, 2} <= {*some}, "seeds agree on some images and not on others"


@pytest.mark.parametrize(
    ("shares", "answer", "verdict"),
    [([("red", 0.75), ("blue", 0.25)], "red", "right"), ([("blue", 0.75), ("red", 0.25)], "blue", "wrong"),
     ([("red", 0.5), ("blue", 0.5)], "red = blue", "tie"), ([("blue", 0.5), ("red", 0.5)], "blue = red", "tie"),
     ([("blue", 0.4), ("green", 0.4), ("red", 0.2)], "blue = green", "wrong"), ([("red", 1.0)], "red", "right")],
)  # fmt: skip
def test_a_tie_with_the_right_answer_is_neither_right_nor_wrong(
    shares: list[tuple[str, float]], answer: str, verdict: str
) -> None:
    one = Judgement("image", "red", tuple(shares))
    assert (one.answer, one.verdict) == (answer, verdict)


def test_ties_are_ties_whichever_answer_comes_first() -> None:
    found = read()
    one, other = (
        Measured(**{**vars(cells(found)[0]), "answers": np.full_like(cells(found)[0].answers, a)}) for a in (1, 0)
    )
    answers = found.tasks[0].answers[:2]
    shown = judgements(found, [one, other], 0)
    assert {one.shares for one in shown} == {tuple((answer, 0.5) for answer in answers)}
    assert {one.verdict for one in shown if one.right in answers} == {"tie"}


def test_without_stored_answers_there_are_no_judgements() -> None:
    found = read()
    assert judgements(found, [Measured(**{**vars(cells(found)[0]), "answers": None})], 0) == ()


# Reading again, and damage


def rewrite(run: Run, name: str, **values: Any) -> None:
    old_format.rewrite(run.path / name, **values)


def test_a_new_cell_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = sweeps.copy(tmp_path / "workspace", sweeps.SPECS[:4])
    reader, opened = Reader(workspace), list[str]()
    monkeypatch.setattr(
        module, "scores_of", lambda run, spec, real=module.scores_of: opened.append(run.id) or real(run, spec)
    )
    before, points = reader.read(miniature.NAME), Points()
    assert len(opened) == 4
    sweeps.add(workspace, sweeps.cell(LDM))
    after = reader.read(miniature.NAME)
    assert opened[4:] == [sweeps.cell(LDM).id]
    assert {id(one) for one in before.measured} < {id(one) for one in after.measured}
    kept = {point.gamma: point for point in sweep(before, points=points).curves[0].points}
    assert sweep(after, points=points).curves[0].points[0] is kept[0.0], "nor is an interval drawn again"


def test_a_cell_that_was_replaced_is_read_again(workspace: Workspace) -> None:
    reader, run = Reader(workspace), Run(workspace.runs_dir / sweeps.cell(LDM).id)
    before = next(one for one in reader.read(miniature.NAME).measured if one.run == run.id)
    tensors, header = load_tensors(run.model_path)
    save_tensors(run.model_path, {name: value * 0 for name, value in tensors.items()}, header)
    after = next(one for one in reader.read(miniature.NAME).measured if one.run == run.id)
    assert before.accuracies.any() and not after.accuracies.any()


def cut_short(run: Run) -> None:
    os.truncate(run.model_path, run.model_path.stat().st_size // 2)


def flip_a_bit(run: Run) -> None:
    data = bytearray(run.model_path.read_bytes())
    data[-1] ^= 1
    run.model_path.write_bytes(data)


def other_shape(run: Run) -> None:
    tensors, header = load_tensors(run.model_path)
    save_tensors(run.model_path, {name: value[:-1] for name, value in tensors.items() if "." not in name}, header)


def unknown_answers(run: Run) -> None:
    tensors, header = load_tensors(run.model_path)
    save_tensors(
        run.model_path, {name: value + 99 * name.endswith("answers") for name, value in tensors.items()}, header
    )


def not_finite(run: Run) -> None:
    tensors, header = load_tensors(run.model_path)
    save_tensors(run.model_path, {name: value if "." in name else value / 0 for name, value in tensors.items()}, header)


def more_than_all(run: Run) -> None:
    tensors, header = load_tensors(run.model_path)
    save_tensors(run.model_path, {name: value if "." in name else value + 2 for name, value in tensors.items()}, header)


DAMAGE: dict[str, tuple[Any, str]] = {
    "cut short": (cut_short, "truncated"),
    "one flipped bit": (flip_a_bit, "checksum"),
    "scores of other tasks": (other_shape, "scores of shape"),
    "answers that no task has": (unknown_answers, "unknown ones"),
    "no layout": (lambda run: (run.path / "result.json").write_text("{}"), "layout"),
    "a result that is no JSON": (lambda run: (run.path / "result.json").write_text("{"), "damaged"),
    "a manifest without a cell": (lambda run: rewrite(run, "run.json", cell=None), "damaged"),
    "an unknown method": (lambda run: rewrite(run, "run.json", cell={"method": "x", "seed": 0}), "KeyError: 'x'"),
    "a manifest of another version": (lambda run: rewrite(run, "run.json", schema_version=9), "schema version 9"),
    "no configuration": (lambda run: (run.path / "config.toml").unlink(), "config.toml is missing"),
    "a γ that is no number": (
        lambda run: rewrite(run, "run.json", cell={"method": "task-ldm", "seed": 0, "gamma": "x"}), "gamma is 'x'"),
    "a γ that is not finite": (lambda run: rewrite(run, "result.json", gamma=math.nan), "gamma is nan, no finite"),
    "a seed that is a list": (
        lambda run: rewrite(run, "run.json", cell={"method": "task-ldm", "seed": [1]}), "seed is [1], no whole"),
    "a method that is a list": (lambda run: rewrite(run, "run.json", cell={"method": [], "seed": 0}), "method is []"),
    "a sampler that is an object": (lambda run: rewrite(run, "result.json", sampler={}), "sampler is {}, no text"),
    "no share of the questions": (
        lambda run: rewrite(run, "run.json", cell={"method": "task-ldm", "seed": 0, "descriptors": None}),
        "descriptors is None"),
    "no time": (lambda run: rewrite(run, "run.json", created=7), "'created' is a number"),
    "scores that are not finite": (not_finite, "holds NaN"),
    "scores of more than all": (more_than_all, "not between 0 and 1"),
    "a folder in place of a file": (lambda run: (run.model_path.unlink(), run.model_path.mkdir()), "a folder"),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_cell_is_named_and_left_out(how: str, workspace: Workspace) -> None:
    damage, words = DAMAGE[how]
    run = Run(workspace.runs_dir / sweeps.cell(VALIDATED).id)
    whole = read(workspace)
    damage(run)
    found = read(workspace)
    assert [one.run for one in found.measured] == [one.run for one in whole.measured if one.run != run.id]
    (problem,) = found.problems
    assert words in problem and run.id in problem


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("gamma", math.inf, "gamma is inf"), ("gamma", True, "gamma is True"), ("seed", 1.5, "seed is 1.5"),
     ("sampler", 3, "sampler is 3"), ("run", {}, "run is {}"), ("label", None, "label is None")],
)  # fmt: skip
def test_an_evaluation_with_an_odd_value_is_named_and_left_out(
    key: str, value: Any, words: str, tmp_path: Path
) -> None:  # fmt: skip
    workspace = sweeps.copy(tmp_path / "workspace", ())
    run = sweeps.add(workspace, miniature.run("eval"))
    result = run.result() or {}
    rewrite(run, "result.json", rows=[{**row, key: value} for row in result["rows"]])
    found = read(workspace)
    assert not found.measured and words in found.problems[0] and run.id in found.problems[0]


def test_unfinished_cells_and_other_kinds_are_passed_over(workspace: Workspace) -> None:
    run = Run(workspace.runs_dir / sweeps.cell(LDM).id)
    (run.path / "result.json").unlink()
    hvae = Run(shutil.copytree(miniature.run("hvae").path, workspace.runs_dir / miniature.run("hvae").id))
    found = read(workspace)
    assert not found.problems and not {run.id, hvae.id} & {one.run for one in found.measured}


def test_a_cell_that_vanishes_between_two_looks_is_named_if_it_was_asked_for(workspace: Workspace) -> None:
    reader, run = Reader(workspace), Run(workspace.runs_dir / sweeps.cell(LDM).id)
    assert reader.read(miniature.NAME, [run]).measured
    remove(run)
    found = reader.read(miniature.NAME, [run])
    assert not found.measured and found.problems == (f"run {run.id} is gone",)
    assert not reader.read(miniature.NAME).problems


def test_cells_of_other_datasets_are_left_out(workspace: Workspace) -> None:
    run, other = (Run(workspace.runs_dir / sweeps.cell(spec).id) for spec in sweeps.SPECS[3:5])
    rewrite(run, "run.json", dataset={"name": "else", "fingerprint": "0"})
    rewrite(other, "run.json", dataset={"name": miniature.NAME, "fingerprint": "0"})
    found = read(workspace)
    assert not {run.id, other.id} & {one.run for one in found.measured}
    assert found.problems == (f"run {other.id} was measured on an earlier version of the dataset 'mini'",)
    rewrite(run, "run.json", dataset={"name": miniature.NAME, "fingerprint": "1"})
    assert read(workspace).problems == ("2 runs were measured on an earlier version of the dataset 'mini'",)


def test_a_dataset_that_is_gone_is_missing(workspace: Workspace) -> None:
    reader = Reader(workspace)
    reader.read(miniature.NAME)
    folder = workspace.dataset_dir(miniature.NAME)
    (folder / "tasks.jsonl").unlink()
    with pytest.raises(MissingError, match=r"tasks\.jsonl is missing"):
        reader.read(miniature.NAME)
    shutil.rmtree(folder)
    with pytest.raises(MissingError, match="there is no dataset 'mini'"):
        reader.read(miniature.NAME)


def test_it_needs_no_torch(tmp_path: Path) -> None:
    root = sweeps.finished()[0].root
    code = (
        "import sys; from pathlib import Path; from metavqa_cli.engine.swept import Reader; "
        "from metavqa_cli.engine.curves import sweep; from metavqa_cli.store.workspace import Workspace; "
        f"found = Reader(Workspace(Path({str(root)!r}))).read('mini'); "
        "print(len(sweep(found).curves), 'torch' in sys.modules)"
    )
    assert python("-c", code, cwd=tmp_path).out == "2 False\n"
