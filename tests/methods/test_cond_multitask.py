"""A question's weights are the decoder's at √E·e and nobody else's; the loss is that of each task alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.generator.protocol import Generator
from metavqa_cli.methods.cond_multitask import ConditionalHypernetwork, cond_multitask_loss, generated_loss
from tests.base_network.examples import random_batch, random_weights

LAYOUT, SCALE = WeightLayout(embed=6, hidden=4), 10.0
BATCH = random_batch([7, 2, 4], [3, 2, 4], LAYOUT.embed)


def questions(n: int = 3, embed: int = 6) -> Tensor:
    """Unit-norm embeddings."""
    return F.normalize(random_weights(n, embed, seed=5), dim=-1)


def model() -> ConditionalHypernetwork:
    g = torch.Generator().manual_seed(0)
    return ConditionalHypernetwork(Hypernetwork(LAYOUT.embed, (8,), random_weights(1, LAYOUT.size)[0], 0.3, g).double())


def test_the_decoder_sees_the_question_times_the_root_of_its_length() -> None:
    network, e = model(), questions()
    torch.testing.assert_close(network.weights(e), network.decoder(6**0.5 * e))
    assert torch.equal(network.decode(e), network.weights(e))


def test_weights_of_unit_questions_start_as_far_from_the_base_as_scale_says() -> None:
    base = torch.zeros(1000)
    network = ConditionalHypernetwork(Hypernetwork(64, (256,), base, 0.5, torch.Generator().manual_seed(0)))
    assert abs(network.weights(questions(200, 64).float()).detach().std() - 0.5) < 0.05


def test_a_tasks_weights_depend_on_its_own_question_alone() -> None:
    network, e = model(), questions()
    others = e.clone()
    others[[0, 2]] = questions(5)[3:]
    torch.testing.assert_close(network.weights(others)[1], network.weights(e)[1])
    torch.testing.assert_close(network.weights(e[1:2])[0], network.weights(e)[1])
    assert ((network.weights(others) - network.weights(e)).abs().amax(1) > 1e-3).tolist() == [True, False, True]


@pytest.mark.parametrize("padding", [0, 3])
def test_loss_and_gradients_equal_the_mean_over_tasks_alone(padding: int) -> None:
    network, e = model(), questions()
    padded = random_batch([7, 2, 4], [3, 2, 4], LAYOUT.embed, padding=padding)
    alone = []
    for i in range(3):
        one = BATCH.select(torch.tensor([i]))
        logits = answer_logits(LAYOUT, network.weights(e[i : i + 1]), one, SCALE)
        alone.append(task_loss(logits, one.labels, one.example_mask)[0])
    loss, parameters = cond_multitask_loss(network, e, padded, LAYOUT, SCALE)[0], list(network.parameters())
    expected = torch.stack(alone).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


def test_metrics_are_the_loss_and_the_mean_accuracy_without_a_graph() -> None:
    W = random_weights(3, LAYOUT.size).requires_grad_()
    loss, metrics = generated_loss(W, BATCH, LAYOUT, SCALE)
    accuracy = task_accuracy(answer_logits(LAYOUT, W, BATCH, SCALE), BATCH.labels, BATCH.example_mask).mean()
    torch.testing.assert_close(metrics, {"loss": loss.detach(), "accuracy": accuracy.detach()})
    assert not any(value.requires_grad for value in metrics.values())


def test_every_parameter_changes_in_one_step_and_the_loss_falls() -> None:
    network, e = model(), questions()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    first = cond_multitask_loss(network, e, BATCH, LAYOUT, SCALE)[0].item()
    for step in range(20):
        optimiser.zero_grad()
        cond_multitask_loss(network, e, BATCH, LAYOUT, SCALE)[0].backward()
        optimiser.step()
        if step == 0:
            assert [name for name, p in network.named_parameters() if torch.equal(p, before[name])] == []
    assert cond_multitask_loss(network, e, BATCH, LAYOUT, SCALE)[0].item() < 0.7 * first


def test_weights_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="needs"):
        cond_multitask_loss(model(), questions(), BATCH, WeightLayout(embed=6, hidden=5), SCALE)


def test_it_is_a_generator_and_without_random_numbers_a_state_fills_it() -> None:
    network, e = model(), questions()
    waiting = ConditionalHypernetwork(Hypernetwork(6, (8,), torch.zeros(LAYOUT.size), 1.0, None))
    assert isinstance(waiting, Generator)
    assert waiting.latent == 6
    waiting.load_state_dict(network.state_dict(), assign=True)
    assert torch.equal(waiting.weights(e), network.weights(e))
