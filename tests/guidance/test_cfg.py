"""Guidance interpolates, is exact at γ = 0 and γ = 1, and always returns one tensor from one call."""

import pytest
import torch
from torch import Tensor, nn

from metavqa_cli.guidance.cfg import guided_noise
from metavqa_cli.guidance.hyperldm import Denoiser
from metavqa_cli.guidance.sampling import ddim
from metavqa_cli.guidance.schedule import linear_schedule
from tests.guidance.gaussian import GaussianDenoiser, rows

SCHEDULE = linear_schedule(40, 1e-3, 0.3)
T = torch.tensor([3, 30])


@pytest.fixture
def denoiser() -> Denoiser:
    g = torch.Generator().manual_seed(0)
    model = Denoiser(latent=3, embed=4, hidden=(8, 6), time_dim=6, generator=g).double()
    nn.init.normal_(model.out.weight, generator=g)
    return model


def test_gamma_one_is_bitwise_conditional_and_zero_bitwise_unconditional(denoiser: Denoiser) -> None:
    z_t, e = rows(2, 3), rows(2, 4, seed=1)
    conditional, unconditional = denoiser(z_t, T, e), denoiser(z_t, T, torch.zeros_like(e))
    assert not torch.allclose(conditional, unconditional)
    assert torch.equal(guided_noise(denoiser, z_t, T, e, 1.0), conditional)
    assert torch.equal(guided_noise(denoiser, z_t, T, e, 0.0), unconditional)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 3.0, torch.tensor([1.0, 2.5], dtype=torch.float64)])
def test_equation_10_in_one_call_and_one_tensor(denoiser: Denoiser, gamma: float | Tensor) -> None:
    z_t, e, calls = rows(2, 3), rows(2, 4, seed=1), []
    handle = denoiser.register_forward_hook(lambda *_: calls.append(1))
    guided = guided_noise(denoiser, z_t, T, e, gamma)
    handle.remove()
    assert len(calls) == 1
    weight = torch.as_tensor(gamma, dtype=torch.float64).reshape(-1, 1)
    expected = (1 - weight) * denoiser(z_t, T, torch.zeros_like(e)) + weight * denoiser(z_t, T, e)
    assert guided.shape == (2, 3)
    torch.testing.assert_close(guided, expected)


def test_a_tensor_of_ones_and_zeros_is_exact(denoiser: Denoiser) -> None:
    z_t, e = rows(2, 3), rows(2, 4, seed=1)
    mixed = guided_noise(denoiser, z_t, T, e, torch.tensor([1.0, 0.0], dtype=torch.float64))
    both = denoiser(torch.cat([z_t, z_t]), torch.cat([T, T]), torch.cat([torch.zeros_like(e), e]))
    assert torch.equal(mixed, torch.stack([both[2], both[1]]))


def test_guidance_of_gaussians_moves_the_mean_by_gamma() -> None:
    """Scores of equal-variance Gaussians are affine in the mean, so γ samples N(γ·shift·e, std²) exactly."""
    denoiser, e = GaussianDenoiser(SCHEDULE, shift=2.0, std=0.5), torch.ones(1, 1, dtype=torch.float64)

    def sample(gamma: float, mean: float) -> tuple[Tensor, Tensor]:
        guided = ddim(lambda z, t: guided_noise(denoiser, z, t, e, gamma), SCHEDULE, [0], 1, 10, dtype=torch.float64)
        exact = GaussianDenoiser(SCHEDULE, shift=mean, std=0.5)
        return guided, ddim(lambda z, t: exact(z, t, e), SCHEDULE, [0], 1, 10, dtype=torch.float64)

    for gamma in (0.0, 1.0, 1.5, 4.0):
        torch.testing.assert_close(*sample(gamma, 2.0 * gamma))


def test_the_plain_branches_cost_no_second_batch() -> None:
    denoiser = GaussianDenoiser(SCHEDULE, shift=1.0, std=1.0)
    for gamma in (0.0, 1.0, 2.0):
        guided_noise(denoiser, rows(2, 3), T, rows(2, 3), gamma)
    assert denoiser.calls == [2, 2, 4]
