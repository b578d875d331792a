"""The shared weights see every task as if they had been copied to it."""

import torch

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.multitask import multitask_loss
from tests.base_network.examples import random_batch, random_weights

LAYOUT = WeightLayout(embed=6, hidden=4)
BATCH = random_batch([7, 2, 4], [3, 2, 4], LAYOUT.embed)


def test_loss_accuracy_and_gradient_equal_those_of_one_copy_a_task() -> None:
    W = random_weights(1, LAYOUT.size)[0].requires_grad_()
    loss, metrics = multitask_loss(W, BATCH, LAYOUT, 30.0)
    logits = answer_logits(LAYOUT, W.expand(3, -1), BATCH, 30.0)
    expected = task_loss(logits, BATCH.labels, BATCH.example_mask).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["accuracy"], task_accuracy(logits, BATCH.labels, BATCH.example_mask).mean())
    torch.testing.assert_close(torch.autograd.grad(loss, W), torch.autograd.grad(expected, W))


def test_each_task_counts_the_same_whatever_its_size() -> None:
    W = random_weights(1, LAYOUT.size)[0]
    alone = [multitask_loss(W, BATCH.select(torch.tensor([i])), LAYOUT, 30.0)[0] for i in range(3)]
    torch.testing.assert_close(multitask_loss(W, BATCH, LAYOUT, 30.0)[0], torch.stack(alone).mean())
