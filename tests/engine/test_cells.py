"""A cell says which examples a method judges rightly: the same as one task after another, with the right question."""

import collections
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from metavqa_cli.engine import cells
from metavqa_cli.engine.cells import Bench, CellSpec, joined_cells, measured_cell, scores_of, spec_of
from metavqa_cli.engine.diffusion import newest_ldm
from metavqa_cli.engine.evaluate import Judge, on_query, right
from metavqa_cli.engine.experiments import measured
from metavqa_cli.engine.lineage import parent_run, trained_config
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.sources import ETA_GRID, WIDTH_GRID, Source, parents_of, source_of
from metavqa_cli.methods.few_shot import adapt_weights
from metavqa_cli.methods.registry import BY_KEY, QUESTION_CONTROLS
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.schema.events import Event, Reused, RunFinished, RunStarted, StepLogged
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format
from tests.engine.test_lineage import returned
from tests.miniature import session


@cache
def shared() -> Workspace:
    """A copy of the finished workspace to which these tests only add runs."""
    return miniature.copy(miniature.folder() / "cells")


@cache
def bench() -> Bench:
    return Bench(session(shared()))


def measure(key: str, seed: int = 0, **spec: Any) -> Run:
    """The finished cell."""
    run: Run = returned(measured_cell(bench().root, CellSpec(key, seed, **spec), bench()))
    return run


def tensors(run: Run) -> dict[str, np.ndarray]:
    """Which examples were judged rightly, by setting."""
    found = load_tensors(run.model_path, remedy="")[0]
    return {name: value.numpy() for name, value in found.items() if "." not in name}


def answers_of(run: Run) -> dict[str, np.ndarray]:
    """What was answered, by setting."""
    found = load_tensors(run.model_path, remedy="")[0]
    return {name.removesuffix(".answers"): value.numpy() for name, value in found.items() if name.endswith(".answers")}


@cache
def source(key: str) -> Source:
    parents = returned(parents_of(bench().root, key))
    return source_of(bench().root, key, parents, None, bench().validation)


# Every method


@pytest.mark.parametrize("key", BY_KEY)
def test_every_method_can_be_measured(key: str) -> None:
    method, run = BY_KEY[key], measure(key)
    assert (run.kind, run.state(), run.manifest()["variant"]) == ("cell", "finished", key)
    result, correct, answers = run.result() or {}, tensors(run), answers_of(run)
    adapts = method.few_shot is not None
    assert correct.keys() == {*(["zero-shot"] if method.zero_shot else []), *(["few-shot"] if adapts else [])}
    assert (result["gamma"] is not None) == (method.gammas is not None)
    assert result["sampler"] == ("ddim, 4 steps" if method.gammas is not None else None)
    assert (result["method"], result["seed"], result["descriptors"], result["control"]) == (key, 0, 1.0, None)
    mask = bench().judged().mask
    for name, values in correct.items():
        assert values.shape == mask.shape and set(np.unique(values)) <= {0.0, 1.0}
        assert not values[~mask].any(), "padding is never right"
        assert np.array_equal(bench().judged().correct(answers[name]), values)
        assert result["means"][name] == pytest.approx(100 * (values.sum(1) / mask.sum(1)).mean(), abs=1e-3)
        assert 0 < result["means"][name] < 100


def test_what_was_chosen_on_the_validation_tasks_is_recorded() -> None:
    assert (measure("task-ldm-eq11").result() or {})["eta"] in ETA_GRID
    for key in ("kernel-task", "kernel-zoo"):
        assert (measure(key).result() or {})["width"] in WIDTH_GRID
    ldm = miniature.run("ldm", "task", shared()).result() or {}
    assert (measure("task-ldm").result() or {})["gamma"] == ldm["gamma"]
    assert "eta" not in (measure("task-ldm").result() or {})


def test_measured_again_it_is_found() -> None:
    run = measure("task-ldm")
    events: list[Event] = list(measured_cell(bench().root, CellSpec("task-ldm", 0), bench()))
    assert events[-1] == RunFinished(run.id, run.result() or {}) and events[-2] == Reused("cell", run.id)
    assert not [event for event in events if isinstance(event, (RunStarted, StepLogged))]


# One task after another


def one_by_one(key: str, arm: str) -> list[list[float]]:
    """Which query images each task's own classifier judges rightly, from the dataset's files, in float64."""
    folder, found = miniature.dataset(), source(key)
    images = dict(zip(folder.image_features.ids, folder.image_features.verified(), strict=True))
    texts = dict(zip(folder.text_features.ids, folder.text_features.verified(), strict=True))
    arena, right = bench().test, []
    for row, task in enumerate(arena.tasks):
        alone = arena.select(torch.tensor([row]))
        with torch.no_grad() if arm == "zero-shot" else torch.enable_grad():
            weights = found.zero_shot(alone, 0) if arm == "zero-shot" else found.few_shot(alone)  # type: ignore[misc]
        W1, W2, b1, b2 = (part[0].detach().double().numpy() for part in found.layout.unflatten(weights))
        answers = np.stack([texts[statement] for statement in task.statements]).astype(np.float64)
        row_right = []
        for image, label in task.query:
            x = np.asarray(images[image], np.float64)
            hidden = np.maximum(W1 @ x / len(x) ** 0.5 + b1, 0)
            y = x + W2 @ hidden / len(hidden) ** 0.5 + b2
            row_right.append(float((answers @ y).argmax() == label))
        right.append(row_right)
    return right


CASES = [
    *((key, "zero-shot") for key in ("clip", "multitask", "cond-multitask", "film", "task-ldm", "task-ldm-best",
                                     "task-ldm-eq11", "hnet-hyperclip", "task-hyperclip", "regression", "regression-w",
                                     "kernel-zoo", "zoo-gaussian")),
    *((key, "few-shot") for key in ("multitask", "hnet-maml", "cond-multitask", "task-ldm", "task-ldm-w")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "arm"), CASES)
def test_a_cell_is_what_each_task_by_itself_would_give(key: str, arm: str) -> None:
    measured, expected = tensors(measure(key))[arm], one_by_one(key, arm)
    wrong = sum(list(row[: len(own)]) != own for row, own in zip(measured, expected, strict=True))
    assert wrong == 0


def test_the_majority_is_the_most_frequent_answer_of_the_support_set() -> None:
    correct = tensors(measure("support-majority"))["few-shot"]
    for row, task in zip(correct, bench().test.tasks, strict=True):
        counts = collections.Counter(label for _, label in task.support)
        most = max(range(len(task.statements)), key=lambda label: (counts[label], -label))
        assert list(row[: len(task.query)]) == [float(label == most) for _, label in task.query]


def test_plain_clip_is_the_nearest_statement() -> None:
    judge = Judge(source("clip").layout, source("clip").logit_scale)
    mask = bench().judged().mask
    accuracy = tensors(measure("clip"))["zero-shot"].sum(1) / mask.sum(1)
    assert accuracy.tolist() == pytest.approx(on_query(bench().test, judge.zero_shot)[0].tolist())


@pytest.mark.parametrize("size", [1, 5])
def test_nothing_depends_on_how_many_tasks_are_judged_at_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source("task-ldm")
    whole = cells._answers(found, bench().test, lambda part: found.zero_shot(part, 0))  # type: ignore[misc]
    monkeypatch.setattr("metavqa_cli.tasks.arena.TASKS_AT_ONCE", size)
    parts = cells._answers(found, bench().test, lambda part: found.zero_shot(part, 0))  # type: ignore[misc]
    assert torch.equal(whole, parts)


def test_several_samples_are_averaged() -> None:
    doing = session(shared(), eval={"samples": 2})
    run = returned(measured_cell(doing, CellSpec("zoo-gaussian", 0), bench()))
    found = source("zoo-gaussian")
    drawn = [right(bench().test, cells._answers(found, bench().test, lambda part, n=n: found.zero_shot(part, n)))
             for n in (0, 1)]  # type: ignore[misc]  # fmt: skip
    assert torch.equal(torch.from_numpy(tensors(run)["zero-shot"]), torch.cat(drawn, 1).float().mean(1))
    assert answers_of(run)["zero-shot"].shape == (2, bench().judged().mask.sum())
    assert not torch.equal(drawn[0], drawn[1])


def test_a_deterministic_method_is_measured_once_however_many_samples() -> None:
    doing = session(shared(), eval={"samples": 3})
    run = returned(measured_cell(doing, CellSpec("multitask", 0), bench()))
    assert np.array_equal(tensors(run)["zero-shot"], tensors(measure("multitask"))["zero-shot"])


# What stands in place of the question


def texts_of(e: torch.Tensor) -> list[str]:
    """Which training question each row is the embedding of; "" for none."""
    train = bench().dataset.arena("train", bench().root.device)
    near = (e @ train.e.mT).max(1)
    return [train.tasks[i].question if value > 1 - 1e-5 else ""
            for value, i in zip(near.values.tolist(), near.indices.tolist(), strict=True)]  # fmt: skip


@pytest.mark.parametrize("control", QUESTION_CONTROLS)
def test_a_control_replaces_every_question_and_nothing_else(control: Any) -> None:
    own, asked = bench().test, bench().asked(control, 0)
    assert not (asked.e == own.e).all(1).any()
    assert asked.query is own.query and asked.support is own.support and asked.tasks == own.tasks
    assert torch.equal(bench().asked(control, 0).e, asked.e), "the same every time"
    assert torch.equal(bench().asked(control, 1).e, asked.e) == (control == "empty"), "another seed draws others"
    assert bench().asked(None, 0) is own


def test_shuffled_questions_are_a_derangement() -> None:
    own, asked = bench().test, bench().asked("shuffled", 0)
    assert sorted(map(tuple, asked.e.tolist())) == sorted(map(tuple, own.e.tolist()))
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(3))
    assert torch.equal(cells.with_shuffled_questions(own.select(order), 0).e, asked.e[order])


def test_another_question_is_one_of_the_training_questions_and_not_the_own() -> None:
    questions = [task.question for task in bench().test.tasks]
    known = ["a b", "c d e", *questions[:3]]
    for seed in range(5):
        others = cells.replaced_questions("other", questions, known, seed)
        assert set(others) <= set(known) and all(a != b for a, b in zip(others, questions, strict=True))
    asked = texts_of(bench().asked("other", 0).e)
    assert all(asked) and len(set(asked)) > 1


def test_random_words_are_as_many_and_come_from_the_training_questions() -> None:
    questions = [task.question for task in bench().test.tasks]
    known = ["what colour is", "how many"]
    drawn = cells.replaced_questions("random-words", questions, known, 0)
    assert [len(text.split()) for text in drawn] == [len(question.split()) for question in questions]
    assert {word for text in drawn for word in text.split()} == {"what", "colour", "is", "how", "many"}


def test_an_empty_question_is_the_empty_text() -> None:
    assert cells.replaced_questions("empty", ["What?", "How many?"], ["x"], 0) == ["", ""]
    e = bench().asked("empty", 0).e
    assert torch.allclose(e, bench().root.encoder.encode_text([""])[0].expand_as(e))


def test_a_control_is_one_score_and_changes_what_a_method_that_reads_says() -> None:
    own = tensors(measure("cond-multitask"))["zero-shot"]
    for control in QUESTION_CONTROLS:
        run = measure("cond-multitask", control=control)
        assert tensors(run).keys() == {"zero-shot"}
        (score,) = scores_of(run, CellSpec("cond-multitask", 0, control=control))
        assert (score.setting, score.control) == ("control", control)
        assert not np.array_equal(score.correct, own), control


def test_a_method_that_reads_nothing_is_the_same_whatever_is_asked() -> None:
    run = measure("multitask", control="shuffled")
    assert np.array_equal(tensors(run)["zero-shot"], tensors(measure("multitask"))["zero-shot"])


# Scores, and cells that belong together


def test_scores_say_what_they_are_of() -> None:
    scores = {score.setting: score for score in scores_of(measure("task-ldm"), CellSpec("task-ldm", 0))}
    assert scores.keys() == {"zero-shot", "few-shot"}
    zero = scores["zero-shot"]
    assert zero.validated and zero.gamma is not None and zero.label == "Task + HyperLDM" and zero.trust is not None
    (fixed,) = scores_of(measure("task-ldm", gamma=1.5), CellSpec("task-ldm", 0, gamma=1.5))
    assert (fixed.gamma, fixed.validated, fixed.setting) == (1.5, False, "zero-shot")
    (half,) = scores_of(measure("film", descriptors=0.5), CellSpec("film", 0, 0.5))
    assert half.descriptors == 0.5
    assert {score.descriptors for score in scores_of(measure("multitask"), CellSpec("multitask", 0))} == {1.0}


def test_every_part_of_the_spec_makes_another_cell() -> None:
    specs = [{}, {"gamma": 1.0}, {"gamma": 1.5}, {"descriptors": 0.5}, {"control": "shuffled"}, {"control": "empty"}]
    made = [measure("task-ldm", **spec) for spec in specs]
    assert len({run.id for run in made}) == len(specs)
    assert [spec_of(run) for run in made] == [CellSpec("task-ldm", 0, **spec) for spec in specs]  # type: ignore[arg-type]


def test_a_configured_gamma_was_not_chosen_on_validation_tasks() -> None:
    doing = session(shared(), ldm={"gamma": 2.0})
    run = returned(measured_cell(doing, CellSpec("task-ldm", 0), Bench(doing)))
    (score, *_) = scores_of(run, CellSpec("task-ldm", 0))
    assert (score.gamma, score.validated) == (2.0, False)


@pytest.mark.parametrize("key", [key for key, method in BY_KEY.items() if method.plain])
def test_plain_rows_are_the_papers_ldm_whatever_is_configured(key: str) -> None:
    doing = session(shared(), ldm={"anchor": True}, sampling={"temperature": 0.2, "latents": 3})
    run = returned(measured_cell(doing, CellSpec(key, 0), Bench(doing)))
    ldm = trained_config(parent_run(run, "ldm"))
    assert not ldm.ldm.anchor and (ldm.sampling.temperature, ldm.sampling.latents) == (1.0, 1)
    assert (run.result() or {})["trust"] == 1.0 and (run.result() or {})["sampler"] == "ddim, 4 steps"


def test_how_intervals_are_drawn_makes_no_other_cell() -> None:
    doing = session(shared(), eval={"bootstrap": 123, "gammas": (0.5,)})
    assert returned(measured_cell(doing, CellSpec("film", 0), Bench(doing))).id == measure("film").id


def test_what_a_method_does_not_read_makes_no_other_cell() -> None:
    changes: dict[str, Any] = {"sampling": {"steps": 3}, "guidance": {"steps": 1}, "questions": {"noise": 0.3}}
    for key, same in (("clip", True), ("task-ldm", False)):
        doing = session(shared(), **changes)
        assert (returned(measured_cell(doing, CellSpec(key, 0), Bench(doing))).id == measure(key).id) == same


@pytest.mark.parametrize("method", ["mnet-maml", "mnet-fomaml"])
def test_maml_adapts_with_the_rate_it_was_trained_with(method: str) -> None:
    """Appendix A.8."""
    doing = session(shared(), baseline={"inner_lr": 0.7}, eval={"few_shot_lr": 1e-3})
    parents = returned(parents_of(doing, method))
    found = source_of(doing, method, parents, None, bench().validation)
    W, tasks = load_model(parents["baseline"], miniature.CPU).tensors["W"], bench().test
    assert found.few_shot is not None
    expected = adapt_weights(
        found.layout, W, tasks.support.padded, doing.config.eval.few_shot_steps, 0.7, found.logit_scale
    )
    assert torch.equal(found.few_shot(tasks), expected)


def test_the_gaussian_process_is_one_whatever_the_ldm_is_configured_to_be() -> None:
    doing = session(shared(), ldm={"anchor": False})
    parents = returned(parents_of(CellSpec("gp", 0).session(doing), "gp"))
    found = source_of(doing, "gp", parents, None, bench().validation)
    assert found.zero_shot is not None
    asked = bench().dataset.arena("train", miniature.CPU)  # the miniature's other questions are far from all of these
    weights = found.zero_shot(asked, 0)
    assert len(weights.unique(dim=0)) == len(weights)


def test_weights_that_are_not_finite_are_not_scored() -> None:
    def overflown(arena: Any, sample: int) -> torch.Tensor:
        weights = made.zero_shot(arena, sample)  # type: ignore[misc]
        weights[-1, 0] = torch.inf
        return weights

    made = source("task-ldm")
    with pytest.raises(JobError, match=r"weights at gamma [\d.]+ are not finite for 1 of \d+ tasks.*; lower gamma"):
        cells._answers(made, bench().test, lambda part: overflown(part, 0))


def test_a_gamma_that_is_configured_and_asked_for_is_one_row() -> None:
    doing = session(shared(), ldm={"gamma": 1.5})
    specs = [CellSpec("task-ldm", 0, gamma=1.5), CellSpec("task-ldm", 0)]
    rows = returned(measured(doing, specs))
    assert [(row["setting"], row["gamma"], row["validated"]) for row in rows] == [
        ("zero-shot", 1.5, False), ("few-shot", 1.5, False),
    ]  # fmt: skip


def test_cells_that_were_drawn_differently_are_not_joined() -> None:
    doing = session(shared(), sampling={"steps": 3})
    other = returned(measured_cell(doing, CellSpec("task-ldm", 1, gamma=1.0), Bench(doing)))
    one = measure("task-ldm", gamma=1.0)
    with pytest.raises(UsageError, match=f"{one.id} and {other.id} were drawn differently .*4 steps; ddim, 3 steps"):
        joined_cells([one, other], bench().dataset)


def test_the_ldm_of_a_plain_row_is_not_taken_for_the_usual_one() -> None:
    doing = session(shared(), ldm={"anchor": True})
    usual = returned(parents_of(doing, "task-ldm"))["ldm"]
    plain = CellSpec("task-ldm-plain", 0)
    assert returned(parents_of(plain.session(doing), plain.method))["ldm"].id != usual.id
    half = CellSpec("task-ldm", 0, 0.5)
    assert returned(parents_of(half.session(doing), half.method))["ldm"].id != usual.id
    assert newest_ldm(doing, "task").id == usual.id
    absent = session(shared(), ldm={"anchor": True, "epochs": 99})
    assert not trained_config(newest_ldm(absent, "task")).questions.descriptors < 1, "else one that saw all questions"


def test_guidance_scales_give_different_classifiers() -> None:
    weak, strong = (tensors(measure("task-ldm", gamma=gamma))["zero-shot"] for gamma in (0.0, 3.0))
    assert not np.array_equal(weak, strong)


def test_finished_cells_are_joined_as_they_were_measured() -> None:
    made = [measure("multitask"), measure("film")]
    joined = joined_cells(made, bench().dataset)
    settings = sorted((score.method, score.setting) for score in joined)
    assert settings == [("film", "zero-shot"), ("multitask", "few-shot"), ("multitask", "zero-shot")]


def test_cells_of_another_base_network_are_refused() -> None:
    doing = session(shared(), base_network={"hidden": 4})
    other = returned(measured_cell(doing, CellSpec("clip", 0), Bench(doing)))
    with pytest.raises(UsageError, match=f"{measure('film').id} and {other.id} are of different base networks"):
        joined_cells([measure("film"), other], bench().dataset)


def test_the_same_cell_in_two_configurations_is_refused() -> None:
    doing = session(shared(), eval={"few_shot_steps": 3})
    other = returned(measured_cell(doing, CellSpec("multitask", 0), bench()))
    with pytest.raises(UsageError, match=f"{measure('multitask').id} and {other.id} are both multitask with seed 0"):
        joined_cells([measure("multitask"), other], bench().dataset)


def test_cells_of_another_dataset_are_refused(workspace: Workspace) -> None:
    run = measure("clip")
    manifest = workspace.dataset_dir("mini") / "dataset.json"
    old_format.rewrite(manifest, fingerprint="0" * 16)
    with pytest.raises(UsageError, match=f"run {run.id} was made from the dataset 'mini' .*as it is now"):
        joined_cells([run], Bench(session(workspace)).dataset)


def test_what_is_no_finished_cell_is_refused(workspace: Workspace) -> None:
    zoo = miniature.run("zoo", workspace=shared())
    with pytest.raises(UsageError, match=f"run {zoo.id} is of kind zoo, not a cell of the table"):
        joined_cells([zoo], bench().dataset)
    doing = session(workspace)
    for event in (events := measured_cell(doing, CellSpec("clip", 0), Bench(doing))):
        if isinstance(event, RunStarted):
            break
    events.close()
    with pytest.raises(MissingError, match=f"run {event.run} is interrupted, not finished"):  # type: ignore[attr-defined]
        joined_cells([Run(workspace.runs_dir / event.run)], Bench(doing).dataset)  # type: ignore[attr-defined]
