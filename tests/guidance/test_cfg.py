"""Guidance interpolates, is exact at γ = 0 and γ = 1, and always returns one tensor from one call.

A classifier adds η times its gradient to the score, and samples of exact Gaussians move as far as they should.
"""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from metavqa_cli.guidance.cfg import classifier_guided_noise, guided_noise, with_classifier
from metavqa_cli.guidance.hyperldm import Denoiser
from metavqa_cli.guidance.sampling import ddim, ddpm
from metavqa_cli.guidance.schedule import linear_schedule
from tests.guidance.gaussian import GaussianDenoiser, gaussian_denoiser, rows

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


def wavy_likelihood(z0: Tensor) -> Tensor:
    """Some nonlinear log-likelihood, another one for each row."""
    own = torch.arange(1, len(z0) + 1, dtype=z0.dtype)
    return (z0 * own[:, None]).sin().sum(-1) - z0.square().sum(-1) / 3


@pytest.mark.parametrize("jacobian", ["gaussian", "constant-noise", "exact"])
def test_equation_11_has_the_gradient_of_finite_differences(denoiser: Denoiser, jacobian: str) -> None:
    z_t, e, h = rows(2, 3), rows(2, 4, seed=1), 1e-6
    bar = SCHEDULE.alphas_cumprod[T][:, None]

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        return guided_noise(denoiser, z, t, e, 1.5)

    eps = denoise(z_t, T).detach()

    def log_p(z: Tensor) -> Tensor:
        """As a function of z_t, with the dependence of ẑ0 on it that each choice assumes."""
        if jacobian == "gaussian":
            z0 = (z_t - (1 - bar).sqrt() * eps) / bar.sqrt() + bar.sqrt() * (z - z_t)
        else:
            z0 = (z - (1 - bar).sqrt() * (denoise(z, T) if jacobian == "exact" else eps)) / bar.sqrt()
        return wavy_likelihood(z0).detach()

    steps = h * torch.eye(3, dtype=torch.float64)
    gradient = torch.stack([(log_p(z_t + step) - log_p(z_t - step)) / (2 * h) for step in steps], dim=-1)
    with torch.no_grad():  # as samplers run
        guided = classifier_guided_noise(denoise, SCHEDULE, wavy_likelihood, z_t, T, 0.7, jacobian)  # type: ignore[arg-type]
    torch.testing.assert_close(guided, eps - 0.7 * (1 - bar).sqrt() * gradient, rtol=1e-6, atol=1e-6)


def test_eta_zero_is_the_unguided_prediction_itself(denoiser: Denoiser) -> None:
    def denoise(z: Tensor, t: Tensor) -> Tensor:
        return denoiser(z, t, rows(2, 4, seed=1))

    assert with_classifier(denoise, SCHEDULE, wavy_likelihood, 0.0) is denoise
    guided = with_classifier(denoise, SCHEDULE, wavy_likelihood, 0.5)
    torch.testing.assert_close(
        guided(rows(2, 3), T), classifier_guided_noise(denoise, SCHEDULE, wavy_likelihood, rows(2, 3), T, 0.5)
    )


@pytest.mark.parametrize(("jacobian", "std"), [("exact", 0.5), ("exact", 2.0), ("exact", 1.0), ("gaussian", 1.0)])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_linear_classifier_moves_a_gaussian_by_eta_times_its_variance(
    sampler: str, jacobian: str, std: float
) -> None:
    """N(m, s²)·exp(η·a·z) is N(m + η·a·s², s²), and so it is at every noise level: samples agree, not only means."""
    a, eta = torch.tensor([0.7, -2.0, 0.0], dtype=torch.float64), 1.5
    plain, exact = (gaussian_denoiser(SCHEDULE, mean, std) for mean in (1.0, 1.0 + eta * a * std**2))
    guided = with_classifier(plain, SCHEDULE, lambda z: z @ a, eta, jacobian)  # type: ignore[arg-type]
    sample = partial(ddim, steps=10, eta=0.4) if sampler == "ddim" else ddpm
    found, expected = (sample(d, SCHEDULE, [0, 1], 3, dtype=torch.float64) for d in (guided, exact))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_broad_gaussian_classifier_gives_the_mean_of_the_posterior(sampler: str) -> None:
    """N(1, 1) observed as 5 with variance 4²: the posterior's mean is (1·16 + 5·1)/17, up to the point estimate ẑ0."""
    schedule, n = linear_schedule(100, 1e-4, 0.2), 2000
    plain = gaussian_denoiser(schedule, 1.0, 1.0)
    guided = with_classifier(plain, schedule, lambda z: -(z - 5).square().sum(-1) / (2 * 16), 1.0)
    sample = (
        (lambda d: ddim(d, schedule, range(n), 1, 100))
        if sampler == "ddim"
        else (lambda d: ddpm(d, schedule, range(n), 1))
    )
    moved = (sample(guided) - sample(plain)).mean().item()  # same noise, so that its mean cancels
    assert moved == pytest.approx(4 / 17, abs=0.01)


@pytest.mark.parametrize("jacobian", ["gaussian", "constant-noise", "exact"])
def test_only_the_exact_gradient_keeps_the_denoisers_graph_and_none_is_returned(
    denoiser: Denoiser, jacobian: str
) -> None:
    seen: list[Tensor] = []

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        seen.append(denoiser(z, t, rows(2, 4, seed=1)))
        return seen[-1]

    guided = classifier_guided_noise(denoise, SCHEDULE, wavy_likelihood, rows(2, 3), T, 0.5, jacobian)  # type: ignore[arg-type]
    assert [eps.requires_grad for eps in seen] == [jacobian == "exact"]
    assert not guided.requires_grad


def test_the_constant_noise_gradient_is_too_long_by_the_inverse_of_the_signal(denoiser: Denoiser) -> None:
    def added(jacobian: str) -> Tensor:
        unmoved = torch.zeros(2, 3, dtype=torch.float64)
        return classifier_guided_noise(
            lambda z, t: unmoved,
            SCHEDULE,
            wavy_likelihood,
            rows(2, 3),
            T,
            0.5,
            jacobian,  # type: ignore[arg-type]
        )

    torch.testing.assert_close(added("constant-noise"), added("gaussian") / SCHEDULE.alphas_cumprod[T][:, None])
    torch.testing.assert_close(added("constant-noise"), added("exact"))  # here the noise is constant


@pytest.mark.parametrize("jacobian", ["gaussian", "exact"])
def test_a_row_follows_its_own_classifier(jacobian: str) -> None:
    y, plain = torch.tensor([[3.0], [-2.0]], dtype=torch.float64), gaussian_denoiser(SCHEDULE, 0.0, 1.0)

    def guided(rows_kept: slice) -> Tensor:
        own = y[rows_kept]
        return classifier_guided_noise(
            plain,
            SCHEDULE,
            lambda z: -(z - own).square().sum(-1),
            rows(2, 3)[rows_kept],
            T[rows_kept],
            0.5,
            jacobian,  # type: ignore[arg-type]
        )

    torch.testing.assert_close(guided(slice(0, 2)), torch.cat([guided(slice(0, 1)), guided(slice(1, 2))]))
