"""Whether weights are memorised: distances against brute force, and copies recognised as what they are."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from metavqa_cli.engine import novelty
from metavqa_cli.engine.cells import Bench
from metavqa_cli.engine.diffusion import HyperLdm, question_seeds
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.identify import Subject, subjects
from metavqa_cli.engine.measure import accuracies
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.novelty import (
    AVERAGED,
    GENERATED,
    LEFT_OUT,
    NOISES,
    Found,
    Memory,
    Probe,
    examine,
    measured,
    memory_of,
    noise_name,
    novelty_run,
    probes,
    rows,
    summary,
    verdicts,
)
from metavqa_cli.schema.errors import JobError
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import Arena
from tests import miniature
from tests.engine.test_lineage import returned
from tests.miniature import CPU, session

NAMES = [GENERATED, *map(noise_name, NOISES), AVERAGED, LEFT_OUT]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy of the miniature, to which tests only add."""
    with patch(miniature.ENCODER, miniature.loaded_encoder):
        yield miniature.copy(tmp_path_factory.mktemp("novelty") / "workspace")


@pytest.fixture(scope="module")
def arena() -> Arena:
    return miniature.dataset().arena("test", CPU)


@pytest.fixture(scope="module")
def ldm() -> HyperLdm:
    return HyperLdm(miniature.run("ldm", "task"), CPU, miniature.config().sampling)


@pytest.fixture(scope="module")
def memory(trained: Workspace, ldm: HyperLdm) -> Memory:
    return memory_of(session(trained), ldm.decoder)


def random_memory(n: int = 9) -> tuple[Memory, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights, z = torch.randn(n, 40, generator=generator) + 100, torch.randn(n, 3, generator=generator)
    return Memory(weights.clone(), z), weights, z


@pytest.mark.parametrize("size", [2, 64])
def test_the_nearest_member_is_that_of_a_loop(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many members are compared at once, and far from the origin."""
    monkeypatch.setattr(novelty, "ROWS_AT_ONCE", size)
    memory, weights, _ = random_memory()
    asked = torch.randn(5, 40, generator=torch.Generator().manual_seed(4)) + 100
    member, distance = memory.nearest(asked)
    for row in range(5):
        expected = [float(np.linalg.norm((asked[row] - w).double())) for w in weights]
        assert int(member[row]) == int(np.argmin(expected))
        assert float(distance[row]) == pytest.approx(min(expected), rel=1e-4)


def test_a_copy_is_found_and_a_member_is_not_its_own_neighbour() -> None:
    memory, weights, z = random_memory()
    every = torch.arange(len(memory))
    member, distance = memory.nearest(memory.weights(every))
    assert torch.equal(member, every) and distance.max() < 1e-4
    other, apart = memory.nearest(memory.weights(every), every)
    whole = torch.cdist(weights, weights).fill_diagonal_(torch.inf)
    assert torch.equal(other, whole.argmin(1)) and torch.allclose(apart, whole.amin(1), rtol=1e-3)
    assert memory.nearest_latents(z).max() < 1e-5
    scaled = (z - z.mean(0)) / z.std(0, correction=0)
    expected = torch.cdist(scaled, scaled).fill_diagonal_(torch.inf).amin(1)
    assert torch.allclose(memory.nearest_latents(z, every), expected, atol=1e-5)


def test_the_radius_is_the_mean_distance_to_the_mean() -> None:
    memory, weights, _ = random_memory()
    assert memory.radius == pytest.approx(float((weights - weights.mean(0)).norm(dim=1).mean()), rel=1e-4)
    with pytest.raises(JobError, match="one training task"):
        Memory(torch.zeros(1, 4), torch.zeros(1, 2))


def made_probes(ldm: HyperLdm, memory: Memory, arena: Arena, z: Tensor | None = None) -> dict[str, Probe]:
    questions = [task.question for task in miniature.dataset().tasks.of("train")]
    own = ldm.sampler(arena.e, ldm.gamma, question_seeds(arena, 0)) if z is None else z
    return {probe.name: probe for probe in probes(memory, ldm.decoder, own, arena, questions, 0)}


def test_every_probe_is_what_its_name_says(ldm: HyperLdm, memory: Memory, arena: Arena) -> None:
    made = made_probes(ldm, memory, arena)
    assert list(made) == NAMES
    every, tasks = torch.arange(len(memory)), torch.arange(len(arena))
    members = memory.weights(every)
    assert torch.allclose(members, ldm.decoder.decode(ldm.decoder.latents), atol=1e-5)
    for size in NOISES:
        noisy = made[noise_name(size)].weights(tasks)
        distances = torch.cdist(noisy, members, compute_mode="donot_use_mm_for_euclid_dist")
        hits = (distances - size * memory.radius).abs().amin(1)
        assert hits.max() < 1e-4 * memory.radius  # at exactly this distance from some member
    z = made[AVERAGED].z
    assert z is not None and torch.equal(made[AVERAGED].weights(tasks), ldm.decoder.decode(z))
    pairs = {tuple(sorted(pair)) for row in z for pair in _pairs_of(row, ldm.decoder.latents)}
    assert len(pairs) >= len(arena) // 2 and all(first != second for first, second in pairs)
    left = made[LEFT_OUT]
    assert left.itself is not None and torch.equal(left.itself, every) and torch.equal(left.weights(every), members)
    assert len(left.tasks) == len(memory) and int(left.tasks.max()) < len(arena)


def _pairs_of(z: Tensor, latents: Tensor) -> list[tuple[int, int]]:
    """Which two latents have z as their mean."""
    means = (latents[:, None] + latents[None]) / 2
    found = ((means - z).abs().amax(-1) < 1e-5).nonzero().tolist()
    assert found
    return [(first, second) for first, second in found]


@pytest.mark.parametrize("name", NAMES)
def test_overlap_and_accuracy_are_those_of_a_loop(name: str, ldm: HyperLdm, memory: Memory, arena: Arena) -> None:
    probe, decoder = made_probes(ldm, memory, arena)[name], ldm.decoder
    found = examine(memory, probe, arena, decoder)
    weights = probe.weights(torch.arange(len(probe.tasks)))
    asked = arena.select(probe.tasks).query
    assert torch.allclose(found.accuracy, accuracies(decoder.layout, weights, asked, decoder.logit_scale))
    member, distance = memory.nearest(weights, probe.itself)
    assert torch.allclose(found.distance, distance, rtol=1e-4)
    for row, task in enumerate(probe.tasks.tolist()):
        part = arena.select(torch.tensor([task]))
        one, two = (set(novelty._wrong(decoder, w, part)[0].nonzero().flatten().tolist())
                    for w in (weights[row : row + 1], memory.weights(member[row : row + 1])))  # fmt: skip
        expected = len(one & two) / len(one | two) if one | two else float("nan")
        assert float(found.overlap[row]) == pytest.approx(expected, nan_ok=True)


def test_the_overlap_is_of_both_sides_errors(ldm: HyperLdm, memory: Memory, arena: Arena) -> None:
    """Also where only the neighbour errs more: with two opposite members, each takes the other as its neighbour."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(2, ldm.decoder.layout.size, generator=generator)
    pair = Memory(W.clone(), torch.eye(2))
    tasks = torch.arange(len(arena))

    def examined(member: int) -> Found:
        itself = torch.full_like(tasks, member)
        return examine(pair, Probe("p", lambda rows: W[itself[rows]], tasks, itself=itself), arena, ldm.decoder)

    one, two = examined(0), examined(1)
    assert torch.equal(one.overlap, two.overlap) and not torch.equal(one.accuracy, two.accuracy)
    assert 0 < float(one.overlap.mean()) < 1


def test_a_generator_that_repeats_its_memory_is_caught(ldm: HyperLdm, memory: Memory, arena: Arena) -> None:
    """Latents of members in place of generated ones: no distance, the same errors, and the sentence says so."""
    copies = ldm.decoder.latents[torch.arange(len(arena)) % len(memory)]
    found = {name: examine(memory, probe, arena, ldm.decoder)
             for name, probe in made_probes(ldm, memory, arena, copies).items()}  # fmt: skip
    first = summary(found)[0]
    assert first["row"] == GENERATED and first["relative"] < 1e-3 and first["latent_relative"] < 1e-3
    assert first["error_overlap"] == 100
    result = {**result_of(0, 0.0), "rows": summary(found)}
    assert "What task + HyperLDM generates is memorised" in verdicts(rows([result]))[0]


def test_nothing_depends_on_the_order_or_the_number_of_tasks_at_once(
    ldm: HyperLdm, memory: Memory, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbers(asked: Arena) -> list[dict[str, float]]:
        found = {name: examine(memory, probe, asked, ldm.decoder)
                 for name, probe in made_probes(ldm, memory, asked).items()}  # fmt: skip
        return [{key: value for key, value in row.items() if isinstance(value, (float, int))} for row in summary(found)]

    straight = numbers(arena)
    order = torch.randperm(len(arena), generator=torch.Generator().manual_seed(2))
    permuted = numbers(arena.select(order))
    monkeypatch.setattr(novelty, "ROWS_AT_ONCE", 3)
    for other in (permuted, numbers(arena)):
        for one, two in zip(straight, other, strict=True):
            assert len(one) >= 5 and one == pytest.approx(two, rel=1e-4)


def test_weights_must_be_finite(ldm: HyperLdm, memory: Memory, arena: Arena) -> None:
    wrong = Probe("x", lambda rows: torch.full((len(rows), ldm.decoder.layout.size), torch.nan), torch.arange(2))
    with pytest.raises(JobError, match=r"weights are not finite \(x\)"):
        examine(memory, wrong, arena, ldm.decoder)


def test_tasks_without_errors_do_not_count_for_the_overlap() -> None:
    found = Found(torch.tensor([1.0, 3.0, 8.0]), None, torch.tensor([torch.nan, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0]))
    left = replace(found, distance=torch.tensor([6.0, 2.0, 7.0]))
    first, _ = summary({GENERATED: found, LEFT_OUT: left})
    assert first == {
        "row": GENERATED, "distance": 3, "relative": 0.5, "latent_distance": None, "latent_relative": None,
        "error_overlap": 75, "accuracy": 50, "weights": 3,
    }  # fmt: skip
    clean = replace(found, overlap=torch.full((3,), torch.nan))
    assert summary({LEFT_OUT: clean})[0]["error_overlap"] is None


def test_the_memory_of_an_hvae_is_its_zoo(trained: Workspace, arena: Arena) -> None:
    decoder = Decoder(load_model(miniature.run("hvae", "weights", trained), CPU))
    memory = memory_of(session(trained), decoder)
    zoo = load_model(miniature.run("zoo", workspace=trained), CPU).tensors["train"]
    assert torch.allclose(memory.weights(torch.arange(len(memory))), zoo, atol=1e-5)
    questions = [task.question for task in miniature.dataset().tasks.of("train")]
    made = {probe.name: probe for probe in probes(memory, decoder, decoder.latents[: len(arena)], arena, questions, 0)}
    assert made[AVERAGED].z is None and made[LEFT_OUT].z is not None and made[GENERATED].z is not None
    means = (zoo[:, None] + zoo[None]) / 2
    averaged = made[AVERAGED].weights(torch.arange(2))
    assert all((means - w).abs().amax(-1).min() < 1e-5 for w in averaged)


def result_of(seed: int, distance: float, others: float = 1.0) -> dict[str, Any]:
    values = dict(zip(NAMES, [distance, 0.1, 0.3, 1.0, 0.5, others], strict=True))
    return {
        "on": "task", "seed": seed, "descriptors": 1.0, "gamma": 1.5, "sampler": "ddim, 4 steps", "tasks": 7,
        "members": 20,
        "rows": [{"row": name, "distance": value, "relative": value, "latent_distance": None, "latent_relative": None,
                  "error_overlap": 40.0, "accuracy": 60.0, "weights": 7} for name, value in values.items()],
    }  # fmt: skip


def test_rows_are_means_over_seeds() -> None:
    made, *_, left = rows([result_of(4, 0.8), result_of(1, 0.6)])
    assert (made["distance"], made["distance_sd"]) == (0.7, round(0.2 / 2**0.5, 4))
    assert (made["seeds"], made["gammas"], made["sampler"]) == ([1, 4], [1.5, 1.5], "ddim, 4 steps")
    assert made["latent_distance"] is made["latent_distance_sd"] is None
    assert left["gammas"] is left["sampler"] is None and left["relative_sd"] == 0
    assert rows([result_of(4, 0.8)])[0]["distance_sd"] is None


@pytest.mark.parametrize(
    ("distance", "words"),
    [(0.1, "is memorised: as near"), (0.2, "is close to memorised"), (0.9, "is not memorised, but nearer"),
     (1.0, "is not memorised: at least as far")],
)  # fmt: skip
def test_the_sentence_says_what_the_distance_means(distance: float, words: str) -> None:
    (sentence,) = verdicts(rows([result_of(0, distance)]))
    assert words in sentence and f"({distance:.2f} times the leave-one-out distance)" in sentence
    assert "its errors overlap by 40 % with those of the nearest training weights" in sentence


def test_it_is_measured_once_for_each_generator_and_seed(trained: Workspace) -> None:
    chosen = subjects(["task", "hvae"], [0], [1.0])
    found = returned(measured(session(trained), chosen))
    assert [(row["on"], row["row"]) for row in found] == [(on, name) for on in ("task", "hvae") for name in NAMES]
    for row in found:
        assert row["distance"] > 0 and 0 <= row["accuracy"] <= 100 and 0 <= row["error_overlap"] <= 100
        if row["row"] == LEFT_OUT:
            assert (row["relative"], row["latent_relative"]) == (1, 1)
            assert row["weights"] == row["members"] == miniature.dataset().manifest["summary"]["train"]
    by = {row["row"]: row for row in found if row["on"] == "task"}
    distances = [by[noise_name(size)]["distance"] for size in NOISES]
    assert distances == sorted(distances)
    before = trained.run_ids()
    assert returned(measured(session(trained), chosen)) == found
    assert trained.run_ids() == before
    assert len([run for run in runs.list_runs(trained) if run.kind == "novelty"]) == 2


def test_an_unfinished_run_is_done_again_under_its_own_name(trained: Workspace) -> None:
    bench = Bench(session(trained))
    run = returned(novelty_run(session(trained), Subject("task", 0), bench))
    kept = run.result()
    (run.path / "result.json").unlink()
    again = returned(novelty_run(session(trained), Subject("task", 0), bench))
    assert again.id == run.id and again.result() == kept
