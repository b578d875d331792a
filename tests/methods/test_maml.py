"""The meta-gradient is the mean of the tasks' own, by autograd through loops written out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.maml import maml_loss, meta_loss
from metavqa_cli.methods.multitask import multitask_loss
from metavqa_cli.tasks.batches import TaskBatch
from tests.base_network.examples import random_batch, random_weights

LAYOUT, SCALE, LR = WeightLayout(embed=6, hidden=4), 10.0, 0.1
SUPPORT, QUERY = (random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed, seed) for seed in (1, 2))
STEPS = torch.tensor([2, 0, 3])


def start() -> Tensor:
    return random_weights(1, LAYOUT.size)[0].requires_grad_()


def loss_alone(W: Tensor, batch: TaskBatch, i: int) -> Tensor:
    one = batch.select(torch.tensor([i]))
    return task_loss(answer_logits(LAYOUT, W[None], one, SCALE), one.labels, one.example_mask)[0]


def adapted_alone(decode: Callable[[Tensor], Tensor], point: Tensor, i: int, order: str) -> Tensor:
    """Where task i gets from ``point`` [D], step by step; a constant unless ``order`` is "second"."""
    for _ in range(int(STEPS[i])):
        at = point if order == "second" else point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_alone(decode(at[None])[0], SUPPORT, i), at, create_graph=True)
        point = at - LR * gradient
    return point if order == "second" else point.detach().requires_grad_()


@pytest.mark.parametrize("order", ["first", "second"])
def test_loss_and_meta_gradient_equal_the_written_out_loop(order: str) -> None:
    W = start()
    losses, gradients = [], []
    for i in range(3):
        adapted = W
        for _ in range(int(STEPS[i])):
            point = adapted if order == "second" else adapted.detach().requires_grad_()
            adapted = adapted - LR * torch.autograd.grad(loss_alone(point, SUPPORT, i), point, create_graph=True)[0]
            adapted = adapted if order == "second" else adapted.detach().requires_grad_()
        losses.append(loss_alone(adapted, QUERY, i))
        gradients.append(torch.autograd.grad(losses[-1], W if order == "second" else adapted)[0])
    loss, metrics = maml_loss(W, SUPPORT, QUERY, LAYOUT, SCALE, LR, STEPS, order)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(torch.autograd.grad(loss, W)[0], torch.stack(gradients).mean(0))
    assert torch.equal(metrics["loss"], loss.detach())


def test_with_no_inner_steps_it_is_multitask_on_the_query_sets() -> None:
    W = start()
    for order in ("first", "second"):
        loss, metrics = maml_loss(W, SUPPORT, QUERY, LAYOUT, SCALE, LR, 0, order)  # type: ignore[arg-type]
        shared, shared_metrics = multitask_loss(W, QUERY, LAYOUT, SCALE)
        torch.testing.assert_close(loss, shared)
        torch.testing.assert_close(metrics["accuracy"], shared_metrics["accuracy"])
        torch.testing.assert_close(torch.autograd.grad(loss, W), torch.autograd.grad(shared, W))


def test_the_order_of_the_tasks_does_not_matter() -> None:
    W, order = start(), torch.tensor([2, 0, 1])
    loss, _ = maml_loss(W, SUPPORT, QUERY, LAYOUT, SCALE, LR, STEPS, "second")
    shuffled, _ = maml_loss(W, SUPPORT.select(order), QUERY.select(order), LAYOUT, SCALE, LR, STEPS[order], "second")
    torch.testing.assert_close(loss, shuffled)


@pytest.mark.parametrize("order", ["first", "second"])
def test_what_decodes_the_adapted_points_gets_its_gradient_through_every_step_or_at_the_last_alone(order: str) -> None:
    matrix, points = random_weights(4, LAYOUT.size).requires_grad_(), random_weights(3, 4, seed=2).requires_grad_()

    def decode(point: Tensor) -> Tensor:
        return point.tanh() @ matrix

    adapted = [adapted_alone(decode, points[i], i, order) for i in range(3)]
    expected = torch.stack([loss_alone(decode(adapted[i][None])[0], QUERY, i) for i in range(3)]).mean()
    loss, _ = meta_loss(decode, points, SUPPORT, QUERY, LAYOUT, SCALE, LR, STEPS, order)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, [matrix, points])
    if order == "second":
        expected_gradients = torch.autograd.grad(expected, [matrix, points])
    else:
        of_matrix, *of_points = torch.autograd.grad(expected, [matrix, *adapted])
        expected_gradients = (of_matrix, torch.stack(of_points))
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)
