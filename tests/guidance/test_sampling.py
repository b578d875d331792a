"""The samplers return the Gaussian whose exact denoiser they get, and agree with an independent implementation."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import expm1, log2
from typing import Any

import pytest
import torch
from torch import Tensor

from metavqa_cli.guidance.sampling import (
    ddim,
    ddpm,
    dpmpp_2m,
    even_snr_timesteps,
    seeded_noise,
    trailing_timesteps,
)
from metavqa_cli.guidance.schedule import Schedule, linear_schedule
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
        (dpmpp_2m, {"steps": 10}, 0.015),
        (dpmpp_2m, {"steps": 20}, 0.009),
        (dpmpp_2m, {"steps": 350}, 0.006),
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


def flow_slope(schedule: Schedule, std: float) -> float:
    """By what the exact probability flow of N(·, std²) multiplies a start's distance from its mean."""
    bar = float(schedule.alphas_cumprod[-1])
    return std / (bar * std**2 + 1 - bar) ** 0.5


def solved_slope(sampler: Callable[..., Tensor], schedule: Schedule, std: float, steps: int) -> float:
    """By what ``sampler`` multiplies it, with the exact denoiser."""
    z_T = seeded_noise([5], (1,), dtype=torch.float64)
    z = sampler(gaussian_denoiser(schedule, 0.0, std), schedule, [5], 1, steps, dtype=torch.float64)
    return float(z / z_T)


@pytest.mark.parametrize("std", [0.4, 1.0])
@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2)])
def test_the_exact_flow_is_approached_to_the_order_of_the_solver(sampler, order: int, std: float) -> None:
    """Through the paper's schedule in 5,000 steps, so that whole times are no limit."""
    fine = linear_schedule(5000, 1e-4 * 350 / 5000, 0.06 * 350 / 5000)
    errors = [abs(solved_slope(sampler, fine, std, steps) / flow_slope(fine, std) - 1) for steps in (20, 40, 80, 160)]
    assert all(log2(before / after) == pytest.approx(order, abs=0.15) for before, after in pairwise(errors))


@pytest.mark.parametrize(("steps", "lost"), [(7, 0.1), (10, 0.05), (20, 0.02), (100, 0.02), (350, 0.01)])
@pytest.mark.parametrize("std", [0.1, 0.2, 0.4, 1.0])
def test_few_steps_keep_the_spread_of_broad_and_narrow_gaussians(std: float, steps: int, lost: float) -> None:
    assert solved_slope(dpmpp_2m, PAPER, std, steps) / std == pytest.approx(1, abs=lost)


def test_the_mean_survives_any_number_of_steps() -> None:
    """z − √ᾱ·mean is scaled at every step: a start at the mean ends there."""
    for steps in (1, 2, 3, 10, 350):
        first = even_snr_timesteps(PAPER, steps)[0]
        z = dpmpp_2m(gaussian_denoiser(PAPER, MEAN, STD), PAPER, [0], 2, steps, dtype=torch.float64, temperature=0)
        slope = solved_slope(dpmpp_2m, PAPER, STD, steps)
        start = PAPER.alphas_cumprod[first].sqrt() * MEAN
        torch.testing.assert_close(z, MEAN - slope * start.expand(1, 2))


def test_dpmpp_is_affine_in_its_start_with_the_closed_form_slope() -> None:
    """A predicted z0 is one number times z_t; what steps make of the last two of them can be written down."""
    times = even_snr_timesteps(PAPER, 5)
    bars = PAPER.alphas_cumprod[times].tolist()
    signal, spread = [bar**0.5 for bar in bars], [(1 - bar) ** 0.5 for bar in bars]
    lambdas = [torch.tensor(a / s).log().item() for a, s in zip(signal, spread, strict=True)]
    x, z0s = [1.0], []
    for k, (a, s) in enumerate(zip(signal, spread, strict=True)):
        z0s.append(a * STD**2 / (a**2 * STD**2 + s**2) * x[-1])
        if k == 4:
            break
        h = lambdas[k + 1] - lambdas[k]
        r = (lambdas[k] - lambdas[k - 1]) / h
        D = z0s[k] if k == 0 else (1 + 1 / (2 * r)) * z0s[k] - 1 / (2 * r) * z0s[k - 1]
        x.append(spread[k + 1] / s * x[-1] - signal[k + 1] * expm1(-h) * D)
    assert solved_slope(dpmpp_2m, PAPER, STD, 5) == pytest.approx(z0s[-1], rel=1e-6)


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


NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own


@NUMPY_2
@pytest.mark.parametrize("steps", [2, 5, 16, 30])
def test_dpmpp_agrees_with_diffusers_step_by_step(steps: int) -> None:
    scheduler = multistep_scheduler()
    scheduler.set_timesteps(timesteps=even_snr_timesteps(PAPER, steps))
    seen: list[Tensor] = []
    z = dpmpp_2m(lambda z_t, t: (seen.append(z_t), wavy(z_t, t))[1], PAPER, [1, 2], 3, steps)
    reference = seeded_noise([1, 2], (3,))
    for t, z_t in zip(scheduler.timesteps, seen, strict=True):
        torch.testing.assert_close(z_t, reference, rtol=1e-4, atol=1e-3)
        reference = scheduler.step(wavy(reference, t.expand(2)), t, reference).prev_sample
    torch.testing.assert_close(z, reference, rtol=1e-4, atol=1e-3)


def multistep_scheduler(**kwargs: object) -> Any:
    """DPM-Solver++(2M) of diffusers on the paper's schedule, otherwise as it comes."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    return diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=350, beta_start=1e-4, beta_end=0.06, beta_schedule="linear", **kwargs
    )


@NUMPY_2
def test_what_times_even_in_t_lose_is_the_jump_from_the_last_of_them() -> None:
    """20 steps of diffusers leave 75 % of a s.d. of 0.2, because the last is of first order and starts at t = 17."""
    std = 0.2
    denoise = gaussian_denoiser(PAPER, 0.0, std)
    for spacing in ("linspace", "trailing"):
        scheduler, z = multistep_scheduler(timestep_spacing=spacing), torch.ones(1, 1, dtype=torch.float64)
        scheduler.set_timesteps(20)
        assert scheduler.timesteps[-1] == 17
        for t in scheduler.timesteps:
            before, z = z, scheduler.step(denoise(z, t.expand(1)), t, z).prev_sample
        left = float(z) / std
        bar = float(PAPER.alphas_cumprod[17])
        assert left == pytest.approx(0.75, abs=0.01)
        assert float(z / before) == pytest.approx(bar**0.5 * std**2 / (bar * std**2 + 1 - bar), rel=1e-4)
        assert left == pytest.approx((std**2 / (std**2 + 1 / bar - 1)) ** 0.5, abs=0.02)  # that step's loss alone
    assert solved_slope(dpmpp_2m, PAPER, std, 20) / std == pytest.approx(1, abs=0.015)


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


@pytest.mark.parametrize(
    ("sampler", "kwargs"),
    [(ddpm, {}), (ddim, {"steps": 9}), (ddim, {"steps": 9, "eta": 0.7}), (dpmpp_2m, {"steps": 9})],
)
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
    dpmpp_2m(wavy, linear_schedule(5, 1e-3, 0.3), [1], 2, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_trailing_times_start_at_the_last_and_never_repeat() -> None:
    for T in (1, 7, 50, 350):
        for steps in range(1, T + 1):
            times = trailing_timesteps(T, steps)
            assert times[0] == T - 1
            assert times[-1] >= 0
            assert all(a > b for a, b in pairwise(times))
    assert trailing_timesteps(4, 4) == [3, 2, 1, 0]


def test_even_times_end_at_the_first_and_never_repeat() -> None:
    for T in (1, 7, 50, 350):
        schedule = linear_schedule(T, 1e-4, 0.06)
        for steps in range(2, T + 1):
            times = even_snr_timesteps(schedule, steps)
            assert (len(times), times[-1]) == (steps, 0)
            assert times[0] < T and all(a > b for a, b in pairwise(times))
        assert even_snr_timesteps(schedule, T) == list(reversed(range(T)))


def test_few_steps_begin_where_there_is_some_signal_and_more_at_pure_noise() -> None:
    first = [even_snr_timesteps(PAPER, steps)[0] for steps in range(1, 15)]
    assert [round(float(PAPER.alphas_cumprod[t]), 4) for t in first[:8]] == [0.003] * 8
    assert first[7] < first[8] < first[9] < first[10] == first[13] == PAPER.T - 1
    mild = linear_schedule(350, 1e-4, 0.02)  # which ends with more signal than that
    assert even_snr_timesteps(mild, 1) == [349]


def test_an_error_at_pure_noise_is_not_magnified_by_few_steps() -> None:
    """Noise that is wrong by 0.02 where it is almost all there is: five even steps from T − 1 would move by 0.9."""
    exact = gaussian_denoiser(PAPER, 0.0, 1.0)

    def wrong(z_t: Tensor, t: Tensor) -> Tensor:
        return exact(z_t, t) - 0.02 * (t[:, None] > 200)

    plain, moved = (dpmpp_2m(denoise, PAPER, SEEDS, 8, 5) for denoise in (exact, wrong))
    assert float((moved - plain).abs().max()) < 0.15


def test_even_times_are_even_in_the_logarithm_of_the_signal_to_noise_ratio() -> None:
    bars = PAPER.alphas_cumprod[even_snr_timesteps(PAPER, 8)]
    gaps = (bars / (1 - bars)).log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(7), rtol=0.15, atol=0)


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
@pytest.mark.parametrize("steps", [0, 351])
def test_impossible_step_counts_are_refused(sampler, steps: int) -> None:
    with pytest.raises(ValueError, match="choose from 1 to 350"):
        sampler(wavy, PAPER, [0], 2, steps)


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_one_step_jumps_to_the_predicted_latent(sampler) -> None:
    z_T = seeded_noise([3], (1, 4), dtype=torch.float64)[:, 0]
    t = torch.tensor([349] if sampler is ddim else even_snr_timesteps(PAPER, 1))
    bar = PAPER.alphas_cumprod[t]
    expected = (z_T - (1 - bar).sqrt() * wavy(z_T, t)) / bar.sqrt()
    torch.testing.assert_close(sampler(wavy, PAPER, [3], 4, 1, dtype=torch.float64), expected)


@pytest.mark.parametrize("sampler", [ddpm, partial(ddim, steps=9), partial(dpmpp_2m, steps=9)])
def test_temperature_scales_the_spread_and_leaves_the_mean(sampler) -> None:
    denoise, seeds = gaussian_denoiser(PAPER, 0.0, STD), [1, 2]
    whole, half, none = (sampler(denoise, PAPER, seeds, 3, temperature=heat) for heat in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, whole / 2)
    assert whole.abs().min() > 0 and not none.any()


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_the_denoiser_is_called_once_a_step(sampler) -> None:
    calls: list[int] = []
    sampler(lambda z_t, t: (calls.append(int(t[0])), wavy(z_t, t))[1], PAPER, [1], 2, 12)
    assert len(calls) == 12 and calls[0] == 349
