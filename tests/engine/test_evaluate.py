"""What an evaluation reports is a property of the models and the tasks, not of how it was computed."""

from typing import Any

import numpy as np
import pytest
import torch

from metavqa_cli.engine import evaluate as evaluation
from metavqa_cli.engine import measure
from metavqa_cli.engine.diffusion import HyperLdm
from metavqa_cli.engine.ensure import made_ldm, newest_ldms
from metavqa_cli.engine.evaluate import (
    Init,
    Judge,
    Measurement,
    answered,
    as_row,
    evaluate,
    few_shot_latents,
    judged_of,
    on_query,
    right,
    sampled_answers,
    with_shuffled_questions,
)
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.judged import rounded, secondary
from metavqa_cli.engine.lineage import parent_run
from metavqa_cli.engine.measure import accuracies
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.predictions import answers_of
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.schema.events import ProgressMade, RunFinished
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.annotations import Annotation, dump_annotations
from metavqa_cli.tasks.arena import Arena
from tests import miniature
from tests.engine.test_lineage import returned
from tests.miniature import CPU, session

ROW_KEYS = {
    "method", "label", "setting", "run", "objective", "gamma", "sampler", "seed", "tasks", "mean", "ci_low", "ci_high",
    "wording", "combination", "family", "pooled", "overlap_free", "overlap_free_tasks", "overlap_free_pairs", "soft",
    "soft_pooled",
}  # fmt: skip


@pytest.fixture(scope="module")
def held_out() -> Arena:
    return miniature.dataset().arena("test", CPU)


@pytest.fixture(scope="module")
def ldm() -> HyperLdm:
    return HyperLdm(miniature.run("ldm", "task"), CPU, miniature.config().sampling)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished workspace to which these tests only add evaluations."""
    return miniature.copy(tmp_path_factory.mktemp("evaluations") / "workspace")


def rows_of(models: list[Run], workspace: Workspace) -> list[dict[str, Any]]:
    *events, last = evaluate(session(workspace), models)
    assert isinstance(last, RunFinished)
    progress = [event for event in events if isinstance(event, ProgressMade)]
    assert not progress or [p.done for p in progress] == list(range(1, progress[0].total + 1))
    return list(last.result["rows"])


def annotate(workspace: Workspace) -> dict[int, list[str]]:
    """Ask ten people about every pair of the miniature: of pair i as many say the truth as i modulo 11.

    Returns what they said by question id.
    """
    said: dict[int, list[str]] = {}
    annotations: dict[str, dict[str, Annotation]] = {}
    for task in miniature.dataset().tasks.tasks:
        for image, label in (*task.support, *task.query):
            agree, number = len(said) % 11, 7 * len(said) + 3
            other = task.answers[(label + 1) % len(task.answers)]
            said[number] = [task.answers[label]] * agree + [other] * (10 - agree)
            human = {text: said[number].count(text) for text in said[number]}
            annotations.setdefault(task.question, {})[image] = Annotation(number, human)
    dump_annotations(workspace.dataset_dir(miniature.NAME) / "annotations.jsonl", annotations)
    return said


def measures(ldm: HyperLdm, arena: Arena) -> dict[str, torch.Tensor]:
    """Every kind of measurement: answers [task, sample, example]."""
    settings, W = miniature.config().eval, load_model(parent_run(ldm.decoder.run, "init"), CPU).tensors["W"]
    judge = Judge(ldm.decoder.layout, ldm.decoder.logit_scale)
    return {
        "zero-shot": answered(arena, judge.zero_shot),
        "few-shot W": answered(arena, lambda chunk: judge.few_shot(W, settings, chunk)),
        "few-shot z": answered(arena, lambda chunk: few_shot_latents(ldm.decoder, settings, chunk)),
        "sampled": answered(arena, lambda chunk: sampled_answers(ldm, 1.5, 0, 2, chunk)),
        "shuffled": answered(with_shuffled_questions(arena, 0), lambda chunk: sampled_answers(ldm, 1.5, 0, 2, chunk)),
    }


def of_mean(arena: Arena, answers: torch.Tensor) -> Measurement:
    return Measurement(
        "m", "l", "s", right(arena, answers).float().mean(1).sum(1) / arena.query.example_mask.sum(1), None
    )


def test_no_accuracy_depends_on_the_order_of_the_tasks(ldm: HyperLdm, held_out: Arena) -> None:
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(4))
    permuted = held_out.select(order)
    assert permuted.tasks != held_out.tasks
    straight, other = measures(ldm, held_out), measures(ldm, permuted)
    config, judged = miniature.config(), judged_of(miniature.dataset())
    for name in straight:
        assert torch.equal(straight[name][order], other[name]), name
        rows = [as_row(of_mean(arena, answers), arena, config, judged)
                for answers, arena in ((straight[name], held_out), (other[name], permuted))]  # fmt: skip
        assert rows[0] == rows[1]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_no_accuracy_depends_on_how_many_tasks_are_measured_at_once(
    size: int, ldm: HyperLdm, held_out: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measures(ldm, held_out)
    monkeypatch.setattr("metavqa_cli.tasks.arena.TASKS_AT_ONCE", size)
    parts = measures(ldm, held_out)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_zero_shot_clip_takes_the_nearest_statement(held_out: Arena) -> None:
    folder = miniature.dataset()
    images = dict(zip(folder.image_features.ids, folder.image_features.verified(), strict=True))
    texts = dict(zip(folder.text_features.ids, folder.text_features.verified(), strict=True))
    expected = []
    for task in folder.tasks.of("test"):
        answers = np.stack([texts[statement] for statement in task.statements])
        expected.append(np.mean([(answers @ images[image]).argmax() == label for image, label in task.query]))
    judge = Judge(Decoder(load_model(miniature.run("hvae"), CPU)).layout, 30.0)
    assert on_query(held_out, judge.zero_shot)[0].tolist() == pytest.approx(expected)


def test_shuffled_questions_leave_no_task_its_own(held_out: Arena) -> None:
    shuffled = with_shuffled_questions(held_out, 0)
    assert not (shuffled.e == held_out.e).all(1).any()
    assert sorted(map(tuple, shuffled.e.tolist())) == sorted(map(tuple, held_out.e.tolist()))
    assert shuffled.query is held_out.query


def test_the_rows_have_stable_keys_and_say_what_they_are(shared: Workspace) -> None:
    models = newest_ldms(session(shared))
    rows = rows_of(models, shared)
    assert all(row.keys() == ROW_KEYS for row in rows)
    assert [row["method"] for row in rows] == [
        "clip", "multitask", "multitask",
        "hvae", "hvae", *["hvae-ldm"] * 4, "hvae-ldm-validated", "hvae-ldm-shuffled",
        "task", "task", *["task-ldm"] * 4, "task-ldm-validated", "task-ldm-shuffled",
    ]  # fmt: skip
    assert {row["run"] for row in rows if row["gamma"] is not None} == {model.id for model in models}
    assert all((row["sampler"] == "ddim, 4 steps") == (row["gamma"] is not None) for row in rows)
    for row in rows:
        assert 0 <= row["ci_low"] <= row["mean"] <= row["ci_high"] <= 100
        expected = "train" if row["setting"] == "reconstruction" else "test"
        assert row["tasks"] == miniature.dataset().manifest["summary"][expected]


def test_a_row_is_the_mean_over_tasks_and_over_the_tasks_of_each_novelty(held_out: Arena) -> None:
    values = torch.linspace(0, 1, len(held_out))
    row = as_row(Measurement("m", "l", "s", values, None), held_out, miniature.config(), judged_of(miniature.dataset()))
    assert row["mean"] == pytest.approx(50, abs=1e-3)
    for kind in ("wording", "combination", "family"):
        of_kind = [float(v) for v, task in zip(values, held_out.tasks, strict=True) if task.novelty == kind]
        assert row[kind] == (pytest.approx(100 * np.mean(of_kind), abs=1e-3) if of_kind else None)


def test_answers_fit_into_the_dataset_and_padding_is_zero_and_never_right(held_out: Arena, ldm: HyperLdm) -> None:
    for answers in measures(ldm, held_out).values():
        assert answers.shape[::2] == held_out.query.labels.shape
        for task, found, correct in zip(held_out.tasks, answers, right(held_out, answers), strict=True):
            n = len(task.query)
            assert int(found.min()) >= 0 and int(found.max()) < len(task.answers)
            assert not found[:, n:].any() and not correct[:, n:].any()
            assert torch.equal(correct[:, :n], found[:, :n] == torch.tensor([label for _, label in task.query]))


def test_what_was_answered_is_kept_and_gives_the_numbers_of_the_row(shared: Workspace) -> None:
    (run,) = (run for run in [miniature.run("eval", workspace=shared)])
    rows, answers, judged = (run.result() or {})["rows"], answers_of(run), judged_of(miniature.dataset())
    asked = [number for number, row in enumerate(rows) if row["setting"] != "reconstruction"]
    assert list(answers) == asked
    for number, row in enumerate(rows):
        expected = rounded(secondary(answers.get(number), judged))
        assert {key: row[key] for key in expected} == expected
    for number in asked:
        correct = judged.correct(answers[number])
        assert rows[number]["mean"] == pytest.approx(100 * (correct.sum(1) / judged.mask.sum(1)).mean(), abs=2e-3)
        assert rows[number]["pooled"] is not None and rows[number]["soft"] is None


def test_answers_of_an_earlier_version_are_not_there(workspace: Workspace) -> None:
    run = miniature.run("eval", workspace=workspace)
    tensors, header = load_tensors(run.model_path)
    save_tensors(run.model_path, {name: value for name, value in tensors.items() if "." not in name}, header)
    with pytest.raises(MissingError, match=f"run {run.id} was measured by an earlier version .* with --force"):
        answers_of(run)


def test_with_annotations_every_row_about_the_query_pairs_has_its_soft_accuracy(workspace: Workspace) -> None:
    plain = rows_of([miniature.run("baseline", workspace=workspace)], workspace)
    annotate(workspace)
    *_, last = evaluate(session(workspace, force=True), [miniature.run("baseline", workspace=workspace)])
    assert isinstance(last, RunFinished)
    for row, before in zip(last.result["rows"], plain, strict=True):
        assert 0 < row["soft"] < 100 and 0 < row["soft_pooled"] < 100
        assert before == {**row, "soft": None, "soft_pooled": None}


def test_sampled_accuracy_is_the_mean_over_the_samples(ldm: HyperLdm, held_out: Arena) -> None:
    both, answers = on_query(held_out, lambda chunk: sampled_answers(ldm, 1.0, 0, 2, chunk))
    first, _ = on_query(held_out, lambda chunk: sampled_answers(ldm, 1.0, 0, 1, chunk))
    assert not torch.equal(both, first) and answers.shape[1] == 2
    weights = ldm.weights(held_out.e, 1.0, evaluation.question_seeds(held_out, 0, 1))
    second = accuracies(ldm.decoder.layout, weights, held_out.query, ldm.decoder.logit_scale)
    assert torch.allclose(both, (first + second) / 2)


def test_accuracies_do_not_depend_on_how_many_weights_are_copied_at_once(
    ldm: HyperLdm, held_out: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, scale = ldm.weights(held_out.e, 1.0, evaluation.question_seeds(held_out, 0)), ldm.decoder.logit_scale
    whole = accuracies(ldm.decoder.layout, weights, held_out.query, scale)
    for rows in (1, 3):
        monkeypatch.setattr(measure, "WEIGHTS_AT_ONCE", rows * ldm.decoder.layout.size)
        assert torch.equal(accuracies(ldm.decoder.layout, weights, held_out.query, scale), whole)


def test_models_of_different_base_networks_are_each_measured_with_their_own(workspace: Workspace) -> None:
    other = session(workspace, base_network={"hidden": 4, "logit_scale": 7.0})
    models = [miniature.run("ldm", "task", workspace), returned(made_ldm(other, "task"))]
    together = rows_of(models, workspace)
    alone = [rows_of([model], workspace) for model in models]
    expected = [*alone[0][:3], *alone[1][1:3], *alone[0][3:], *alone[1][3:]]
    assert together == expected


def test_generators_and_initialisations_can_be_measured_alone(shared: Workspace) -> None:
    whole = rows_of([miniature.run("ldm", "task")], shared)
    assert rows_of([miniature.run("hvae", "task")], shared) == whole[:5]
    assert rows_of([miniature.run("baseline")], shared) == whole[:3]
    zoo = miniature.run("zoo")
    with pytest.raises(UsageError, match=f"run {zoo.id} is of kind zoo; name runs of kind baseline, hvae, ldm"):
        rows_of([zoo], shared)


def test_few_shot_adaptation_starts_from_the_initialisation(held_out: Arena) -> None:
    """Without a step it is the initialisation itself; with some it is not."""
    model = load_model(miniature.run("baseline"), CPU)
    layout = Decoder(load_model(miniature.run("hvae"), CPU)).layout
    init = Init(model.run, model.tensors["W"], layout, 30.0, "multitask")
    judge = Judge(init.layout, init.logit_scale)
    settings = miniature.config().eval
    still = settings.model_copy(update={"few_shot_steps": 0})
    far = settings.model_copy(update={"few_shot_steps": 20, "few_shot_lr": 0.2})
    assert torch.equal(judge.few_shot(init.W, still, held_out), judge(init.W[None], held_out))
    support = held_out.support.padded
    loss = [judge_loss(judge, init.W, s, held_out) for s in (still, far)]
    assert loss[1] < loss[0] and support.n_tasks == len(held_out)


def judge_loss(judge: Judge, W: torch.Tensor, settings: Any, arena: Arena) -> float:
    from metavqa_cli.base_network.adapter import answer_logits, task_loss
    from metavqa_cli.methods.few_shot import adapt_weights

    weights = adapt_weights(
        judge.layout, W, arena.support.padded, settings.few_shot_steps, settings.few_shot_lr, judge.logit_scale
    )
    logits = answer_logits(judge.layout, weights, arena.support.padded, judge.logit_scale)
    return float(task_loss(logits, arena.support.labels, arena.support.example_mask).mean())
