"""The batched inner loop equals one loop a task; its meta-gradients equal an explicit unrolled loop."""

import pytest
import torch
from torch import Tensor

from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.tasks.batches import TaskBatch
from tests.base_network.examples import random_batch, random_weights

LAYOUT = WeightLayout(embed=6, hidden=4)
LR = 0.05
STEPS = torch.tensor([0, 3, 1])


def losses(batch: TaskBatch, weights: Tensor) -> Tensor:
    return task_loss(answer_logits(LAYOUT, weights, batch, 10.0), batch.labels, batch.example_mask)


def one(batch: TaskBatch, i: int) -> TaskBatch:
    return batch.select(torch.tensor([i]))


def unrolled(batch: TaskBatch, i: int, start: Tensor, *, second: bool) -> Tensor:
    """Task i alone, step by step."""
    W = start
    for _ in range(int(STEPS[i])):
        W_used = W if second else W.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(one(batch, i), W_used[None]).sum(), W_used, create_graph=second)
        W = W - LR * gradient
    return W


def test_gradient_descent_on_a_quadratic_has_its_closed_form() -> None:
    centre, start = random_weights(4, 3, seed=1), random_weights(4, 3, seed=2)
    adapted = inner_loop(lambda W: (W - centre).square().sum(-1) / 2, start, 7, 0.1)
    torch.testing.assert_close(adapted, centre + 0.9**7 * (start - centre))


@pytest.mark.parametrize("order", ["none", "first", "second"])
def test_each_task_moves_as_if_alone_and_stops_after_its_own_count(order: str) -> None:
    batch, start = random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed), random_weights(3, LAYOUT.size)
    adapted = inner_loop(lambda W: losses(batch, W), start, STEPS, LR, order)  # type: ignore[arg-type]
    for i in range(3):
        alone = unrolled(batch, i, start[i].clone().requires_grad_(), second=False)
        torch.testing.assert_close(adapted[i], alone)
    assert torch.equal(adapted[0], start[0])
    assert not torch.equal(adapted[1], start[1])


@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradient_equals_autograd_through_the_unrolled_loop(order: str) -> None:
    support, query = (random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed, seed) for seed in (1, 2))
    start = random_weights(3, LAYOUT.size).requires_grad_()
    adapted = inner_loop(lambda W: losses(support, W), start, STEPS, LR, order)  # type: ignore[arg-type]
    (meta,) = torch.autograd.grad(losses(query, adapted).sum(), start)
    for i in range(3):
        alone = start[i].detach().clone().requires_grad_()
        adapted_alone = unrolled(support, i, alone, second=order == "second")
        (expected,) = torch.autograd.grad(losses(one(query, i), adapted_alone[None]).sum(), alone)
        torch.testing.assert_close(meta[i], expected)


def test_first_order_is_the_gradient_at_the_adapted_point() -> None:
    support, query = (random_batch([5, 4], [3, 3], LAYOUT.embed, seed) for seed in (1, 2))
    start = random_weights(2, LAYOUT.size).requires_grad_()
    adapted = inner_loop(lambda W: losses(support, W), start, 4, LR, "first")
    (meta,) = torch.autograd.grad(losses(query, adapted).sum(), start)
    at = inner_loop(lambda W: losses(support, W), start, 4, LR).requires_grad_()
    (expected,) = torch.autograd.grad(losses(query, at).sum(), at)
    torch.testing.assert_close(meta, expected)
    second = inner_loop(lambda W: losses(support, W), start, 4, LR, "second")
    (meta_second,) = torch.autograd.grad(losses(query, second).sum(), start)
    assert (meta_second - meta).abs().max() > 1e-4


def test_second_order_reaches_what_the_loss_depends_on_even_from_a_constant_start() -> None:
    centre = torch.tensor([2.0, -1.0], requires_grad=True)
    adapted = inner_loop(lambda W: (W - centre).square().sum(-1) / 2, torch.zeros(3, 2), 2, 0.5, "second")
    adapted.sum().backward()
    torch.testing.assert_close(centre.grad, torch.full((2,), 3 * 0.75))  # 3 tasks · (1 − 0.5²)


def test_order_none_keeps_no_graph_and_works_without_grad_mode() -> None:
    batch, start = random_batch([5, 3], [3, 2], LAYOUT.embed), random_weights(2, LAYOUT.size).requires_grad_()
    before = start.detach().clone()
    adapted = inner_loop(lambda W: losses(batch, W), start, 3, LR)
    assert not adapted.requires_grad
    with torch.no_grad():
        assert torch.equal(inner_loop(lambda W: losses(batch, W), start, 3, LR), adapted)
    assert (losses(batch, adapted) < losses(batch, start)).all()
    assert torch.equal(start, before)


def test_no_steps_returns_the_start() -> None:
    start = random_weights(2, 3)
    assert torch.equal(inner_loop(lambda W: W.sum(-1), start, 0, LR), start)
