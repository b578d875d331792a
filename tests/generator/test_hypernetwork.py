"""The hypernetwork is base + scale·MLP(z), normalised at initialisation, and draws only from its generator."""

import pytest
import torch

from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.generator.layers import mlp, normal_like
from metavqa_cli.generator.protocol import Generator

BASE = torch.linspace(-1, 1, 3000)


def hypernetwork(scale: float = 0.5, seed: int = 0) -> Hypernetwork:
    return Hypernetwork(16, (128, 256), BASE, scale, torch.Generator().manual_seed(seed))


def test_scale_zero_is_the_base_and_scale_multiplies_the_rest() -> None:
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(hypernetwork(0.0)(z), BASE.expand(4, -1))
    torch.testing.assert_close(hypernetwork(2.0)(z) - BASE, 4 * (hypernetwork(0.5)(z) - BASE))
    assert torch.equal(hypernetwork().decode(z), hypernetwork()(z))


def test_kaiming_keeps_the_variance_of_a_standard_normal_latent() -> None:
    z = torch.randn(200, 16, generator=torch.Generator().manual_seed(1))
    out = hypernetwork(1.0)(z) - BASE
    assert abs(out.detach().std() - 1) < 0.1


def test_layers_are_relu_between_linear() -> None:
    network = mlp([3, 5, 4, 2], torch.Generator().manual_seed(0))
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    first, second, third = network[0], network[2], network[4]
    torch.testing.assert_close(network(x), third(second(first(x).relu()).relu()))
    assert len(network) == 5


def test_base_and_scale_are_saved_and_not_trained() -> None:
    model = hypernetwork()
    assert {"base", "scale"} <= set(model.state_dict())
    assert not {"base", "scale"} & {name for name, _ in model.named_parameters()}


def test_parameters_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (hypernetwork(seed=seed).mlp[0].weight for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_without_a_generator_it_fails_until_a_state_is_loaded() -> None:
    waiting = Hypernetwork(16, (128, 256), BASE, 1.0, None)
    z = torch.ones(1, 16)
    with pytest.raises(RuntimeError, match="meta"):  # the parameters have a shape and no numbers yet
        waiting(z).sum().item()
    waiting.load_state_dict(hypernetwork().state_dict(), assign=True)
    assert torch.equal(waiting(z), hypernetwork()(z))


def test_it_is_a_generator() -> None:
    assert isinstance(hypernetwork(), Generator)


def test_noise_is_a_function_of_the_generator_and_follows_shape_and_type() -> None:
    like = torch.zeros(3, 4, dtype=torch.float64)
    a, b = (normal_like(like, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)
    assert (a.shape, a.dtype) == (like.shape, like.dtype)
