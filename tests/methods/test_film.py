"""FiLM as plain weights equals the modulated forward pass written out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metavqa_cli.base_network.adapter import embed, initial_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.film import Film, film_loss
from metavqa_cli.methods.multitask import multitask_loss
from tests.base_network.examples import random_batch, random_weights
from tests.methods.test_cond_multitask import questions

LAYOUT, SCALE = WeightLayout(embed=6, hidden=4), 10.0
BATCH = random_batch([7, 2, 4], [3, 2, 4], LAYOUT.embed)


def untrained() -> Film:
    return Film(LAYOUT, random_weights(1, LAYOUT.size)[0], torch.Generator().manual_seed(0)).double()


def model() -> Film:
    film, g = untrained(), torch.Generator().manual_seed(1)
    for parameter in film.modulation.parameters():
        nn.init.normal_(parameter, std=0.5, generator=g)
    return film


def modulated(film: Film, e: Tensor, x: Tensor) -> Tensor:
    """The FiLM network of one question ``e`` [E] on images ``x`` [n, E], factor by factor."""
    E, H = 6, 4
    W1, W2, b1, b2 = film.W.split([H * E, E * H, H, E])
    signal = film.modulation.weight @ (E**0.5 * e) + film.modulation.bias
    a, c = 1 + signal[:H], signal[H:]
    hidden = a * torch.relu(x @ W1.view(H, E).T / E**0.5 + b1) + c
    return F.normalize(x + hidden @ W2.view(E, H).T / H**0.5 + b2, dim=-1)


def test_the_weights_compute_the_written_out_modulated_network() -> None:
    film, e = model(), questions()
    expected = torch.stack([modulated(film, e[i], BATCH.x[i]) for i in range(3)])
    torch.testing.assert_close(embed(LAYOUT, film.weights(e), BATCH.x), expected, rtol=1e-10, atol=1e-10)
    plain = embed(LAYOUT, film.W.expand(3, -1), BATCH.x)
    assert ((plain - expected).abs().amax((1, 2)) > 0.05).all()


@pytest.mark.parametrize("padding", [0, 3])
def test_loss_and_gradients_equal_those_of_the_written_out_network_task_by_task(padding: int) -> None:
    film, e = model(), questions()
    alone = []
    for i, (n, a) in enumerate([(7, 3), (2, 2), (4, 4)]):
        logits = SCALE * modulated(film, e[i], BATCH.x[i, :n]) @ BATCH.answers[i, :a].T
        alone.append(F.cross_entropy(logits, BATCH.labels[i, :n]))
    expected, parameters = torch.stack(alone).mean(), list(film.parameters())
    padded = random_batch([7, 2, 4], [3, 2, 4], LAYOUT.embed, padding=padding)
    loss, metrics = film_loss(film, e, padded, LAYOUT, SCALE)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["loss"], expected.detach())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


def test_it_starts_as_the_unmodulated_network_and_draws_nothing_globally() -> None:
    state = torch.get_rng_state()
    film = untrained()
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(film.weights(questions()), film.W.expand(3, -1))
    loss, metrics = film_loss(film, questions(), BATCH, LAYOUT, SCALE)
    torch.testing.assert_close((loss, metrics), multitask_loss(film.W, BATCH, LAYOUT, SCALE))


def test_a_tasks_weights_depend_on_its_own_question_alone() -> None:
    film, e = model(), questions()
    others = e.clone()
    others[[0, 2]] = questions(5)[3:]
    torch.testing.assert_close(film.weights(others)[1], film.weights(e)[1])
    assert ((film.weights(others) - film.weights(e)).abs().amax(1) > 1e-3).tolist() == [True, False, True]


def test_every_parameter_changes_in_one_step_and_the_loss_falls() -> None:
    film, e = untrained(), questions()
    before = {name: p.detach().clone() for name, p in film.named_parameters()}
    optimiser, first = torch.optim.Adam(film.parameters(), lr=1e-2), film_loss(film, e, BATCH, LAYOUT, SCALE)[0].item()
    for step in range(30):
        optimiser.zero_grad()
        film_loss(film, e, BATCH, LAYOUT, SCALE)[0].backward()
        optimiser.step()
        if step == 0:
            assert [name for name, p in film.named_parameters() if torch.equal(p, before[name])] == []
    assert film_loss(film, e, BATCH, LAYOUT, SCALE)[0].item() < 0.7 * first


def test_from_plain_clip_the_modulation_moves_in_the_second_step() -> None:
    start = initial_weights(LAYOUT, "near-clip", torch.Generator().manual_seed(2)).double()
    film, e = Film(LAYOUT, start, torch.Generator().manual_seed(0)).double(), questions()
    optimiser = torch.optim.Adam(film.parameters(), lr=1e-2)
    for moved in (False, True):
        optimiser.zero_grad()
        film_loss(film, e, BATCH, LAYOUT, SCALE)[0].backward()
        optimiser.step()
        halves = (half for p in film.modulation.parameters() for half in p.detach().chunk(2))
        assert [bool(half.any()) for half in halves] == [moved] * 4


def test_the_start_is_copied_and_not_trained_in_place() -> None:
    start = random_weights(1, LAYOUT.size)[0]
    before = start.clone()
    film = Film(LAYOUT, start, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        film.W.add_(1)
    assert torch.equal(start, before)


def test_weights_of_another_layout_are_refused() -> None:
    other = WeightLayout(embed=6, hidden=5)
    with pytest.raises(ValueError, match="needs"):
        Film(other, random_weights(1, LAYOUT.size)[0], torch.Generator().manual_seed(0)).double().weights(questions())


def test_without_a_generator_a_state_fills_it() -> None:
    film = model()
    waiting = Film(LAYOUT, torch.zeros(LAYOUT.size), None)
    assert waiting.modulation.weight.is_meta
    waiting.load_state_dict(film.state_dict(), assign=True)
    assert torch.equal(waiting.weights(questions()), film.weights(questions()))
