"""CLIP_H is trained by Algorithm 1, identifies weights, and guides each latent along Eq. 4."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.guidance.cfg import with_classifier
from metavqa_cli.guidance.hyperclip import (
    HyperCLIP,
    contrastive_loss,
    guidance_loss,
    guide,
    probabilities,
    question_log_likelihood,
    rank_questions,
    similarity,
)
from metavqa_cli.guidance.hyperldm import LatentScaler
from metavqa_cli.guidance.sampling import ddim
from metavqa_cli.guidance.schedule import linear_schedule
from tests.guidance.gaussian import gaussian_denoiser, rows

CPU = torch.Generator
EMBED, PARAMS, LATENT = 4, 30, 5
MEAN = rows(1, PARAMS, seed=9)[0]
SCALE = 0.02
"""Weights differ from ``MEAN`` by this much: a fiftieth of their own size."""


def hyperclip(seed: int = 0, scale: float | Tensor = SCALE) -> HyperCLIP:
    return HyperCLIP(EMBED, 16, MEAN, scale, CPU().manual_seed(seed)).double()


def decoder() -> Hypernetwork:
    return Hypernetwork(LATENT, (12,), MEAN, SCALE, CPU().manual_seed(1)).double()


def weights(n: int, seed: int = 0) -> Tensor:
    return MEAN + SCALE * rows(n, PARAMS, seed)


def test_embeddings_have_norm_one_even_of_weights_at_the_mean() -> None:
    model = hyperclip()
    torch.testing.assert_close(model(weights(6)).norm(dim=-1), torch.ones(6, dtype=torch.float64))
    at_mean = MEAN[None].clone().requires_grad_()  # zero biases: the output before scaling is zeros here
    model(at_mean).sum().backward()
    assert at_mean.grad is not None
    assert at_mean.grad.isfinite().all()


def test_it_reads_standardised_weights_and_scale_may_be_one_a_weight() -> None:
    scale = torch.linspace(0.5, 2, PARAMS, dtype=torch.float64)
    model, plain = hyperclip(scale=scale), HyperCLIP(EMBED, 16, 0 * MEAN, 1.0, CPU().manual_seed(0)).double()
    torch.testing.assert_close(model(weights(3)), plain((weights(3) - MEAN) / scale))
    out, hidden = plain.out, plain.hidden
    torch.testing.assert_close(plain(weights(3)), F.normalize(out(hidden(weights(3)).tanh()), dim=-1))


def test_small_differences_between_weights_are_seen() -> None:
    """Raw weights that agree to 2 % lie nearly at one point; standardised ones do not."""
    cosines = (hyperclip()(weights(8)) @ hyperclip()(weights(8)).mT)[~torch.eye(8, dtype=torch.bool)]
    assert cosines.mean() < 0.5


def test_the_loss_is_the_symmetric_cross_entropy_of_algorithm_1() -> None:
    model, W = hyperclip(), weights(5)
    e = 3 * model(W).detach()[[0, 1, 2, 4, 3]] + 0.5 * rows(5, EMBED, seed=2)  # two of them exchanged
    loss, metrics = contrastive_loss(model, W, e)
    H, T = model(W).tolist(), e.tolist()

    def logit(i: int, j: int) -> float:
        dot = sum(h * t for h, t in zip(H[i], T[j], strict=True))
        return dot / math.sqrt(sum(t * t for t in T[j])) / 0.07

    total = correct = 0.0
    for i in range(5):
        to_questions = [math.exp(logit(i, j)) for j in range(5)]
        to_weights = [math.exp(logit(j, i)) for j in range(5)]
        total -= math.log(to_questions[i] / sum(to_questions)) + math.log(to_weights[i] / sum(to_weights))
        correct += max(to_questions) == to_questions[i]
    assert loss.item() == pytest.approx(total / 10, abs=1e-6)  # the temperature is a float32 made double
    assert metrics["loss"].item() == loss.item()
    assert metrics["accuracy"].item() == pytest.approx(correct / 5)
    assert metrics["temperature"].item() == pytest.approx(1 / 0.07)
    assert correct == 3


def test_the_losses_of_some_rows_each_add_up_to_that_of_the_batch() -> None:
    """What several processes do, each of which contrasts its own rows with all."""
    model, W, e = hyperclip(), weights(5), rows(5, EMBED, seed=2)
    parts = [slice(0, 2), slice(2, 5)]
    found = [contrastive_loss(model, W[part], e, part, lambda own: model(W)) for part in parts]
    whole, metrics = contrastive_loss(model, W, e)
    torch.testing.assert_close(0.4 * found[0][0] + 0.6 * found[1][0], whole)
    torch.testing.assert_close(0.4 * found[0][1]["accuracy"] + 0.6 * found[1][1]["accuracy"], metrics["accuracy"])


def test_accuracy_counts_own_questions_found() -> None:
    model, W = hyperclip(), weights(4)
    e = model(W).detach()
    assert contrastive_loss(model, W, e)[1]["accuracy"] == 1
    assert contrastive_loss(model, W, e.roll(1, 0))[1]["accuracy"] == 0


def test_the_scale_of_questions_does_not_matter() -> None:
    model, W, e = hyperclip(), weights(5), rows(5, EMBED, seed=2)
    sizes = torch.tensor([[0.1], [1.0], [7.0], [30.0], [0.5]])
    torch.testing.assert_close(contrastive_loss(model, W, sizes * e)[0], contrastive_loss(model, W, e)[0])
    torch.testing.assert_close(similarity(model, W, sizes * e), similarity(model, W, e))
    torch.testing.assert_close(rank_questions(model, W, sizes * e), rank_questions(model, W, e))


def test_the_temperature_is_capped_and_returns_from_beyond_the_cap() -> None:
    model, W = hyperclip(), weights(6)
    with torch.no_grad():
        model.log_temperature.fill_(5.0)
    assert model.temperature.item() == pytest.approx(100)
    wrong = model(W).detach().roll(1, 0)  # confident and wrong: a lower temperature is better
    optimiser = torch.optim.SGD([model.log_temperature], lr=1e-2)
    for _ in range(10):
        optimiser.zero_grad()
        contrastive_loss(model, W, wrong)[0].backward()
        optimiser.step()
    assert model.temperature.item() < 90


def test_the_temperature_rises_when_every_question_is_found() -> None:
    model, W = hyperclip(), weights(6)
    contrastive_loss(model, W, model(W).detach())[0].backward()
    assert model.log_temperature.grad is not None
    assert model.log_temperature.grad < 0


def test_every_parameter_changes_in_one_step() -> None:
    model = hyperclip()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    contrastive_loss(model, weights(8), rows(8, EMBED))[0].backward()
    optimiser.step()
    assert len(before) == 5
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_parameters_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = hyperclip(0).state_dict(), hyperclip(0).state_dict(), hyperclip(1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["hidden.weight"], c["hidden.weight"])


def test_without_a_generator_the_parameters_wait_for_a_state() -> None:
    waiting = HyperCLIP(EMBED, 16, torch.zeros(PARAMS), 1.0, None)
    assert all(p.is_meta for p in waiting.parameters())
    model = hyperclip()
    waiting.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(waiting(weights(2)), model(weights(2)))
    assert torch.equal(waiting.temperature, model.temperature)


def test_trained_it_identifies_the_questions_of_new_weights() -> None:
    """Weights that a question explains linearly, with noise as large: 8 new ones among their 8 questions."""
    e, known = F.normalize(rows(72, EMBED, seed=3), dim=-1), slice(8, None)
    W = MEAN + SCALE * (e @ rows(EMBED, PARAMS, seed=4) + 0.3 * rows(72, PARAMS, seed=5))
    model = hyperclip()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        contrastive_loss(model, W[known], e[known])[0].backward()
        optimiser.step()
    similarities = rank_questions(model, W[:8], e[:8])
    assert (similarities.argmax(-1) == torch.arange(8)).double().mean() >= 0.75
    torch.testing.assert_close(similarities.diagonal(), similarity(model, W[:8], e[:8]))
    chances = probabilities(model, W[:8], e[:8])
    torch.testing.assert_close(chances.sum(-1), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(chances.log().diff(), model.temperature * similarities.diff())


def test_the_guidance_loss_is_equation_4() -> None:
    model, h, z, z0, e = hyperclip(), decoder(), rows(3, LATENT), rows(3, LATENT, seed=1), 2 * rows(3, EMBED, seed=2)
    loss = guidance_loss(model, h.decode, z, z0, e, 0.3)
    for i in range(3):
        cosine = F.cosine_similarity(model(h(z[i : i + 1]))[0], e[i], dim=0)
        torch.testing.assert_close(loss[i], -cosine + 0.3 * (z[i] - z0[i]).square().sum().sqrt())


def test_at_its_start_the_guidance_loss_has_the_cosines_gradient() -> None:
    model, h, z0, e = hyperclip(), decoder(), rows(3, LATENT), rows(3, EMBED, seed=2)
    z = z0.clone().requires_grad_()
    (with_norm,) = torch.autograd.grad(guidance_loss(model, h.decode, z, z0, e, 5.0).sum(), z)
    (cosine,) = torch.autograd.grad(-similarity(model, h.decode(z), e).sum(), z)
    torch.testing.assert_close(with_norm, cosine)
    assert cosine.norm(dim=-1).min() > 1e-3


def test_without_the_norm_term_guidance_is_gradient_descent_and_the_cosine_only_rises() -> None:
    model, h, z0, e = hyperclip(), decoder(), rows(6, LATENT), rows(6, EMBED, seed=2)
    cosines = torch.stack(
        [similarity(model, h.decode(guide(model, h.decode, z0, e, k, 0.02, 0.0)), e) for k in range(20)]
    )
    assert (cosines.diff(dim=0) > 0).all()
    descended = inner_loop(lambda z: guidance_loss(model, h.decode, z, z0, e, 0.0), z0, 10, 0.1)
    torch.testing.assert_close(guide(model, h.decode, z0, e, 10, 0.1, 0.0), descended)


@pytest.mark.parametrize("lam", [1e6, math.inf])
@pytest.mark.parametrize("lr", [0.1, 1e3])
def test_a_huge_lambda_stays_at_the_start_exactly(lam: float, lr: float) -> None:
    model, h, z0, e = hyperclip(), decoder(), rows(6, LATENT), rows(6, EMBED, seed=2)
    assert torch.equal(guide(model, h.decode, z0, e, 10, lr, lam), z0)


@pytest.mark.parametrize("lam", [0.0, 0.1, math.inf])
def test_a_latent_without_a_gradient_stays_where_it_is(lam: float) -> None:
    z0, e = rows(2, LATENT), rows(2, EMBED, seed=2)
    assert torch.equal(guide(hyperclip(), lambda z: MEAN + 1 + 0 * z[:, :1], z0, e, 3, 0.1, lam), z0)


def test_a_latent_leaves_its_start_only_where_the_cosines_gradient_is_longer_than_lambda() -> None:
    """0 is a subgradient of Eq. 4 at z0 if and only if the gradient of the cosine is at most λ long."""
    model, h, z0, e = hyperclip(), decoder(), rows(1, LATENT), rows(1, EMBED, seed=2)
    at = z0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(similarity(model, h.decode(at), e).sum(), at)
    slope = gradient.norm().item()
    assert torch.equal(guide(model, h.decode, z0, e, 10, 0.1, 1.001 * slope), z0)
    moved = guide(model, h.decode, z0, e, 1, 0.1, 0.999 * slope) - z0
    assert moved.norm().item() == pytest.approx(0.1 * 0.001 * slope)
    assert F.cosine_similarity(moved, gradient).item() == pytest.approx(1)


def test_for_a_small_rate_the_path_is_that_of_plain_descent_on_equation_4() -> None:
    model, h, z0, e, lam = hyperclip(), decoder(), rows(3, LATENT), rows(3, EMBED, seed=2), 0.1
    plain = inner_loop(lambda z: guidance_loss(model, h.decode, z, z0, e, lam), z0, 500, 1e-3)
    guided, free = (guide(model, h.decode, z0, e, 500, 1e-3, at) for at in (lam, 0.0))
    assert (guided - plain).norm(dim=-1).max() < 1e-3
    assert (guided - free).norm(dim=-1).min() > 1e-2


def test_a_rows_guidance_does_not_depend_on_its_batch() -> None:
    model, h, z0, e = hyperclip(), decoder(), rows(4, LATENT), rows(4, EMBED, seed=2)
    together = guide(model, h.decode, z0, e, 10, 0.1, 0.01)
    for i in range(4):
        alone = guide(model, h.decode, z0[i : i + 1], e[i : i + 1], 10, 0.1, 0.01)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_guidance_keeps_no_graph_and_leaves_parameters_and_start_alone() -> None:
    model, h, e = hyperclip(), decoder(), rows(2, EMBED, seed=2)
    z0 = rows(2, LATENT).requires_grad_()
    z = guide(model, h.decode, z0, e, 3, 0.1, 0.01)
    assert not z.requires_grad
    assert not guide(model, h.decode, z0, e, 0, 0.1, 0.01).requires_grad
    assert torch.equal(z0, rows(2, LATENT))
    assert all(p.grad is None for p in [*model.parameters(), *h.parameters()])


def test_the_log_likelihood_is_temperature_times_cosine_of_the_restored_latent() -> None:
    model, h, z, e = hyperclip(), decoder(), rows(3, LATENT), rows(3, EMBED, seed=2)
    scaler = LatentScaler(rows(1, LATENT, seed=6)[0], rows(1, LATENT, seed=7)[0].abs())
    found = question_log_likelihood(model, h.decode, scaler, e)(z)
    torch.testing.assert_close(found, similarity(model, h.decode(z * scaler.std + scaler.mean), e) / 0.07)


@pytest.mark.parametrize("jacobian", ["gaussian", "exact"])
def test_diffusion_guided_by_hyperclip_raises_the_cosine(jacobian: str) -> None:
    model, h, schedule = hyperclip(), decoder(), linear_schedule(40, 1e-3, 0.3)
    e = rows(1, EMBED, seed=2).expand(64, -1)
    unit_scaler = LatentScaler(torch.zeros(LATENT), torch.ones(LATENT))
    denoise, classifier = (
        gaussian_denoiser(schedule, 0.0, 1.0),
        question_log_likelihood(model, h.decode, unit_scaler, e),
    )

    @torch.no_grad()
    def cosine(eta: float) -> float:
        guided = with_classifier(denoise, schedule, classifier, eta, jacobian)  # type: ignore[arg-type]
        z = ddim(guided, schedule, range(64), LATENT, 40, dtype=torch.float64)
        return similarity(model, h.decode(z), e).mean().item()

    assert cosine(0.0) + 0.1 < cosine(0.1) < cosine(0.5)
