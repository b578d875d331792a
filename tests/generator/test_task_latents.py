"""Latents trained on the tasks' own loss: each task moves its own row, the penalty and the noise are as stated."""

import pytest
import torch

from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.generator.layers import normal_like
from metavqa_cli.generator.protocol import Generator
from metavqa_cli.generator.task_latents import TaskLatents, task_latent_loss
from tests.base_network.examples import random_batch, random_weights

LAYOUT = WeightLayout(embed=6, hidden=4)
BATCH = random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed)
ALL = torch.arange(3)


def model(init_std: float = 1.0) -> TaskLatents:
    g = torch.Generator().manual_seed(0)
    base = random_weights(1, LAYOUT.size)[0]
    decoder = Hypernetwork(5, (8,), base, 0.3, g).double()
    return TaskLatents(3, decoder, init_std, g)


def loss_of(
    latents: TaskLatents, indices: torch.Tensor = ALL, z_noise: float = 0.0, z_penalty: float = 0.0, seed: int = 0
):
    noise = z_noise * normal_like(latents.mu.detach()[indices], torch.Generator().manual_seed(seed))
    return task_latent_loss(latents, indices, BATCH.select(indices), LAYOUT, 10.0, noise, z_penalty)


def test_without_noise_and_penalty_it_is_the_loss_of_the_decoded_weights() -> None:
    latents = model()
    logits = answer_logits(LAYOUT, latents.decode(latents.mu), BATCH, 10.0)
    loss, metrics = loss_of(latents)
    torch.testing.assert_close(loss, task_loss(logits, BATCH.labels, BATCH.example_mask).mean())
    torch.testing.assert_close(metrics["z_norm"], latents.mu.detach().norm(dim=1).mean())
    correct = ((logits.argmax(-1) == BATCH.labels) & BATCH.example_mask).sum(1) / BATCH.example_mask.sum(1)
    assert metrics["accuracy"].item() == pytest.approx(correct.mean().item())


def test_the_penalty_is_the_mean_squared_norm() -> None:
    latents = model()
    difference = loss_of(latents, z_penalty=0.25)[0] - loss_of(latents)[0]
    torch.testing.assert_close(difference, 0.25 * latents.mu.square().sum(1).mean())


def test_the_noise_is_added_to_the_means() -> None:
    latents, seen = model(), []
    latents.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    noise = torch.arange(15.0, dtype=torch.float64).view(3, 5)
    task_latent_loss(latents, ALL, BATCH, LAYOUT, 10.0, noise, 0.0)
    torch.testing.assert_close(seen[0] - latents.mu.detach(), noise)


def test_only_the_chosen_tasks_get_gradients_and_each_its_own() -> None:
    latents = model()
    loss_of(latents, torch.tensor([2, 0]))[0].backward()
    assert latents.mu.grad is not None
    assert (latents.mu.grad.abs().sum(1) > 0).tolist() == [True, False, True]
    alone = model()
    loss_of(alone, torch.tensor([2]))[0].backward()
    assert alone.mu.grad is not None
    torch.testing.assert_close(latents.mu.grad[2], alone.mu.grad[2] / 2)


def test_every_parameter_changes_in_one_step_and_the_loss_falls() -> None:
    latents = model()
    before = {name: p.detach().clone() for name, p in latents.named_parameters()}
    optimiser = torch.optim.Adam(latents.parameters(), lr=1e-2)
    first = loss_of(latents)[0].item()
    for step in range(30):
        optimiser.zero_grad()
        loss_of(latents, z_noise=0.1, seed=step)[0].backward()
        optimiser.step()
        if step == 0:
            assert [name for name, p in latents.named_parameters() if torch.equal(p, before[name])] == []
    assert loss_of(latents)[0].item() < 0.7 * first


def test_init_std_is_the_spread_of_the_latents() -> None:
    decoder = Hypernetwork(16, (8,), torch.zeros(LAYOUT.size), 1.0, torch.Generator().manual_seed(0))
    latents = TaskLatents(500, decoder, 0.1, torch.Generator().manual_seed(0))
    assert abs(latents.mu.detach().std() - 0.1) < 0.005
    assert isinstance(latents, Generator)


def test_without_a_generator_a_state_fills_it() -> None:
    latents = model()
    waiting = TaskLatents(3, Hypernetwork(5, (8,), torch.zeros(LAYOUT.size), 1.0, None), 1.0, None)
    waiting.load_state_dict(latents.state_dict(), assign=True)
    assert torch.equal(loss_of(waiting)[0], loss_of(latents)[0])
