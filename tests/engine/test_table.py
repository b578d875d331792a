"""Rows of the results table against numbers worked out by hand, and what they are in words."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metavqa_cli.engine import table
from metavqa_cli.engine.judged import AnswerKey, Judged, Marks
from metavqa_cli.engine.table import Control, Score, Setting
from tests.cli.terminal import python

KEYS = {
    "method", "label", "setting", "control", "descriptors", "gamma", "validated", "gammas", "trust", "sampler",
    "seeds", "tasks", "mean", "sd", "ci_low", "ci_high", "diff", "diff_low", "diff_high", "against", "closed", "drop",
    "drop_low", "drop_high", "wording", "combination", "family", "pooled", "unshared", "soft", "families", "kinds",
}  # fmt: skip
RESAMPLES = 200

# Four tasks with 4, 2, 1 and 1 real examples. The padding of `judged` holds what must not be counted.
JUDGED = Judged(
    ("a?", "b?", "c?", "d?"),
    ("color", "color", "count", ""),
    ("wording", "family", "family", ""),
    np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], bool),
    np.array([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool),
)


def correct(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


ONE = correct([1, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0])  # tasks: 1/2, 1/2, 1, 0
TWO = correct([1, 1, 1, 0], [1, 1, 0, 0], [0.5, 9, 9, 9], [9, 9, 9, 0.5])  # tasks: 3/4, 1, 1/2, 1/2


def scored(
    found: np.ndarray, seed: int = 0, method: str = "multitask", setting: Setting = "zero-shot", **more: Any
) -> Score:
    fields = {"label": method.title(), "descriptors": 1.0, "gamma": None, "validated": False, "sampler": None, **more}
    return Score(method=method, setting=setting, seed=seed, correct=found, **fields)


def by_tasks(accuracies: list[float], seed: int = 0, method: str = "multitask", **more: Any) -> Score:
    """A score of tasks with one example each."""
    return scored(np.array(accuracies, np.float32)[:, None], seed, method, **more)


def judged(tasks: int) -> Judged:
    names, ones = tuple(f"{i}?" for i in range(tasks)), np.ones((tasks, 1), bool)
    return Judged(names, ("",) * tasks, ("",) * tasks, ones, ~ones)


def test_a_row_over_two_seeds_is_what_one_works_out_by_hand() -> None:
    (row,) = table.rows([scored(ONE, 3), scored(TWO, 1)], JUDGED, RESAMPLES)
    assert row.keys() == KEYS
    assert row["seeds"] == [1, 3] and row["tasks"] == 4
    assert row["mean"] == 59.375  # of 50 and 68.75
    assert row["sd"] == round(18.75 / math.sqrt(2), 3)
    assert row["wording"] == 62.5  # task a: 50 and 75
    assert row["family"] == 75  # b: 50 and 100; c: 100 and 50
    assert row["combination"] is None
    assert row["families"] == {"color": 68.75, "count": 75.0}
    assert row["pooled"] == round(100 * (4 / 8 + 6 / 8) / 2, 3)
    assert row["unshared"] == round(100 * np.mean([0, 3 / 4, 1 / 4]), 3)  # a: its last image; b; d; none is left of c
    assert row["ci_low"] < row["mean"] < row["ci_high"]
    assert (row["diff"], row["diff_low"], row["diff_high"]) == (0, 0, 0)
    assert row["kinds"] == [{"kind": "color", "tasks": 2, "mean": 68.75, "pooled": round(100 * 8 / 12, 3)},
                            {"kind": "count", "tasks": 1, "mean": 75.0, "pooled": 75.0}]  # fmt: skip
    assert row["closed"] is row["drop"] is row["gamma"] is row["gammas"] is row["soft"] is None


def test_padding_is_never_counted() -> None:
    """Not even if it is not a number."""
    hidden = [replace(s, correct=np.where(JUDGED.mask, s.correct, np.nan)) for s in (scored(ONE), scored(TWO, 1))]
    assert table.rows(hidden, JUDGED, RESAMPLES) == table.rows([scored(ONE), scored(TWO, 1)], JUDGED, RESAMPLES)


def test_without_shared_images_there_is_no_number_without_them() -> None:
    none = replace(JUDGED, shared=~JUDGED.mask)  # padding only
    every = replace(JUDGED, shared=JUDGED.mask)
    for world in (none, every):
        assert table.rows([scored(ONE)], world, RESAMPLES)[0]["unshared"] is None


def test_the_difference_is_paired_where_tasks_differ_more_than_methods() -> None:
    """The intervals of both overlap widely; that of the difference, task by task, is far from 0."""
    rng = np.random.default_rng(0)
    ease = rng.uniform(0, 0.9, 40)
    better = ease + rng.uniform(0.0, 0.06, 40)
    base, other = table.rows([by_tasks(list(ease)), by_tasks(list(better), method="film")], judged(40), 1000)
    assert other["ci_low"] < base["mean"] < other["mean"] < base["ci_high"]
    assert 2 < other["diff_low"] < other["diff"] < other["diff_high"] < 4
    assert other["diff"] == pytest.approx(other["mean"] - base["mean"], abs=2e-3)
    shuffled = list(rng.permutation(better))
    _, unpaired = table.rows([by_tasks(list(ease)), by_tasks(shuffled, method="film")], judged(40), 1000)
    assert unpaired["mean"] == other["mean"] and unpaired["diff_low"] < 0 < unpaired["diff_high"]


def test_the_difference_is_over_the_seeds_that_both_have() -> None:
    scores = [by_tasks([0.0, 0.2], 0), by_tasks([0.4, 0.6], 1), by_tasks([0.5, 0.9], 1, "film"),
              by_tasks([0.9, 0.9], 2, "film"), by_tasks([1.0, 1.0], 7, "late")]  # fmt: skip
    base, film, late = table.rows(scores, judged(2), RESAMPLES)
    assert (base["seeds"], film["seeds"], late["seeds"]) == ([0, 1], [1, 2], [7])
    assert film["diff"] == 20  # (0.5 − 0.4 + 0.9 − 0.6) / 2
    assert (base["mean"], film["mean"]) == (30, 80)
    assert (late["mean"], late["diff"], late["diff_low"], late["diff_high"]) == (100, None, None, None)


def test_the_part_closed_is_of_the_way_to_the_highest_few_shot_mean() -> None:
    few = [by_tasks([0.5, 0.7], method=name, setting="few-shot") for name in ("multitask", "worse")]
    scores = [by_tasks([0.4, 0.4]), by_tasks([0.4, 0.5], method="film"), by_tasks([0.1, 0.3], method="clip"), few[0],
              replace(few[1], correct=few[1].correct / 2)]  # fmt: skip
    found = {(row["method"], row["setting"]): row["closed"] for row in table.rows(scores, judged(2), RESAMPLES)}
    assert found == {("multitask", "zero-shot"): 0, ("film", "zero-shot"): 0.25, ("clip", "zero-shot"): -1,
                     ("multitask", "few-shot"): 1, ("worse", "few-shot"): -0.5}  # fmt: skip
    for some in (scores[:3], scores[1:]):  # no ceiling, no reference
        assert {row["closed"] for row in table.rows(some, judged(2), RESAMPLES)} == {None}
    assert {row["diff"] for row in table.rows(scores[1:], judged(2), RESAMPLES)} == {None}


def test_a_ceiling_below_the_reference_closes_nothing() -> None:
    scores = [by_tasks([0.4]), by_tasks([0.4], setting="few-shot"), by_tasks([0.5], method="film")]
    assert {row["closed"] for row in table.rows(scores, judged(1), RESAMPLES)} == {None}


def test_rows_are_one_for_everything_but_the_seed_in_order_of_appearance() -> None:
    ldm: dict[str, Any] = {"method": "ldm", "sampler": "ddim, 25 steps"}
    scores = [
        by_tasks([0.5], 0, gamma=2.0, **ldm), by_tasks([0.5], 0), by_tasks([0.5], 0, gamma=1.0, **ldm),
        by_tasks([0.7], 1, gamma=2.0, **ldm), by_tasks([0.5], 0, gamma=2.0, validated=True, **ldm),
        by_tasks([0.5], 1, gamma=1.0, validated=True, **ldm), by_tasks([0.5], 0, gamma=2.0, descriptors=0.5, **ldm),
        by_tasks([0.5], 0, gamma=3.0, validated=True, descriptors=0.5, **ldm),
    ]  # fmt: skip
    found = table.rows(scores, judged(1), RESAMPLES)
    kinds = [(row["method"], row["gamma"], row["gammas"], row["validated"], row["descriptors"]) for row in found]
    assert kinds == [
        ("ldm", 2, [2, 2], False, 1), ("multitask", None, None, False, 1), ("ldm", 1, [1], False, 1),
        ("ldm", None, [2, 1], True, 1), ("ldm", 2, [2], False, 0.5), ("ldm", 3, [3], True, 0.5),
    ]  # fmt: skip
    assert [row["mean"] for row in found] == [60, 50, 50, 50, 50, 50]
    assert [row["sampler"] for row in found] == ["ddim, 25 steps", None, *["ddim, 25 steps"] * 4]


def test_one_task_and_one_seed_give_numbers_or_nothing() -> None:
    scores = [by_tasks([0.25]), by_tasks([0.5], method="film"), by_tasks([1.0], method="film", setting="few-shot")]
    found = table.rows(scores, judged(1), RESAMPLES)
    assert "NaN" not in json.dumps(found)
    assert [row["sd"] for row in found] == [None] * 3
    assert [(row["mean"], row["ci_low"], row["ci_high"]) for row in found] == [(25,) * 3, (50,) * 3, (100,) * 3]
    assert found[1]["closed"] == 0.333
    assert table.pivot(found)["zero-shot"][1] == {
        "method": "Film", "100 %": "50.00", "diff 100 %": "[+25.0, +25.0]", "closed 100 %": "33 %",
    }  # fmt: skip


def test_a_constant_difference_has_no_spread() -> None:
    """Although thirds and tenths are not exact in binary."""
    base = [0.1, 1 / 3, 0.7, 0.123]
    better = [value + 0.1 for value in base]
    _, row = table.rows([by_tasks(base), by_tasks(better, method="film")], judged(4), RESAMPLES)
    assert row["diff"] == 10 and row["diff_low"] == pytest.approx(10) and row["diff_high"] == pytest.approx(10)


def test_no_scores_are_no_rows() -> None:
    assert table.rows([], JUDGED, RESAMPLES) == [] == table.verdicts([]) == table.breakdown([])
    assert table.pivot([]) == {} and table.caption([]) == ""


@pytest.mark.parametrize(
    ("scores", "world", "sentence"),
    [
        ([scored(ONE), scored(TWO)], JUDGED, r"Multitask \(zero-shot\) is given twice for seed 0"),
        ([scored(ONE[:, :3], 4)], JUDGED, r"Multitask, seed 4: \(4, 3\) scores instead of the \(4, 4\)"),
        ([], replace(JUDGED, mask=JUDGED.mask & (np.arange(4) > 0)), "task 'c\\?' has no examples"),
    ],
)
def test_what_cannot_be_a_table_is_refused(scores: list[Score], world: Judged, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        table.rows(scores, world, RESAMPLES)


def ldm(accuracies: list[float], control: Control | None = None, **more: Any) -> Score:
    setting: Setting = "control" if control else "zero-shot"
    more = {"validated": True, "gamma": 1.5, "sampler": "ddim, 25 steps", "label": "HVAE + HyperLDM", **more}
    return by_tasks(accuracies, method="ldm", control=control, setting=setting, **more)


OWN = [0.5, 0.6, 0.7, 0.9, 0.8]


def test_a_control_is_compared_with_its_own_method_task_by_task() -> None:
    scores = [
        ldm(OWN), ldm([0.4, 0.5, 0.6, 0.7, 0.7], "shuffled"), ldm(OWN, "empty"), ldm([0.1] * 5, descriptors=0.5),
        ldm([0.1] * 5, validated=False), ldm([0.0] * 5, "shuffled", descriptors=0.25),
    ]  # fmt: skip
    own, shuffled, empty, half, fixed, lonely = table.rows(scores, judged(5), 1000)
    assert (shuffled["drop"], empty["drop"], empty["drop_low"]) == (12, 0, 0)
    assert shuffled["drop_low"] >= 10 and shuffled["drop_high"] <= 20
    assert own["drop"] is half["drop"] is fixed["drop"] is lonely["drop"] is None


def test_the_verdict_says_whether_the_text_is_used() -> None:
    sentences = table.verdicts(table.rows([ldm(OWN), ldm([0.4, 0.5, 0.6, 0.7, 0.7], "shuffled")], judged(5), 1000))
    assert len(sentences) == 1
    assert sentences[0].startswith(
        "HVAE + HyperLDM, γ validated (1.5) uses the text: with shuffled questions its accuracy falls by 12.00 points "
        "(95 % interval of the fall, paired over 5 tasks: +10.00 to "
    )


@pytest.mark.parametrize(
    ("shuffled", "words"),
    [
        (OWN, "with shuffled questions its accuracy falls by 0.00 points"),
        ([0.4, 0.7, 0.6, 1.0, 0.7], "with shuffled questions its accuracy falls by 2.00 points"),  # ±10: 0 is within
        ([0.6, 0.7, 0.8, 1.0, 0.8], "with shuffled questions its accuracy rises by 8.00 points"),
    ],
)
def test_a_method_that_does_not_fall_does_not_use_the_text(shuffled: list[float], words: str) -> None:
    scores = [ldm(OWN, descriptors=0.5), ldm(shuffled, "shuffled", descriptors=0.5), ldm([0.0] * 5, "empty")]
    (sentence,) = table.verdicts(table.rows(scores, judged(5), 1000))
    assert f"HVAE + HyperLDM, γ validated (1.5) (50 % of the descriptors) does not use the text: {words}" in sentence


def test_one_task_decides_nothing() -> None:
    sentences = table.verdicts(table.rows([ldm([1.0]), ldm([0.0], "shuffled")], judged(1), RESAMPLES))
    assert sentences == ["Whether HVAE + HyperLDM, γ validated (1.5) uses the text cannot be told from one task."]


PAPER = [
    by_tasks([0.4, 0.6], 0), by_tasks([0.5, 0.7], 1), by_tasks([0.3, 0.6], method="cond", descriptors=0.5),
    ldm([0.6, 0.8], descriptors=0.5), ldm([0.6, 0.8]), ldm([0.7, 0.7], seed=1), ldm([0.1, 0.1], "shuffled"),
    ldm([0.5, 0.7], validated=False), by_tasks([0.9, 0.7], 0, "maml", setting="few-shot"),
    by_tasks([0.8, 0.8], 1, "maml", setting="few-shot"),
]  # fmt: skip


def test_the_tables_of_the_paper() -> None:
    found = table.pivot(table.rows(PAPER, judged(2), RESAMPLES))
    assert [*found] == ["zero-shot", "control", "few-shot"]
    columns = ["method", "50 %", "diff 50 %", "closed 50 %", "100 %", "diff 100 %", "closed 100 %"]
    assert all([*line] == columns for line in found["zero-shot"])
    assert [line["method"] for line in found["zero-shot"]] == [
        "Multitask", "Cond", "HVAE + HyperLDM, γ validated (1.5)", "HVAE + HyperLDM, γ = 1.5",
    ]  # fmt: skip
    assert [*found["zero-shot"][0].values()] == ["Multitask", "", "", "", "55.00 ± 7.07", "", ""]
    assert [*found["zero-shot"][1].values()] == ["Cond", "45.00", "[-10.0, +0.0]", "-40 %", "", "", ""]
    both = [*found["zero-shot"][2].values()]
    assert both[1:4] == ["70.00", "[+20.0, +20.0]", "60 %"] and both[4] == "70.00 ± 0.00" and both[6] == "60 %"
    assert [*found["few-shot"][0]] == columns[:1] + columns[4:]
    assert found["few-shot"][0]["100 %"] == "80.00 ± 0.00" and found["few-shot"][0]["closed 100 %"] == "100 %"
    assert found["control"][0]["method"] == "HVAE + HyperLDM, γ validated (1.5), shuffled questions"


def test_a_gamma_that_was_chosen_differently_for_each_share_is_one_line() -> None:
    def scores(share: float, gamma: float) -> list[Score]:
        return [by_tasks([0.5, share], method="ldm", label="LDM", descriptors=share, gamma=gamma, validated=True)]

    (line,) = table.pivot(table.rows(scores(0.5, 1.0) + scores(1.0, 2.5), judged(2), RESAMPLES))["zero-shot"]
    assert (line["method"], line["50 %"], line["100 %"]) == ("LDM, γ validated", "50.00", "75.00")


def test_differences_are_to_what_is_asked_for_with_as_many_questions_known() -> None:
    scores = [
        by_tasks([share, share], method="ldm", label="ldm", descriptors=share, gamma=gamma, validated=validated)
        for share in (0.5, 1.0)
        for gamma, validated in ((1.0, False), (1.5, False), (1.5, True))
    ]
    scores += [by_tasks([0.25, 0.75], label="W"), by_tasks([0.25, 0.25], method="few", setting="few-shot")]

    def found(*against: Any) -> list[tuple[float | None, str | None]]:
        return [(row["diff"], row["against"]) for row in table.rows(scores, judged(2), RESAMPLES, against)]

    one = "ldm, γ = 1"
    assert found("ldm", 1.0) == [*[(0.0, one)] * 6, (-50.0, one), (-75.0, one)]
    assert [against for _, against in found("ldm", None)] == ["ldm, γ validated"] * 8
    assert found("multitask", None)[:4:3] == [(0.0, "W"), (50.0, "W")]
    assert found("ldm", 2.0) == [(None, None)] * 8


def test_the_trust_of_each_seed_is_in_the_row() -> None:
    scores = [by_tasks([0.5, 0.5], seed, "ldm", gamma=1.0, validated=True, trust=seed / 2) for seed in (0, 1)]
    (row, *_) = table.rows([*scores, by_tasks([0.1, 0.2])], judged(2), RESAMPLES)
    assert row["trust"] == [0.0, 0.5]


def test_the_caption_says_over_what_and_with_what() -> None:
    words = table.caption(table.rows(PAPER, judged(2), RESAMPLES))
    assert words.startswith("accuracy in per cent, mean over 2 tasks ± s.d. over 1 seed (Multitask: 2, ")
    assert "paired difference to Multitask (zero-shot)" in words
    assert words.endswith("few-shot ceiling (80.00, Maml); ddim, 25 steps")
    few = table.caption(table.rows(PAPER[:2], judged(2), RESAMPLES))
    assert "over 2 seeds;" in few and "closed" not in few


def test_the_breakdown_has_a_column_for_each_kind_of_task() -> None:
    (line,) = table.breakdown(table.rows([scored(ONE, 3), scored(TWO, 1)], JUDGED, RESAMPLES))
    assert line == {
        "method": "Multitask", "setting": "zero-shot", "descriptors": "100 %", "mean": 59.375, "wording": 62.5,
        "combination": None, "family": 75, "pooled": 62.5, "unshared": 33.333, "soft": None, "family color": 68.75,
        "family count": 75,
    }  # fmt: skip


def test_by_kind_there_is_a_line_for_each_kind_and_row() -> None:
    rows = table.rows([scored(ONE), scored(TWO, method="film", setting="few-shot")], JUDGED, RESAMPLES)
    found = table.by_kind(rows)
    assert [(line["kind"], line["tasks"], line["method"], line["setting"]) for line in found] == [
        ("color", 2, "Multitask", "zero-shot"), ("color", 2, "Film", "few-shot"),
        ("count", 1, "Multitask", "zero-shot"), ("count", 1, "Film", "few-shot"),
    ]  # fmt: skip
    assert [line["mean"] for line in found] == [50, 87.5, 100, 50]
    nameless = replace(JUDGED, families=("",) * 4)
    assert table.by_kind(table.rows([scored(ONE)], nameless, RESAMPLES)) == []


def test_soft_accuracy_is_the_mean_over_the_seeds_if_all_of_them_kept_their_answers() -> None:
    """Two answers for each pair; the soft accuracies of answer 0 are listed, those of answer 1 are 0."""
    marks = [1, 0.9, 0.3, 0, 0.6, 0.6, 1, np.nan]
    values = np.array([[mark, 0 * mark] for mark in marks]).ravel()
    key = AnswerKey(np.zeros(8, np.int64), Marks(np.arange(0, 16, 2), values))
    world, zeros = replace(JUDGED, key=key), np.zeros((1, 8), np.int16)
    only_first = np.array([[0, 1, 1, 1, 1, 1, 1, 1]], np.int16)
    of_seeds = [100 * np.mean([0.55, 0.6, 1]), 100 * np.mean([0.25, 0, 0])]  # nobody answered about d
    scores = [scored(ONE, 0, answers=zeros), scored(TWO, 1, answers=only_first)]
    assert table.rows(scores, world, RESAMPLES)[0]["soft"] == round(float(np.mean(of_seeds)), 3)
    lacking = [scores[0], scored(TWO, 1)]
    assert table.rows(lacking, world, RESAMPLES)[0]["soft"] is None
    assert table.rows(scores, JUDGED, RESAMPLES)[0]["soft"] is None


def test_the_table_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, metavqa_cli.engine.table; print([name for name in ('torch', 'scipy') if name in sys.modules])"
    assert python("-c", code, cwd=tmp_path).out == "[]\n"
