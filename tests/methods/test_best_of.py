"""Best of N finds the latent that was made the best, question by question, and averages the best few."""

import pytest
import torch
from torch import Tensor

from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.guidance.hyperclip import HyperCLIP, similarity
from metavqa_cli.methods.best_of import best_latents
from tests.guidance.gaussian import rows

N, BATCH, LATENT = 5, 3, 4
BASE = rows(1, 20, seed=9)[0]
OWN = torch.arange(BATCH)


def models() -> tuple[HyperCLIP, Hypernetwork]:
    g = torch.Generator().manual_seed(0)
    return HyperCLIP(3, 16, BASE, 0.1, g).double(), Hypernetwork(LATENT, (8,), BASE, 0.1, g).double()


def samples(n: int = N) -> Tensor:
    return rows(n * BATCH, LATENT, seed=1).view(n, BATCH, LATENT)


def test_the_constructed_best_is_found_for_each_question() -> None:
    """Each question is the embedding of one sample's own weights: cosine 1, which no other sample reaches."""
    (model, h), z, best = models(), samples(), torch.tensor([3, 0, 4])
    e = model(h.decode(z[best, OWN])).detach()
    assert torch.equal(best_latents(model, h.decode, z, 7 * e), z[best, OWN])


@pytest.mark.parametrize("keep", [1, 2, 3, N])
def test_the_best_few_are_averaged(keep: int) -> None:
    (model, h), z, e = models(), samples(), rows(BATCH, 3, seed=2)
    found = best_latents(model, h.decode, z, e, keep)
    for i in range(BATCH):
        cosines = similarity(model, h.decode(z[:, i]), e[i].expand(N, -1)).tolist()
        order = sorted(range(N), key=lambda k: -cosines[k])
        torch.testing.assert_close(found[i], z[order[:keep], i].mean(0))


def test_keeping_all_is_the_plain_mean_and_one_sample_is_the_identity() -> None:
    (model, h), e = models(), rows(BATCH, 3, seed=2)
    torch.testing.assert_close(best_latents(model, h.decode, samples(), e, N), samples().mean(0))
    assert torch.equal(best_latents(model, h.decode, samples(1), e), samples(1)[0])


def test_one_sample_of_each_question_is_decoded_at_a_time_without_a_graph() -> None:
    (model, h), seen = models(), []
    h.register_forward_hook(lambda _, inputs, output: seen.append((len(output), output.requires_grad)))
    best_latents(model, h.decode, samples(), rows(BATCH, 3, seed=2))
    assert seen == [(BATCH, False)] * N


@pytest.mark.parametrize("keep", [0, N + 1])
def test_impossible_counts_are_refused(keep: int) -> None:
    model, h = models()
    with pytest.raises(
        ValueError, match=f"cannot keep the best {keep} of {N} latents a question; choose from 1 to {N}"
    ):
        best_latents(model, h.decode, samples(), rows(BATCH, 3, seed=2), keep)
