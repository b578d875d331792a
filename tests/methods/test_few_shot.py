"""Adaptation lowers each task's own loss, from a shared or its own start, whatever else is in the batch."""

import torch

from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.methods.few_shot import adapt_latents, adapt_weights
from tests.base_network.examples import random_batch, random_weights

LAYOUT = WeightLayout(embed=6, hidden=4)
BATCH = random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed)
SCALE, LR = 10.0, 0.05


def losses(W: torch.Tensor) -> torch.Tensor:
    return task_loss(answer_logits(LAYOUT, W, BATCH, SCALE), BATCH.labels, BATCH.example_mask)


def hypernetwork() -> Hypernetwork:
    g = torch.Generator().manual_seed(0)
    return Hypernetwork(3, (8,), random_weights(1, LAYOUT.size)[0], 0.3, g).double()


def test_one_step_in_weight_space_follows_the_gradient() -> None:
    W = random_weights(3, LAYOUT.size).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(W).sum(), W)
    torch.testing.assert_close(adapt_weights(LAYOUT, W, BATCH, 1, LR, SCALE), (W - LR * gradient).detach())


def test_a_shared_start_is_the_same_start_for_each_task() -> None:
    W = random_weights(1, LAYOUT.size)[0]
    shared = adapt_weights(LAYOUT, W, BATCH, 5, LR, SCALE)
    torch.testing.assert_close(shared, adapt_weights(LAYOUT, W.expand(3, -1).clone(), BATCH, 5, LR, SCALE))
    assert (losses(shared) < losses(W.expand(3, -1))).all()


def test_a_task_adapts_as_it_would_alone() -> None:
    W, z0 = random_weights(1, LAYOUT.size)[0], random_weights(3, 3)
    together = (
        adapt_weights(LAYOUT, W, BATCH, 5, LR, SCALE),
        adapt_latents(hypernetwork(), z0, BATCH, 5, LR, LAYOUT, SCALE),
    )
    for i in range(3):
        one = BATCH.select(torch.tensor([i]))
        torch.testing.assert_close(adapt_weights(LAYOUT, W, one, 5, LR, SCALE)[0], together[0][i])
        alone = adapt_latents(hypernetwork(), z0[i : i + 1], one, 5, LR, LAYOUT, SCALE)
        torch.testing.assert_close(alone[0], together[1][i])


def test_one_step_in_latent_space_follows_the_gradient_through_the_generator() -> None:
    generator, z = hypernetwork(), random_weights(3, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(generator(z)).sum(), z)
    adapted = adapt_latents(generator, z.detach(), BATCH, 1, LR, LAYOUT, SCALE)
    torch.testing.assert_close(adapted, (z - LR * gradient).detach())
    assert all(p.grad is None for p in generator.parameters())
