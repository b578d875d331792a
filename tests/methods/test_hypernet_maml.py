"""HNet-MAML adapts z alone, and its meta-gradient of θ and z0 is that of loops written out by hand."""

import pytest
import torch
from torch import Tensor

from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.generator.protocol import Generator
from metavqa_cli.methods.cond_multitask import generated_loss
from metavqa_cli.methods.hypernet_maml import HNet, hnet_maml_loss
from tests.base_network.examples import random_batch, random_weights
from tests.methods.test_maml import LAYOUT, LR, QUERY, SCALE, STEPS, SUPPORT, adapted_alone, loss_alone

EXACT = {"rtol": 1e-8, "atol": 1e-8}


def model(latent: int = 5) -> HNet:
    g = torch.Generator().manual_seed(0)
    return HNet(Hypernetwork(latent, (8,), random_weights(1, LAYOUT.size)[0], 0.3, g), g).double()


def loss_of(hnet: HNet, steps: int | Tensor = STEPS, order: str = "second") -> Tensor:
    return hnet_maml_loss(hnet, SUPPORT, QUERY, LAYOUT, SCALE, LR, steps, order)[0]  # type: ignore[arg-type]


def test_second_order_equals_autograd_through_the_written_out_loop() -> None:
    hnet = model()
    adapted = [adapted_alone(hnet.decode, hnet.z0, i, "second") for i in range(3)]
    expected = torch.stack([loss_alone(hnet.decode(adapted[i][None])[0], QUERY, i) for i in range(3)]).mean()
    loss, parameters = loss_of(hnet), list(hnet.parameters())
    torch.testing.assert_close(loss, expected, **EXACT)
    gradients = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, parameters), **EXACT)
    first = torch.autograd.grad(loss_of(hnet, order="first"), parameters)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(gradients, first, strict=True))


def test_first_order_is_the_gradient_at_the_adapted_latents_held_constant() -> None:
    hnet = model()
    adapted = [adapted_alone(hnet.decode, hnet.z0, i, "first") for i in range(3)]
    expected = torch.stack([loss_alone(hnet.decode(adapted[i][None])[0], QUERY, i) for i in range(3)]).mean()
    theta = list(hnet.decoder.parameters())
    *of_theta, of_z0 = torch.autograd.grad(loss_of(hnet, order="first"), [*theta, hnet.z0])
    expected_gradients = torch.autograd.grad(expected, [*theta, *adapted])
    torch.testing.assert_close(tuple(of_theta), expected_gradients[: len(theta)], **EXACT)
    torch.testing.assert_close(of_z0, torch.stack(expected_gradients[len(theta) :]).sum(0), **EXACT)


@pytest.mark.parametrize("order", ["first", "second"])
def test_padding_changes_neither_loss_nor_gradients(order: str) -> None:
    hnet, found = model(), []
    for padding in (0, 3):
        support, query = (random_batch([5, 3, 4], [3, 2, 4], LAYOUT.embed, seed, padding) for seed in (1, 2))
        loss, _ = hnet_maml_loss(hnet, support, query, LAYOUT, SCALE, LR, STEPS, order)  # type: ignore[arg-type]
        found.append((loss.detach(), *torch.autograd.grad(loss, list(hnet.parameters()))))
    torch.testing.assert_close(found[0], found[1], **EXACT)


def test_with_no_inner_steps_every_task_has_the_weights_of_z0() -> None:
    hnet = model()
    weights = hnet.decode(hnet.z0[None]).expand(3, -1)
    loss, metrics = hnet_maml_loss(hnet, SUPPORT, QUERY, LAYOUT, SCALE, LR, 0, "second")
    expected, expected_metrics = generated_loss(weights, QUERY, LAYOUT, SCALE)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics, expected_metrics)


@pytest.mark.parametrize("order", ["first", "second"])
def test_every_parameter_changes_in_one_step_and_the_loss_falls(order: str) -> None:
    hnet = model()
    before = {name: p.detach().clone() for name, p in hnet.named_parameters()}
    optimiser, first = torch.optim.Adam(hnet.parameters(), lr=1e-2), loss_of(hnet).item()
    for step in range(20):
        optimiser.zero_grad()
        loss_of(hnet, order=order).backward()
        optimiser.step()
        if step == 0:
            assert [name for name, p in hnet.named_parameters() if torch.equal(p, before[name])] == []
    assert loss_of(hnet).item() < 0.7 * first


def test_z0_is_standard_normal_and_comes_from_the_generator_alone() -> None:
    decoder = Hypernetwork(4000, (2,), torch.zeros(3), 1.0, torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    a, b = (HNet(decoder, torch.Generator().manual_seed(1)).z0 for _ in range(2))
    assert torch.equal(a, b)
    assert abs(a.mean()) < 0.05
    assert abs(a.std() - 1) < 0.05
    assert torch.equal(state, torch.get_rng_state())


def test_it_is_a_generator_and_without_random_numbers_a_state_fills_it() -> None:
    hnet = model()
    waiting = HNet(Hypernetwork(5, (8,), torch.zeros(LAYOUT.size), 1.0, None), None)
    assert isinstance(waiting, Generator)
    assert waiting.latent == 5
    waiting.load_state_dict(hnet.state_dict(), assign=True)
    assert torch.equal(loss_of(waiting), loss_of(hnet))
