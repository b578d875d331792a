"""The denoiser learns with every parameter, sees time and question, and its loss is Eq. 9 with dropout."""

import math

import pytest
import torch
from torch import Tensor, nn

from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler, QuestionWhitener, diffusion_loss, time_embedding
from metavqa_cli.guidance.schedule import linear_schedule
from tests.guidance.gaussian import GaussianDenoiser, rows

SCHEDULE = linear_schedule(40, 1e-3, 0.3)
CPU = torch.Generator


def denoiser(seed: int = 0) -> Denoiser:
    return Denoiser(latent=3, embed=4, hidden=(8, 8, 6), time_dim=6, generator=CPU().manual_seed(seed)).double()


def test_every_parameter_changes_in_two_steps() -> None:
    """The zero last layer alone learns in the first step, and lets the gradient through in the second."""
    model, g = denoiser(), CPU().manual_seed(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        diffusion_loss(model, SCHEDULE, rows(32, 3), rows(32, 4, seed=1), 0.2, g)[0].backward()
        optimiser.step()
    unchanged = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert unchanged == []


def test_the_first_prediction_is_no_noise_and_the_loss_one() -> None:
    model, z0 = denoiser(), rows(4096, 3)
    assert not model(z0, torch.zeros(4096, dtype=torch.int64), rows(4096, 4)).any()
    loss, metrics = diffusion_loss(model, SCHEDULE, z0, rows(4096, 4), 0.2, CPU().manual_seed(0))
    assert abs(loss.item() - 1) < 0.05
    assert metrics["loss"].item() == loss.item()


def test_the_prediction_depends_on_latent_time_and_question() -> None:
    model = denoiser()
    nn.init.normal_(model.out.weight, generator=CPU().manual_seed(5))
    z_t, t, e = rows(2, 3), torch.tensor([1, 1]), rows(2, 4)
    reference = model(z_t, t, e)
    for other in (model(z_t + 1, t, e), model(z_t, t + 20, e), model(z_t, t, -e)):
        assert (other - reference).abs().min() > 1e-3


def test_the_exact_denoiser_has_the_loss_of_the_posterior() -> None:
    """E‖ε − E[ε | z_t]‖² of N(m, s²) is ᾱs²/(ᾱs² + 1 − ᾱ) a coordinate, averaged over t."""
    z0 = 1.0 + 0.5 * rows(20_000, 1)
    exact = GaussianDenoiser(SCHEDULE, shift=1.0, std=0.5)
    loss, _ = diffusion_loss(exact, SCHEDULE, z0, torch.ones_like(z0), 0.0, CPU().manual_seed(0))
    bar = SCHEDULE.alphas_cumprod
    assert abs(loss - (bar * 0.25 / (bar * 0.25 + 1 - bar)).mean()) < 0.01


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_conditioning_dropout_zeroes_whole_questions_at_its_rate(dropout: float) -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, z_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
            seen.append(e)
            assert t.min() >= 0
            assert t.max() == SCHEDULE.T - 1
            return z_t

    e = rows(4000, 5) + 10
    diffusion_loss(Spy(), SCHEDULE, rows(4000, 3), e, dropout, CPU().manual_seed(0))
    zeroed = (seen[0] == 0).all(1)
    assert abs(zeroed.double().mean() - dropout) < 4 * math.sqrt(0.25 / 4000) * (0 < dropout < 1) + 1e-9
    assert torch.equal(seen[0][~zeroed], e[~zeroed])


def test_the_loss_is_a_function_of_its_generator() -> None:
    model = denoiser()
    nn.init.normal_(model.out.weight, generator=CPU().manual_seed(5))
    a, b, c = (
        diffusion_loss(model, SCHEDULE, rows(8, 3), rows(8, 4), 0.2, CPU().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_row_of_the_denoiser_does_not_depend_on_the_others() -> None:
    model = denoiser()
    nn.init.normal_(model.out.weight, generator=CPU().manual_seed(5))
    z_t, t, e = rows(5, 3), torch.arange(5), rows(5, 4)
    torch.testing.assert_close(model(z_t, t, e)[2:3], model(z_t[2:3], t[2:3], e[2:3]))


@pytest.mark.parametrize("size", [2, 7, 150])
def test_time_embedding(size: int) -> None:
    code = time_embedding(torch.arange(350), size)
    half = (size + 1) // 2
    assert code.shape == (350, size)
    torch.testing.assert_close(code[:, 0], torch.arange(350).float().sin())
    torch.testing.assert_close(code[:, half], torch.arange(350).float().cos())
    assert len(code.round(decimals=4).unique(dim=0)) == 350


def test_latent_scaler_standardises_and_restores() -> None:
    z = rows(500, 3) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([0.0, -2.0, 7.0])
    scaler = LatentScaler.fit(z)
    scaled = scaler.standardise(z)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(scaled[:, :2].std(0, correction=0), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(scaler.restore(scaled), z)
    assert set(scaler.state_dict()) == {"mean", "std"}


def test_parameters_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = denoiser(0).state_dict(), denoiser(0).state_dict(), denoiser(1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["blocks.0.main.weight"], c["blocks.0.main.weight"])


def test_without_a_generator_the_parameters_wait_for_a_state() -> None:
    waiting = Denoiser(latent=3, embed=4, hidden=(8, 8, 6), time_dim=6, generator=None)
    assert all(p.is_meta for p in waiting.parameters())
    model = denoiser()
    waiting.load_state_dict(model.state_dict(), assign=True)
    inputs = rows(2, 3), torch.tensor([1, 2]), rows(2, 4)
    assert torch.equal(waiting(*inputs), model(*inputs))


def questions(n: int) -> Tensor:
    """Unit-norm rows that lie close together, as questions do, and vary unlike in each direction."""
    spread = rows(n, 6, seed=3) * torch.tensor([0.3, 0.1, 0.05, 0.02, 0.01, 0.001])
    return nn.functional.normalize(spread + torch.ones(6), dim=-1).float()


def test_whitened_questions_are_centred_uncorrelated_and_of_norm_one_on_average() -> None:
    e = questions(500)
    white = QuestionWhitener.fit(e, floor=1e-4)(e)
    torch.testing.assert_close(white.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    assert white.norm(dim=-1).mean().item() == pytest.approx(1, abs=1e-4)
    covariance = white.T @ white / len(white)
    variances = covariance.diagonal()
    assert (covariance - torch.diag(variances)).abs().max() < 0.02 * variances.max()
    assert variances.min() > 0.6 * variances.max()  # unit norm leaves five directions for six coordinates


def test_the_floor_keeps_what_hardly_varies_from_being_magnified() -> None:
    e = questions(500)
    spreads = [torch.linalg.svdvals(QuestionWhitener.fit(e, floor).transform) for floor in (1e-4, 0.3)]
    assert spreads[0][0] / spreads[0][-1] > 10 * spreads[1][0] / spreads[1][-1]


@pytest.mark.parametrize("n", [1, 3])
def test_one_question_says_nothing_of_how_questions_vary(n: int) -> None:
    e = rows(1, 6).repeat(n, 1)
    whitener = QuestionWhitener.fit(e, 1e-3)
    assert whitener(e).abs().max() < 1e-15 and torch.equal(whitener.transform, torch.eye(6).to(e))


def test_whitening_depends_neither_on_the_order_nor_on_the_scale_of_arithmetic_noise() -> None:
    """Fewer questions than directions leave an arbitrary basis of what none of them varies in."""
    e, new = questions(4), questions(9)
    noise = 1e-7 * rows(4, 6, seed=9).float()
    fitted = QuestionWhitener.fit(e, 5e-3)(new)
    torch.testing.assert_close(QuestionWhitener.fit(e.flip(0), 5e-3)(new), fitted, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(QuestionWhitener.fit(e + noise, 5e-3)(new), fitted, atol=1e-2, rtol=1e-2)
