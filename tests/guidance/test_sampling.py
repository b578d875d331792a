"""The samplers return the Gaussian whose exact denoiser they get, and agree with an independent implementation."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from metavqa_cli.guidance.sampling import ddim, ddpm, seeded_noise, trailing_timesteps
from metavqa_cli.guidance.schedule import linear_schedule
from tests.guidance.gaussian import gaussian_denoiser

PAPER = linear_schedule(350, 1e-4, 0.06)
MEAN, STD = 1.5, 0.4
SEEDS = list(range(64))


@pytest.mark.parametrize(
    ("sampler", "kwargs", "tolerance"),
    [
        (ddpm, {}, 0.012),
        (ddim, {"steps": 350}, 0.012),
        (ddim, {"steps": 350, "eta": 1.0}, 0.012),
        (ddim, {"steps": 175}, 0.015),
    ],
)
def test_the_exact_denoiser_gives_its_gaussian(sampler, kwargs: dict, tolerance: float) -> None:
    z = sampler(gaussian_denoiser(PAPER, MEAN, STD), PAPER, SEEDS, 256, **kwargs)
    assert abs(z.mean() - MEAN) < 4 * STD / z.numel() ** 0.5 + 1e-3
    assert abs(z.std() - STD) < tolerance


def test_ddim_is_affine_in_its_start_with_the_closed_form_slope() -> None:
    """Every deterministic step multiplies z_t − √ᾱ_t·mean by one number that can be written down."""
    steps = 7
    z_T = seeded_noise([5], (1, 3), dtype=torch.float64)[:, 0]
    times = trailing_timesteps(PAPER.T, steps)
    bars = [*PAPER.alphas_cumprod[times].tolist(), 1.0]
    slope = 1.0
    for bar, bar_next in pairwise(bars):
        eps = (1 - bar) ** 0.5 / (bar * STD**2 + 1 - bar)
        slope *= (bar_next / bar) ** 0.5 * (1 - (1 - bar) ** 0.5 * eps) + (1 - bar_next) ** 0.5 * eps
    z = ddim(gaussian_denoiser(PAPER, MEAN, STD), PAPER, [5], 3, steps, dtype=torch.float64)
    torch.testing.assert_close(z, MEAN + slope * (z_T - bars[0] ** 0.5 * MEAN))


def wavy(z_t: Tensor, t: Tensor) -> Tensor:
    """Some nonlinear noise prediction."""
    return (0.9 * z_t + 0.01 * t[:, None]).sin()


def test_ddim_agrees_with_diffusers_step_by_step() -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=350, beta_start=1e-4, beta_end=0.06, beta_schedule="linear",
        clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(25)
    assert scheduler.timesteps.tolist() == trailing_timesteps(350, 25)
    seen: list[Tensor] = []
    z = ddim(lambda z_t, t: (seen.append(z_t), wavy(z_t, t))[1], PAPER, [1, 2], 3, 25)
    reference = seeded_noise([1, 2], (1, 3))[:, 0]
    for t, z_t in zip(scheduler.timesteps, seen, strict=True):
        torch.testing.assert_close(z_t, reference, rtol=1e-4, atol=1e-4)
        reference = scheduler.step(wavy(reference, t.expand(2)), t, reference).prev_sample
    torch.testing.assert_close(z, reference, rtol=1e-4, atol=1e-4)


def test_ddpm_agrees_with_diffusers_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    schedule = linear_schedule(50, 1e-4, 0.06)
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=50, beta_start=1e-4, beta_end=0.06, beta_schedule="linear", clip_sample=False
    )
    reference, *xi = seeded_noise([1, 2], (51, 3)).unbind(1)
    draws = iter(xi)
    from diffusers.schedulers import scheduling_ddpm

    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(draws))
    seen: list[Tensor] = []
    z = ddpm(lambda z_t, t: (seen.append(z_t), wavy(z_t, t))[1], schedule, [1, 2], 3)
    for t, z_t in zip(scheduler.timesteps, seen, strict=True):
        torch.testing.assert_close(z_t, reference, rtol=1e-4, atol=1e-4)
        reference = scheduler.step(wavy(reference, t.expand(2)), int(t), reference).prev_sample
    torch.testing.assert_close(z, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sampler", "kwargs"), [(ddpm, {}), (ddim, {"steps": 9}), (ddim, {"steps": 9, "eta": 0.7})])
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(sampler, kwargs: dict) -> None:
    schedule = linear_schedule(30, 1e-3, 0.3)
    together = sampler(wavy, schedule, torch.tensor([7, 8, 9]), 5, **kwargs)
    for i, seed in enumerate([7, 8, 9]):
        assert torch.equal(sampler(wavy, schedule, [seed], 5, **kwargs)[0], together[i])
    assert not torch.equal(together[0], together[1])


def test_no_sampler_touches_the_global_random_state() -> None:
    before = torch.get_rng_state()
    ddpm(wavy, linear_schedule(5, 1e-3, 0.3), [1], 2)
    ddim(wavy, linear_schedule(5, 1e-3, 0.3), [1], 2, 5, eta=1.0)
    assert torch.equal(before, torch.get_rng_state())


def test_trailing_times_start_at_the_last_and_never_repeat() -> None:
    for T in (1, 7, 50, 350):
        for steps in range(1, T + 1):
            times = trailing_timesteps(T, steps)
            assert times[0] == T - 1
            assert times[-1] >= 0
            assert all(a > b for a, b in pairwise(times))
    assert trailing_timesteps(4, 4) == [3, 2, 1, 0]


@pytest.mark.parametrize("steps", [0, 351])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="choose from 1 to 350"):
        ddim(wavy, PAPER, [0], 2, steps)


def test_one_ddim_step_jumps_to_the_predicted_latent() -> None:
    z_T = seeded_noise([3], (1, 4), dtype=torch.float64)[:, 0]
    bar = PAPER.alphas_cumprod[-1]
    t = torch.tensor([349])
    expected = (z_T - (1 - bar).sqrt() * wavy(z_T, t)) / bar.sqrt()
    torch.testing.assert_close(ddim(wavy, PAPER, [3], 4, 1, dtype=torch.float64), expected)
