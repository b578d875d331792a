"""Guidance starts where each generator's latents live, follows seeds and questions, and decodes what it found."""

import torch
from torch import Tensor, nn

from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.guidance.hyperclip import HyperCLIP, guide, similarity
from metavqa_cli.guidance.hyperldm import LatentScaler
from metavqa_cli.methods.hyperclip_guidance import hyperclip_latents, start_latents
from tests.guidance.gaussian import rows

SCALER = LatentScaler(torch.tensor([10.0, -10.0]), torch.tensor([2.0, 0.1]))
BASE = rows(1, 20, seed=9)[0].float()


def models() -> tuple[HyperCLIP, Hypernetwork]:
    g = torch.Generator().manual_seed(0)
    return HyperCLIP(3, 16, BASE, 0.1, g), Hypernetwork(2, (8,), BASE, 0.1, g)


def questions(n: int) -> Tensor:
    return rows(n, 3, seed=1).float()


def test_start_latents_are_standard_normal_in_the_scalers_units() -> None:
    z = start_latents(range(4000), SCALER)
    standardised = SCALER.standardise(z)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(2), atol=0.07, rtol=0)
    torch.testing.assert_close(standardised.std(0), torch.ones(2), atol=0.05, rtol=0)
    assert z.dtype == torch.float32


def test_a_start_depends_on_its_seed_alone() -> None:
    before = torch.get_rng_state()
    together = start_latents([5, 6, 7], SCALER)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(start_latents([6], SCALER), together[1:2])
    assert len(together.unique(dim=0)) == 3


def test_latents_are_guided_from_their_own_start_towards_their_own_question() -> None:
    (model, h), e = models(), questions(3)
    z0 = start_latents([5, 6, 7], LatentScaler(torch.zeros(2), torch.ones(2)))
    z = hyperclip_latents(model, h, z0, e, 10, 0.1, 0.01)
    torch.testing.assert_close(z, guide(model, h.decode, z0, e, 10, 0.1, 0.01))
    assert (similarity(model, h.decode(z), e) > similarity(model, h.decode(z0), e)).all()
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(hyperclip_latents(model, h, z0[one], e[one], 10, 0.1, 0.01), z[one])


def test_a_meta_learned_start_is_shared_and_not_changed() -> None:
    (model, h), e, z0 = models(), questions(3), nn.Parameter(rows(1, 2).float())
    z = hyperclip_latents(model, h, z0, e, 10, 0.1, 0.01)
    torch.testing.assert_close(z, hyperclip_latents(model, h, z0.expand(3, -1).clone(), e, 10, 0.1, 0.01))
    assert len(z.unique(dim=0)) == 3
    assert not z.requires_grad
    assert torch.equal(z0, rows(1, 2).float())
    assert torch.equal(hyperclip_latents(model, h, z0, e, 10, 0.1, 1e6), z0.expand(3, -1))
