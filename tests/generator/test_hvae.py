"""The HVAE's loss is the released one, its scaling inverts, its log-variance stays bounded, and all of it learns."""

import math

import pytest
import torch
from torch import Tensor

from metavqa_cli.generator.hvae import HVAE, WeightScaler, hvae_loss
from metavqa_cli.generator.protocol import Generator
from tests.base_network.examples import random_weights

P, LATENT = 40, 3
INIT = random_weights(1, P, seed=5)[0]


def zoo(n: int = 64) -> Tensor:
    """Weights near INIT that differ along two directions."""
    return INIT + 0.1 * random_weights(n, 2, seed=6) @ random_weights(2, P, seed=7)


def hvae(weights: Tensor, clamp: float = 10.0, hidden: tuple[int, ...] = (8, 16)) -> HVAE:
    return HVAE(WeightScaler.fit(weights, INIT, clamp), LATENT, hidden, torch.Generator().manual_seed(0)).double()


def test_scaler_centres_on_the_initialisation_with_one_scale() -> None:
    weights = zoo()
    scaler = WeightScaler.fit(weights, INIT, clamp=10.0)
    scaled = scaler.standardise(weights)
    torch.testing.assert_close(scaled.square().mean().sqrt(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(scaled * scaler.std + INIT, weights)
    assert not scaler.standardise(INIT[None]).any()


def test_scaler_clamps_outliers() -> None:
    scaler = WeightScaler.fit(zoo(), INIT, clamp=2.0)
    wild = scaler.standardise(INIT[None] + 1e6 * torch.sign(INIT))
    assert torch.equal(wild.abs(), torch.full((1, P), 2.0, dtype=torch.float64))


def test_a_zoo_that_never_moved_is_refused() -> None:
    with pytest.raises(ValueError, match="equals the initialisation"):
        WeightScaler.fit(INIT.expand(3, -1), INIT, 10.0)


def test_decoder_returns_weights_in_their_own_units() -> None:
    model, z = hvae(zoo()), random_weights(4, LATENT)
    torch.testing.assert_close(model.decode(z), INIT + model.scaler.std * model.decoder.mlp(z))
    assert isinstance(model, Generator)


def test_encoder_mirrors_the_decoder() -> None:
    model = hvae(zoo(), hidden=(8, 16))
    widths = [layer.weight.shape for layer in model.encoder[::2]]
    assert widths == [(16, P), (8, 16), (2 * LATENT, 8)]
    assert [layer.weight.shape for layer in model.decoder.mlp[::2]] == [(8, LATENT), (16, 8), (P, 16)]


def test_loss_is_the_released_formula() -> None:
    """With a decoder of zeros and a posterior written into the biases, both terms are known."""
    weights = zoo()
    model = hvae(weights)
    for layer in (model.encoder[-1], model.decoder.mlp[-1]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        model.encoder[-1].bias[:LATENT] = 2.0
    g = torch.Generator().manual_seed(0)
    loss, metrics = hvae_loss(model, weights, g, kl_weight=0.5)
    kl = LATENT * (4 + math.exp(-1) + 1 - 1) / 2  # μ = 2, log σ² = −1, the offset
    assert metrics["kl"].item() == pytest.approx(kl)
    assert metrics["squared_error"].item() == pytest.approx(1.0)
    assert loss.item() == pytest.approx((P + 0.5 * kl) / math.sqrt(P))


def test_latents_are_sampled_from_the_posterior() -> None:
    weights = zoo(2000)
    model = hvae(weights)
    seen: list[Tensor] = []
    model.decoder.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    hvae_loss(model, weights, torch.Generator().manual_seed(0), 1.0)
    mu, logvar = model.encode(weights)
    noise = ((seen[0] - mu) / (logvar / 2).exp()).detach()
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize(("bias", "bound"), [(1e4, 4.0), (-1e4, -8.0)])
def test_log_variance_is_bounded(bias: float, bound: float) -> None:
    model = hvae(zoo())
    torch.nn.init.constant_(model.encoder[-1].bias, bias)
    assert torch.equal(model.encode(zoo())[1], torch.full((64, LATENT), bound, dtype=torch.float64))


def test_every_parameter_changes_in_one_step() -> None:
    model = hvae(zoo())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    hvae_loss(model, zoo(), torch.Generator().manual_seed(0), 1.0)[0].backward()
    optimiser.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_it_learns_to_reconstruct_a_two_dimensional_family() -> None:
    weights, g = zoo(), torch.Generator().manual_seed(0)
    model = hvae(weights, hidden=(32, 32))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        hvae_loss(model, weights, g, kl_weight=0.1)[0].backward()
        optimiser.step()
    error = (model.decode(model.encode(weights)[0]) - weights).square().mean() / model.scaler.std**2
    assert error < 0.1


def test_the_state_restores_the_scaler() -> None:
    weights = zoo()
    model = hvae(weights)
    empty = WeightScaler(torch.zeros(P), torch.tensor(1.0), clamp=10.0)
    restored = HVAE(empty, LATENT, (8, 16), None)
    restored.load_state_dict(model.state_dict(), assign=True)
    for ours, theirs in zip(restored.encode(weights), model.encode(weights), strict=True):
        assert torch.equal(ours, theirs)
    z = random_weights(2, LATENT)
    assert torch.equal(restored.decode(z), model.decode(z))
