"""Sampling ends in the generator's units, follows seeds and questions, and decodes what it sampled."""

import pytest
import torch
from torch import Tensor, nn

from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler
from metavqa_cli.guidance.schedule import linear_schedule
from metavqa_cli.methods.hyperldm import sample_latents
from metavqa_cli.schema.samplers import SAMPLERS
from tests.guidance.gaussian import gaussian_denoiser, rows

SCHEDULE = linear_schedule(60, 1e-3, 0.2)
SCALER = LatentScaler(torch.tensor([10.0, -10.0]), torch.tensor([2.0, 0.1]))


class ExactDenoiser(Denoiser):
    """Latents are N(e, 0.3²) after a question, N(0, 0.3²) without."""

    def forward(self, z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        return gaussian_denoiser(SCHEDULE, e, 0.3)(z_t, t)


def exact() -> ExactDenoiser:
    return ExactDenoiser(latent=2, embed=2, hidden=(4,), time_dim=2, generator=torch.Generator().manual_seed(0))


def random_denoiser() -> Denoiser:
    g = torch.Generator().manual_seed(0)
    model = Denoiser(latent=2, embed=2, hidden=(8,), time_dim=4, generator=g)
    nn.init.normal_(model.out.weight, std=0.3, generator=g)
    return model


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_latents_are_drawn_around_gamma_times_the_question_in_the_generators_units(sampler: str, gamma: float) -> None:
    n = 2000
    e = torch.tensor([1.0, -0.5]).expand(n, -1)
    z = sample_latents(exact(), SCHEDULE, SCALER, e, gamma, range(n), sampler, 60)  # type: ignore[arg-type]
    torch.testing.assert_close(z.mean(0), SCALER.restore(gamma * e[:1])[0], atol=0.08, rtol=0)
    torch.testing.assert_close(z.std(0), 0.3 * SCALER.std, atol=0.05, rtol=0.1)
    assert not z.requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_depends_on_its_seed_and_question_alone(sampler: str) -> None:
    e, seeds = rows(3, 2).float(), [3, 4, 5]
    together = sample_latents(random_denoiser(), SCHEDULE, SCALER, e, 1.5, seeds, sampler, 10)  # type: ignore[arg-type]
    for i in range(3):
        one = slice(i, i + 1)
        alone = sample_latents(random_denoiser(), SCHEDULE, SCALER, e[one], 1.5, seeds[one], sampler, 10)  # type: ignore[arg-type]
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_can_be_ended_between_two_denoising_steps(sampler: str) -> None:
    e, denoiser, steps = rows(1, 2).float(), random_denoiser(), 0
    calls: list[int] = []
    denoiser.register_forward_hook(lambda *_: calls.append(1))

    def three() -> None:
        nonlocal steps
        steps += 1
        if steps > 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        sample_latents(denoiser, SCHEDULE, SCALER, e, 1.5, [3], sampler, 10, before_step=three)  # type: ignore[arg-type]
    assert len(calls) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_being_asked_before_every_step_changes_nothing(sampler: str) -> None:
    e, seen = rows(1, 2).float(), []
    plain, watched = (
        sample_latents(random_denoiser(), SCHEDULE, SCALER, e, 1.5, [3], sampler, 10, before_step=hook)  # type: ignore[arg-type]
        for hook in (None, lambda: seen.append(1))
    )
    assert torch.equal(plain, watched)
    assert len(seen) == (SCHEDULE.T if sampler == "ddpm" else 10)


def test_one_gamma_a_question() -> None:
    e, seeds = rows(2, 2).float(), [3, 4]
    mixed = sample_latents(random_denoiser(), SCHEDULE, SCALER, e, torch.tensor([0.0, 2.0]), seeds, "ddim", 10)
    for i, gamma in enumerate([0.0, 2.0]):
        alone = sample_latents(random_denoiser(), SCHEDULE, SCALER, e, gamma, seeds, "ddim", 10)
        torch.testing.assert_close(mixed[i], alone[i], rtol=1e-4, atol=1e-4)
