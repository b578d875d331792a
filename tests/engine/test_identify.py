"""Which question weights answer: ranks against brute force, and bad inputs refused with both sides named."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.cells import Bench
from metavqa_cli.engine.classifier import Classifier
from metavqa_cli.engine.contrast import HyperClip
from metavqa_cli.engine.ensure import made_hyperclip
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.identify import (
    FineTune,
    Identifier,
    Subject,
    fine_tuner,
    hit_rates,
    hyperclip_for,
    identify_run,
    known_questions,
    measured,
    nearer_questions,
    rows,
    sizes,
    subjects,
)
from metavqa_cli.engine.lineage import parent_run
from metavqa_cli.engine.models import load_model
from metavqa_cli.guidance.hyperclip import unit
from metavqa_cli.methods.few_shot import adapt_weights
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena
from tests import miniature
from tests.engine.test_lineage import returned
from tests.miniature import CPU, session

KEYS = {
    "on", "descriptors", "candidates", "top1", "top1_sd", "top1_low", "top1_high", "chance1", "top5", "top5_sd",
    "top5_low", "top5_high", "chance5", "tasks", "seeds",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy of the miniature with HyperCLIP on the task-loss generator; tests only add to it."""
    with patch(miniature.ENCODER, miniature.loaded_encoder):
        made = miniature.copy(tmp_path_factory.mktemp("identify") / "workspace")
        returned(made_hyperclip(session(made), "task"))
        yield made


@pytest.fixture(scope="module")
def hyperclip(trained: Workspace) -> Run:
    return miniature.run("hyperclip", "task", trained)


@pytest.fixture(scope="module")
def arena() -> Arena:
    return miniature.dataset().arena("test", CPU)


def made_by(run: Run, weights: Tensor | None = None) -> Classifier:
    """A classifier of the generator that the HyperCLIP ``run`` was trained for."""
    decoder = Decoder(load_model(parent_run(run, "generator"), CPU))
    own = decoder.decode(decoder.latents[:1])[0] if weights is None else weights
    return Classifier(
        weights=own, layout=decoder.layout, question="What is it?", answers=("red", "blue"), template="it is {}",
        logit_scale=30.0, encoder=miniature.encoder().identity, gamma=1.0, seed=0, runs={"generator": decoder.run.id},
    )  # fmt: skip


def led_to(judge: HyperClip, e: Tensor, weights: Tensor) -> Tensor:
    """Weights [P] whose CLIP_H is brought to the whitened question e [E] by gradient descent."""
    W = weights.clone().requires_grad_()
    optimizer = torch.optim.Adam([W], lr=0.05)
    for _ in range(80):
        optimizer.zero_grad()
        (-(judge.module(W[None]) @ unit(e)).sum()).backward()
        optimizer.step()
    return W.detach()


# One classifier


def test_weights_made_for_a_question_are_identified(trained: Workspace, hyperclip: Run) -> None:
    identifier = Identifier(session(trained), hyperclip)
    questions = known_questions(trained, hyperclip)
    start = made_by(hyperclip).weights
    for number in (0, 7, len(questions) - 1):
        e = identifier.judge.whitener(miniature.encoder().encode_text([questions[number]]))[0]
        ranked = identifier.rank(led_to(identifier.judge, e, start), questions)
        assert ranked[0].question == questions[number] and ranked[0].rank == 1


def test_probabilities_are_the_softmax_of_the_scaled_cosines(trained: Workspace, hyperclip: Run) -> None:
    identifier, questions = Identifier(session(trained), hyperclip), known_questions(trained, hyperclip)
    weights = made_by(hyperclip).weights
    ranked = identifier.rank(weights, questions)
    assert [found.rank for found in ranked] == list(range(1, len(questions) + 1))
    cosines = np.array([found.cosine for found in ranked])
    assert (np.diff(cosines) <= 0).all() and np.ptp(cosines) > 0.01
    p = np.exp(identifier.temperature * cosines)
    assert np.allclose([found.probability for found in ranked], p / p.sum(), atol=1e-5)
    e = identifier.judge.whitener(miniature.encoder().encode_text([ranked[0].question]))[0]
    assert ranked[0].cosine == pytest.approx(
        float(torch.cosine_similarity(identifier.judge.module(weights[None])[0], e, 0)), abs=1e-4
    )


def test_duplicates_are_merged_and_none_is_refused(trained: Workspace, hyperclip: Run) -> None:
    identifier, weights = Identifier(session(trained), hyperclip), made_by(hyperclip).weights
    once = identifier.rank(weights, ["What color is it?", "How many?"])
    again = identifier.rank(weights, ["How many?", "What color is it?", "How many?", "What color is it?"])
    assert [found.question for found in once] == [found.question for found in again] and len(again) == 2
    assert sum(found.probability for found in again) == pytest.approx(1)
    with pytest.raises(UsageError, match="there is no candidate question"):
        identifier.rank(weights, [])


def test_the_candidates_are_all_questions_of_the_dataset(trained: Workspace, hyperclip: Run) -> None:
    questions = known_questions(trained, hyperclip)
    assert sorted(questions) == sorted(task.question for task in miniature.dataset().tasks.tasks)


def test_another_base_network_or_encoder_is_refused_with_both_named(trained: Workspace, hyperclip: Run) -> None:
    identifier, made = Identifier(session(trained), hyperclip), made_by(hyperclip)
    identifier.check(made, "car.safetensors")
    layout = WeightLayout(made.layout.embed, made.layout.hidden + 1)
    own, other = (f"{made.layout.embed}-{hidden}-{made.layout.embed}" for hidden in (8, 9))
    with pytest.raises(UsageError, match=rf"car\.safetensors has a base network {other} .*{hyperclip.id} .*{own}"):
        identifier.check(replace(made, layout=layout, weights=torch.zeros(layout.size)), "car.safetensors")
    foreign = {**made.encoder, "model": "ViT-B-32/openai", "image_size": 224}
    with pytest.raises(
        UsageError, match=rf"car\.safetensors .*'ViT-B-32/openai', the HyperCLIP {hyperclip.id} with 'tiny' .*224 there"
    ):
        identifier.check(replace(made, encoder=foreign), "car.safetensors")


def test_the_newest_hyperclip_of_the_generator_is_found(trained: Workspace, hyperclip: Run) -> None:
    made = made_by(hyperclip)
    assert hyperclip_for(trained, made, None).id == hyperclip.id
    assert hyperclip_for(trained, replace(made, runs={}), hyperclip.id).id == hyperclip.id
    other = miniature.run("hvae", "weights", trained)
    with pytest.raises(MissingError, match=f"`metavqa train hyperclip --on hvae --generator {other.id}`"):
        hyperclip_for(trained, replace(made, runs={"generator": other.id}), None)
    for gone in ({}, {"generator": "hvae-gone"}):
        with pytest.raises(MissingError, match="`metavqa train hyperclip --on task --with-parents`"):
            hyperclip_for(trained, replace(made, runs=gone), None)


def test_runs_of_another_kind_and_unfinished_ones_are_refused(workspace: Workspace) -> None:
    run = returned(made_hyperclip(session(workspace), "task"))
    made = made_by(run)
    with pytest.raises(UsageError, match="is of kind zoo, not hyperclip"):
        hyperclip_for(workspace, made, miniature.run("zoo", workspace=workspace).id)
    (run.path / "result.json").unlink()
    with pytest.raises(MissingError, match=f"run {run.id} is stale, not finished"):
        hyperclip_for(workspace, made, run.id)
    with pytest.raises(MissingError, match="there is no finished HyperCLIP"):
        hyperclip_for(workspace, made, None)


def test_a_dataset_that_is_gone_or_made_anew_has_no_candidates(trained: Workspace, hyperclip: Run) -> None:
    record = hyperclip.manifest()
    for change in ({"name": "none"}, {"fingerprint": "0f"}):
        changed = {**record, "dataset": {**record["dataset"], **change}}
        with (
            patch.object(Run, "manifest", return_value=changed),
            pytest.raises(MissingError, match="name some with --question"),
        ):
            known_questions(trained, hyperclip)


# The test tasks


@pytest.fixture(scope="module")
def nearer(trained: Workspace, hyperclip: Run, arena: Arena) -> Tensor:
    return nearer_questions(HyperClip(hyperclip, CPU), arena, task_tuner(trained, hyperclip))


def task_tuner(trained: Workspace, hyperclip: Run) -> FineTune:
    return fine_tuner(session(trained), parent_run(hyperclip, "generator"))


def test_the_ranks_are_those_of_a_loop_over_tasks_and_questions(
    trained: Workspace, hyperclip: Run, arena: Arena, nearer: Tensor
) -> None:
    judge, tune = HyperClip(hyperclip, CPU), task_tuner(trained, hyperclip)
    for i in range(len(arena)):
        w = judge.module(tune(arena.select(torch.tensor([i]))))[0]
        cosines = [float(torch.cosine_similarity(w, judge.whitener(e[None])[0], 0)) for e in arena.e]
        assert int(nearer[i]) == sum(c > cosines[i] for c in cosines)
    assert 0 < int(nearer.max()) < len(arena)


def test_ranks_do_not_depend_on_the_order_or_the_number_of_tasks_at_once(
    trained: Workspace, hyperclip: Run, arena: Arena, nearer: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.randperm(len(arena), generator=torch.Generator().manual_seed(1))
    judge, tune = HyperClip(hyperclip, CPU), task_tuner(trained, hyperclip)
    assert torch.equal(nearer_questions(judge, arena.select(order), tune), nearer[order])
    monkeypatch.setattr("metavqa_cli.tasks.arena.TASKS_AT_ONCE", 3)
    assert torch.equal(nearer_questions(judge, arena, tune), nearer)


def test_weights_brought_to_their_own_question_have_nothing_nearer(hyperclip: Run, arena: Arena) -> None:
    judge, start = HyperClip(hyperclip, CPU), made_by(hyperclip).weights
    some = arena.select(torch.arange(4))
    W = torch.stack([led_to(judge, e, start) for e in judge.whitener(some.e)])
    row = {task.question: i for i, task in enumerate(some.tasks)}

    def of(weights: Tensor, part: Arena) -> Tensor:
        return weights[[row[task.question] for task in part.tasks]]

    assert nearer_questions(judge, some, lambda part: of(W, part)).tolist() == [0] * 4
    assert nearer_questions(judge, some, lambda part: of(W.roll(1, 0), part)).min() > 0


def test_ties_identify_nothing_and_weights_must_be_finite(hyperclip: Run, arena: Arena) -> None:
    judge = HyperClip(hyperclip, CPU)
    same = arena.asking(arena.e[:1].expand(len(arena), -1))
    W = made_by(hyperclip).weights
    assert (nearer_questions(judge, same, lambda part: W.expand(len(part), -1)) == len(arena) - 1).all()
    with pytest.raises(JobError, match=r"weights are not finite.*few_shot_z_lr"):
        nearer_questions(judge, arena, lambda part: torch.full((len(part), len(W)), torch.nan))


@pytest.mark.parametrize("candidates", [1, 2, 4, 7])
@pytest.mark.parametrize("top", [1, 2, 5])
def test_the_hit_rate_is_the_mean_over_every_set_of_candidates(candidates: int, top: int) -> None:
    nearer = np.array([0, 1, 2, 3, 4, 6, 6])
    for i, better in enumerate(nearer):
        others = np.arange(6) < better  # which of the six others are nearer
        sets = list(combinations(others, candidates - 1))
        expected = np.mean([sum(chosen) < top for chosen in sets])
        assert hit_rates(nearer, candidates, top)[i] == pytest.approx(expected, abs=1e-12)


def test_with_all_candidates_it_is_brute_force() -> None:
    nearer = np.array([0, 1, 4, 5, 9, 0, 2, 3, 8, 7])
    assert hit_rates(nearer, 10, 1).tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert hit_rates(nearer, 10, 5).tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]


def test_there_are_never_more_candidates_than_questions() -> None:
    assert [sizes(n) for n in (1, 10, 11, 100, 373)] == [[1], [10], [10, 11], [10, 100], [10, 100, 373]]


def test_rows_over_two_seeds_are_what_one_works_out_by_hand() -> None:
    first, second = np.array([0] * 5 + [11] * 7), np.array([0] * 8 + [4] * 4)
    few, whole = rows([(Subject("task", 3), first), (Subject("task", 1), second)], 100)
    assert few.keys() == whole.keys() == KEYS
    assert (few["candidates"], whole["candidates"], whole["seeds"], whole["tasks"]) == (10, 12, [1, 3], 12)
    assert whole["top1"] == round(100 * 13 / 24, 3) and whole["top5"] == round(100 * 17 / 24, 3)
    assert whole["top1_sd"] == round(100 * (8 - 5) / 12 / 2**0.5, 3)
    assert (few["chance1"], few["chance5"], whole["chance1"], whole["chance5"]) == (10, 50, 8.333, 41.667)
    assert few["top5"] >= whole["top5"] and few["top1"] == round(100 * 13 / 24, 3)  # of 11 others, 4 cannot all be left
    alone = rows([(Subject("task", 0), first)], 100)
    assert alone[0]["top1_sd"] is None


def test_it_is_measured_once_for_each_generator_and_seed(trained: Workspace) -> None:
    chosen = subjects(["task", "hvae", "hnet", "task"], [0], [1.0])
    assert [subject.on for subject in chosen] == ["task", "hvae", "hnet"]
    found = returned(measured(session(trained), chosen))
    assert [row["on"] for row in found] == sorted((row["on"] for row in found), key=["task", "hvae", "hnet"].index)
    for row in found:
        assert 0 <= row["top1_low"] <= row["top1"] <= row["top1_high"] <= 100
        assert row["top5"] >= row["top1"] and row["chance5"] >= row["chance1"]
    before = trained.run_ids()
    assert returned(measured(session(trained), chosen)) == found
    assert trained.run_ids() == before
    assert len([run for run in runs.list_runs(trained) if run.kind == "identify"]) == 3


def test_seeds_and_hidden_questions_are_runs_of_their_own(trained: Workspace) -> None:
    bench = Bench(session(trained))
    made = [returned(identify_run(session(trained), subject, bench)) for subject in subjects(["task"], [0], [0.5, 1])]
    assert len({run.id for run in made}) == 2
    assert [(run.result() or {})["descriptors"] for run in made] == [1.0, 0.5]
    more = session(trained, eval={"few_shot_steps": 3})
    assert returned(identify_run(more, Subject("task", 0), bench)).id not in {run.id for run in made}


def test_an_hvae_is_fine_tuned_as_its_zoo_was(trained: Workspace, arena: Arena) -> None:
    generator = miniature.run("hvae", "weights", trained)
    zoo, config = load_model(parent_run(generator, "zoo"), CPU), miniature.config()
    layout = Decoder(load_model(generator, CPU)).layout
    support, _ = miniature.dataset().arena("train", CPU).random_support(0)
    data = miniature.dataset().arena("train", CPU)
    vars(data.support)["padded"] = support
    tuned = fine_tuner(session(trained), generator)
    assert torch.allclose(tuned(data), zoo.tensors["train"], atol=1e-5)
    expected = adapt_weights(layout, zoo.tensors["base"], arena.support.padded, config.zoo.steps, config.zoo.lr, 30.0)
    assert torch.equal(tuned(arena), expected)


def test_what_is_no_generator_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no generator 'zoo'; --on takes hnet, hvae, task"):
        subjects(["task", "zoo"], [0], [1.0])
