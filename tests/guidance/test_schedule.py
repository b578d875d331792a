"""The schedules follow their definitions, and q_sample the variance they promise."""

import torch

from metavqa_cli.guidance.schedule import Schedule, linear_schedule, scaled_linear_schedule


def test_linear_is_linear_in_beta_and_scaled_linear_in_its_root() -> None:
    for schedule, grid in [
        (linear_schedule(350, 1e-4, 0.06), lambda betas: betas),
        (scaled_linear_schedule(350, 1e-4, 0.06), torch.sqrt),
    ]:
        steps = grid(schedule.betas).diff()
        torch.testing.assert_close(steps, steps[:1].expand(349))
        torch.testing.assert_close(schedule.betas[[0, -1]], torch.tensor([1e-4, 0.06], dtype=torch.float64))


def test_cumulative_product() -> None:
    schedule = Schedule(torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64))
    torch.testing.assert_close(schedule.alphas, torch.tensor([0.9, 0.8, 0.5], dtype=torch.float64))
    torch.testing.assert_close(schedule.alphas_cumprod, torch.tensor([0.9, 0.72, 0.36], dtype=torch.float64))
    assert schedule.T == 3


def test_q_sample_equals_the_chain_of_single_steps_in_distribution() -> None:
    schedule = Schedule(torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64))
    scale, variance = torch.tensor(1.0), torch.tensor(0.0)
    z0 = torch.tensor([[1.0, 2.0]])
    for t, beta in enumerate(schedule.betas.float()):
        scale, variance = (1 - beta).sqrt() * scale, (1 - beta) * variance + beta
        mean = schedule.q_sample(z0, torch.tensor([t]), torch.zeros(1, 2))
        torch.testing.assert_close(mean, scale * z0)
        spread = schedule.q_sample(torch.zeros(1, 2), torch.tensor([t]), torch.ones(1, 2))
        torch.testing.assert_close(spread, variance.sqrt().expand(1, 2))


def test_each_row_has_its_own_time() -> None:
    schedule = linear_schedule(10, 1e-3, 0.3)
    z0, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind()
    t = torch.tensor([0, 9, 4])
    together = schedule.q_sample(z0, t, noise)
    alone = [schedule.q_sample(z0[i : i + 1], t[i : i + 1], noise[i : i + 1]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
