"""Cond. HNet-MAML adapts each task's e, and its meta-gradient of θ is that of loops written out by hand."""

import pytest
import torch
from torch import Tensor

from metavqa_cli.methods.cond_hypernet_maml import cond_hnet_maml_loss
from metavqa_cli.methods.cond_multitask import ConditionalHypernetwork, cond_multitask_loss
from tests.base_network.examples import random_batch
from tests.methods.test_cond_multitask import model, questions
from tests.methods.test_maml import LAYOUT, LR, QUERY, SCALE, STEPS, SUPPORT, adapted_alone, loss_alone

EXACT = {"rtol": 1e-8, "atol": 1e-8}
E_TASKS, ORDERS = questions(), ("first", "second")


def loss_of(network: ConditionalHypernetwork, order: str = "second", steps: int | Tensor = STEPS) -> Tensor:
    return cond_hnet_maml_loss(network, E_TASKS, SUPPORT, QUERY, LAYOUT, SCALE, LR, steps, order)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradient_equals_autograd_through_the_written_out_loop(order: str) -> None:
    network = model()
    theta = list(network.parameters())
    starts = [e.clone().requires_grad_() for e in E_TASKS]
    # With order "first", the adapted e are constants: only the last forward pass depends on θ.
    adapted = [adapted_alone(network.weights, starts[i], i, order) for i in range(3)]
    expected = torch.stack([loss_alone(network.weights(adapted[i][None])[0], QUERY, i) for i in range(3)]).mean()
    loss = loss_of(network, order)
    torch.testing.assert_close(loss, expected, **EXACT)
    gradients = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, theta), **EXACT)


def test_the_orders_differ_in_every_parameter() -> None:
    network = model()
    first, second = (torch.autograd.grad(loss_of(network, order), list(network.parameters())) for order in ORDERS)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(first, second, strict=True))


def test_the_embeddings_stay_as_they_are() -> None:
    before = E_TASKS.clone()
    loss_of(model()).backward()
    assert torch.equal(E_TASKS, before)
    assert E_TASKS.grad is None
    assert not E_TASKS.requires_grad


@pytest.mark.parametrize("order", ["first", "second"])
def test_padding_changes_neither_loss_nor_gradients(order: str) -> None:
    network, found = model(), []
    for padding in (0, 3):
        support, query = (random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed, seed, padding) for seed in (1, 2))
        loss, _ = cond_hnet_maml_loss(network, E_TASKS, support, query, LAYOUT, SCALE, LR, STEPS, order)  # type: ignore[arg-type]
        found.append((loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))))
    torch.testing.assert_close(found[0], found[1], **EXACT)


def test_with_no_inner_steps_it_is_cond_multitask_on_the_query_sets() -> None:
    network = model()
    loss, metrics = cond_hnet_maml_loss(network, E_TASKS, SUPPORT, QUERY, LAYOUT, SCALE, LR, 0, "second")
    shared, shared_metrics = cond_multitask_loss(network, E_TASKS, QUERY, LAYOUT, SCALE)
    torch.testing.assert_close(loss, shared)
    torch.testing.assert_close(metrics, shared_metrics)


@pytest.mark.parametrize("order", ["first", "second"])
def test_every_parameter_changes_in_one_step_and_the_loss_falls(order: str) -> None:
    network = model()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimiser, first = torch.optim.Adam(network.parameters(), lr=1e-2), loss_of(network).item()
    for step in range(20):
        optimiser.zero_grad()
        loss_of(network, order).backward()
        optimiser.step()
        if step == 0:
            assert [name for name, p in network.named_parameters() if torch.equal(p, before[name])] == []
    assert loss_of(network).item() < 0.7 * first
