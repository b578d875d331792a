"""The meta-gradient is the mean of the tasks' own, by autograd through loops written out by hand."""

import pytest
import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.maml import maml_loss
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
