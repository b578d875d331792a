"""The anchor is a Gaussian process: its residuals are those of refits without each question, and far away it is 0."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from metavqa_cli.guidance import anchor
from metavqa_cli.guidance.anchor import METRIC_RANK, RIDGES, SHARPNESS, QuestionAnchor, learned_metric
from tests.guidance.gaussian import rows


def questions(n: int, embed: int = 5, seed: int = 0) -> Tensor:
    """Whitened question embeddings [n, embed], of norm about 1, in float64."""
    return rows(n, embed, seed=seed) / embed**0.5


def latents(e: Tensor, noise: float = 0.3, latent: int = 3, seed: int = 1) -> Tensor:
    """Smooth in the question, with noise: neither the least nor the largest ridge fits them best."""
    n, embed = e.shape
    return (2 * e @ rows(embed, latent, seed=seed)).sin() + noise * rows(n, latent, seed=seed + 1)


def posterior(known: Tensor, z: Tensor, asked: Tensor, sharpness: float, ridge: float) -> Tensor:
    """Kernel ridge regression as a textbook writes it."""

    def k(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-sharpness * (a[:, None] - b).square().sum(-1))

    return k(asked, known) @ torch.linalg.inv(k(known, known) + ridge * torch.eye(len(known)).double()) @ z


def left_out(e: Tensor, z: Tensor, sharpness: float, ridge: float) -> Tensor:
    """z_i minus the prediction of a fit without question i, for each i in turn."""
    residuals = []
    for i in range(len(e)):
        others = [j for j in range(len(e)) if j != i]
        residuals.append(z[i] - posterior(e[others], z[others], e[i : i + 1], sharpness, ridge)[0])
    return torch.stack(residuals)


def chosen_ridge(fitted: QuestionAnchor, e: Tensor, z: Tensor) -> float:
    """The ridge with which (K + λI)α = z holds for the anchor's weights."""
    K = torch.exp(-fitted.sharpness * torch.cdist(e, e).square())
    errors = {ridge: float((K @ fitted.weights + ridge * fitted.weights - z).abs().max()) for ridge in RIDGES}
    ridge = min(errors, key=lambda r: errors[r])
    assert errors[ridge] < 1e-6
    return ridge


@pytest.mark.parametrize(("n", "noise", "seed"), [(2, 0.1, 0), (12, 0.1, 1), (12, 1.0, 2), (25, 0.3, 3)])
def test_residuals_are_those_of_refits_without_each_question(n: int, noise: float, seed: int) -> None:
    e = questions(n, seed=10 * seed)
    z = latents(e, noise, seed=10 * seed + 5)
    fitted, rest = QuestionAnchor.fit(e, z)
    ridge = chosen_ridge(fitted, e, z)
    assert torch.allclose(rest, left_out(e, z, float(fitted.sharpness), ridge), atol=1e-8)
    assert not torch.allclose(rest, z - fitted(e), atol=1e-3), "the residuals of the fit itself are smaller"


@pytest.mark.parametrize(("noise", "seed"), [(0.02, 0), (0.3, 1), (3.0, 2)])
def test_sharpness_and_ridge_are_those_of_the_smallest_leave_one_out_error(noise: float, seed: int) -> None:
    e = questions(10, seed=10 * seed + 3)
    z = latents(e, noise, seed=10 * seed + 7)
    errors = {pair: float(left_out(e, z, *pair).square().mean()) for pair in product(SHARPNESS, RIDGES)}
    fitted, rest = QuestionAnchor.fit(e, z)
    best = min(errors, key=lambda pair: errors[pair])
    assert (float(fitted.sharpness), chosen_ridge(fitted, e, z)) == pytest.approx(best)
    assert float(rest.square().mean()) == pytest.approx(min(errors.values()), rel=1e-8)


def test_what_is_noise_is_smoothed_away_and_what_is_signal_is_not() -> None:
    e = questions(40)
    signal, noise = latents(e, 0.0), rows(40, 3, seed=9)
    _, rest = QuestionAnchor.fit(e, signal)
    assert float(rest.square().mean()) < 0.3 * float(signal.square().mean())
    fitted, rest = QuestionAnchor.fit(e, noise)
    assert chosen_ridge(fitted, e, noise) == max(RIDGES)
    assert float(rest.square().mean()) == pytest.approx(float(noise.square().mean()), rel=0.2)


def test_predictions_are_those_of_the_textbook() -> None:
    e, asked = questions(15), questions(6, seed=4)
    z = latents(e)
    fitted, _ = QuestionAnchor.fit(e, z)
    expected = posterior(e, z, asked, float(fitted.sharpness), chosen_ridge(fitted, e, z))
    assert torch.allclose(fitted(asked), expected, atol=1e-8)


def test_far_from_every_known_question_it_predicts_nothing() -> None:
    e = questions(15)
    fitted, _ = QuestionAnchor.fit(e, latents(e))
    direction = torch.nn.functional.normalize(questions(4, seed=8), dim=1)
    near, *_, far = (float(fitted(scale * direction).norm()) for scale in (0.5, 5.0, 50.0))
    assert near > 1e-2
    assert far < 1e-30


def test_the_plain_anchor_predicts_zero_for_every_question() -> None:
    e = questions(7)
    predicted = QuestionAnchor.none(5, 3)(e.float())
    assert predicted.shape == (7, 3) and not predicted.any()


@pytest.mark.parametrize("times", [2, 5])
def test_a_question_asked_twice_breaks_nothing(times: int) -> None:
    """The kernel matrix is then singular."""
    once = questions(8)
    e, z = once.repeat(times, 1), latents(once.repeat(times, 1), 0.5)
    fitted, rest = QuestionAnchor.fit(e, z)
    assert torch.isfinite(rest).all() and torch.isfinite(fitted.weights).all()
    ridge = chosen_ridge(fitted, e, z)
    assert torch.allclose(rest, left_out(e, z, float(fitted.sharpness), ridge), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_nothing_but_copies_of_one_question_predicts_their_shrunken_mean(n: int) -> None:
    e, z = questions(1).repeat(n, 1), rows(n, 3)
    fitted, rest = QuestionAnchor.fit(e, z)
    assert torch.isfinite(rest).all()
    assert torch.allclose(fitted(e[:1])[0], z.sum(0) / (n + chosen_ridge(fitted, e, z)), atol=1e-8)


@given(n=st.integers(1, 12), embed=st.integers(1, 6), latent=st.integers(1, 4), seed=st.integers(0, 99))
def test_no_other_pair_would_have_left_less_whatever_the_shapes(n: int, embed: int, latent: int, seed: int) -> None:
    e, z = questions(n, embed, seed), rows(n, latent, seed=seed + 1)
    fitted, rest = QuestionAnchor.fit(e, z)
    assert rest.shape == z.shape and fitted(e).shape == z.shape
    assert torch.isfinite(rest).all()
    worst = left_out(e, z, SHARPNESS[0], RIDGES[-1]).square().mean() if n > 1 else z.square().mean()
    assert float(rest.square().mean()) <= float(worst) * (1 + 1e-9)


def test_the_order_of_the_questions_does_not_matter() -> None:
    e = questions(14)
    z, order = latents(e), torch.randperm(14, generator=torch.Generator().manual_seed(2))
    (one, rest), (two, permuted) = QuestionAnchor.fit(e, z), QuestionAnchor.fit(e[order], z[order])
    assert torch.allclose(rest[order], permuted, atol=1e-10)
    assert torch.allclose(one(e), two(e), atol=1e-10)


def test_float32_questions_are_fitted_in_float64_and_kept_in_float32() -> None:
    e = questions(20).float()
    z = latents(e.double(), 0.05).float()
    fitted, rest = QuestionAnchor.fit(e, z)
    exact, exact_rest = QuestionAnchor.fit(e.double(), z.double())
    assert {value.dtype for value in (*fitted.state_dict().values(), rest, fitted(e))} == {torch.float32}
    assert torch.equal(rest, exact_rest.float()) and torch.equal(fitted.weights, exact.weights.float())
    assert torch.allclose(fitted(e).double(), exact(e.double()), atol=1e-3)


def test_saved_and_loaded_it_predicts_the_same_bit_for_bit() -> None:
    e, asked = questions(20).float(), questions(5, seed=6).float()
    fitted, _ = QuestionAnchor.fit(e, latents(e.double()).float())
    names = ("known", "metric", "weights", "sharpness")
    assert set(fitted.state_dict()) == set(names)
    loaded = load(save({name: value.contiguous() for name, value in fitted.state_dict().items()}))
    again = QuestionAnchor(*(loaded[name] for name in names))
    assert torch.equal(again(asked), fitted(asked))


def test_one_decomposition_serves_every_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cubic in the number of questions: hundreds of them must not be decomposed for each ridge."""
    counted: list[int] = []
    real = torch.linalg.eigh
    monkeypatch.setattr(anchor.torch.linalg, "eigh", lambda K: counted.append(len(K)) or real(K))
    QuestionAnchor.fit(questions(9), latents(questions(9)))
    assert counted == [9] * len(SHARPNESS)


def test_with_a_metric_it_is_the_anchor_of_the_questions_times_the_metric() -> None:
    e, asked, metric = questions(15), questions(6, seed=4), rows(5, 5, seed=3)
    z = latents(e)
    (turned, rest), (plain, other) = QuestionAnchor.fit(e, z, metric), QuestionAnchor.fit(e @ metric, z)
    assert torch.allclose(turned(asked), plain(asked @ metric), atol=1e-12) and torch.allclose(rest, other, atol=1e-12)
    assert not torch.allclose(rest, QuestionAnchor.fit(e, z)[1], atol=1e-3)


def test_a_learned_metric_tells_what_is_asked_for_from_how_it_is_worded() -> None:
    """Latents depend on one direction of twenty: comparing whole questions, the others drown it."""
    e, asked = questions(80, 20), questions(60, 20, seed=5)
    direction = rows(20, 1, seed=7)
    z, truth = ((20**0.5 * q @ direction / direction.norm()).sin() @ rows(1, 3, seed=8) for q in (e, asked))
    metric = learned_metric(e, z, torch.Generator().manual_seed(0))
    with_metric, without = (QuestionAnchor.fit(e, z, chosen)[0] for chosen in (metric, None))
    left, plain = (float((fitted(asked) - truth).square().mean()) for fitted in (with_metric, without))
    assert left < 0.8 * plain, (left, plain)


def test_a_learned_metric_is_a_function_of_its_seed_and_changes_few_directions() -> None:
    e = questions(30, METRIC_RANK + 16)
    one, two, other = (
        learned_metric(e.float(), latents(e).float(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, other) and one.dtype == torch.float32
    change = torch.linalg.svdvals(one.double() - torch.eye(len(one)).double())
    assert change[METRIC_RANK - 1] > 1e-6 > 10 * change[METRIC_RANK]


@pytest.mark.parametrize("n", [1, 2])
def test_a_metric_from_one_or_two_questions_is_finite(n: int) -> None:
    assert torch.isfinite(learned_metric(questions(n), rows(n, 3), torch.Generator())).all()
